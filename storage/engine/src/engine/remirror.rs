//! Every file on as many drives as there are mirrors, and none on a drive that is to go: while the engine serves.
//!
//! The task looks whenever something about the drives has changed ([`crate::volume::Changes`]), and for as long as something
//! is left to do:
//! 1. **Segments.** One that has too few holders is copied to another drive; the copy is read in full, against every
//!    checksum, from that drive alone, and is durable, before an edit of the manifest names the drive. A drive that is being
//!    emptied, or whose place is to be given to another, is struck from the mirror sets by such an edit; only then is the
//!    file there deleted.
//! 2. **The log.** It goes on to a file on the right drives at once. Files written before are not copied: what is in
//!    them is flushed, restated and released, as when the log is long.
//! 3. **Invitations.** When nothing of this engine names a place any more, and no write to it is in flight, what is known of
//!    its old drive is forgotten and the new one opened.
//! 4. **The report** says which drives are named and whether all is whole, under which epoch it was so. Segments that a flush or
//!    compaction has begun and not named yet count as if they were named.
//!
//! An edit of mirror sets and a compaction of the same tree exclude each other: a segment that moves to another level
//! takes the set along that it had when the compaction began. For the same reason an edit waits for what is in the
//! manifest and not in the tree yet. Copies keep the pace of compactions ([`crate::tree::Pace`]).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::sync::timeout;
use cairn_runtime::{Drive, Runtime};

use super::space::reserve_of;
use super::{Inner, files};
use crate::error::EngineError;
use crate::ids::{PartitionId, SegmentId};
use crate::log::LogError;
use crate::manifest::{Edit, SegmentReference, encode_edits};
use crate::phase::{self, Phase};
use crate::sealing::TableKeys;
use crate::tree::{DriveWatch, Reported, SegmentStore, StoreConfig, TreeError};
use crate::volume::{DriveIndex, DriveSet, Placement, PlacesReport, VolumeError};

/// First and longest pause between two looks while something is left to do.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How old what the keeper knows of the drives' speeds may be.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long to wait for the end of a compaction, or for the next batch.
const EDIT_WAIT: Duration = Duration::from_millis(1);
/// Segments whose mirror sets one edit changes at most.
const EDIT_SEGMENTS_MAX: usize = 64;
/// Blocks cached while a copy is verified: index leaves.
const VERIFY_CACHE_BYTES: u64 = 1 << 20;
const VERIFY_FILES_MAX: usize = 2;

/// What the task remembers.
#[derive(Default)]
pub(super) struct Remirror {
    report: RefCell<PlacesReport>,
    opened: RefCell<Vec<(DriveIndex, u64)>>,
    /// Partitions whose mirror sets are about to be changed: no compaction of them begins.
    editing: RefCell<BTreeSet<PartitionId>>,
    /// Segments that no in-sync drive has whole, and why; not tried again before something about the drives changes.
    lost: RefCell<BTreeMap<SegmentId, String>>,
    /// Segments that found no room in this round: the others first.
    skipped: RefCell<BTreeSet<SegmentId>>,
    /// Older files of the log are to be released.
    purging: Cell<bool>,
    refused: RefCell<Option<String>>,
}

impl Remirror {
    /// The last report.
    pub(super) fn report(&self) -> PlacesReport {
        self.report.borrow().clone()
    }

    /// Whether the log is to be made short, however few its files are.
    pub(super) fn purges(&self) -> bool {
        self.purging.get()
    }

    /// Whether a compaction of the partition has to wait.
    pub(super) fn is_editing(&self, partition: PartitionId) -> bool {
        self.editing.borrow().contains(&partition)
    }
}

/// A change of the mirror set of a segment.
#[derive(Clone, Copy)]
struct Rename {
    segment: SegmentId,
    add: DriveSet,
    strike: DriveSet,
}

/// What is to be done next.
#[derive(Default)]
struct Survey {
    named: DriveSet,
    /// In-sync drives that every segment is on at least, up to the number of mirrors.
    holders: usize,
    bytes_left: u64,
    /// A segment that needs copies, and the drives they go to.
    copy: Option<(PartitionId, SegmentReference, DriveSet)>,
    /// Mirror sets of one partition to be changed without copying.
    renames: Option<(PartitionId, Vec<Rename>)>,
    lost: Option<String>,
}

/// The `count` drives with most room among those that can take a copy.
fn roomiest(rooms: &[(DriveIndex, u64)], drives: DriveSet, bytes: u64, count: usize) -> DriveSet {
    let takes = |(index, room): &&(DriveIndex, u64)| drives.contains(*index) && *room >= bytes;
    let mut ranked: Vec<&(DriveIndex, u64)> = rooms.iter().filter(takes).collect();
    ranked.sort_by_key(|(index, room)| (std::cmp::Reverse(*room), *index));
    ranked.into_iter().take(count).map(|(index, _)| *index).collect()
}

/// One drive alone.
struct Alone(DriveIndex);

impl DriveWatch for Alone {
    fn live(&self) -> DriveSet {
        DriveSet::EMPTY.with(self.0)
    }

    fn report_failed(&self, _: DriveIndex, why: String) -> Reported {
        let path = std::path::PathBuf::new();
        Box::pin(std::future::ready(Err(VolumeError::Unusable { path, why })))
    }
}

impl<R: Runtime> Inner<R> {
    /// Goes through all mirror sets.
    fn survey_mirrors(&self, placement: &Placement, invited: DriveSet) -> Survey {
        let in_sync = placement.in_sync.set;
        let eligible = placement.eligible();
        // While something is joining, emptying another drive would take copies that are promised.
        let leaving = match placement.joining.is_empty() {
            true => placement.leaving.minus(eligible),
            false => DriveSet::EMPTY,
        };
        let wanted = placement.mirrors.min(eligible.count());
        let mut survey = Survey {
            holders: placement.mirrors,
            ..Survey::default()
        };
        for mirrors in self.trees.store().begun() {
            survey.named = survey.named.or(mirrors);
            survey.holders = survey.holders.min(mirrors.and(in_sync).count());
        }
        // What puts leave free is not for copies either: flushes and the log come first.
        let room = |index: DriveIndex| {
            let space = self.volume.drive(index)?.space().ok()?;
            let reserve = reserve_of(space.total_bytes, self.config.reserve_bytes);
            Some((index, space.free_bytes.checked_sub(reserve)?))
        };
        let rooms: Vec<(DriveIndex, u64)> = eligible.iter().filter_map(room).collect();
        let lost = self.remirror.lost.borrow();
        let skipped = self.remirror.skipped.borrow();
        let manifest = self.manifest.borrow();
        for (partition, state) in &manifest.partitions {
            let mut renames = Vec::new();
            for (id, reference) in &state.segments {
                let live = reference.mirrors.and(in_sync);
                survey.named = survey.named.or(reference.mirrors);
                survey.holders = survey.holders.min(live.count());
                if live.is_empty() {
                    survey.lost = Some(format!("segment-{id} is on no in-sync drive"));
                    continue;
                }
                if let Some(why) = lost.get(id) {
                    survey.lost = Some(why.clone());
                }
                let staying = live.minus(leaving);
                let lacking = wanted.saturating_sub(staying.count());
                survey.bytes_left += reference.bytes * lacking as u64;
                let copyable = !lost.contains_key(id) && !skipped.contains(id);
                if lacking > 0 && survey.copy.is_none() && copyable {
                    let to = roomiest(&rooms, eligible.minus(live), reference.bytes, lacking);
                    if !to.is_empty() {
                        survey.copy = Some((*partition, reference.clone(), to));
                    }
                }
                // A place that is to be given away is struck also where too few drives are left.
                let strike = match lacking {
                    0 => reference.mirrors.and(invited.or(leaving)),
                    _ => reference.mirrors.and(invited),
                };
                if !strike.is_empty() && renames.len() < EDIT_SEGMENTS_MAX {
                    renames.push(Rename {
                        segment: *id,
                        add: DriveSet::EMPTY,
                        strike,
                    });
                }
            }
            if survey.renames.is_none() && !renames.is_empty() {
                survey.renames = Some((*partition, renames));
            }
        }
        survey
    }

    /// Acknowledged data that is lost, as far as is known.
    fn known_loss(&self) -> Option<String> {
        if let Some(lost) = self.recovery.lost.first() {
            let (first, last, log) = (lost.first, lost.last, self.log.id());
            return Some(format!(
                "acknowledged batches {first} to {last} of log {log} cannot be read anywhere"
            ));
        }
        let partitions = self.partitions.borrow();
        partitions.values().find_map(|partition| {
            let error = partition.check_serves().err()?;
            matches!(error, EngineError::Fenced { .. }).then(|| error.to_string())
        })
    }

    /// Does the next thing there is to do. Whether anything was done, and whether something is left.
    async fn remirror_once(&self) -> Result<(bool, bool), EngineError> {
        let (placement, invited) = self.volume.placement();
        let in_sync = placement.in_sync.set;
        let survey = self.survey_mirrors(&placement, invited);
        let mut done = false;
        if let Some((partition, renames)) = &survey.renames {
            self.rename_mirrors(*partition, renames).await?;
            done = true;
        } else if let Some((partition, reference, to)) = &survey.copy {
            self.copy_segment(*partition, reference, *to).await?;
            done = true;
        }
        let gone = invited.or(placement.leaving);
        let log = self.log.places(&placement);
        if !log.proper {
            self.log.renew(&placement);
        }
        let wanted = placement.mirrors.min(in_sync.count());
        let purge = !log.named.and(gone).is_empty() || log.holders < wanted;
        self.remirror.purging.set(purge);
        if purge {
            self.work.notify_one();
            self.log.shrink();
        }
        let left_open = self.answer_invitations(&survey, log.named, invited).await;
        let left = self.note_places(done).await;
        Ok((done, left_open || left))
    }

    /// Opens the places that nothing names any more; whether one is left.
    async fn answer_invitations(&self, survey: &Survey, log_named: DriveSet, invited: DriveSet) -> bool {
        let named = survey.named.or(log_named);
        let current = self.volume.invitations();
        self.remirror
            .opened
            .borrow_mut()
            .retain(|opened| current.contains(opened));
        let known = self.remirror.opened.borrow().clone();
        *self.remirror.refused.borrow_mut() = None;
        let mut left = false;
        for (index, number) in current {
            if !invited.contains(index) || known.contains(&(index, number)) {
                continue;
            }
            let busy = self.volume.is_writing(index) || self.trees.store().is_writing(index);
            if named.contains(index) || busy {
                left = true;
                continue;
            }
            self.log.forget(index);
            match self.volume.open_invited(&self.runtime, index).await {
                Ok(Some((answered, drive))) => {
                    self.trees.store().replace_drive(index, drive);
                    self.remirror.opened.borrow_mut().push((index, answered));
                }
                Ok(None) => left = true,
                Err(error) => {
                    left = true;
                    let path = self.volume.path(index);
                    *self.remirror.refused.borrow_mut() = Some(format!("{}: {error}", path.display()));
                }
            }
        }
        left
    }

    /// Looks where everything is, in one step, and tells the keeper when that has changed, or `always`. Whether not all is
    /// where it belongs.
    async fn note_places(&self, always: bool) -> bool {
        let (report, left) = {
            let (placement, invited) = self.volume.placement();
            let survey = self.survey_mirrors(&placement, invited);
            let log = self.log.places(&placement);
            let report = PlacesReport {
                epoch: placement.in_sync.epoch,
                avoided: placement.in_sync.set.minus(placement.eligible()),
                named: survey.named.or(log.named),
                holders: survey.holders.min(log.holders),
                opened: self.remirror.opened.borrow().clone(),
                bytes_left: survey.bytes_left,
                lost: self.known_loss().or(survey.lost),
                refused: self.remirror.refused.borrow().clone(),
                slow: self.note_slow(),
            };
            let wanted = placement.mirrors.min(placement.in_sync.set.count());
            let gone = invited.or(placement.leaving);
            let left = report.holders < wanted || report.bytes_left > 0 || !report.named.and(gone).is_empty();
            (report, left)
        };
        let changed = *self.remirror.report.borrow() != report;
        *self.remirror.report.borrow_mut() = report;
        if changed || always {
            self.tell_keeper().await;
        }
        left
    }

    /// Drives whose reads or log writes take much longer than others'. New files of either kind go round both.
    fn note_slow(&self) -> DriveSet {
        let slow = self.trees.store().slow_drives().or(self.log.slow_drives());
        self.trees.store().avoid(slow);
        self.log.avoid(slow);
        slow
    }

    /// Tells the keeper how fast the drives are, and what else has been counted.
    async fn tell_speeds(&self) {
        let slow = self.note_slow();
        self.remirror.report.borrow_mut().slow = slow;
        self.tell_keeper().await;
    }

    /// Gives some segments of a partition other mirror sets. Files on drives that were struck are deleted.
    async fn rename_mirrors(&self, id: PartitionId, renames: &[Rename]) -> Result<(), EngineError> {
        self.remirror.editing.borrow_mut().insert(id);
        let result = self.rename_when_calm(id, renames).await;
        self.remirror.editing.borrow_mut().remove(&id);
        self.compactable.notify_one();
        let Some(changed) = result? else {
            return Ok(());
        };
        for (segment, struck) in changed {
            for index in struck.iter() {
                if !self.is_named_on(segment, index) {
                    self.trees.store().remove_copy(segment, index).await;
                }
            }
        }
        Ok(())
    }

    fn is_named_on(&self, segment: SegmentId, index: DriveIndex) -> bool {
        let manifest = self.manifest.borrow();
        let mut references = manifest
            .partitions
            .values()
            .filter_map(|state| state.segments.get(&segment));
        references.any(|reference| reference.mirrors.contains(index))
    }

    /// The edit, while no compaction of the tree is under way; the segments changed, durably, and what was struck.
    async fn rename_when_calm(
        &self,
        id: PartitionId,
        renames: &[Rename],
    ) -> Result<Option<Vec<(SegmentId, DriveSet)>>, EngineError> {
        loop {
            self.check_runs()?;
            let Some(partition) = self.partitions.borrow().get(&id).cloned() else {
                return Ok(None);
            };
            let installed = {
                let manifest = self.manifest.borrow();
                let state = manifest.partitions.get(&id);
                let named = |rename: &&Rename| {
                    state.is_some_and(|state| state.segments.contains_key(&rename.segment))
                };
                let mut named = renames.iter().filter(named);
                named.all(|rename| partition.tree.has_segment(rename.segment))
            };
            if !installed || partition.tree.is_compacting() {
                self.runtime.sleep(EDIT_WAIT).await;
                continue;
            }
            // From here to the view's change there is no await.
            let (placement, _) = self.volume.placement();
            let settled = placement.in_sync.set.minus(placement.joining);
            let guarantee = placement.guarantee;
            let mut edits = Vec::new();
            let mut changed = Vec::new();
            {
                let manifest = self.manifest.borrow();
                let Some(state) = manifest.partitions.get(&id) else {
                    return Ok(None);
                };
                for rename in renames {
                    let Some(reference) = state.segments.get(&rename.segment) else {
                        continue;
                    };
                    let mirrors = reference.mirrors.minus(rename.strike).or(rename.add);
                    let held = |mirrors: DriveSet| mirrors.and(settled).count();
                    let breaks_promise = held(mirrors) < held(reference.mirrors) && held(mirrors) < guarantee;
                    if mirrors == reference.mirrors || mirrors.is_empty() || breaks_promise {
                        continue;
                    }
                    edits.push(Edit::RemoveSegment {
                        partition: id,
                        segment: rename.segment,
                    });
                    edits.push(Edit::AddSegment {
                        partition: id,
                        segment: SegmentReference {
                            mirrors,
                            ..reference.clone()
                        },
                    });
                    let struck = reference.mirrors.minus(mirrors);
                    changed.push((rename.segment, mirrors, struck));
                }
            }
            if changed.is_empty() {
                return Ok(None);
            }
            let mut payload = Vec::new();
            encode_edits(&edits, &mut payload);
            match self.append_edits(&payload) {
                Ok(sequence) => {
                    {
                        let mut manifest = self.manifest.borrow_mut();
                        for edit in &edits {
                            manifest
                                .apply(edit)
                                .expect("the engine makes only edits that hold");
                        }
                    }
                    let sets: Vec<_> = changed.iter().map(|(id, mirrors, _)| (*id, *mirrors)).collect();
                    partition.tree.set_mirrors(&sets);
                    self.durable(sequence).await?;
                    return Ok(Some(
                        changed.into_iter().map(|(id, _, struck)| (id, struck)).collect(),
                    ));
                }
                Err(LogError::Full) => self.runtime.sleep(EDIT_WAIT).await,
                Err(error) => return Err(self.log_refused(&error)),
            }
        }
    }

    /// Copies a segment to the drives `to` and has the manifest name them, or skips it in this round.
    async fn copy_segment(
        &self,
        partition: PartitionId,
        reference: &SegmentReference,
        to: DriveSet,
    ) -> Result<(), EngineError> {
        let _phase = phase::enter(Phase::Rebuild);
        let id = reference.id;
        let segment = match self.trees.store().open(reference).await {
            Ok(segment) => segment,
            Err(TreeError::Exhausted { why }) => return Err(EngineError::Exhausted(why)),
            Err(TreeError::Volume(error)) => return Err(EngineError::Stopped(error.to_string().into())),
            Err(_) if !self.is_in_manifest(id) => return Ok(()),
            Err(error) => {
                self.remirror.lost.borrow_mut().insert(id, error.to_string());
                return Ok(());
            }
        };
        let sources: Vec<DriveIndex> = segment.mirrors().iter().collect();
        let pace = async |bytes: u64| {
            let nap = self.trees.pace().spend(self.runtime.now(), bytes, false);
            if let Some(nap) = nap.filter(|_| !self.is_stopped()) {
                self.runtime.sleep(nap).await;
            }
        };
        let mut added = DriveSet::EMPTY;
        for to in to.iter() {
            let copied = files::copy_from_any(&self.volume, &sources, to, id, reference.bytes, &pace).await;
            match copied {
                Ok(true) => {}
                Ok(false) => continue,
                // A full drive is a healthy one.
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => continue,
                Err(error) => {
                    files::report(&self.volume, to, "copying a segment to it", &error).await?;
                    continue;
                }
            }
            match self.verify_copy(reference, to, &pace).await {
                None => added = added.with(to),
                Some(why) => {
                    // A source's bad block that another mirror has whole is repaired, and the copy made again.
                    self.trees.store().remove_copy(id, to).await;
                    let damages = segment.scrub().await;
                    if damages.iter().any(|damage| damage.lost) {
                        let why = format!("segment-{id}: {why}");
                        self.remirror.lost.borrow_mut().insert(id, why);
                    }
                }
            }
        }
        if added.is_empty() {
            self.remirror.skipped.borrow_mut().insert(id);
            return Ok(());
        }
        let rename = Rename {
            segment: id,
            add: added,
            strike: DriveSet::EMPTY,
        };
        self.rename_mirrors(partition, &[rename]).await?;
        for index in added.iter() {
            // It was compacted or dropped meanwhile.
            if !self.is_named_on(id, index) {
                self.trees.store().remove_copy(id, index).await;
            }
        }
        self.counts.add(&self.counts.remirrored);
        Ok(())
    }

    /// What is wrong with a copy of a segment, if anything is.
    async fn verify_copy(
        &self,
        reference: &SegmentReference,
        on: DriveIndex,
        pace: &impl AsyncFn(u64),
    ) -> Option<String> {
        let Some(drive) = self.volume.drive(on) else {
            return Some("the drive is gone".to_owned());
        };
        // A store of the one drive: nothing can be answered from another, nor from a cache.
        let config = StoreConfig {
            node: self.volume.node(),
            mirrors: 1,
            cache_bytes: VERIFY_CACHE_BYTES,
            item_cache_eighths: 0,
            open_files_max: VERIFY_FILES_MAX,
        };
        let keys = TableKeys::new(self.volume.key().cloned());
        let store = SegmentStore::sealed(self.runtime.clone(), config, keys, &[(on, drive)], Alone(on));
        let alone = SegmentReference {
            mirrors: DriveSet::EMPTY.with(on),
            ..reference.clone()
        };
        match store.open(&alone).await {
            Err(error) => Some(error.to_string()),
            Ok(segment) => {
                let damages = segment.verify_paced(pace).await;
                let first = damages.first();
                first.map(|damage| format!("byte {}: {}", damage.offset, damage.why))
            }
        }
    }
}

/// Keeps every file where it belongs until the engine stops.
pub(super) async fn remirror<R: Runtime>(inner: Rc<Inner<R>>) {
    let mut pause = PAUSE_MIN;
    while !inner.is_stopped() {
        let attention = inner.attention.notified();
        let looked = inner.remirror_once().await;
        match looked {
            Ok((true, _)) => {
                pause = PAUSE_MIN;
                inner.runtime.yield_now().await;
            }
            Ok((false, false)) => {
                pause = PAUSE_MIN;
                let mut attention = pin!(attention);
                while timeout(&inner.runtime, TELL_EVERY, attention.as_mut())
                    .await
                    .is_err()
                {
                    inner.tell_speeds().await;
                }
            }
            Ok((false, true)) | Err(_) => {
                inner.remirror.skipped.borrow_mut().clear();
                if looked.is_err() {
                    inner.counts.add(&inner.counts.background_failures);
                }
                pause = match timeout(&inner.runtime, pause, attention).await {
                    Ok(()) => {
                        inner.remirror.lost.borrow_mut().clear();
                        PAUSE_MIN
                    }
                    Err(_) => (pause * 2).min(PAUSE_MAX),
                };
            }
        }
    }
}
