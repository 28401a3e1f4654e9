//! Writes a segment: once, from front to back, to all mirrors at the same time.
//!
//! 1. Blocks fill a chunk; a full chunk is written to every mirror by tasks of their own while the next one
//!    fills. At most one chunk is in flight.
//! 2. After the data come filter, index leaves, index top and footer.
//! 3. Every file is synced, then every directory. Only then may the manifest refer to the segment.
//!
//! An error of any mirror ends the work: the caller takes the drive out of the in-sync set and begins again.
//!
//! How blocks are filled when a codec packs them: [`super::packing`].

use std::rc::Rc;

use cairn_runtime::sync::OneshotReceiver;
use cairn_runtime::{AlignedBuffer, Drive, File, Open, Runtime};

use super::entry::{self, Place};
use super::layout::{Guard, SegmentFooter, SegmentHeader, fields_checksum};
use super::packing::Packing;
use super::{UNIT_BYTES, segment_file_name};
use crate::canary::{self, Canary};
use crate::ids::{CommitTimestamp, IndexId, PartitionId, SegmentId, TableId};
use crate::manifest::SegmentReference;
use crate::sealing::SALT_BYTES;
use crate::tree::block::{BlockBuilder, BlockKind, close};
use crate::tree::codec::Codec;
use crate::tree::filter::FilterBuilder;
use crate::tree::store::{DriveSlot, SegmentStore, TreeError};
use crate::tree::version::Version;

/// Length of a write. 2.1 GB/s were measured with 256 KiB at queue depth 8; one larger write per mirror comes close.
const CHUNK_BYTES: usize = 512 << 10;

const _: () = assert!(CHUNK_BYTES.is_multiple_of(UNIT_BYTES));

/// What a segment is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFacts {
    /// The table.
    pub table: TableId,
    /// The partition.
    pub partition: PartitionId,
    /// The index.
    pub index: IndexId,
    /// Level of the reference that [`SegmentWriter::finish`] returns.
    pub level: u8,
    /// What its data blocks are packed with, where that saves device space.
    pub codec: Codec,
}

struct MirrorFile<R: Runtime> {
    slot: Rc<DriveSlot<R::Drive>>,
    file: <R::Drive as Drive>::File,
}

/// A segment being written.
pub struct SegmentWriter<R: Runtime> {
    store: Rc<SegmentStore<R>>,
    id: SegmentId,
    name: String,
    level: u8,
    guard: Guard,
    header_checksum: u64,
    mirrors: Vec<MirrorFile<R>>,
    chunk: AlignedBuffer,
    chunk_filled: usize,
    /// Units given to writes so far.
    units_submitted: u32,
    /// The chunk whose writes have ended, to be filled again.
    spare: Option<Rc<AlignedBuffer>>,
    in_flight: Vec<(usize, OneshotReceiver<std::io::Result<()>>)>,
    data: BlockBuilder,
    packing: Packing,
    leaf: BlockBuilder,
    leaves: Vec<(Vec<u8>, Vec<u8>)>,
    filter: FilterBuilder,
    last_key: Vec<u8>,
    last_commit: CommitTimestamp,
    facts: Counted,
}

#[derive(Default)]
struct Counted {
    entries: u64,
    keys: u64,
    tombstones: u64,
    item_bytes: u64,
    blocks: u64,
    commit_min: Option<CommitTimestamp>,
    commit_max: CommitTimestamp,
    first_key: Vec<u8>,
}

impl<R: Runtime> SegmentWriter<R> {
    /// Creates the files of a new segment on the drives that the store chooses.
    ///
    /// # Errors
    /// [`TreeError::Write`] naming the drive.
    pub async fn create(
        store: &Rc<SegmentStore<R>>,
        id: SegmentId,
        facts: SegmentFacts,
    ) -> Result<SegmentWriter<R>, TreeError> {
        let name = segment_file_name(id);
        let slots = store.drives_for(id);
        if slots.is_empty() {
            store.remove_files(id).await;
            return Err(TreeError::NoMirror { segment: id });
        }
        let mut mirrors = Vec::new();
        for slot in slots {
            let how = Open {
                create_new: true,
                ..Open::default()
            };
            match slot.drive.open(&name, how).await {
                Ok(file) => mirrors.push(MirrorFile { slot, file }),
                Err(error) => {
                    store.remove_files(id).await;
                    return Err(TreeError::write(slot.index, &name, &error));
                }
            }
        }
        let mut header = SegmentHeader {
            id,
            node: store.node(),
            table: facts.table,
            partition: facts.partition,
            index: facts.index,
            mirrors: mirrors.iter().map(|mirror| mirror.slot.index).collect(),
            salt: [0; SALT_BYTES],
            codec: facts.codec,
            key_id: 0,
            key: None,
        };
        store.runtime.random_secret(&mut header.salt);
        let key = store.keys.newest(&store.runtime, facts.table);
        if let Some(key) = &key {
            header.key_id = key.id;
            header.key = Some(key.wrapped.clone());
        }
        let bytes = header.encode();
        let guard = header.guarded_by(key);
        let mut writer = SegmentWriter {
            store: Rc::clone(store),
            id,
            name,
            level: facts.level,
            header_checksum: fields_checksum(&bytes),
            mirrors,
            chunk: AlignedBuffer::zeroed(CHUNK_BYTES),
            chunk_filled: 0,
            units_submitted: 0,
            spare: None,
            in_flight: Vec::new(),
            data: BlockBuilder::default(),
            packing: Packing::new(facts.codec, guard.tag_bytes()),
            guard,
            leaf: BlockBuilder::default(),
            leaves: Vec::new(),
            filter: FilterBuilder::default(),
            last_key: Vec::new(),
            last_commit: CommitTimestamp(0),
            facts: Counted::default(),
        };
        if let Err(error) = writer.emit(&bytes).await {
            writer.abandon().await;
            return Err(error);
        }
        Ok(writer)
    }

    /// Appends a version: a greater key than the last, or an older version of the same.
    ///
    /// # Errors
    /// [`TreeError::Write`]: abandon the segment.
    ///
    /// # Panics
    /// When versions come out of order.
    pub async fn push(&mut self, key: &[u8], version: &Version) -> Result<(), TreeError> {
        let same = self.last_key == key && self.facts.entries > 0;
        let ordered = if same {
            version.commit < self.last_commit
        } else {
            self.last_key.as_slice() < key
        };
        assert!(ordered, "versions are written in order");
        let payload_bytes = entry::version_bytes(version);
        while !self.packing.takes(&self.data, key, payload_bytes) {
            self.close_block(Some(key)).await?;
        }
        self.data.push(key, |into| entry::put_version(version, into));
        if !same {
            self.filter.push(key);
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
            self.facts.keys += 1;
        }
        self.last_commit = version.commit;
        let facts = &mut self.facts;
        if facts.entries == 0 {
            facts.first_key = key.to_vec();
        }
        facts.entries += 1;
        facts.tombstones += u64::from(version.is_tombstone());
        facts.item_bytes += u64::from(version.item_bytes);
        facts.commit_min = Some(
            facts
                .commit_min
                .map_or(version.commit, |least| least.min(version.commit)),
        );
        facts.commit_max = facts.commit_max.max(version.commit);
        Ok(())
    }

    /// Bytes written so far, without the index.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.unit()) * UNIT_BYTES as u64 + self.data.used() as u64
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.facts.entries == 0
    }

    /// Writes the rest and makes the files durable.
    ///
    /// # Errors
    /// [`TreeError::Write`]: abandon the segment.
    ///
    /// # Panics
    /// When nothing was pushed.
    pub async fn finish(&mut self) -> Result<SegmentReference, TreeError> {
        while !self.data.is_empty() {
            self.close_block(None).await?;
        }
        let data_end = self.unit();
        let filter = std::mem::take(&mut self.filter);
        let mut filter = filter.build();
        while filter.step() {
            self.store.runtime.yield_now().await;
        }
        let mut filter = filter.finish();
        let filter_checksum = self.guard.close(data_end, &mut filter);
        let filter_place = Place {
            unit: data_end,
            units: u32::try_from(filter.len().div_ceil(UNIT_BYTES)).expect("filters are small"),
            checksum: filter_checksum,
        };
        self.emit(&filter).await?;
        let mut top = BlockBuilder::default();
        for (separator, mut leaf) in std::mem::take(&mut self.leaves) {
            let place = self.seal(&mut leaf);
            self.emit(&leaf).await?;
            top.push(&separator, |into| into.extend_from_slice(&place.encode()));
        }
        let leaves_end = self.unit();
        let mut block = Vec::new();
        top.finish(BlockKind::Top, &mut block);
        let top = self.seal(&mut block);
        self.emit(&block).await?;
        let footer = SegmentFooter {
            id: self.id,
            entries: self.facts.entries,
            keys: self.facts.keys,
            tombstones: self.facts.tombstones,
            item_bytes: self.facts.item_bytes,
            blocks: self.facts.blocks,
            commit_min: self.facts.commit_min.expect("a segment is not empty"),
            commit_max: self.facts.commit_max,
            header_checksum: self.header_checksum,
            filter: filter_place,
            filter_bytes: u32::try_from(filter.len()).expect("filters are small"),
            data_end,
            leaves_end,
            top,
            first_key: std::mem::take(&mut self.facts.first_key),
            last_key: std::mem::take(&mut self.last_key),
        };
        let (bytes, footer_checksum) = footer.encode(&self.guard, self.unit());
        self.emit(&bytes).await?;
        self.submit().await?;
        self.settle().await?;
        self.sync().await?;
        Ok(SegmentReference {
            id: self.id,
            level: self.level,
            mirrors: self.mirrors.iter().map(|mirror| mirror.slot.index).collect(),
            bytes: u64::from(self.units_submitted) * UNIT_BYTES as u64,
            footer_checksum,
            first_key: footer.first_key,
            last_key: footer.last_key,
            clip_lower: None,
            clip_upper: None,
            commit_min: footer.commit_min,
            commit_max: footer.commit_max,
            entries: footer.entries,
            tombstones: footer.tombstones,
        })
    }

    /// Waits for what is in flight and removes the files.
    pub async fn abandon(mut self) {
        // The error, if there is one, has been told already.
        let _ = self.settle().await;
        self.store.remove_files(self.id).await;
    }

    /// Writes a block of the open entries, or of the first of them. `next_key` follows them all.
    async fn close_block(&mut self, next_key: Option<&[u8]>) -> Result<(), TreeError> {
        let closed = self.packing.close(&self.data, &self.store.codecs);
        let (count, mut block) = (closed.entries, closed.block);
        let place = self.seal(&mut block);
        self.emit(&block).await?;
        self.packing.reuse(block);
        self.store.count(|stats| {
            stats.blocks_bytes += closed.unpacked_bytes as u64;
            stats.blocks_stored_bytes += u64::from(place.units) * UNIT_BYTES as u64;
        });
        self.facts.blocks += 1;
        let next_key = (count < self.data.len())
            .then(|| self.data.key(count))
            .or(next_key);
        let last_key = self.data.key(count - 1);
        let separator = next_key.map_or_else(|| last_key.to_vec(), |next| separator(last_key, next));
        let last = next_key.is_none();
        self.data.take(count);
        self.index(&separator, place, last);
        Ok(())
    }

    /// Adds a data block to the index.
    fn index(&mut self, separator: &[u8], place: Place, last: bool) {
        let payload = place.encode();
        let stored = self.leaf.used_with(separator, payload.len()) + self.guard.tag_bytes();
        let full = stored > UNIT_BYTES;
        if !self.leaf.is_empty() && full {
            self.close_leaf();
        }
        self.leaf.push(separator, |into| into.extend_from_slice(&payload));
        if last {
            self.close_leaf();
        }
    }

    fn close_leaf(&mut self) {
        let separator = self.leaf.last_key().to_vec();
        let mut block = Vec::new();
        self.leaf.finish(BlockKind::Leaf, &mut block);
        self.leaves.push((separator, block));
    }

    /// Completes a block for the place where the next bytes go.
    fn seal(&self, block: &mut Vec<u8>) -> Place {
        let unit = self.unit();
        let checksum = close(block, self.guard.at(unit));
        Place {
            unit,
            units: u32::try_from(block.len().div_ceil(UNIT_BYTES)).expect("blocks are small"),
            checksum,
        }
    }

    /// The unit where the next bytes go.
    fn unit(&self) -> u32 {
        self.units_submitted + u32::try_from(self.chunk_filled / UNIT_BYTES).expect("chunks are small")
    }

    /// Appends bytes, padded to whole units.
    async fn emit(&mut self, mut bytes: &[u8]) -> Result<(), TreeError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk_filled));
            self.chunk[self.chunk_filled..self.chunk_filled + now.len()].copy_from_slice(now);
            let end = self.chunk_filled + now.len();
            self.chunk_filled = end.next_multiple_of(UNIT_BYTES);
            // A chunk that is used again holds what was written before.
            self.chunk[end..self.chunk_filled].fill(0);
            bytes = later;
            if self.chunk_filled == CHUNK_BYTES {
                self.submit().await?;
            }
        }
        Ok(())
    }

    /// Hands the chunk to the mirrors, when the one before has landed.
    async fn submit(&mut self) -> Result<(), TreeError> {
        self.settle().await?;
        if self.chunk_filled == 0 {
            return Ok(());
        }
        let full = self.chunk_filled == CHUNK_BYTES;
        let chunk = if full {
            let spare = self.spare.take().and_then(|spare| Rc::try_unwrap(spare).ok());
            let next = spare.unwrap_or_else(|| AlignedBuffer::zeroed(CHUNK_BYTES));
            std::mem::replace(&mut self.chunk, next)
        } else {
            // The last of the file.
            AlignedBuffer::from_slice(&self.chunk[..self.chunk_filled])
        };
        let chunk = Rc::new(chunk);
        let offset = u64::from(self.units_submitted) * UNIT_BYTES as u64;
        for (at, mirror) in self.mirrors.iter().enumerate() {
            let write = mirror.file.write_at(offset, Rc::clone(&chunk));
            self.in_flight
                .push((at, self.store.write_task(&mirror.slot, write)));
        }
        self.spare = full.then_some(chunk);
        self.units_submitted = self.unit();
        self.chunk_filled = 0;
        Ok(())
    }

    /// Waits until nothing is in flight; the first error is the answer.
    async fn settle(&mut self) -> Result<(), TreeError> {
        let mut result = Ok(());
        for (at, write) in self.in_flight.drain(..) {
            let outcome = match write.await.map(canary::of_write) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(TreeError::write(self.mirrors[at].slot.index, &self.name, &error)),
                Err(_) => Err(TreeError::Stopped),
            };
            result = result.and(outcome);
        }
        result
    }

    async fn sync(&mut self) -> Result<(), TreeError> {
        for (at, mirror) in self.mirrors.iter().enumerate() {
            let file = mirror.file.clone();
            let drive = mirror.slot.drive.clone();
            let sync = async move {
                if !canary::is_in(Canary::ForgetSync) {
                    canary::of_sync(file.sync().await)?;
                }
                if canary::is_in(Canary::ForgetDirectorySync) {
                    return Ok(());
                }
                drive.sync().await
            };
            self.in_flight
                .push((at, self.store.write_task(&mirror.slot, sync)));
        }
        self.settle().await
    }
}

/// The shortest key that is not below `last` and is below `next`; `last` itself when a key's versions go on in
/// the next block.
fn separator(last: &[u8], next: &[u8]) -> Vec<u8> {
    let shared = last
        .iter()
        .zip(next)
        .take_while(|(one, other)| one == other)
        .count();
    // `last` is below `next`: it ends here, or differs here. One byte of `next` more is above `last`, and
    // below `next` unless it is all of it.
    if last == next || shared + 1 >= next.len() || shared + 1 >= last.len() {
        return last.to_vec();
    }
    next[..=shared].to_vec()
}

#[cfg(test)]
mod tests {
    use super::separator;

    #[test]
    fn separators_lie_between() {
        let keys: [&[u8]; 9] = [
            b"a", b"aa", b"ab", b"abc", b"abcdef", b"abd", b"abdxyz", b"b", b"bcdefgh",
        ];
        for (at, last) in keys.iter().enumerate() {
            for next in &keys[at..] {
                let separator = separator(last, next);
                assert!(*last <= separator.as_slice() && separator.len() <= last.len());
                assert!(
                    separator.as_slice() < *next || last == next,
                    "{last:?} {next:?} {separator:?}"
                );
            }
        }
        assert_eq!(separator(b"abcdef", b"abdxyz"), b"abd");
    }
}
