//! `check`: every byte of a stopped node, held against every checksum and every claim.
//!
//! 1. Every copy of superblock and witness.
//! 2. Every batch of every log, on every in-sync mirror; whether acknowledged ones are lost.
//! 3. Every segment, on every mirror by itself: header, footer, filter, index and data blocks. As every byte is
//!    under a checksum that ends in the manifest, mirrors that verify are identical.
//! 4. Every item: its archived form and its size; and every partition's counters, of items and of entries of local indexes, against
//!    what is there. An [`Inspector`] looks on, for what only those above the engine understand.
//! 5. Files that nobody refers to.
//!
//! Nothing is repaired. Exception: the node is opened as a start would open it, which writes a new in-sync epoch
//! when a drive is missing or the copies of the epoch differ.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use cairn_item::{ItemView, Space, StorageKey};
use cairn_runtime::{BLOCK_BYTES, Drive, File, Open, Runtime};

use crate::config::{EngineConfig, OPEN_FILES_MAX};
use crate::engine::partition::{Applied, HASH_PREFIX_BYTES, IndexCounts};
use crate::engine::replay::{Recovered, Replay};
use crate::group::Counter;
use crate::ids::{IndexId, LogId, SegmentId};
use crate::log::Log;
use crate::manifest::SegmentReference;
use crate::sealing::TableKeys;
use crate::tree::{
    DriveWatch, Reported, SegmentStore, StoreConfig, Tree, TreeContext, segment_file_name,
    segment_of_file_name,
};
use crate::volume::superblock::{MemberKind, Superblock};
use crate::volume::{DriveIndex, DriveSet, Keeper, Volume, VolumeConfig, VolumeError};
use crate::{Direction, PartitionDescriptor};

/// Distance between the copies in a superblock or witness file, and their number.
const SUPERBLOCK_STRIDE: u64 = 64 << 10;
const SUPERBLOCK_COPIES: usize = 4;

/// What to look at besides what must always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckOptions {
    /// Whether items are DynamoDB items in archived form, as the node stores them.
    pub items: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Logs looked at.
    pub logs: u64,
    /// Batches looked at.
    pub batches: u64,
    /// Partitions looked at.
    pub partitions: u64,
    /// Segment files verified, each mirror counted.
    pub segment_files: u64,
    /// Bytes of them.
    pub segment_bytes: u64,
    /// Items counted.
    pub items: u64,
    notes: Vec<String>,
    damage: Vec<String>,
    lost: Vec<String>,
}

impl Report {
    /// What an operator may want to know; nothing is wrong with it.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What is damaged on one mirror and whole on another.
    #[must_use]
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// What no mirror has any more, or what contradicts itself.
    #[must_use]
    pub fn lost(&self) -> &[String] {
        &self.lost
    }

    /// Whether nothing at all is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.lost.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "logs            {}", self.logs)?;
        writeln!(formatter, "log batches     {}", self.batches)?;
        writeln!(formatter, "partitions      {}", self.partitions)?;
        writeln!(
            formatter,
            "segment files   {} ({} bytes)",
            self.segment_files, self.segment_bytes
        )?;
        writeln!(formatter, "items           {}", self.items)?;
        self.notes
            .iter()
            .try_for_each(|note| writeln!(formatter, "note: {note}"))?;
        self.damage
            .iter()
            .try_for_each(|damage| writeln!(formatter, "damaged on one mirror: {damage}"))?;
        self.lost
            .iter()
            .try_for_each(|lost| writeln!(formatter, "LOST: {lost}"))?;
        match (self.lost.is_empty(), self.damage.is_empty()) {
            (true, true) => writeln!(formatter, "everything verifies"),
            (true, false) => writeln!(
                formatter,
                "nothing is lost: damaged blocks are repaired when they are read, batches of the log at the next start, \
                 drives that are missing, unreadable or out of sync by `cairn rebuild`"
            ),
            (false, _) => writeln!(formatter, "data is lost: restore it from a peer or a backup"),
        }
    }
}

/// Looks on while everything is read, and says what contradicts itself beyond what the engine understands.
pub trait Inspector {
    /// The entries of a partition follow, in the order of their keys. What cannot be read is not shown.
    fn partition(&mut self, partition: &PartitionDescriptor);

    /// An entry of that partition, in any space.
    fn entry(&mut self, key: &[u8], item: &[u8], item_bytes: u32);

    /// The end: adds what is contradictory to `lost`, and what an operator may want to know to `notes`.
    fn finish(&mut self, lost: &mut Vec<String>, notes: &mut Vec<String>);
}

/// Sees nothing in anything.
struct Nobody;

impl Inspector for Nobody {
    fn partition(&mut self, _: &PartitionDescriptor) {}

    fn entry(&mut self, _: &[u8], _: &[u8], _: u32) {}

    fn finish(&mut self, _: &mut Vec<String>, _: &mut Vec<String>) {}
}

/// Checks the node in these directories; with an empty state directory without the witness. `progress` is told what is
/// being looked at.
///
/// # Errors
/// [`VolumeError`] when there is no node, it is running, or its drives cannot be opened at all.
pub async fn check<R: Runtime>(
    runtime: R,
    config: &VolumeConfig,
    options: CheckOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<Report, VolumeError> {
    check_with(runtime, config, options, progress, &mut Nobody).await
}

/// As [`check`], with somebody looking on.
///
/// # Errors
/// As there.
pub async fn check_with<R: Runtime>(
    runtime: R,
    config: &VolumeConfig,
    options: CheckOptions,
    progress: &mut dyn FnMut(&str),
    inspector: &mut dyn Inspector,
) -> Result<Report, VolumeError> {
    let mut report = Report::default();
    progress("superblocks and witness");
    let places = config.drives.iter().map(|path| (path, MemberKind::Drive));
    let mut found = 0;
    let witness = Some(&config.state).filter(|path| !path.as_os_str().is_empty());
    for (path, kind) in places {
        found += check_superblock(&runtime, path, kind, &mut report).await;
    }
    let mut found_witness = 0;
    if let Some(path) = witness {
        found_witness = check_superblock(&runtime, path, MemberKind::Witness, &mut report).await;
        found += found_witness;
    }
    let mut config = config.clone();
    if found_witness == 0 {
        // To open it would be to make one.
        config.state = PathBuf::new();
    }
    if witness.is_none() {
        let note = "the witness was not looked at: nobody said where it is";
        report.notes.push(note.to_owned());
    }
    if found == 0 {
        let path = config.drives.first().cloned().unwrap_or_default();
        return Err(VolumeError::Unusable {
            path,
            why: "there is no node in any of the directories".to_owned(),
        });
    }
    let keeper = Keeper::open(runtime.clone(), config).await?;
    let status = keeper.handle().status().await?;
    for drive in status.drives.iter().filter(|drive| !drive.in_sync) {
        let path = drive.path.as_ref().map(|path| path.display().to_string());
        let path = path.unwrap_or_else(|| format!("drive {}", drive.id));
        report
            .damage
            .push(format!("{path} is out of sync: {}", drive.why));
    }
    let volume = keeper.handle().attach(runtime.clone()).await?;
    let in_sync = volume.in_sync();
    report
        .notes
        .push(format!("in-sync epoch {}, drives {}", in_sync.epoch, in_sync.set));
    for log in volume.logs().await? {
        report.logs += 1;
        let mut looked_at = LookedAt {
            options,
            inspector,
            report: &mut report,
        };
        check_log(&runtime, &volume, log, progress, &mut looked_at).await;
    }
    inspector.finish(&mut report.lost, &mut report.notes);
    drop(keeper);
    Ok(report)
}

/// Looks at the four copies; answers how many are valid.
async fn check_superblock<R: Runtime>(
    runtime: &R,
    path: &Path,
    kind: MemberKind,
    report: &mut Report,
) -> usize {
    let name = match kind {
        MemberKind::Drive => "superblock",
        MemberKind::Witness => "witness",
    };
    let opened = match runtime.drive(path, false).await {
        Ok(drive) => {
            drive
                .open(
                    name,
                    Open {
                        read_only: true,
                        ..Open::default()
                    },
                )
                .await
        }
        Err(error) => Err(error),
    };
    let file = match opened {
        Ok(file) => file,
        Err(error) => {
            report
                .damage
                .push(format!("{}: its {name} cannot be read: {error}", path.display()));
            return 0;
        }
    };
    let mut valid = 0;
    for copy in 0..SUPERBLOCK_COPIES {
        let read = file.read_at(SUPERBLOCK_STRIDE * copy as u64, BLOCK_BYTES).await;
        let why = match read.map(|block| Superblock::decode(kind, copy, &block)) {
            Ok(Ok(_)) => {
                valid += 1;
                continue;
            }
            Ok(Err(error)) => format!("{error:?}"),
            Err(error) => error.to_string(),
        };
        report
            .damage
            .push(format!("{}: copy {copy} of its {name}: {why}", path.display()));
    }
    valid
}

/// What every item is held against, and where it is told.
struct LookedAt<'a> {
    options: CheckOptions,
    inspector: &'a mut dyn Inspector,
    report: &'a mut Report,
}

async fn check_log<R: Runtime>(
    runtime: &R,
    volume: &Volume<R>,
    log: LogId,
    progress: &mut dyn FnMut(&str),
    looked_at: &mut LookedAt<'_>,
) {
    let report = &mut *looked_at.report;
    progress(&format!("log {log}"));
    let mut replay = Replay::default();
    let config = crate::log::LogConfig {
        recover_all_mirrors: true,
        ..EngineConfig::default().log()
    };
    let inspected = Log::inspect(runtime.clone(), volume.clone(), log, config, |event| {
        replay.meet(event)
    })
    .await;
    match inspected {
        Err(error) => return report.lost.push(error.to_string()),
        Ok(recovery) => {
            report.batches += recovery.batches;
            if recovery.repaired > 0 {
                let count = recovery.repaired;
                report.damage.push(format!(
                    "log {log}: {count} batches are damaged or missing on a mirror"
                ));
            }
            if recovery.dropped > 0 {
                let count = recovery.dropped;
                report.notes.push(format!(
                    "log {log}: {count} torn batches at the end were never acknowledged"
                ));
            }
            for lost in &recovery.lost {
                let (first, last) = (lost.first, lost.last);
                report.lost.push(format!(
                    "log {log}: acknowledged batches {first} to {last}: {:?}",
                    lost.known
                ));
            }
        }
    }
    let whole = match replay.finish() {
        Ok(whole) => whole,
        Err(why) => return report.lost.push(format!("log {log}: {why}")),
    };
    let references: BTreeMap<SegmentId, SegmentReference> = whole
        .partitions
        .iter()
        .flat_map(|recovered| recovered.state.segments.clone())
        .collect();
    note_orphans(volume, log, &references, report).await;
    let healthy = check_segments(runtime, volume, &references, progress, report).await;
    for recovered in whole.partitions {
        let id = recovered.state.descriptor.id;
        progress(&format!("items of partition {id}"));
        looked_at.report.partitions += 1;
        if let Some(why) = recovered.lost.as_ref().or(recovered.state.fenced.as_ref()) {
            looked_at.report.lost.push(format!("partition {id}: {why}"));
            continue;
        }
        if let Err(why) = check_items(runtime, volume, healthy, recovered, looked_at).await {
            looked_at.report.lost.push(format!("partition {id}: {why}"));
        }
    }
}

async fn note_orphans<R: Runtime>(
    volume: &Volume<R>,
    log: LogId,
    references: &BTreeMap<SegmentId, SegmentReference>,
    report: &mut Report,
) {
    for index in volume.in_sync().set.iter() {
        let Some(drive) = volume.drive(index) else {
            continue;
        };
        let Ok(entries) = drive.list().await else { continue };
        for entry in entries {
            if let Some(segment) = segment_of_file_name(&entry.name)
                && segment.log() == log
                && !references.contains_key(&segment)
            {
                let path = volume.path(index).join(&entry.name);
                report.notes.push(format!(
                    "{} is not referred to; the next start deletes it",
                    path.display()
                ));
            }
        }
    }
}

/// Verifies every mirror of every segment by itself. Answers the drives on which everything verified.
async fn check_segments<R: Runtime>(
    runtime: &R,
    volume: &Volume<R>,
    references: &BTreeMap<SegmentId, SegmentReference>,
    progress: &mut dyn FnMut(&str),
    report: &mut Report,
) -> DriveSet {
    let in_sync = volume.in_sync().set;
    // A store of one drive each: what is damaged there cannot be answered, or repaired, from another.
    let stores: Vec<_> = in_sync
        .iter()
        .map(|index| (index, store(runtime, volume, DriveSet::EMPTY.with(index))))
        .collect();
    let mut healthy = in_sync;
    for (done, (id, reference)) in references.iter().enumerate() {
        if done % 16 == 0 {
            progress(&format!("segments: {done} of {}", references.len()));
        }
        // Damaged places by mirror; none is the whole file.
        let mut bad: Vec<Option<BTreeSet<u64>>> = Vec::new();
        let holders = volume.holders(reference.mirrors);
        for (index, store) in stores.iter().filter(|(index, _)| holders.contains(*index)) {
            report.segment_files += 1;
            report.segment_bytes += reference.bytes;
            let path = volume.path(*index).join(segment_file_name(*id));
            match store.open(reference).await {
                Ok(segment) => {
                    let damages = segment.verify().await;
                    for damage in &damages {
                        report.damage.push(format!(
                            "{} at {}: {}",
                            path.display(),
                            damage.offset,
                            damage.why
                        ));
                    }
                    bad.push(Some(damages.iter().map(|damage| damage.offset).collect()));
                }
                Err(error) => {
                    report.damage.push(format!("{}: {error}", path.display()));
                    bad.push(None);
                }
            }
            if bad
                .last()
                .is_some_and(|bad| bad.as_ref().is_none_or(|places| !places.is_empty()))
            {
                healthy = healthy.without(*index);
            }
        }
        for place in lost_places(&bad) {
            report.lost.push(format!(
                "segment-{id}: {place} is damaged on every in-sync mirror"
            ));
        }
    }
    healthy
}

/// The places that no mirror has whole.
fn lost_places(bad: &[Option<BTreeSet<u64>>]) -> Vec<String> {
    let mut places = bad.iter().flatten();
    let Some(first) = places.next() else {
        return vec!["the whole file".to_owned()];
    };
    let common = places.fold(first.clone(), |common, places| {
        common.intersection(places).copied().collect()
    });
    common
        .iter()
        .map(|offset| format!("the place at {offset}"))
        .collect()
}

/// Some drives of a volume, and nobody to report to: what is damaged stays as it is.
struct Only(DriveSet);

impl DriveWatch for Only {
    fn live(&self) -> DriveSet {
        self.0
    }

    fn report_failed(&self, _: DriveIndex, why: String) -> Reported {
        let error = VolumeError::Unusable {
            path: PathBuf::new(),
            why,
        };
        Box::pin(std::future::ready(Err(error)))
    }
}

/// A store of some drives.
fn store<R: Runtime>(runtime: &R, volume: &Volume<R>, only: DriveSet) -> Rc<SegmentStore<R>> {
    let drives: Vec<_> = only
        .iter()
        .filter_map(|index| Some((index, volume.drive(index)?)))
        .collect();
    let config = StoreConfig {
        node: volume.node(),
        mirrors: volume.mirrors(),
        cache_bytes: 16 << 20,
        item_cache_eighths: 0,
        open_files_max: OPEN_FILES_MAX,
    };
    let keys = TableKeys::new(volume.key().cloned());
    SegmentStore::sealed(runtime.clone(), config, keys, &drives, Only(only))
}

/// Reads every item and counts.
async fn check_items<R: Runtime>(
    runtime: &R,
    volume: &Volume<R>,
    healthy: DriveSet,
    recovered: Recovered,
    looked_at: &mut LookedAt<'_>,
) -> Result<(), String> {
    let state = recovered.state;
    let readable = |reference: &SegmentReference| !volume.holders(reference.mirrors).and(healthy).is_empty();
    if !state.segments.values().all(readable) {
        looked_at.report.notes.push(format!(
            "partition {}: not counted, as no drive is whole",
            state.descriptor.id
        ));
        return Ok(());
    }
    let context = TreeContext::over(
        store(runtime, volume, healthy),
        EngineConfig::default().tree().compaction,
    );
    let tree = Tree::new(&context, &state.descriptor);
    tree.open_segments(state.segments.values())
        .await
        .map_err(|error| error.to_string())?;
    let (item_count, item_bytes) = (state.item_count, state.item_bytes);
    let mut counted = Applied {
        index: state.flushed_index,
        floor: state.floor,
        item_count,
        item_bytes,
    };
    let indexes: Vec<_> = state.indexes.values().copied().collect();
    let indexes = RefCell::new(IndexCounts::of(&indexes));
    for step in recovered.pending {
        step.count(&mut counted, &indexes)
            .ok_or("a mutation removes what was never counted")?;
        for change in step.changes() {
            tree.insert(&change.key, change.version(), step.sequence);
        }
    }
    let mut cursor = tree.scan(Bound::Unbounded, Bound::Unbounded, Direction::Forward);
    let mut found = Applied {
        item_count: 0,
        item_bytes: 0,
        ..counted
    };
    let found_indexes = RefCell::new(IndexCounts::default());
    looked_at.inspector.partition(&state.descriptor);
    while let Some((key, version)) = cursor.next().await.map_err(|error| error.to_string())? {
        let counter = counter_of(&state.descriptor, &key);
        found
            .try_count(counter, &found_indexes, None, Some(version.item_bytes))
            .ok_or("there are more items than can be counted")?;
        if looked_at.options.items && counter != Counter::Nothing {
            let view = ItemView::validate(&version.item)
                .map_err(|error| format!("the item at key {key:02x?} is no item: {error:?}"))?;
            if view.size_bytes() != version.item_bytes as usize {
                let size = view.size_bytes();
                return Err(format!(
                    "the item at key {key:02x?} has size {size}, not {}",
                    version.item_bytes
                ));
            }
        }
        looked_at.inspector.entry(&key, &version.item, version.item_bytes);
    }
    looked_at.report.items += found.item_count;
    if (found.item_count, found.item_bytes) != (counted.item_count, counted.item_bytes) {
        let (items, size) = (counted.item_count, counted.item_bytes);
        let (count, bytes) = (found.item_count, found.item_bytes);
        return Err(format!(
            "its counters say {items} items of {size} bytes, there are {count} of {bytes}"
        ));
    }
    let in_use = |counts: &RefCell<IndexCounts>| {
        let counts = counts.borrow();
        let counts = counts.all().iter().filter(|usage| usage.item_count > 0);
        counts.copied().collect::<Vec<_>>()
    };
    if in_use(&found_indexes) != in_use(&indexes) {
        return Err(format!(
            "its counters of local indexes say {:?}, there are {:?}",
            in_use(&indexes),
            in_use(&found_indexes)
        ));
    }
    Ok(())
}

/// What the entry of a key is counted as: by its space, where a partition's range begins with one and a hash.
fn counter_of(partition: &PartitionDescriptor, key: &[u8]) -> Counter {
    if partition.lower.len() != HASH_PREFIX_BYTES || key.len() < HASH_PREFIX_BYTES {
        return Counter::Items;
    }
    match Space::from_byte(key[0]) {
        Some(Space::Base) => Counter::Items,
        Some(Space::LocalIndex) => match StorageKey::local_index(key) {
            Some(index) => Counter::Index(IndexId(index)),
            None => Counter::Nothing,
        },
        _ => Counter::Nothing,
    }
}
