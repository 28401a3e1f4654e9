//! Measures Cairn beside its peers on one machine: rows P1-P6 and P8-P11 of the targets, a filtered Scan (F1) and what
//! streams cost (S1), by turns, half an hour under load (SOAK) and the machine alone (MACHINE), and writes the generated part of docs/benchmarks.md.
//!
//! Every server runs pinned to core 0 and every client to core 1. All servers of a row are started first; then each
//! round measures each of them once, so that a change of the machine's speed meets all alike. A figure is the median
//! of the rounds; server CPU per request is the process's own time over the requests answered.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark of real processes: nothing here runs in the simulator"
)]

mod alone;
mod machine;
mod measure;
mod report;
mod servers;
mod soak;
mod tables;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use measure::{Load, Sample, idle, measure};
use report::{Report, Row};
use servers::{Kind, Server, Tools};

/// Measures Cairn beside DynamoDB Local, Dynoxide and Redis.
#[derive(Debug, Parser)]
#[command(name = "peers")]
pub(crate) struct Options {
    /// Directory of the built binaries `cairn` and `loadgen`.
    #[arg(long, default_value = "target/release")]
    pub(crate) binaries: PathBuf,
    /// Directory that bench/peers/install filled.
    #[arg(long, default_value = "target/peers")]
    pub(crate) peers: PathBuf,
    /// Directory for the servers' data; should be on the drive to be measured.
    #[arg(long, default_value = "target/peers-data")]
    pub(crate) data: PathBuf,
    /// Rounds of each row; a figure is their median.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u32,
    /// Seconds of each of the two measurements of P6.
    #[arg(long, default_value_t = 60)]
    pub(crate) long_seconds: u32,
    /// Seconds of the closed loop that gives the peak of SOAK.
    #[arg(long, default_value_t = 600)]
    pub(crate) peak_seconds: u32,
    /// Operations a second of SOAK; without it 70 % of the peak, which is measured first.
    #[arg(long)]
    pub(crate) soak_rate: Option<f64>,
    /// Seconds of SOAK at that rate.
    #[arg(long, default_value_t = 1800)]
    pub(crate) soak_seconds: u32,
    /// Items in the tables.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) items: u64,
    /// Rows to measure; others are SOAK, of 41 minutes, and MACHINE.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "P1,P2,P3,P4,P5,P6,P8,P9,P10,P11,F1,S1"
    )]
    pub(crate) rows: Vec<String>,
    /// File whose generated part is replaced.
    #[arg(long, default_value = "docs/benchmarks.md")]
    pub(crate) output: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("peers: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let tools = Tools::find(options)?;
    let mut report = Report::new(options, &tools);
    for name in &options.rows {
        eprintln!("peers: row {name}");
        match name.as_str() {
            "P1" => report.add(row(
                options,
                &tools,
                "P1",
                "HTTP GetItem, cached, 32 connections",
                HTTP_GET,
                Load::HttpGet,
            )?),
            "P2" => {
                report.add(row(
                    options,
                    &tools,
                    "P2",
                    "HTTP PutItem, durable, 32 connections",
                    HTTP_PUT,
                    Load::HttpPut,
                )?);
            }
            "P3" => {
                report.add(row(
                    options,
                    &tools,
                    "P3",
                    "native get, cached, 32 connections x 16 in flight",
                    NATIVE,
                    Load::NativeGet,
                )?);
            }
            "P4" => {
                report.add(row(
                    options,
                    &tools,
                    "P4",
                    "native put, durable, 32 connections x 16 in flight",
                    NATIVE,
                    Load::NativePut,
                )?);
            }
            "P10" => report.idle(idle(options, &tools)?),
            "P5" => report.section(&alone::beyond_the_cache(options, &tools)?),
            "P6" => report.section(&alone::mixed(options, &tools)?),
            "P8" => report.section(&alone::updates(options, &tools)?),
            "P9" => report.section(&alone::recovery(options, &tools)?),
            "P11" => report.section(&alone::shards(options, &tools)?),
            "F1" => report.section(&tables::filtered_scan(options, &tools)?),
            "MACHINE" => report.section(&machine::machine(options)?),
            "SOAK" => report.section(&soak::soak(options, &tools)?),
            "S1" => report.section(&tables::streams(options, &tools)?),
            other => {
                return Err(format!(
                    "there is no row {other}; rows are P1 to P6, P8 to P11, F1, S1, SOAK and MACHINE (P7: the binary `engine`)"
                ));
            }
        }
        report.write()?;
    }
    Ok(())
}

const HTTP_GET: &[Kind] = &[
    Kind::Cairn,
    Kind::CairnSigned,
    Kind::DynoxideMemory,
    Kind::DynamoDbLocalMemory,
];
const HTTP_PUT: &[Kind] = &[
    Kind::Cairn,
    Kind::CairnSigned,
    Kind::DynoxideFile,
    Kind::DynamoDbLocalFile,
    Kind::Redis,
];
const NATIVE: &[Kind] = &[Kind::Cairn, Kind::RedisPipelined];

fn row(
    options: &Options,
    tools: &Tools,
    name: &'static str,
    work: &'static str,
    kinds: &[Kind],
    load: Load,
) -> Result<Row, String> {
    let mut servers = Vec::new();
    let mut missing = Vec::new();
    for &kind in kinds {
        match Server::start(kind, options, tools)? {
            Some(server) => servers.push(server),
            None => missing.push(kind),
        }
    }
    for server in &servers {
        measure::fill(server, load, options, tools)?;
    }
    let mut samples: Vec<Vec<Sample>> = servers.iter().map(|_| Vec::new()).collect();
    for round in 0..options.rounds {
        for (server, samples) in servers.iter().zip(&mut samples) {
            let sample = measure(server, load, options, tools)?;
            eprintln!(
                "peers: {name} round {} {}: {sample}",
                round + 1,
                server.kind.name()
            );
            samples.push(sample);
        }
    }
    let measured = servers.iter().map(|server| server.kind).zip(samples).collect();
    Ok(Row {
        name,
        work,
        measured,
        missing,
    })
}
