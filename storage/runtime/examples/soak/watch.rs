//! Counting what happens, from a thread that shares nothing with the shards but atomics.

use std::fmt;
use std::process::exit;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Kinds of work that must all go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Timer,
    Drive,
    Network,
    Accept,
    Ask,
    Background,
    Replication,
}

const KINDS: [Work; 7] = [
    Work::Timer,
    Work::Drive,
    Work::Network,
    Work::Accept,
    Work::Ask,
    Work::Background,
    Work::Replication,
];

/// Upper ends of the classes of gaps that are counted.
const CLASSES: [Duration; 4] = [
    Duration::from_micros(200),
    Duration::from_millis(2),
    Duration::from_millis(20),
    Duration::from_millis(200),
];

/// Counters for shards 0 and 1.
#[derive(Default)]
pub(crate) struct Watch {
    done: [[AtomicU64; KINDS.len()]; 2],
    running: AtomicBool,
    gaps: Mutex<(Gaps, Gaps)>,
}

/// How late tasks ran.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gaps {
    longest: Duration,
    /// The longest without the time for which the thread was runnable but had no processor.
    longest_own: Duration,
    /// By class; the last is longer than all.
    counts: [u64; CLASSES.len() + 1],
}

impl Gaps {
    fn add(&mut self, gap: Duration, own: Duration) {
        self.longest = self.longest.max(gap);
        self.longest_own = self.longest_own.max(own);
        let class = CLASSES
            .iter()
            .position(|&class| gap <= class)
            .unwrap_or(CLASSES.len());
        self.counts[class] += 1;
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "longest gap {:?}, {:?} of its own;",
            self.longest, self.longest_own
        )?;
        for (class, count) in CLASSES.iter().zip(&self.counts) {
            write!(formatter, " {count} up to {class:?},")?;
        }
        write!(formatter, " {} longer", self.counts[CLASSES.len()])
    }
}

impl Watch {
    pub(crate) fn done(&self, shard: usize, work: Work) {
        self.done[shard][work as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How late a task ran, in all and by the runtime's own doing.
    pub(crate) fn gap(&self, gap: Duration, own: Duration) {
        self.gaps.lock().unwrap().0.add(gap, own);
    }

    pub(crate) fn begin_phase(&self) {
        self.gaps.lock().unwrap().0 = Gaps::default();
        self.running.store(true, Ordering::SeqCst);
    }

    pub(crate) fn end_phase(&self) -> Gaps {
        self.running.store(false, Ordering::SeqCst);
        let mut gaps = self.gaps.lock().unwrap();
        let phase = gaps.0;
        gaps.1.longest = gaps.1.longest.max(phase.longest);
        gaps.1.longest_own = gaps.1.longest_own.max(phase.longest_own);
        for (total, count) in gaps.1.counts.iter_mut().zip(phase.counts) {
            *total += count;
        }
        phase
    }

    pub(crate) fn total(&self) -> String {
        let mut text = self.gaps.lock().unwrap().1.to_string();
        for work in KINDS {
            let done: u64 = self
                .done
                .iter()
                .map(|shard| shard[work as usize].load(Ordering::Relaxed))
                .sum();
            text.push_str(&format!("; {work:?} {done}"));
        }
        text
    }

    /// Starts the thread that ends the process when work stands still.
    pub(crate) fn guard(self: &Arc<Watch>, limit: Duration) {
        let watch = Arc::clone(self);
        std::thread::spawn(move || {
            let mut seen = [[(0, Instant::now()); KINDS.len()]; 2];
            loop {
                std::thread::sleep(Duration::from_millis(500));
                let now = Instant::now();
                for (shard, seen) in seen.iter_mut().enumerate() {
                    for (work, last) in KINDS.iter().zip(seen.iter_mut()) {
                        let done = watch.done[shard][*work as usize].load(Ordering::Relaxed);
                        if done != last.0 || !watch.running.load(Ordering::SeqCst) {
                            *last = (done, now);
                        } else if now - last.1 > limit {
                            eprintln!("HANG: {work:?} on shard {shard} has stood still for {limit:?}");
                            exit(1);
                        }
                    }
                }
            }
        });
    }
}

/// Processor time of this process so far.
pub(crate) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}

/// How long this thread has been runnable without a processor so far.
pub(crate) fn processor_wait() -> Duration {
    let status = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = status
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}
