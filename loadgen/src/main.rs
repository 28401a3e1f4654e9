//! The load generator: proves, or refutes, what a node promises of its latencies.
//!
//! One core drives any number of connections on the same shard ring that the node runs on, so that one client core
//! can saturate one node core. Read in this order: [`options`], [`workload`], [`ledger`], [`schedule`], [`wire`],
//! [`table`], [`look`], [`connection`], [`run`], [`report`].
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a client of the real world: nothing here runs in the simulator"
)]

mod options;

mod connection;
mod ledger;
mod load;
mod look;
mod ready;
mod record;
mod report;
mod run;
mod schedule;
mod table;
mod wire;
mod workload;

use std::fs::OpenOptions;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_runtime::real::{self, RealRuntime};
use clap::Parser;

use options::{Cli, Command, Common, Run, Workload};
use report::Report;
use wire::Settings;
use workload::{GROUP, Shape};

/// The SLO was missed, too many operations failed, or an item that was read was missing, wrong or stale.
const MISSED: u8 = 99;
/// The command line cannot be carried out.
const USAGE: u8 = 2;
/// The node cannot be reached or used.
const UNREACHABLE: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let common = match &cli.command {
        Command::Load(load) => &load.common,
        Command::Run(run) => &run.common,
    };
    if common.access_key.is_some() != common.secret_key.is_some() {
        eprintln!("loadgen: --access-key and --secret-key belong together");
        return ExitCode::from(USAGE);
    }
    if let Some(core) = common.core
        && let Err(error) = pin(core)
    {
        eprintln!("loadgen: --core {core}: {error}");
        return ExitCode::from(USAGE);
    }
    if let Command::Run(run) = &cli.command
        && let Err(error) = check(run)
    {
        eprintln!("loadgen: {error}");
        return ExitCode::from(USAGE);
    }
    let settings = |common: &Common, consistent, indexed| Settings {
        common: common.clone(),
        shape: Shape::new(common.item_size, indexed),
        consistent,
        before: 0,
    };
    let target = common.target.clone();
    let outcome = match cli.command {
        Command::Load(options) => {
            let settings = settings(&options.common, false, options.indexes);
            on_ring(async move |runtime| load::load(runtime, settings.clone(), options.indexes).await)
                .map(|()| ExitCode::SUCCESS)
        }
        Command::Run(options) => {
            let options = Arc::new(options);
            let indexed = options.workload == Workload::Index;
            let settings = settings(&options.common, options.consistent, indexed);
            let on_runtime = options.clone();
            on_ring(async move |runtime| run::run(runtime, &on_runtime, settings.clone()).await)
                .and_then(|measured| finish(&options, &measured))
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("loadgen: {target}: {error}");
        ExitCode::from(match error.kind() {
            io::ErrorKind::InvalidInput => USAGE,
            _ => UNREACHABLE,
        })
    })
}

/// What can be said about a run before it starts: whether its results can be kept, and its items are enough.
fn check(run: &Run) -> Result<(), String> {
    for path in [&run.report, &run.hdr].into_iter().flatten() {
        // What is there stays until there is something to take its place.
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if run.workload == Workload::Transact && run.common.items < GROUP {
        return Err(format!("--workload transact needs --items {GROUP} at least"));
    }
    Ok(())
}

fn finish(options: &Run, measured: &run::Measured) -> io::Result<ExitCode> {
    let report = Report::new(options, measured);
    report.print();
    let unwritable = |path: &std::path::Path, error: &io::Error| {
        eprintln!("loadgen: {}: {error}", path.display());
        ExitCode::from(USAGE)
    };
    if let Some(path) = &options.report
        && let Err(error) = std::fs::write(path, format!("{:#}\n", report.json()))
    {
        return Ok(unwritable(path, &error));
    }
    if let Some(path) = &options.hdr
        && let Err(error) = report.write_hdr(path)
    {
        return Ok(unwritable(path, &error));
    }
    if report.unusable() {
        return Err(io::Error::other("no operation was answered well"));
    }
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(MISSED)
    })
}

/// Runs `work` on a single shard of the real runtime and gives its result.
fn on_ring<T, F>(work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: AsyncFn(RealRuntime) -> io::Result<T> + Send + Clone + 'static,
{
    let result = Arc::new(Mutex::new(None));
    let slot = result.clone();
    let config = real::Config {
        shards: 1,
        pin: false,
        ..real::Config::default()
    };
    real::run(config, move |runtime| {
        let (work, slot) = (work.clone(), slot.clone());
        async move {
            let outcome = work(runtime).await;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        }
    })
    .map_err(|error| io::Error::other(error.to_string()))?;
    let outcome = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    outcome.unwrap_or_else(|| Err(io::Error::other("the client's shard ended without a result")))
}

fn pin(core: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if core >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "there is no such core",
        ));
    }
    set.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}
