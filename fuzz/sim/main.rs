//! `cargo run -p cairn-fuzz --bin sim -- --seeds N --start S`: many runs, or one that is shown in detail.

use std::cell::Cell;
use std::process::ExitCode;

use cairn_fuzz::sim::{Scenario, Summary, run};
use clap::Parser;

/// Simulates whole engines under random work and faults, one run per seed.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Safety mode: both mirrors are damaged as well, and all that counts is that no answer is wrong.
    #[arg(long)]
    safety: bool,
    /// Show one seed in detail.
    #[arg(long, conflicts_with_all = ["seeds", "start"])]
    replay: Option<u64>,
}

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let scenario = if arguments.safety {
        Scenario::damaged
    } else {
        Scenario::of
    };
    let safety = if arguments.safety { " --safety" } else { "" };
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!(
            "seed {} panicked; repeat with --replay {}",
            SEED.get(),
            SEED.get()
        );
        before(panic);
    }));
    if let Some(seed) = arguments.replay {
        SEED.set(seed);
        return match run(scenario(seed), true) {
            Ok(summary) => {
                println!("{summary:#?}");
                ExitCode::SUCCESS
            }
            Err(failure) => {
                println!("{failure}");
                ExitCode::FAILURE
            }
        };
    }
    let mut total = Summary::default();
    let mut failures = 0;
    for seed in arguments.start..arguments.start.saturating_add(arguments.seeds) {
        SEED.set(seed);
        match run(scenario(seed), false) {
            Ok(summary) => total.add(&summary),
            Err(failure) => {
                failures += 1;
                println!("{failure}");
                println!("  repeat with: cargo run -p cairn-fuzz --bin sim --{safety} --replay {seed}");
                if !arguments.keep_going {
                    return ExitCode::FAILURE;
                }
            }
        }
        if (seed - arguments.start) % 100 == 99 {
            eprintln!("{} seeds, {failures} failed", seed - arguments.start + 1);
        }
    }
    println!(
        "{} seeds from {}, {failures} failed",
        arguments.seeds, arguments.start
    );
    println!("{total:#?}");
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
