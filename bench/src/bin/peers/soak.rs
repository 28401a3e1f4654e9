//! Row SOAK: the peak that lasts, then half an hour at 70 % of it with flushes and compaction running.
//!
//! The peak is that of a closed loop over ten minutes, long enough that compaction has to keep up: what a shorter burst
//! answers is paid back later. While the soak runs, a probe beside the node writes 4 KiB durably and sets a timer every
//! 10 ms, so that what the drive and the scheduler do to anybody stands beside the node's own percentiles; the node's
//! memory, space and debt are sampled every ten seconds and must not grow.

use std::fmt::Write as _;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use crate::Options;
use crate::alone::{Found, Load, counters, drive, fill, start};
use crate::servers::{Server, Setup, Tools};

/// Items of 1 KB: about twice the memory of the node.
const ITEMS: u64 = 2_000_000;
/// Time between two samples of the node.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// Rows of samples in the report.
const ROWS: usize = 10;

/// The node at one moment.
struct Sample {
    after: Duration,
    resident_mib: f64,
    /// Bytes in segments of one mirror, by the sizes of the items.
    space: f64,
    debt_mib: f64,
    flushes: f64,
    compactions: f64,
}

/// What the probe met: when it began, how long its write took, and how late its timer was, in milliseconds.
#[derive(Default)]
pub(crate) struct Probe {
    met: Vec<(Instant, f64, f64)>,
}

impl Probe {
    fn writes_ms(&self) -> Vec<f64> {
        self.met.iter().map(|(_, write, _)| *write).collect()
    }

    fn timers_late_ms(&self) -> Vec<f64> {
        self.met.iter().map(|(.., late)| *late).collect()
    }

    /// Percent of the time in which a write that had just been begun was not answered within [`OBJECTIVE_MS`].
    fn stood_still_percent(&self) -> f64 {
        let still: f64 = self
            .writes_ms()
            .iter()
            .map(|write| (write - OBJECTIVE_MS).max(0.0))
            .sum();
        let ends = self.met.first().zip(self.met.last());
        let seconds = ends.map_or(f64::NAN, |((first, ..), (last, ..))| {
            (*last - *first).as_secs_f64()
        });
        still / 10.0 / seconds
    }

    /// Whether its write or its timer was later than the objective between the two moments.
    fn was_late(&self, from: Instant, to: Instant) -> bool {
        self.met.iter().any(|(at, write, late)| {
            let ended = *at + Duration::from_secs_f64((write + late.max(0.0)) / 1e3);
            write.max(*late) > OBJECTIVE_MS && *at < to && ended > from
        })
    }
}

/// What P6 allows 99.9 % of the requests.
const OBJECTIVE_MS: f64 = 10.0;

/// Row SOAK.
pub(crate) fn soak(options: &Options, tools: &Tools) -> Result<String, String> {
    let server = start(options, tools, &Setup::default())?;
    fill(&server, tools, ITEMS)?;
    let mut load = Load {
        native: true,
        workload: "a",
        items: ITEMS,
        connections: 32,
        in_flight: 16,
        seconds: options.peak_seconds,
        rate: None,
        core: Some(1),
        distribution: "zipfian",
    };
    let rate = match options.soak_rate {
        Some(rate) => rate,
        None => {
            let (peak, samples, _) = observed(options, &server, tools, &load)?;
            eprintln!(
                "peers: SOAK peak {:.0}/s over {} s\n{}",
                peak.rate,
                options.peak_seconds,
                table(&samples)
            );
            peak.rate * 0.7
        }
    };
    load.rate = Some(rate);
    load.seconds = options.soak_seconds;
    let (found, samples, probe) = observed(options, &server, tools, &load)?;
    let ended = Instant::now();
    let [p50, p99, p999, longest] = found.latency_ms;
    Ok(format!(
        "### SOAK: half gets, half puts, zipfian, native, for {} s\n\n\
         | rate/s | peak/s | p50 ms | p99 ms | p99.9 ms | longest ms | server CPU us/request |\n|---|---|---|---|---|---|---|\n\
         | {:.0} | {} | {p50:.2} | {p99:.2} | {p999:.2} | {longest:.1} | {:.2} |\n\n{}\n\
         {ITEMS} items of 1 KB, 1 GiB of memory, two mirrors on one drive, encrypted; latency from the intended start. Beside it, every 10 ms: \
         a durable write of 4 KiB: {}; a timer of 1 ms, late by: {}. For {:.3} % of the time such a write was not answered within {OBJECTIVE_MS} ms. {}\n\n",
        options.soak_seconds,
        found.rate,
        match options.soak_rate {
            Some(_) => "given".to_owned(),
            None => format!("{:.0} ({} s)", rate / 0.7, options.peak_seconds),
        },
        found.cpu_us,
        table(&samples),
        percentiles(probe.writes_ms()),
        percentiles(probe.timers_late_ms()),
        probe.stood_still_percent(),
        by_seconds(&found, &probe, ended),
    ))
}

/// In how many seconds the objective was kept, and in how many of the others the probe met the same. loadgen's seconds are counted
/// from their end, when the load had just `ended`.
fn by_seconds(found: &Found, probe: &Probe, ended: Instant) -> String {
    let slack = Duration::from_millis(300);
    let seconds = found.seconds_p999_ms.len();
    let missed: Vec<usize> = (0..seconds)
        .filter(|second| found.seconds_p999_ms[*second] > OBJECTIVE_MS)
        .collect();
    let late = missed.iter().filter(|second| {
        let from = ended - Duration::from_secs((seconds - **second) as u64) - slack;
        probe.was_late(from, from + Duration::from_secs(1) + slack * 2)
    });
    let mut p999 = found.seconds_p999_ms.clone();
    p999.sort_by(f64::total_cmp);
    format!(
        "In {} of {seconds} seconds p99.9 was at most {OBJECTIVE_MS} ms, {:.1} ms in the middle one; in {} of the other {} the probe's write or \
         timer was later than that too.",
        seconds - missed.len(),
        p999.get(seconds / 2).copied().unwrap_or(f64::NAN),
        late.count(),
        missed.len(),
    )
}

/// Runs the load; meanwhile the node is sampled and the machine probed.
fn observed(
    options: &Options,
    server: &Server,
    tools: &Tools,
    load: &Load<'_>,
) -> Result<(Found, Vec<Sample>, Probe), String> {
    let is_done = AtomicBool::new(false);
    let directory = tempfile::tempdir_in(&options.data).map_err(|error| error.to_string())?;
    scope(|scope| {
        let probe = scope.spawn(|| probe(&directory.path().join("probe"), PROBE_PAUSE, &is_done));
        let samples = scope.spawn(|| samples(server, &is_done));
        let found = drive(server, tools, load);
        is_done.store(true, Ordering::Relaxed);
        let probe = probe.join().map_err(|_| "the probe stopped".to_owned())??;
        let samples = samples.join().map_err(|_| "the sampling stopped".to_owned())??;
        Ok((found?, samples, probe))
    })
}

fn samples(server: &Server, is_done: &AtomicBool) -> Result<Vec<Sample>, String> {
    let begin = Instant::now();
    let mut samples = Vec::new();
    while !is_done.load(Ordering::Relaxed) {
        let counters = counters(server)?;
        let of = |name: &str| counters.get(name).copied().unwrap_or(f64::NAN);
        samples.push(Sample {
            after: begin.elapsed(),
            resident_mib: server.resident_mib(),
            space: of("cairn_segment_bytes") / of("cairn_item_bytes"),
            debt_mib: of("cairn_compaction_debt_bytes") / (1 << 20) as f64,
            flushes: of("cairn_flushes_total"),
            compactions: of("cairn_compactions_total"),
        });
        let next = Instant::now() + SAMPLE_INTERVAL;
        while Instant::now() < next && !is_done.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(100));
        }
    }
    Ok(samples)
}

/// The samples gathered into at most [`ROWS`] rows, each with the greatest of its time.
fn table(samples: &[Sample]) -> String {
    let mut text = String::from(
        "| until, s | resident, MiB | segments : items, bytes | debt, MiB | flushes | compactions |\n|---|---|---|---|---|---|\n",
    );
    for part in samples.chunks(samples.len().div_ceil(ROWS).max(1)) {
        let greatest = |figure: fn(&Sample) -> f64| part.iter().map(figure).fold(f64::NAN, f64::max);
        let _ = writeln!(
            text,
            "| {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} |",
            greatest(|sample| sample.after.as_secs_f64()),
            greatest(|sample| sample.resident_mib),
            greatest(|sample| sample.space),
            greatest(|sample| sample.debt_mib),
            greatest(|sample| sample.flushes),
            greatest(|sample| sample.compactions),
        );
    }
    text
}

/// Between two writes of the probe, beside the timer of 1 ms.
const PROBE_PAUSE: Duration = Duration::from_millis(9);
/// Bytes of a write of the probe, which are also its alignment.
const PROBE_BYTES: usize = 4096;
/// Writes of the probe before it begins at the start of its file again.
const PROBE_WRITES: u64 = 4096;

/// Writes 4 KiB durably to a file of its own and sets a timer, by turns, with a pause after each.
pub(crate) fn probe(path: &Path, pause: Duration, is_done: &AtomicBool) -> Result<Probe, String> {
    let fail = |error: std::io::Error| format!("{}: {error}", path.display());
    // Its length is allocated and written first: what is measured is an overwrite, as the log's are.
    std::fs::write(path, vec![1; PROBE_BYTES * PROBE_WRITES as usize]).map_err(fail)?;
    let flags = (rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC).bits();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(flags.cast_signed())
        .open(path)
        .map_err(fail)?;
    file.sync_all().map_err(fail)?;
    let room = vec![1_u8; 2 * PROBE_BYTES];
    let offset = room.as_ptr().align_offset(PROBE_BYTES);
    let block = &room[offset..offset + PROBE_BYTES];
    let mut probe = Probe::default();
    for write in 0.. {
        if is_done.load(Ordering::Relaxed) {
            break;
        }
        let begin = Instant::now();
        file.write_all_at(block, write % PROBE_WRITES * PROBE_BYTES as u64)
            .map_err(fail)?;
        let wrote = begin.elapsed();
        sleep(Duration::from_millis(1));
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        probe
            .met
            .push((begin, ms(wrote), ms(begin.elapsed() - wrote) - 1.0));
        sleep(pause);
    }
    Ok(probe)
}

fn percentiles(mut sorted: Vec<f64>) -> String {
    sorted.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let index = (sorted.len() as f64 * part) as usize;
        sorted
            .get(index.min(sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NAN)
    };
    format!(
        "p50 {:.2}, p99 {:.2}, p99.9 {:.2}, longest {:.1} ms",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    )
}
