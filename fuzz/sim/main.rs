//! `cargo xtask sim --seeds N --minutes M`: many runs, or one that is shown in detail.
#![allow(
    clippy::disallowed_methods,
    reason = "how long to go on is a matter of the wall clock; what is simulated never sees it"
)]

use std::cell::Cell;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cairn_engine::phase::Phase;
use cairn_fuzz::sim::canaries::CASES;
use cairn_fuzz::sim::sweep::sweep;
use cairn_fuzz::sim::tables::{TableScenario, TableSummary, run_tables};
use cairn_fuzz::sim::{Failure, Scenario, Setting, Summary, run, run_caught, shrink};
use clap::Parser;

/// Simulates whole engines under random work and faults, one run per seed.
#[derive(Parser)]
struct Arguments {
    /// How many seeds [default: 1000, or with --minutes as many as there is time for].
    #[arg(long)]
    seeds: Option<u64>,
    /// Begin no other seed after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Safety mode: both mirrors are damaged as well, and all that counts is that no answer is wrong.
    #[arg(long)]
    safety: bool,
    /// Drives come and go while clients work.
    #[arg(long, conflicts_with = "safety")]
    fleet: bool,
    /// Whole nodes instead: tables with indexes, a stream and a time to live, and transactions.
    #[arg(long, conflicts_with_all = ["safety", "fleet", "set"])]
    tables: bool,
    /// A crash at every moment of a flush, a compaction, a change of the manifest and so on: as many seeds of each.
    #[arg(long, conflicts_with_all = ["safety", "fleet", "tables", "replay"])]
    sweep: bool,
    /// With --sweep: only this piece of work, by the name that its results have.
    #[arg(long, requires = "sweep", value_parser = phase_of)]
    phase: Option<Phase>,
    /// Which seed finds each of the bugs that can be put in, tried on as many seeds.
    #[arg(long, conflicts_with_all = ["safety", "fleet", "tables", "replay", "sweep"])]
    canaries: bool,
    /// Show one seed in detail.
    #[arg(long, conflicts_with_all = ["seeds", "start", "minutes"])]
    replay: Option<u64>,
    /// Sizes of the replayed run, as shrinking has told them: clients=1,operations=20.
    #[arg(long, requires = "replay", value_delimiter = ',')]
    set: Vec<Setting>,
}

fn phase_of(name: &str) -> Result<Phase, String> {
    let mut phases = Phase::ALL.into_iter();
    let found = phases.find(|phase| format!("{phase:?}") == name);
    found.ok_or_else(|| format!("the pieces of work are {:?}", Phase::ALL))
}

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (scenario, mode): (fn(u64) -> Scenario, _) = match (arguments.safety, arguments.fleet) {
        (true, _) => (Scenario::damaged, " --safety"),
        (_, true) => (Scenario::fleet, " --fleet"),
        _ => (Scenario::of, ""),
    };
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!(
            "seed {} panicked; repeat with --replay {}",
            SEED.get(),
            SEED.get()
        );
        before(panic);
    }));
    if arguments.tables {
        return run_nodes(&arguments);
    }
    if arguments.sweep {
        return sweep_all(&arguments);
    }
    if arguments.canaries {
        return find_bugs(&arguments);
    }
    if let Some(seed) = arguments.replay {
        SEED.set(seed);
        let sized = arguments
            .set
            .iter()
            .fold(scenario(seed), |scenario, setting| scenario.set(*setting));
        return match run(sized, true) {
            Ok(summary) => {
                println!("{summary}");
                ExitCode::SUCCESS
            }
            Err(failure) => {
                println!("{failure}");
                ExitCode::FAILURE
            }
        };
    }
    let seeds = arguments.seeds.unwrap_or(if arguments.minutes.is_some() {
        u64::MAX
    } else {
        1000
    });
    let end = arguments.start.saturating_add(seeds);
    let begun = Instant::now();
    let time = arguments.minutes.map(|minutes| Duration::from_secs(minutes * 60));
    let mut total = Summary::default();
    let (mut done, mut failures) = (0_u64, 0);
    for seed in arguments.start..end {
        if time.is_some_and(|time| begun.elapsed() >= time) {
            break;
        }
        SEED.set(seed);
        match run(scenario(seed), false) {
            Ok(summary) => total.add(&summary),
            Err(failure) => {
                failures += 1;
                tell(&scenario(seed), failure, mode);
                if !arguments.keep_going {
                    return ExitCode::FAILURE;
                }
            }
        }
        done += 1;
        if done.is_multiple_of(100) {
            eprintln!("{done} seeds, {failures} failed, {} s", begun.elapsed().as_secs());
        }
    }
    println!("{done} seeds from {}, {failures} failed", arguments.start);
    println!("{total}");
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Cuts work of every kind off at every moment.
fn sweep_all(arguments: &Arguments) -> ExitCode {
    if !cfg!(debug_assertions) {
        eprintln!("what is under way is known in a build with debug assertions only");
        return ExitCode::FAILURE;
    }
    let mut total = Summary::default();
    let phases = Phase::ALL.into_iter();
    for phase in phases.filter(|phase| arguments.phase.is_none_or(|only| only == *phase)) {
        let mut moments = 0;
        for seed in arguments.start..arguments.start + arguments.seeds.unwrap_or(10) {
            SEED.set(seed);
            match sweep(&Scenario::with_work(seed, phase), phase, usize::MAX) {
                Ok(summary) => {
                    moments += summary.seeds;
                    total.add(&summary);
                }
                Err(failure) => {
                    println!("{phase:?}: {failure}");
                    return ExitCode::FAILURE;
                }
            }
        }
        println!("{phase:?}: cut off at {moments} moments");
    }
    println!("{total}");
    ExitCode::SUCCESS
}

/// Which seed finds each bug.
fn find_bugs(arguments: &Arguments) -> ExitCode {
    if !cfg!(debug_assertions) {
        eprintln!("bugs can be put into a build with debug assertions only");
        return ExitCode::FAILURE;
    }
    let mut found = 0;
    for case in CASES {
        let seeds = arguments.start..arguments.start + arguments.seeds.unwrap_or(100);
        let failure = case.find(seeds.clone());
        found += usize::from(failure.is_some());
        println!(
            "{:?} {:?}: {}",
            case.trigger,
            case.canary,
            failure
                .as_ref()
                .map_or("not found".to_owned(), Failure::to_string)
        );
        let seeds = match &failure {
            Some(failure) => failure.seed..failure.seed + 1,
            None => seeds,
        };
        for seed in seeds {
            if let Err(failure) = run_caught(case.scenario(seed)) {
                println!("  without the bug: {failure}");
            }
            let calm = case.find_calm(seed);
            if let (true, Some(failure)) = (case.needs_fault, calm) {
                println!("  without the fault: {failure}");
            }
        }
    }
    println!("{found} of {} bugs found", CASES.len());
    ExitCode::SUCCESS
}

/// Says how a run failed, and the smallest that still does.
fn tell(scenario: &Scenario, failure: Failure, mode: &str) {
    let repeat = format!(
        "cargo run -p cairn-fuzz --bin sim --{mode} --replay {}",
        scenario.seed
    );
    println!("{failure}\n  repeat with: {repeat}");
    let (settings, failure) = shrink(scenario, failure);
    if !settings.is_empty() {
        let settings: Vec<String> = settings.iter().map(Setting::to_string).collect();
        println!(
            "  smaller: {failure}\n  repeat with: {repeat} --set {}",
            settings.join(",")
        );
    }
}

/// Runs whole nodes, or one of them in detail.
fn run_nodes(arguments: &Arguments) -> ExitCode {
    let seeds = match (arguments.replay, arguments.seeds, arguments.minutes) {
        (Some(seed), ..) => seed..seed.saturating_add(1),
        (None, None, Some(_)) => arguments.start..u64::MAX,
        (None, seeds, _) => arguments.start..arguments.start.saturating_add(seeds.unwrap_or(1000)),
    };
    let begun = Instant::now();
    let time = arguments.minutes.map(|minutes| Duration::from_secs(minutes * 60));
    let mut total = TableSummary::default();
    let (mut done, mut failures) = (0_u64, 0);
    for seed in seeds {
        if time.is_some_and(|time| begun.elapsed() >= time) {
            break;
        }
        SEED.set(seed);
        match run_tables(TableScenario::of(seed), arguments.replay.is_some()) {
            Ok(summary) => total.add(&summary),
            Err(failure) => {
                failures += 1;
                println!("{failure}\n  repeat with: cargo xtask sim --tables --replay {seed}");
                if !arguments.keep_going {
                    return ExitCode::FAILURE;
                }
            }
        }
        done += 1;
        if done.is_multiple_of(100) {
            eprintln!("{done} seeds, {failures} failed, {} s", begun.elapsed().as_secs());
        }
    }
    println!(
        "{done} seeds, {failures} failed; {:.1} simulated hours",
        total.elapsed.as_secs_f64() / 3600.0
    );
    println!("{total:#?}");
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
