//! One measurement: a client on core 1 for some seconds, and the server's CPU time meanwhile.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Options;
use crate::servers::{ACCESS_KEY, Kind, SECRET_KEY, Server, Tools};

/// Bytes of an item.
const ITEM_BYTES: u32 = 1024;
/// Connections of every row.
const CONNECTIONS: u32 = 32;
/// Requests in flight of the native rows.
const IN_FLIGHT: u32 = 16;

/// What a row asks of its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    HttpGet,
    HttpPut,
    NativeGet,
    NativePut,
}

/// What one measurement found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// `None` where the client does not tell.
    pub(crate) p999_ms: Option<f64>,
    pub(crate) cpu_us: f64,
    pub(crate) client_is_bottleneck: bool,
}

impl fmt::Display for Sample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:.0}/s, p99 {:.2} ms, {:.2} us CPU",
            self.rate, self.p99_ms, self.cpu_us
        )?;
        if self.client_is_bottleneck {
            write!(formatter, ", client-bound")
        } else {
            Ok(())
        }
    }
}

/// Creates the table and, for rows that read, stores the items.
pub(crate) fn fill(server: &Server, load: Load, options: &Options, tools: &Tools) -> Result<(), String> {
    if matches!(server.kind, Kind::Redis | Kind::RedisPipelined) {
        // Reads of keys that are there; redis-benchmark has no load phase but its own writes.
        if load == Load::NativeGet {
            redis(server, "set", options, tools, options.items * 5)?;
        }
        return Ok(());
    }
    let items = match load {
        // Puts go to keys that may or may not exist, and DynamoDB Local on a file takes minutes to load.
        Load::HttpPut => 100,
        _ => options.items,
    };
    let in_flight = if server.kind.is_cairn() { "16" } else { "1" };
    let mut command = loadgen(server, Load::HttpPut, tools);
    command.args(["--in-flight", in_flight, "--items", &items.to_string()]);
    insert(&mut command, "load");
    run(&mut command).map(drop)
}

/// Measures once.
pub(crate) fn measure(
    server: &Server,
    load: Load,
    options: &Options,
    tools: &Tools,
) -> Result<Sample, String> {
    if matches!(server.kind, Kind::Redis | Kind::RedisPipelined) {
        let command = if load == Load::NativeGet { "get" } else { "set" };
        // About as long as the others, by what targets.md measured; redis-benchmark counts requests, not seconds.
        let per_second = match (load, server.kind) {
            (Load::NativeGet, _) => 500_000,
            (_, Kind::RedisPipelined) => 100_000,
            _ => 25_000,
        };
        return redis(
            server,
            command,
            options,
            tools,
            per_second * u64::from(options.seconds),
        );
    }
    let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let workload = if matches!(load, Load::HttpGet | Load::NativeGet) {
        "get"
    } else {
        "put"
    };
    let mut command = loadgen(server, load, tools);
    insert(&mut command, "run");
    let in_flight = if matches!(load, Load::NativeGet | Load::NativePut) {
        IN_FLIGHT
    } else {
        1
    };
    command
        .args([
            "--items",
            &options.items.to_string(),
            "--workload",
            workload,
            "--warmup",
            "0s",
        ])
        .args([
            "--in-flight",
            &in_flight.to_string(),
            "--duration",
            &format!("{}s", options.seconds),
        ])
        .arg("--report")
        .arg(file.path());
    let before = server.cpu_seconds();
    run(&mut command)?;
    let cpu = server.cpu_seconds() - before;
    let text = std::fs::read_to_string(file.path()).map_err(|error| error.to_string())?;
    let report: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let answered = report[workload]["count"].as_f64().unwrap_or(f64::NAN);
    let latency = |name: &str| report[workload]["latency"][name].as_f64().unwrap_or(f64::NAN);
    if report["error_percent"].as_f64() != Some(0.0) {
        return Err(format!(
            "{}: operations failed: {}",
            server.kind.name(),
            report["errors"]
        ));
    }
    Ok(Sample {
        rate: report["rate_achieved"].as_f64().unwrap_or(f64::NAN),
        p50_ms: latency("p50_ms"),
        p99_ms: latency("p99_ms"),
        p999_ms: Some(latency("p99.9_ms")),
        cpu_us: cpu * 1e6 / answered,
        client_is_bottleneck: report["client_is_bottleneck"] == true,
    })
}

fn loadgen(server: &Server, load: Load, tools: &Tools) -> Command {
    let mut command = Command::new(&tools.loadgen);
    let target = match load {
        Load::HttpGet | Load::HttpPut => format!("http://127.0.0.1:{}", server.port),
        Load::NativeGet | Load::NativePut => format!("cairn://127.0.0.1:{}", server.native),
    };
    command
        .args([
            "--target",
            &target,
            "--core",
            "1",
            "--item-size",
            &ITEM_BYTES.to_string(),
        ])
        .args(["--connections", &CONNECTIONS.to_string()])
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY");
    if server.kind == Kind::CairnSigned {
        command.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]);
    }
    command
}

/// Puts the subcommand before the arguments given so far.
fn insert(command: &mut Command, subcommand: &str) {
    let mut rebuilt = Command::new(command.get_program());
    rebuilt.arg(subcommand).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => rebuilt.env(name, value),
            None => rebuilt.env_remove(name),
        };
    }
    *command = rebuilt;
}

/// Runs a program to its end and gives what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?} ended with {}: {errors}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn redis(
    server: &Server,
    test: &str,
    options: &Options,
    tools: &Tools,
    requests: u64,
) -> Result<Sample, String> {
    let benchmark = tools
        .redis_benchmark
        .as_deref()
        .ok_or("redis-benchmark is not installed")?;
    let pipeline = if server.kind == Kind::RedisPipelined {
        IN_FLIGHT
    } else {
        1
    };
    let mut command = Command::new("taskset");
    command
        .args(["-c", "1"])
        .arg(benchmark)
        .args([
            "-p",
            &server.port.to_string(),
            "-c",
            &CONNECTIONS.to_string(),
            "-P",
            &pipeline.to_string(),
        ])
        .args([
            "-n",
            &requests.to_string(),
            "-d",
            &ITEM_BYTES.to_string(),
            "-r",
            &options.items.to_string(),
        ])
        .args(["-t", test, "--csv"]);
    let before = server.cpu_seconds();
    let output = run(&mut command)?;
    let cpu = server.cpu_seconds() - before;
    // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
    let line = output.lines().last().unwrap_or_default();
    let fields: Vec<f64> = line
        .split(',')
        .skip(1)
        .filter_map(|field| field.trim_matches('"').parse().ok())
        .collect();
    let [rate, _, _, p50_ms, _, p99_ms, _] = fields[..] else {
        return Err(format!("redis-benchmark printed {output:?}"));
    };
    let cpu_us = cpu * 1e6 / requests as f64;
    Ok(Sample {
        rate,
        p50_ms,
        p99_ms,
        p999_ms: None,
        cpu_us,
        client_is_bottleneck: false,
    })
}

/// Row P10.
pub(crate) struct Idle {
    pub(crate) ready_ms: Vec<f64>,
    pub(crate) resident_mib: f64,
    pub(crate) cpu_percent: f64,
    /// Resident memory after `loadgen` filled the budget, MiB, and the budget.
    pub(crate) loaded_mib: f64,
    pub(crate) budget_mib: f64,
}

/// Starts the node several times, then leaves it idle, then loads it.
pub(crate) fn idle(options: &Options, tools: &Tools) -> Result<Idle, String> {
    let mut ready_ms = Vec::new();
    let mut server = None;
    for _ in 0..options.rounds.max(1) {
        drop(server.take());
        let start = Instant::now();
        let started = Server::start(Kind::Cairn, options, tools)?.ok_or("cairn is always there")?;
        while !is_ready(started.admin) {
            if start.elapsed() > Duration::from_secs(30) {
                return Err("the node did not become ready".into());
            }
            sleep(Duration::from_millis(1));
        }
        ready_ms.push(start.elapsed().as_secs_f64() * 1e3);
        server = Some(started);
    }
    let server = server.ok_or("at least one round")?;
    sleep(Duration::from_secs(2));
    let (before, start) = (server.cpu_seconds(), Instant::now());
    sleep(Duration::from_secs(10));
    let cpu_percent = (server.cpu_seconds() - before) / start.elapsed().as_secs_f64() * 100.0;
    let resident_mib = server.resident_mib();
    // Twice the budget of data, so that memtable and cache are as full as they get.
    let mut command = loadgen(&server, Load::NativePut, tools);
    insert(&mut command, "load");
    command.args(["--in-flight", "16", "--items", "2000000"]);
    run(&mut command)?;
    let mut command = loadgen(&server, Load::NativePut, tools);
    insert(&mut command, "run");
    command.args([
        "--items",
        "2000000",
        "--in-flight",
        "16",
        "--workload",
        "a",
        "--distribution",
        "uniform",
    ]);
    command.args(["--duration", "20s"]);
    run(&mut command)?;
    Ok(Idle {
        ready_ms,
        resident_mib,
        cpu_percent,
        loaded_mib: server.resident_mib(),
        budget_mib: 1024.0,
    })
}

/// Whether the node of that admin port serves.
pub(crate) fn is_ready(port: u16) -> bool {
    page(port, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// A page of the admin port, its head included.
pub(crate) fn page(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
