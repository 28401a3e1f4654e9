//! What an operator is told without having asked: repairs, fences and lost drives, as lines of the log.
//!
//! Every shard compares what its engines have counted with what they had [`PERIOD`] ago, the first time at the start, and says
//! what has come to pass. `/metrics` has the same numbers.

use std::collections::BTreeSet;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_engine::EngineStats;
use cairn_engine::ids::{DriveId, LogId, PartitionId};
use cairn_engine::volume::VolumeStatus;
use cairn_runtime::Runtime;

use crate::logging::{Field, Level, Logger};
use crate::node::Shard;

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(5);

/// A count, and what it means when it has grown.
type Rising = (Level, fn(&EngineStats) -> u64, &'static str);

const RISING: [Rising; 8] = [
    (
        Level::Warn,
        |stats| stats.log_repaired,
        "batches of the log were damaged or missing on one mirror and have been written again from another",
    ),
    (
        Level::Info,
        |stats| stats.log_dropped,
        "torn batches at the end of the log, which nobody had been told of, were dropped",
    ),
    (
        Level::Warn,
        |stats| stats.restored,
        "segment files were missing on one mirror and have been copied from another",
    ),
    (
        Level::Warn,
        |stats| stats.segments.repairs,
        "blocks of segments were damaged on one mirror and have been written again from another",
    ),
    (
        Level::Warn,
        |stats| stats.segments.repair_failures,
        "damaged blocks of segments could not be written again",
    ),
    (
        Level::Warn,
        |stats| stats.segments.read_errors,
        "reads of segments failed on a drive",
    ),
    (
        Level::Warn,
        |stats| stats.background_failures,
        "flushes or compactions failed and are tried again",
    ),
    (
        Level::Warn,
        |stats| stats.clock_refused,
        "the clock was too far ahead to be followed",
    ),
];

/// What was told of a drive.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Told {
    id: DriveId,
    in_sync: bool,
    /// Whether it was ever in sync, as far as is known here.
    is_known: bool,
}

/// What one shard has told so far.
pub(crate) struct Notices {
    logger: Logger,
    /// By log.
    told: Vec<(LogId, EngineStats)>,
    fenced: BTreeSet<PartitionId>,
    stopped: BTreeSet<LogId>,
    /// Told to everybody who asks whether the node is ready.
    failed: Arc<AtomicBool>,
    /// What was told of the drives, by place; nothing before the first look.
    told_drives: Option<Vec<Told>>,
    /// Slow drives that were told of.
    slow: BTreeSet<usize>,
}

impl Notices {
    pub(crate) fn new(logger: Logger, failed: Arc<AtomicBool>) -> Notices {
        Notices {
            logger,
            told: Vec::new(),
            fenced: BTreeSet::new(),
            stopped: BTreeSet::new(),
            failed,
            told_drives: None,
            slow: BTreeSet::new(),
        }
    }

    /// Tells what is new on a shard.
    pub(crate) fn look<R: Runtime>(&mut self, shard: &Shard<R>, unix_ms: u64) {
        let now = shard.engine_stats();
        for (log, stats) in &now {
            let before = self.told.iter().find(|(other, _)| other == log);
            for (level, count, message) in RISING {
                let new = count(stats) - before.map_or(0, |(_, before)| count(before));
                if new > 0 {
                    let fields: [Field<'_>; 2] = [("log", log), ("count", &new)];
                    self.logger.log(level, unix_ms, message, &fields);
                }
            }
        }
        for (log, stats) in &now {
            let before = self.told.iter().find(|(other, _)| other == log);
            let was_low = before.map_or(0, |(_, before)| before.room_low);
            if stats.room_low == was_low {
                continue;
            }
            let (level, message) = if stats.room_low > 0 {
                (
                    Level::Error,
                    "a drive is nearly full: puts are refused, reads and deletes go on; `cairn drives list` says which",
                )
            } else {
                (Level::Info, "there is room on the drives again: puts are taken")
            };
            self.logger.log(level, unix_ms, message, &[("log", log)]);
        }
        self.told = now;
        for (log, why) in shard.stopped() {
            if self.stopped.insert(log) {
                self.failed.store(true, Ordering::Relaxed);
                let fields: [Field<'_>; 2] = [("log", &log), ("why", &why)];
                let message =
                    "an engine has stopped: its partitions refuse writes until the node is started again";
                self.logger.log(Level::Error, unix_ms, message, &fields);
            }
        }
        for (partition, table, why) in shard.fenced() {
            if self.fenced.insert(partition) {
                let fields: [Field<'_>; 3] = [("partition", &partition), ("table", &table), ("why", &why)];
                let message = "a partition lost acknowledged data and serves nothing";
                self.logger.log(Level::Error, unix_ms, message, &fields);
            }
        }
    }

    /// Tells which drives have left or come back. What was so at the start is told when the node says that it is ready.
    pub(crate) fn look_at_drives(&mut self, status: &VolumeStatus, unix_ms: u64) {
        let drives = || status.drives.iter().enumerate();
        for (place, drive) in drives() {
            let was = self.slow.contains(&place);
            if drive.slow == was {
                continue;
            }
            let (level, message) = if drive.slow {
                self.slow.insert(place);
                (
                    Level::Warn,
                    "a drive answers much later than the others: reads go round it",
                )
            } else {
                self.slow.remove(&place);
                (Level::Info, "a drive answers as soon as the others again")
            };
            let path = drive.path.as_ref().map(|path| path.display().to_string());
            let fields: [Field<'_>; 1] = [("drive", &path.unwrap_or_else(|| drive.id.to_string()))];
            self.logger.log(level, unix_ms, message, &fields);
        }
        let before = self.told_drives.take();
        let mut now = Vec::with_capacity(status.drives.len());
        for drive in &status.drives {
            let was = before.as_ref().map(|before| {
                let same = before.iter().find(|told| told.id == drive.id);
                // One that is being taken in was no mirror so far.
                same.copied().unwrap_or(Told {
                    id: drive.id,
                    in_sync: false,
                    is_known: false,
                })
            });
            now.push(Told {
                id: drive.id,
                in_sync: drive.in_sync,
                is_known: drive.in_sync || was.is_none_or(|was| was.is_known),
            });
            let Some(was) = was.filter(|was| was.in_sync != drive.in_sync) else {
                continue;
            };
            let (level, message) = match (drive.in_sync, drive.retired) {
                (true, _) if was.is_known => (Level::Info, "a drive is a mirror again"),
                (true, _) => (Level::Info, "a new drive is a mirror"),
                (false, true) => (Level::Info, "a drive has been removed, as an operator asked"),
                (false, false) => (
                    Level::Error,
                    "a drive has left the mirrors: `cairn drives rebuild` makes it one again",
                ),
            };
            let path = drive.path.as_ref().map(|path| path.display().to_string());
            let path = path.unwrap_or_else(|| drive.id.to_string());
            let fields: [Field<'_>; 2] = [("drive", &path), ("why", &drive.why)];
            let fields = if drive.in_sync { &fields[..1] } else { &fields[..] };
            self.logger.log(level, unix_ms, message, fields);
        }
        self.told_drives = Some(now);
    }
}

/// Looks at a shard until it is gone; at the drives as well when `with_drives`.
pub(crate) async fn watch<R: Runtime>(
    runtime: R,
    mut notices: Notices,
    shard: Weak<Shard<R>>,
    with_drives: bool,
) {
    // Never held across an await: who closes the shard must be the last to hold it.
    let volume = |shard: &Weak<Shard<R>>| shard.upgrade().map(|shard: Rc<Shard<R>>| shard.volume());
    loop {
        if with_drives {
            let Some(volume) = volume(&shard) else { return };
            if let Ok(status) = volume.status().await {
                notices.look_at_drives(&status, runtime.unix_ms());
            }
        }
        runtime.sleep(PERIOD).await;
        let Some(shard) = shard.upgrade() else { return };
        notices.look(&shard, runtime.unix_ms());
    }
}

#[cfg(test)]
mod tests {
    use cairn_engine::ids::{Epoch, NodeId};
    use cairn_engine::volume::{DriveIndex, DriveSet, DriveStatus, InSync};

    use super::*;
    use crate::logging::Format;

    /// A node with drives in sync, `+`, out of sync, `-`, and removed, `x`.
    fn status(drives: &str) -> VolumeStatus {
        let drive = |(place, state)| DriveStatus {
            index: DriveIndex::new(place).expect("few"),
            id: DriveId(place as u128),
            path: Some(format!("/{place}").into()),
            in_sync: state == '+',
            why: if state == '+' { "" } else { "so" }.to_owned(),
            device: None,
            space: None,
            joining: false,
            leaving: false,
            slow: false,
            removed: state == 'x',
            retired: state == 'x',
        };
        VolumeStatus {
            node: NodeId(1),
            in_sync: InSync {
                epoch: Epoch(1),
                set: DriveSet::EMPTY,
            },
            drives: drives.chars().enumerate().map(drive).collect(),
            mirrors: 2,
            root_key: None,
            created: false,
            warnings: Vec::new(),
            guarantee: 2,
            logs: Vec::new(),
            operation: None,
        }
    }

    /// What is told as the drives go through these states.
    fn check(states: &[&str], expected: &[&str]) {
        let (logger, lines) = Logger::new(Level::Info, Format::Human);
        let mut notices = Notices::new(logger, Arc::default());
        for drives in states {
            notices.look_at_drives(&status(drives), 0);
        }
        let told: Vec<String> = lines.try_iter().collect();
        let told: Vec<&str> = told
            .iter()
            .filter_map(|line| line.trim_end().split_once("Z "))
            .map(|(_, line)| line)
            .collect();
        assert_eq!(told, expected, "{states:?}");
    }

    #[test]
    fn drives_come_and_go_for_a_reason() {
        let left =
            "ERROR a drive has left the mirrors: `cairn drives rebuild` makes it one again drive=/1 why=so";
        check(&["++", "++"], &[]);
        check(&["+-", "+-"], &[]);
        check(
            &["++", "+-", "+-", "++"],
            &[left, "INFO  a drive is a mirror again drive=/1"],
        );
        check(&["+-", "++"], &["INFO  a drive is a mirror again drive=/1"]);
        // A new one is no mirror before it has been filled.
        check(&["++", "++-", "+++"], &["INFO  a new drive is a mirror drive=/2"]);
        check(
            &["++", "+++", "++-", "+++"],
            &[
                "INFO  a new drive is a mirror drive=/2",
                "ERROR a drive has left the mirrors: `cairn drives rebuild` makes it one again drive=/2 why=so",
                "INFO  a drive is a mirror again drive=/2",
            ],
        );
        check(
            &["+++", "+x+"],
            &["INFO  a drive has been removed, as an operator asked drive=/1 why=so"],
        );
        check(&["++", "+-", "+x"], &[left]);
    }
}
