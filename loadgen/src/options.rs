//! What a run is told: the command line and its small languages (target, rate, workload, SLO).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::workload::{Reading, Writing};

/// Measures a node as its users feel it: open-loop load, latency from the intended start, items checked when read.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, after_help = CHECKS)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const CHECKS: &str = "\
Every item that is read is checked: it must be there, and its key, generation and every byte of its payload must belong \
together. With --consistent its generation must also be one that the read may see: no put that was acknowledged before \
the read began may have overwritten it (8 bytes of memory per key; nobody else may write to the table).

A transaction that reads must see all of another one or nothing of it.

Exit codes: 0 done, and the SLO met when one was set; 2 wrong usage, such as a table that is not there, \
has no indexes for --workload index, or has fewer --items or ones of another --item-size; 3 the \
target cannot be reached or used, or nothing was answered well; 99 the SLO was missed, more than 1 % of the operations failed \
and the SLO does not speak of errors, an item that was read was missing, wrong or stale, or a transaction torn.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create the table if need be and store every item of the key space.
    Load(Load),
    /// Run a workload against a loaded table and report latencies.
    #[command(after_help = CHECKS)]
    Run(Run),
}

/// Which node and table, and what its items look like.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Node to load: http://HOST:PORT speaks the DynamoDB API, cairn://HOST:PORT the native protocol.
    #[arg(long)]
    pub(crate) target: Target,
    /// Table to use; its key is the string attribute `p`.
    #[arg(long, default_value = "loadgen")]
    pub(crate) table: String,
    /// Number of items in the key space.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) items: u64,
    /// Size of an item in bytes as DynamoDB counts it.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=409_600))]
    pub(crate) item_size: u32,
    /// Connections to open.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,
    /// Requests in flight on one connection at once (over HTTP they are pipelined).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) in_flight: u32,
    /// Seed of keys and operation order: the same seed asks for the same operations, with new values.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Access key id; with it requests are signed (HTTP) or the handshake proves the secret (native, when the node asks).
    #[arg(long, env = "AWS_ACCESS_KEY_ID")]
    pub(crate) access_key: Option<String>,
    /// Secret of the access key.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub(crate) secret_key: Option<String>,
    /// Region named in signatures.
    #[arg(long, default_value = "us-east-1")]
    pub(crate) region: String,
    /// Core to pin the client to; without it the scheduler chooses.
    #[arg(long)]
    pub(crate) core: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Give the table a sort key, a local and a global index, for the workload `index`.
    #[arg(long)]
    pub(crate) indexes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Mix of operations: a = 50 % get 50 % put, b = 95 % get 5 % put, c and get = all get, put = all put; update = 50 %
    /// get 50 % UpdateItem, conditional = 50 % get 50 % put on condition, query = 95 % Query 5 % put,
    /// index = 25 % Query of a local index 25 % of a global one 50 % put (load with --indexes), transact = 50 %
    /// TransactGetItems 50 % TransactWriteItems of four items,
    /// updates = all UpdateItem on condition, counter = all UpdateItem that add 1.
    #[arg(long, value_enum, default_value = "a")]
    pub(crate) workload: Workload,
    /// Operations per second to start, however slow the answers come; `max` starts one whenever another has ended.
    #[arg(long, default_value = "max")]
    pub(crate) rate: Rate,
    /// Time to measure, such as 30s or 10m: above 0.
    #[arg(long, default_value = "30s", value_parser = measured_length)]
    pub(crate) duration: Duration,
    /// Time to run before measuring; 0s is none.
    #[arg(long, default_value = "5s", value_parser = run_length)]
    pub(crate) warmup: Duration,
    /// How keys are chosen. Default: uniform for get, put, updates, counter, index and transact, zipfian for the
    /// others.
    #[arg(long, value_enum)]
    pub(crate) distribution: Option<Distribution>,
    /// Strongly consistent reads, checked against the run's own writes.
    #[arg(long)]
    pub(crate) consistent: bool,
    /// Objectives, such as 'p99<10ms,p99.9<50ms,errors<0.1%,rate>1000'.
    #[arg(long)]
    pub(crate) slo: Option<Slo>,
    /// Write the report as JSON to this file.
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,
    /// Write latencies as an HdrHistogram interval log (V2) to this file.
    #[arg(long)]
    pub(crate) hdr: Option<PathBuf>,
}

/// Where the node listens and what it speaks there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) protocol: Protocol,
    pub(crate) host: String,
    pub(crate) port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Native,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let wrong = || format!("`{text}` is not http://HOST:PORT or cairn://HOST:PORT");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let protocol = match scheme {
            "http" => Protocol::Http,
            "cairn" => Protocol::Native,
            _ => return Err(wrong()),
        };
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            Err(wrong())
        } else {
            Ok(Target { protocol, host, port })
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Http => "http",
            Protocol::Native => "cairn",
        };
        write!(formatter, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Workload {
    A,
    B,
    C,
    Get,
    Put,
    /// Half gets, half updates of every attribute but the key.
    Update,
    /// Half gets, half puts on the condition that the item is there.
    Conditional,
    /// Queries of one partition key, and one put in twenty.
    Query,
    /// Half puts, half queries of the indexes of a table that was loaded with `--indexes`.
    Index,
    /// Half transactions that read a group of items, half ones that write it.
    Transact,
    /// All UpdateItem of every attribute but the key, on the condition that the item is there.
    Updates,
    /// All UpdateItem that add 1 to the attribute `n`; with `--items 1` it is one hot key.
    Counter,
}

impl Workload {
    /// Share of gets, percent.
    pub(crate) fn gets_percent(self) -> u64 {
        match self {
            Workload::A | Workload::Update | Workload::Conditional | Workload::Index | Workload::Transact => {
                50
            }
            Workload::B | Workload::Query => 95,
            Workload::C | Workload::Get => 100,
            Workload::Put | Workload::Updates | Workload::Counter => 0,
        }
    }

    /// Whether it stores what it finds missing, and reads nothing: the table need not be loaded.
    pub(crate) fn makes_items(self) -> bool {
        matches!(self, Workload::Put | Workload::Counter)
    }

    pub(crate) fn reading(self) -> Reading {
        match self {
            Workload::Query => Reading::Query,
            Workload::Index => Reading::Local,
            Workload::Transact => Reading::Group,
            _ => Reading::Get,
        }
    }

    pub(crate) fn writing(self) -> Writing {
        match self {
            Workload::Update => Writing::Update,
            Workload::Conditional => Writing::Conditional,
            Workload::Updates => Writing::ConditionalUpdate,
            Workload::Counter => Writing::Add,
            Workload::Transact => Writing::Group,
            _ => Writing::Put,
        }
    }

    pub(crate) fn default_distribution(self) -> Distribution {
        match self {
            Workload::Get
            | Workload::Put
            | Workload::Updates
            | Workload::Counter
            | Workload::Index
            | Workload::Transact => Distribution::Uniform,
            _ => Distribution::Zipfian,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Distribution {
    /// Every key alike.
    Uniform,
    /// Few keys are hot (exponent 0.99), spread over the key space.
    Zipfian,
    /// The keys written last are the hottest.
    Latest,
}

/// Operations per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rate {
    Max,
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        if text == "max" {
            return Ok(Rate::Max);
        }
        match text.parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Rate::PerSecond(rate)),
            _ => Err(format!(
                "`{text}` is neither `max` nor a number of operations per second above 0"
            )),
        }
    }
}

/// Reads `250us`, `10ms`, `30s`, `10m` or `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time such as 250us, 10ms, 30s, 10m or 1h");
    let digits = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .ok_or_else(wrong)?;
    let seconds = match &text[digits..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

/// Longest run, and longest warm-up: 416 days.
const RUN_HOURS_MAX: u64 = 10_000;

/// A time that a run may take.
fn run_length(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    if length > Duration::from_secs(RUN_HOURS_MAX * 3600) {
        return Err(format!("`{text}` is longer than {RUN_HOURS_MAX}h"));
    }
    Ok(length)
}

/// The same of one that is measured.
fn measured_length(text: &str) -> Result<Duration, String> {
    let length = run_length(text)?;
    if length.is_zero() {
        return Err(format!(
            "`{text}` measures nothing: give a time above 0 and up to {RUN_HOURS_MAX}h, such as 30s"
        ));
    }
    Ok(length)
}

/// Objectives that a run must meet, all of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slo(pub(crate) Vec<Objective>);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Objective {
    /// The percentile of latency stays below.
    Latency { percentile: f64, below: Duration },
    /// The share of failed operations, percent, stays below.
    Errors { percent_below: f64 },
    /// More operations per second than this.
    Rate { above: f64 },
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Slo, String> {
        let objectives = text
            .split(',')
            .map(|part| objective(part.trim()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Slo(objectives))
    }
}

fn objective(text: &str) -> Result<Objective, String> {
    let wrong = || format!("`{text}` is no objective; write p99<10ms, errors<0.1% or rate>1000");
    if let Some(rate) = text.strip_prefix("rate>") {
        return Ok(Objective::Rate {
            above: rate.trim().parse().map_err(|_| wrong())?,
        });
    }
    let (name, limit) = text.split_once('<').ok_or_else(wrong)?;
    if name.trim() == "errors" {
        let percent = limit.trim().strip_suffix('%').ok_or_else(wrong)?;
        return Ok(Objective::Errors {
            percent_below: percent.trim().parse().map_err(|_| wrong())?,
        });
    }
    let percentile: f64 = name
        .trim()
        .strip_prefix('p')
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(wrong)?;
    if !(0.0..=100.0).contains(&percentile) {
        return Err(wrong());
    }
    Ok(Objective::Latency {
        percentile,
        below: duration(limit.trim())?,
    })
}

impl fmt::Display for Objective {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Objective::Latency { percentile, below } => write!(formatter, "p{percentile}<{below:?}"),
            Objective::Errors { percent_below } => write!(formatter, "errors<{percent_below}%"),
            Objective::Rate { above } => write!(formatter, "rate>{above}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_languages() {
        assert_eq!(duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "5", "s", "5 s", "-1s", "5d", "1e400s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for nothing in ["0s", "0.0m", "0.0000000001s"] {
            let error = measured_length(nothing).unwrap_err();
            assert!(error.contains("give a time above 0 and up to 10000h"), "{error}");
            assert_eq!(run_length(nothing), Ok(Duration::ZERO));
        }
        assert_eq!(measured_length("1ms"), Ok(Duration::from_millis(1)));
        assert!(run_length("10000h").is_ok());
        for wrong in ["10001h", "1000000000000000h"] {
            assert_eq!(run_length(wrong), Err(format!("`{wrong}` is longer than 10000h")));
        }
        let target: Target = "cairn://127.0.0.1:7600".parse().unwrap();
        assert_eq!(
            (target.protocol, target.to_string().as_str()),
            (Protocol::Native, "cairn://127.0.0.1:7600")
        );
        for wrong in ["127.0.0.1:1", "ftp://a:1", "http://:1", "http://a", "http://a:x"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("500".parse(), Ok(Rate::PerSecond(500.0)));
        for wrong in ["0", "-1", "NaN", "fast"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        let slo: Slo = "p99<10ms, errors<0.1%,rate>1000".parse().unwrap();
        let expected = [
            Objective::Latency {
                percentile: 99.0,
                below: Duration::from_millis(10),
            },
            Objective::Errors { percent_below: 0.1 },
            Objective::Rate { above: 1000.0 },
        ];
        assert_eq!(slo.0, expected);
        for wrong in ["", "p99", "p101<1ms", "errors<5", "p99<10"] {
            assert!(wrong.parse::<Slo>().is_err(), "{wrong}");
        }
    }
}
