//! Row MACHINE: what the machine itself does to anybody's latency, without any server.
//!
//! 1. One thread per core does nothing but read the clock. A gap between two readings is time in which the thread did not
//!    run though it wanted to: taken by the host of a virtual machine, or by the kernel.
//! 2. The same while other threads write durably: a host that makes a guest's I/O on the guest's own processors, or counts
//!    it against the same share of time, takes them away just then.
//! 3. Memory is touched for the first time, and again after it was given back: the host may have to find it first.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{available_parallelism, scope};
use std::time::{Duration, Instant};

use crate::Options;
use crate::soak::probe;

/// How long each of the first two parts takes.
const SPIN: Duration = Duration::from_secs(10);
/// What counts as a gap.
const GAP: Duration = Duration::from_millis(1);
const LONG_GAP: Duration = Duration::from_millis(5);
/// Threads that write in the second part.
const WRITERS: usize = 8;
/// Memory that is touched, and the part of it that is timed.
const TOUCHED_BYTES: usize = 1 << 30;
const PART_BYTES: usize = 2 << 20;
const PAGE_BYTES: usize = 4096;

/// Gaps of one thread.
#[derive(Default)]
struct Gaps {
    count: usize,
    long: usize,
    sum: Duration,
    longest: Duration,
}

/// Row MACHINE.
pub(crate) fn machine(options: &Options) -> Result<String, String> {
    let mut text = format!(
        "### MACHINE: what it does without a server\n\n\
         | every core spins for {} s | gaps > 1 ms | > 5 ms | longest ms | of the time, % |\n|---|---|---|---|---|\n",
        SPIN.as_secs()
    );
    let directory = tempfile::tempdir_in(&options.data).map_err(|error| error.to_string())?;
    for (what, writers) in [
        ("alone", 0),
        ("beside eight threads that write 4 KiB durably", WRITERS),
    ] {
        let all = spin_beside(directory.path(), writers)?;
        let total: Duration = all.iter().map(|gaps| gaps.sum).sum();
        let _ = writeln!(
            text,
            "| {what} | {} | {} | {:.1} | {:.1} |",
            all.iter().map(|gaps| gaps.count).sum::<usize>(),
            all.iter().map(|gaps| gaps.long).sum::<usize>(),
            all.iter()
                .map(|gaps| gaps.longest)
                .max()
                .unwrap_or_default()
                .as_secs_f64()
                * 1e3,
            total.as_secs_f64() * 100.0 / (SPIN.as_secs_f64() * all.len() as f64),
        );
    }
    text.push_str("\n| 1 GiB of memory, by parts of 2 MiB | mean us | longest us |\n|---|---|---|\n");
    for what in ["first touch", "given back, and touched again"] {
        let took = touch();
        let sum: Duration = took.iter().sum();
        let _ = writeln!(
            text,
            "| {what} | {:.0} | {:.0} |",
            sum.as_secs_f64() * 1e6 / took.len() as f64,
            took.iter().max().copied().unwrap_or_default().as_secs_f64() * 1e6,
        );
    }
    text.push('\n');
    Ok(text)
}

fn spin_beside(directory: &Path, writers: usize) -> Result<Vec<Gaps>, String> {
    let cores = available_parallelism().map_err(|error| error.to_string())?.get();
    let is_done = AtomicBool::new(false);
    scope(|scope| {
        let writing: Vec<_> = (0..writers)
            .map(|number| {
                let is_done = &is_done;
                let file = directory.join(format!("written-{number}"));
                scope.spawn(move || probe(&file, Duration::ZERO, is_done))
            })
            .collect();
        let spinning: Vec<_> = (0..cores).map(|_| scope.spawn(spin)).collect();
        let gaps = spinning.into_iter().map(|thread| thread.join());
        let gaps: Result<Vec<Gaps>, _> = gaps.collect();
        is_done.store(true, Ordering::Relaxed);
        for writer in writing {
            writer.join().map_err(|_| "a writer stopped".to_owned())??;
        }
        gaps.map_err(|_| "a thread stopped".to_owned())
    })
}

fn spin() -> Gaps {
    let mut gaps = Gaps::default();
    let begin = Instant::now();
    let mut last = begin;
    while last - begin < SPIN {
        let now = Instant::now();
        let gap = now - last;
        if gap > GAP {
            gaps.count += 1;
            gaps.long += usize::from(gap > LONG_GAP);
            gaps.sum += gap;
            gaps.longest = gaps.longest.max(gap);
        }
        last = now;
    }
    gaps
}

/// How long each part of fresh memory took.
fn touch() -> Vec<Duration> {
    // Zeroed memory of this length comes from the system untouched, and goes back when it is dropped.
    let mut memory = vec![0_u8; TOUCHED_BYTES];
    let parts = memory.chunks_mut(PART_BYTES).map(|part| {
        let begin = Instant::now();
        part.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 1);
        black_box(part);
        begin.elapsed()
    });
    parts.collect()
}
