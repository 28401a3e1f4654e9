//! The scrub: in the background, slowly, every block of every segment is read on every mirror and verified.
//!
//! **A pass** goes through the segments by ascending id, up to the ids that there were when it began; what flush and
//! compaction make meanwhile has higher ids, and its turn in the next pass.
//! 1. A mirror that should hold the file and does not gets a copy.
//! 2. Every block is read on each mirror, at a bounded rate. What does not verify is rewritten from a mirror that has it
//!    whole, and counted; what none has whole is counted as lost. Reading it fences the partition, as ever.
//! 3. Progress goes to the manifest every [`SAVE_AFTER`] segments and at the end of the pass, so that a restart goes
//!    on where the last one stopped, and "verified since" survives it.
//!
//! A pass begins `interval` after the last one began, but not in the first `delay` of a process; or at once, and
//! faster, when an operator asks for it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::sync::timeout;
use cairn_runtime::{Moment, Runtime};

use super::{Inner, files};
use crate::config::ScrubConfig;
use crate::error::EngineError;
use crate::ids::SegmentId;
use crate::manifest::{Edit, SegmentReference, encode_edits};
use crate::tree::TreeError;
use crate::volume::{DriveIndex, LogReport, ScrubReport};

/// Segments after which progress is made durable: what is read again after a crash at most.
const SAVE_AFTER: u32 = 64;
/// How long to wait when the process is short of something.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest single wait, so that a clock that jumps is noticed.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// Least time that is slept for the sake of the rate.
pub(super) const NAP_MIN: Duration = Duration::from_millis(2);

/// Keeps reading within a rate.
pub(super) struct Pace {
    /// Before this nothing more is read.
    free_at: Cell<Moment>,
}

impl Pace {
    pub(super) fn new(now: Moment) -> Pace {
        Pace {
            free_at: Cell::new(now),
        }
    }

    /// When the next bytes may be read, after `bytes` that were read now.
    pub(super) fn spend(&self, now: Moment, bytes: u64, bytes_per_second: u64) -> Duration {
        let nanoseconds = bytes.saturating_mul(1_000_000_000) / bytes_per_second.max(1);
        // Time in which nothing was read is not made up for.
        let free_at = self.free_at.get().max(now) + Duration::from_nanos(nanoseconds);
        self.free_at.set(free_at);
        free_at.since(now)
    }
}

/// What the scrub remembers beside the manifest.
pub(super) struct Scrub {
    report: Cell<ScrubReport>,
    /// The request that the pass under way answers.
    asked: Cell<u64>,
    unsaved: Cell<u32>,
    pace: Pace,
    bytes_read: Cell<u64>,
}

impl Scrub {
    pub(super) fn new(now: Moment) -> Scrub {
        Scrub {
            report: Cell::default(),
            asked: Cell::new(0),
            unsaved: Cell::new(0),
            pace: Pace::new(now),
            bytes_read: Cell::new(0),
        }
    }

    pub(super) fn report(&self) -> ScrubReport {
        self.report.get()
    }

    /// Bytes read since the start, on all mirrors.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    fn note(&self, change: impl FnOnce(&mut ScrubReport)) {
        let mut report = self.report.get();
        change(&mut report);
        self.report.set(report);
    }
}

impl<R: Runtime> Inner<R> {
    /// Tells the keeper what there is to know of this log.
    pub(super) async fn tell_keeper(&self) {
        let report = LogReport {
            scrub: self.scrub.report(),
            places: self.remirror.report(),
            rekey: self.rekey_report(),
            drives: self.trees.store().drive_counts(),
            writes: self.log.write_latencies(),
        };
        self.volume.handle().report(self.log.id(), report).await;
    }

    /// How long until there is something to verify; zero when there is now.
    fn scrub_wait(&self, opened: Moment) -> Duration {
        let requested = self.volume.handle().scrub_requested();
        if requested > self.scrub.report().answered {
            return Duration::ZERO;
        }
        let ScrubConfig { interval, delay, .. } = self.config.scrub;
        let young = delay.saturating_sub(self.runtime.now().since(opened));
        let state = self.manifest.borrow().scrub;
        if state.is_under_way() {
            return young;
        }
        let age = self.runtime.unix_ms().saturating_sub(state.started_ms);
        interval.saturating_sub(Duration::from_millis(age)).max(young)
    }

    /// Begins a pass at the first segment.
    fn begin_pass(&self) {
        let id = |counter| SegmentId::new(self.log.id(), counter).expect("2^40 segments are not used up");
        self.scrub.asked.set(self.volume.handle().scrub_requested());
        // The report begins anew, too, when a request cuts a pass short.
        self.scrub.note(|report| report.running = false);
        let mut manifest = self.manifest.borrow_mut();
        manifest.scrub.next = id(0);
        manifest.scrub.end = id(self.next_segment.get());
        // Never the time of the last pass: that would look complete.
        let now = self.runtime.unix_ms();
        manifest.scrub.started_ms = now + u64::from(now == manifest.scrub.verified_ms);
    }

    /// The next segment of the pass.
    fn next_to_scrub(&self) -> Option<SegmentReference> {
        let manifest = self.manifest.borrow();
        let (next, end) = (manifest.scrub.next, manifest.scrub.end);
        let segments = manifest
            .partitions
            .values()
            .filter_map(|state| state.segments.range(next..end).next());
        segments
            .min_by_key(|(id, _)| **id)
            .map(|(_, reference)| reference.clone())
    }

    fn bytes_to_scrub(&self) -> u64 {
        let manifest = self.manifest.borrow();
        let range = manifest.scrub.next..manifest.scrub.end;
        let segments = manifest
            .partitions
            .values()
            .flat_map(|state| state.segments.range(range.clone()));
        segments.map(|(_, reference)| reference.bytes).sum()
    }

    /// Makes progress durable sooner or later; to be lost it costs nothing but reading again.
    fn save_scrub(&self) {
        let mut payload = Vec::new();
        encode_edits(&[Edit::Scrub(self.manifest.borrow().scrub)], &mut payload);
        if self.append_dispensable_edits(&payload).is_ok() {
            self.scrub.unsaved.set(0);
        }
    }

    /// The engine is being closed: the next start goes on here.
    pub(super) fn end_scrub(&self) {
        if self.scrub.unsaved.get() > 0 {
            self.save_scrub();
        }
    }

    /// Verifies one segment, or ends the pass.
    async fn scrub_once(&self) -> Result<(), EngineError> {
        let scrub = &self.scrub;
        let under_way = self.manifest.borrow().scrub.is_under_way();
        let requested = self.volume.handle().scrub_requested();
        if !under_way || requested > scrub.asked.get() {
            self.begin_pass();
        }
        if !scrub.report().running {
            let bytes_total = self.bytes_to_scrub();
            scrub.note(|report| {
                report.running = true;
                report.bytes_done = 0;
                report.bytes_total = bytes_total;
            });
        }
        let Some(reference) = self.next_to_scrub() else {
            let verified_ms = {
                let scrub = &mut self.manifest.borrow_mut().scrub;
                scrub.next = scrub.end;
                scrub.verified_ms = scrub.started_ms;
                scrub.verified_ms
            };
            scrub.note(|report| {
                report.running = false;
                report.verified_ms = verified_ms;
                report.answered = scrub.asked.get();
            });
            self.save_scrub();
            self.counts.add(&self.counts.scrubs);
            return Ok(());
        };
        self.scrub_segment(&reference).await?;
        self.manifest.borrow_mut().scrub.next = SegmentId(reference.id.0 + 1);
        scrub.note(|report| report.bytes_done += reference.bytes);
        scrub.unsaved.set(scrub.unsaved.get() + 1);
        if scrub.unsaved.get() >= SAVE_AFTER {
            self.save_scrub();
        }
        Ok(())
    }

    async fn scrub_segment(&self, reference: &SegmentReference) -> Result<(), EngineError> {
        let scrub = &self.scrub;
        let lost = |count: u64| {
            scrub.note(|report| {
                report.damaged += count;
                report.lost += count;
            });
        };
        let segment = match self.trees.store().open(reference).await {
            Ok(segment) => segment,
            Err(TreeError::Exhausted { why }) => return Err(EngineError::Exhausted(why)),
            Err(TreeError::Volume(error)) => return Err(EngineError::Stopped(error.to_string().into())),
            // It may have been removed while it was opened.
            Err(_) if !self.is_in_manifest(reference.id) => return Ok(()),
            Err(_) => {
                lost(1);
                return Ok(());
            }
        };
        let mut sources: Vec<DriveIndex> = Vec::new();
        let mut lacking: Vec<DriveIndex> = Vec::new();
        for index in self.volume.holders(reference.mirrors).iter() {
            if self.trees.store().is_there(reference.id, index).await {
                sources.push(index);
            } else {
                lacking.push(index);
            }
        }
        for to in lacking {
            scrub.note(|report| report.damaged += 1);
            let copied = files::copy_from_any(
                &self.volume,
                &sources,
                to,
                reference.id,
                reference.bytes,
                &async |_| (),
            )
            .await;
            match copied {
                Ok(true) => {
                    segment.hold_on(segment.mirrors().with(to));
                    self.counts.add(&self.counts.restored);
                }
                Ok(false) => {}
                // A full drive is a healthy one; there may be room in the next pass.
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {}
                Err(error) => files::report(&self.volume, to, "copying a segment to it", &error).await?,
            }
        }
        let asked = scrub.asked.get() > scrub.report().answered;
        let config = self.config.scrub;
        let bytes_per_second = if asked {
            config.bytes_per_second_asked
        } else {
            config.bytes_per_second
        };
        let pace = async |bytes: u64| {
            scrub.bytes_read.set(scrub.bytes_read.get() + bytes);
            let nap = scrub.pace.spend(self.runtime.now(), bytes, bytes_per_second);
            if nap >= NAP_MIN && !self.is_stopped() {
                self.runtime.sleep(nap).await;
            }
        };
        let damages = segment.scrub_paced(&pace).await;
        let places_lost: std::collections::BTreeSet<u64> = damages
            .iter()
            .filter(|damage| damage.lost)
            .map(|damage| damage.offset)
            .collect();
        scrub.note(|report| {
            report.damaged += damages.len() as u64;
            report.lost += places_lost.len() as u64;
        });
        Ok(())
    }

    pub(super) fn is_in_manifest(&self, segment: SegmentId) -> bool {
        let manifest = self.manifest.borrow();
        let mut states = manifest.partitions.values();
        states.any(|state| state.segments.contains_key(&segment))
    }
}

/// Scrubs until the engine stops.
pub(super) async fn scrub<R: Runtime>(inner: Rc<Inner<R>>) {
    let opened = inner.runtime.now();
    inner
        .scrub
        .note(|report| report.verified_ms = inner.manifest.borrow().scrub.verified_ms);
    inner.tell_keeper().await;
    while !inner.is_stopped() {
        let woken = inner.attention.notified();
        let wait = inner.scrub_wait(opened);
        if wait.is_zero() {
            if inner.scrub_once().await.is_err() {
                inner.runtime.sleep(RETRY_AFTER).await;
            }
            inner.tell_keeper().await;
        } else {
            // Either way it looks.
            let _ = timeout(&inner.runtime, wait.min(WAIT_MAX), woken).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_and_idle_time_is_not_made_up_for() {
        let at = |ms: u64| Moment {
            nanoseconds: ms * 1_000_000,
        };
        let pace = Pace {
            free_at: Cell::new(at(0)),
        };
        assert_eq!(pace.spend(at(0), 500, 1_000), Duration::from_millis(500));
        assert_eq!(pace.spend(at(100), 500, 1_000), Duration::from_millis(900));
        assert_eq!(pace.spend(at(60_000), 1_000, 1_000), Duration::from_secs(1));
    }
}
