//! Rows whose peers are not servers: P5 (the drive and RocksDB), P6 and P9 (absolute), P8, U1 and P11 (Cairn beside
//! itself). Each gives a table of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Options;
use crate::measure::{is_ready, page, run};
use crate::servers::{Kind, Server, Setup, Tools};

/// One run of loadgen.
pub(crate) struct Load<'a> {
    pub(crate) native: bool,
    pub(crate) workload: &'a str,
    pub(crate) items: u64,
    pub(crate) connections: u32,
    pub(crate) in_flight: u32,
    pub(crate) seconds: u32,
    /// Operations a second; `None` for as many as are answered.
    pub(crate) rate: Option<f64>,
    /// Core of the client; `None` where the node has all of them.
    pub(crate) core: Option<u32>,
    pub(crate) distribution: &'a str,
}

/// What it found.
pub(crate) struct Found {
    pub(crate) rate: f64,
    /// Milliseconds at 50, 99 and 99.9 % and the longest, of the slower of reads and writes.
    pub(crate) latency_ms: [f64; 4],
    pub(crate) cpu_us: f64,
    /// Milliseconds at 99.9 % of both together, second by second.
    pub(crate) seconds_p999_ms: Vec<f64>,
    /// The node's counters at the end less those at the beginning.
    pub(crate) counters: BTreeMap<String, f64>,
}

pub(crate) fn fill(server: &Server, tools: &Tools, items: u64) -> Result<(), String> {
    let mut command = Command::new(&tools.loadgen);
    command.args([
        "load",
        "--target",
        &format!("cairn://127.0.0.1:{}", server.native),
    ]);
    command.args(["--in-flight", "16", "--items", &items.to_string()]);
    run(no_keys(&mut command)).map(drop)
}

fn no_keys(command: &mut Command) -> &mut Command {
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
}

pub(crate) fn drive(server: &Server, tools: &Tools, load: &Load<'_>) -> Result<Found, String> {
    let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let target = if load.native {
        format!("cairn://127.0.0.1:{}", server.native)
    } else {
        format!("http://127.0.0.1:{}", server.port)
    };
    let mut command = Command::new(&tools.loadgen);
    command.args([
        "run",
        "--target",
        &target,
        "--workload",
        load.workload,
        "--warmup",
        "2s",
    ]);
    command.args([
        "--distribution",
        load.distribution,
        "--items",
        &load.items.to_string(),
    ]);
    command.args(["--connections", &load.connections.to_string()]);
    command.args(["--in-flight", &load.in_flight.to_string()]);
    command.args(["--duration", &format!("{}s", load.seconds)]);
    if let Some(rate) = load.rate {
        command.args(["--rate", &format!("{rate:.0}")]);
    }
    if let Some(core) = load.core {
        command.args(["--core", &core.to_string()]);
    }
    command.arg("--report").arg(file.path());
    let before = (server.cpu_seconds(), counters(server)?);
    run(no_keys(&mut command))?;
    let after = (server.cpu_seconds(), counters(server)?);
    let text = std::fs::read_to_string(file.path()).map_err(|error| error.to_string())?;
    let report: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if report["error_percent"].as_f64() != Some(0.0) && load.rate.is_none() {
        return Err(format!("operations failed: {}", report["errors"]));
    }
    let latency = |name: &str| {
        ["get", "put"]
            .iter()
            .filter_map(|side| report[side]["latency"][name].as_f64())
            .fold(f64::NAN, f64::max)
    };
    let seconds = report["intervals"].as_array().into_iter().flatten();
    let seconds_p999_ms = seconds.filter_map(|second| second["p99.9_ms"].as_f64()).collect();
    let counters: BTreeMap<String, f64> = after
        .1
        .into_iter()
        .map(|(name, value)| {
            let old = before.1.get(&name).copied().unwrap_or(0.0);
            (name, value - old)
        })
        .collect();
    // The warm-up's requests took CPU as well.
    let requests = counters.get("cairn_request_duration_seconds_count").copied();
    Ok(Found {
        rate: report["rate_achieved"].as_f64().unwrap_or(f64::NAN),
        latency_ms: ["p50_ms", "p99_ms", "p99.9_ms", "max_ms"].map(latency),
        cpu_us: (after.0 - before.0) * 1e6 / requests.unwrap_or(f64::NAN),
        seconds_p999_ms,
        counters,
    })
}

/// The node's metrics, those of one name added up.
pub(crate) fn counters(server: &Server) -> Result<BTreeMap<String, f64>, String> {
    let text = page(server.admin, "/metrics").map_err(|error| format!("/metrics: {error}"))?;
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("cairn_")) {
        let name: String = line.chars().take_while(|c| !" {".contains(*c)).collect();
        if let Some(value) = line
            .rsplit(' ')
            .next()
            .and_then(|value| value.trim().parse::<f64>().ok())
        {
            *sums.entry(name).or_insert(0.0) += value;
        }
    }
    Ok(sums)
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

pub(crate) fn start(options: &Options, tools: &Tools, setup: &Setup) -> Result<Server, String> {
    Server::start_as(Kind::Cairn, setup, options, tools)?.ok_or_else(|| "cairn is always there".to_owned())
}

/// Memory of the node of P5: half of it is the cache.
const P5_MEMORY_MIB: u64 = 160;
/// Items of 1 KB that are eight times the cache.
const P5_ITEMS: u64 = 8 * (P5_MEMORY_MIB / 2) * 1024;

/// Row P5.
pub(crate) fn beyond_the_cache(options: &Options, tools: &Tools) -> Result<String, String> {
    let fio = tools.fio.as_deref().ok_or("fio is not installed (Debian: fio)")?;
    let db_bench = tools.db_bench.as_deref();
    let setup = Setup {
        memory_mib: P5_MEMORY_MIB,
        ..Setup::default()
    };
    let server = start(options, tools, &setup)?;
    fill(&server, tools, P5_ITEMS)?;
    let rocks = tempfile::tempdir_in(&options.data).map_err(|error| error.to_string())?;
    if let Some(db_bench) = db_bench {
        rocksdb(db_bench, rocks.path(), "filluniquerandom", &["--batch_size=100"])?;
    }
    let load = Load {
        native: true,
        workload: "get",
        items: P5_ITEMS,
        connections: 32,
        in_flight: 16,
        seconds: options.seconds,
        rate: None,
        core: Some(1),
        distribution: "uniform",
    };
    let (mut drives, mut rocksdbs, mut cairns) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds {
        drives.push(fio_reads(fio, rocks.path(), options.seconds)?);
        cairns.push(drive(&server, tools, &load)?);
        if let Some(db_bench) = db_bench {
            let seconds = format!("--duration={}", options.seconds);
            let rate = rocksdb(db_bench, rocks.path(), "readrandom", &["--threads=32", &seconds])?;
            rocksdbs.push(rate);
        }
        eprintln!("peers: P5 round {}: {:.0}/s", round + 1, cairns[round].rate);
    }
    let resident = counters(&server)?;
    let of = |name: &str| resident.get(name).copied().unwrap_or(f64::NAN);
    let each = |figure: fn(&Found) -> f64| median(cairns.iter().map(figure).collect());
    let reads = |found: &Found| {
        let of = |name: &str| found.counters.get(name).copied().unwrap_or(f64::NAN);
        of("cairn_drive_reads_total") / of("cairn_gets_total")
    };
    let (rate, drive) = (each(|found| found.rate), median(drives));
    let mut text = format!(
        "### P5: native get, data 8 x larger than the cache, 32 connections x 16 in flight\n\n\
         | | reads/s | Cairn's rate : its rate |\n|---|---|---|\n| Cairn, one shard of one core, lz4 | {rate:.0} | |\n\
         | fio, 4 KiB at random, io_uring, O_DIRECT, QD 128 | {drive:.0} | {:.2} |\n",
        rate / drive
    );
    if rocksdbs.is_empty() {
        text.push_str("| RocksDB | missing | |\n");
    } else {
        let rocksdb = median(rocksdbs);
        let ratio = rate / rocksdb;
        let _ = writeln!(
            text,
            "| RocksDB 7.8, direct reads, 32 threads on both cores, the same number of items, values half compressible, lz4 | \
             {rocksdb:.0} | {ratio:.2} |"
        );
    }
    let _ = writeln!(
        text,
        "\n{P5_ITEMS} items, {P5_MEMORY_MIB} MiB of memory, half of it cache. Cairn: p50 {:.2}, p99 {:.2}, p99.9 {:.2} ms; {:.2} us of \
         CPU and {:.2} drive reads per get; index and filters {:.2} MiB per GB of data.\n",
        each(|found| found.latency_ms[0]),
        each(|found| found.latency_ms[1]),
        each(|found| found.latency_ms[2]),
        each(|found| found.cpu_us),
        median(cairns.iter().map(reads).collect()),
        of("cairn_index_resident_bytes") / (1 << 20) as f64 / (P5_ITEMS as f64 * 1024.0 / 1e9),
    );
    Ok(text)
}

fn rocksdb(
    db_bench: &std::path::Path,
    home: &std::path::Path,
    name: &str,
    more: &[&str],
) -> Result<f64, String> {
    let mut command = Command::new(db_bench);
    command.args([
        format!("--benchmarks={name}"),
        format!("--db={}", home.display()),
        format!("--num={P5_ITEMS}"),
        format!("--cache_size={}", (P5_MEMORY_MIB / 2) << 20),
        format!("--use_existing_db={}", u8::from(name == "readrandom")),
    ]);
    command.args([
        "--key_size=16",
        "--value_size=1000",
        "--compression_type=lz4",
        "--compression_ratio=0.5",
    ]);
    command.args([
        "--bloom_bits=10",
        "--cache_index_and_filter_blocks=1",
        "--use_direct_reads=1",
        "--disable_wal=1",
    ]);
    command
        .args(["--level_compaction_dynamic_level_bytes=1", "--seed=1"])
        .args(more);
    let text = run(&mut command)?;
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_default();
    let before = line.split("ops/sec").next().unwrap_or_default();
    let rate = before
        .split_whitespace()
        .next_back()
        .and_then(|rate| rate.parse().ok());
    rate.ok_or_else(|| format!("db_bench said {text:?}"))
}

fn fio_reads(fio: &std::path::Path, home: &std::path::Path, seconds: u32) -> Result<f64, String> {
    let mut command = Command::new(fio);
    command
        .arg(format!("--directory={}", home.display()))
        .arg(format!("--runtime={seconds}"));
    command.args([
        "--name=fio",
        "--size=1g",
        "--bs=4k",
        "--rw=randread",
        "--direct=1",
        "--ioengine=io_uring",
    ]);
    command.args(["--iodepth=128", "--time_based", "--output-format=json"]);
    let report: Value = serde_json::from_str(&run(&mut command)?).map_err(|error| error.to_string())?;
    let rate = report["jobs"][0]["read"]["iops"].as_f64();
    rate.ok_or_else(|| "fio printed no read rate".to_owned())
}

/// Items of P6: about twice the memory of the node.
const P6_ITEMS: u64 = 2_000_000;

/// Row P6: the peak, then 70 % of it, both with flushes and compaction running.
pub(crate) fn mixed(options: &Options, tools: &Tools) -> Result<String, String> {
    let server = start(options, tools, &Setup::default())?;
    fill(&server, tools, P6_ITEMS)?;
    let mut load = Load {
        native: true,
        workload: "a",
        items: P6_ITEMS,
        connections: 32,
        in_flight: 16,
        seconds: options.long_seconds,
        rate: None,
        core: Some(1),
        distribution: "zipfian",
    };
    let peak = drive(&server, tools, &load)?;
    eprintln!("peers: P6 peak {:.0}/s", peak.rate);
    load.rate = Some(peak.rate * 0.7);
    let home = tempfile::tempdir_in(&options.data).map_err(|error| error.to_string())?;
    let found = drive(&server, tools, &load)?;
    let probe = probe(tools, home.path())?;
    let debt = counters(&server)?.get("cairn_compaction_debt_bytes").copied();
    let of = |name: &str| found.counters.get(name).copied().unwrap_or(f64::NAN);
    let [p50, p99, p999, longest] = found.latency_ms;
    Ok(format!(
        "### P6: half gets, half puts, zipfian, native, at 70 % of the peak\n\n\
         | rate/s | peak/s | p50 ms | p99 ms | p99.9 ms | longest ms | flushes | compactions | debt at the end, MiB |\n\
         |---|---|---|---|---|---|---|---|---|\n\
         | {:.0} | {:.0} | {p50:.2} | {p99:.2} | {p999:.2} | {longest:.1} | {:.0} | {:.0} | {:.0} |\n\n\
         {P6_ITEMS} items of 1 KB, 1 GiB of memory, two mirrors on one drive, {} s each at the peak and at the rate; latency from the \
         intended start. {probe}\n\n",
        found.rate,
        peak.rate,
        of("cairn_flushes_total"),
        of("cairn_compactions_total"),
        debt.unwrap_or(f64::NAN) / (1 << 20) as f64,
        options.long_seconds,
    ))
}

/// What the drive does to anybody: two files written as the log writes its mirrors, right after.
fn probe(tools: &Tools, home: &std::path::Path) -> Result<String, String> {
    let Some(fio) = tools.fio.as_deref() else {
        return Ok("No probe of the drive: fio is missing.".to_owned());
    };
    let mut command = Command::new(fio);
    command.arg(format!("--directory={}", home.display()));
    command.args([
        "--name=probe",
        "--rw=write",
        "--bs=8k",
        "--direct=1",
        "--sync=dsync",
        "--ioengine=io_uring",
    ]);
    command.args([
        "--iodepth=1",
        "--numjobs=2",
        "--overwrite=1",
        "--rate_iops=3000",
        "--runtime=30",
        "--time_based",
    ]);
    command.args(["--size=128m", "--group_reporting", "--output-format=json"]);
    let report: Value = serde_json::from_str(&run(&mut command)?).map_err(|error| error.to_string())?;
    let latency = &report["jobs"][0]["write"]["clat_ns"];
    let of = |name: &str| latency["percentile"][name].as_f64().unwrap_or(f64::NAN) / 1e6;
    Ok(format!(
        "The drive alone, two files of durable 8 KiB writes at 3,000/s each for 30 s: p99 {:.2}, p99.9 {:.2}, p99.99 {:.2}, longest {:.1} ms.",
        of("99.000000"),
        of("99.900000"),
        of("99.990000"),
        latency["max"].as_f64().unwrap_or(f64::NAN) / 1e6
    ))
}

/// Rows P8 and U1: UpdateItem beside PutItem, on one hot key and on all of them with a condition.
pub(crate) fn updates(options: &Options, tools: &Tools) -> Result<String, String> {
    let server = start(options, tools, &Setup::default())?;
    fill(&server, tools, options.items)?;
    let mut text = String::from(
        "### P8, U1: UpdateItem over HTTP, durable, 32 connections\n\n\
         | operation | requests/s | p50 ms | p99 ms | p99.9 ms | server CPU us/request | rate : PutItem's | CPU : PutItem's |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let rows = [
        ("PutItem, all keys", "put", options.items),
        (
            "UpdateItem of every attribute if the item is there, all keys (U1)",
            "updates",
            options.items,
        ),
        ("UpdateItem ADD 1, one hot key (P8)", "counter", 1),
    ];
    let mut found: Vec<Vec<Found>> = rows.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.rounds {
        for ((_, workload, items), found) in rows.iter().zip(&mut found) {
            let load = Load {
                native: false,
                workload,
                items: *items,
                connections: 32,
                in_flight: 1,
                seconds: options.seconds,
                rate: None,
                core: Some(1),
                distribution: "uniform",
            };
            found.push(drive(&server, tools, &load)?);
        }
    }
    let each = |row: usize, figure: fn(&Found) -> f64| median(found[row].iter().map(figure).collect());
    for (row, (name, ..)) in rows.iter().enumerate() {
        let (rate, cpu) = (each(row, |found| found.rate), each(row, |found| found.cpu_us));
        let _ = writeln!(
            text,
            "| {name} | {rate:.0} | {:.2} | {:.2} | {:.2} | {cpu:.2} | {:.2} | {:.2} |",
            each(row, |found| found.latency_ms[0]),
            each(row, |found| found.latency_ms[1]),
            each(row, |found| found.latency_ms[2]),
            rate / each(0, |found| found.rate),
            cpu / each(0, |found| found.cpu_us),
        );
    }
    text.push('\n');
    Ok(text)
}

/// Memory of the node of P9: large enough that its log grows to its greatest length before a flush shortens it.
const P9_MEMORY_MIB: u64 = 4096;
/// Items written before the kill: more than the log holds.
const P9_ITEMS: u64 = 1_000_000;

/// Row P9: kill -9 with a log as long as it gets, and the time until the node serves.
pub(crate) fn recovery(options: &Options, tools: &Tools) -> Result<String, String> {
    let setup = Setup {
        memory_mib: P9_MEMORY_MIB,
        ..Setup::default()
    };
    let mut rows = String::new();
    for round in 0..options.rounds {
        let mut server = start(options, tools, &setup)?;
        fill(&server, tools, P9_ITEMS)?;
        let live = counters(&server)?;
        let live = live.get("cairn_log_live_bytes").copied().unwrap_or(f64::NAN);
        server.kill();
        let begin = Instant::now();
        server.start_again()?;
        while !is_ready(server.admin) {
            if begin.elapsed() > Duration::from_secs(120) {
                return Err("the node did not become ready".into());
            }
            sleep(Duration::from_millis(2));
        }
        let seconds = begin.elapsed().as_secs_f64();
        let _ = writeln!(
            rows,
            "| {} | {:.2} | {P9_ITEMS} | {seconds:.2} |",
            round + 1,
            live / (1 << 30) as f64
        );
    }
    Ok(format!(
        "### P9: kill -9 with a long log\n\n| round | log in use, GiB | items written | serving after, s |\n|---|---|---|---|\n\
         {rows}\nOne shard on one core, {P9_MEMORY_MIB} MiB of memory, two mirrors on one drive.\n\n"
    ))
}

/// Row P11: one shard and two, as fast as they can.
pub(crate) fn shards(options: &Options, tools: &Tools) -> Result<String, String> {
    let mut text = String::from(
        "### P11: two shards instead of one\n\n\
         | work | one shard: requests/s | CPU us/request | two shards: requests/s | CPU us/request | CPU, two : one |\n|---|---|---|---|---|---|\n",
    );
    let one = start(
        options,
        tools,
        &Setup {
            cores: None,
            ..Setup::default()
        },
    )?;
    let two = start(
        options,
        tools,
        &Setup {
            cores: None,
            shards: 2,
            ..Setup::default()
        },
    )?;
    for server in [&one, &two] {
        fill(server, tools, options.items)?;
    }
    let works = [
        ("HTTP GetItem, 64 connections", "get", false, 64, 1),
        ("HTTP PutItem, 64 connections", "put", false, 64, 1),
        ("native get, 32 x 16", "get", true, 32, 16),
        ("native put, 32 x 16", "put", true, 32, 16),
    ];
    for (name, workload, native, connections, in_flight) in works {
        let load = Load {
            native,
            workload,
            items: options.items,
            connections,
            in_flight,
            seconds: options.seconds,
            rate: None,
            core: None,
            distribution: "uniform",
        };
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..options.rounds {
            for (server, found) in [&one, &two].into_iter().zip(&mut found) {
                found.push(drive(server, tools, &load)?);
            }
        }
        let each = |of: usize, figure: fn(&Found) -> f64| median(found[of].iter().map(figure).collect());
        let cpu = [each(0, |found| found.cpu_us), each(1, |found| found.cpu_us)];
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.2} | {:.0} | {:.2} | {:.2} |",
            each(0, |found| found.rate),
            cpu[0],
            each(1, |found| found.rate),
            cpu[1],
            cpu[1] / cpu[0]
        );
    }
    text.push_str("\nThe client runs on the same two cores, so rates do not double; CPU per request is what is compared.\n\n");
    Ok(text)
}
