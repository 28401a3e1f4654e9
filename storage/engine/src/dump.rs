//! `dump`: any file that the engine writes, in text.
//!
//! The kind of a file is told by its name, as the engine tells it. What does not verify is said, and what follows
//! is shown as far as it can be found. What is sealed is opened with the node's key, which the superblock beside the file holds,
//! wrapped by the root key; without that it is said to be sealed. A place that was never written is no damage, and neither is what
//! follows the last batch of a log file.

use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_item::{ItemView, json};
use cairn_runtime::{BLOCK_BYTES, Drive, File, Open, Runtime};

use crate::group::decode_group;
use crate::ids::{LogId, NodeId};
use crate::log::Record;
use crate::log::anchor::Anchor;
use crate::log::batch::{Batch, BatchHeader};
use crate::log::file::{FileEntry, slot_of_name};
use crate::manifest::{SegmentReference, decode_edits};
use crate::mutation::Mutation;
use crate::record::RecordKind;
use crate::sealing::{NodeKey, RootKey, TableKeys};
use crate::tree::segment::{SegmentFooter, SegmentHeader};
use crate::tree::{DriveWatch, Reported, SegmentStore, StoreConfig, reference_of_file, segment_of_file_name};
use crate::volume::superblock::{MemberKind, Superblock};
use crate::volume::{DriveIndex, DriveSet, VolumeError};

/// Blocks read at once.
const PIECE_BLOCKS: usize = 256;

/// Distance between the copies of superblock and witness.
const SUPERBLOCK_STRIDE: usize = 64 << 10;
/// Number of the copies.
const SUPERBLOCK_COPIES: usize = 4;
/// Distance between the copies of an anchor, their length and number.
const ANCHOR_STRIDE: usize = 16 << 10;
const ANCHOR_BYTES: usize = 8 << 10;
const ANCHOR_COPIES: usize = 4;

/// Shows the file at `path`; `root` are root keys that may open it. Gives the places that do not verify, which the text says
/// too, in their order.
///
/// # Errors
/// Why it cannot be read; `InvalidInput` when its name is not that of a file that the engine writes.
pub async fn dump<R: Runtime>(
    runtime: R,
    path: &Path,
    root: &[RootKey],
    out: &mut dyn Write,
) -> io::Result<Vec<String>> {
    let mut damage = Vec::new();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let drive = runtime.drive(directory.unwrap_or(Path::new(".")), false).await?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if !is_written_by_engine(name) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the engine writes no file of this name, only superblock, witness, log-.. and segment-..",
        ));
    }
    let key = node_key::<R>(&drive, root).await.map(Arc::new);
    let written = if segment_of_file_name(name).is_some() {
        dump_segment(&runtime, &drive, name, key, out, &mut damage).await
    } else {
        let file = drive
            .open(
                name,
                Open {
                    read_only: true,
                    ..Open::default()
                },
            )
            .await?;
        let mut bytes = Vec::new();
        let blocks = file.bytes()? / BLOCK_BYTES as u64;
        for block in (0..blocks).step_by(PIECE_BLOCKS) {
            let count = PIECE_BLOCKS.min(usize::try_from(blocks - block).unwrap_or(PIECE_BLOCKS));
            bytes.extend_from_slice(
                &file
                    .read_at(block * BLOCK_BYTES as u64, count * BLOCK_BYTES)
                    .await?,
            );
        }
        dump_bytes(name, &bytes, key.as_deref(), out, &mut damage)
    };
    written.map_err(io::Error::other)?;
    Ok(damage)
}

/// Says that a place does not verify, in the text and in the list.
fn damaged(what: String, out: &mut dyn Write, damage: &mut Vec<String>) -> fmt::Result {
    writeln!(out, "{what}")?;
    damage.push(what);
    Ok(())
}

/// Whether nothing was ever written there.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The key of the node that a directory is a drive of, when one of the root keys opens it.
async fn node_key<R: Runtime>(drive: &R::Drive, root: &[RootKey]) -> Option<NodeKey> {
    let how = Open {
        read_only: true,
        ..Open::default()
    };
    let file = drive.open("superblock", how).await.ok()?;
    for copy in 0..SUPERBLOCK_COPIES {
        let Ok(block) = file.read_at((copy * SUPERBLOCK_STRIDE) as u64, BLOCK_BYTES).await else {
            continue;
        };
        if let Ok(superblock) = Superblock::decode(MemberKind::Drive, copy, &block)
            && let Some(kept) = &superblock.key
            && let Some(key) = root.iter().find_map(|root| root.unwrap(superblock.node, kept))
        {
            return Some(key);
        }
    }
    None
}

/// Shows the file `name`, other than a segment, with this content.
///
/// # Errors
/// Only what `out` says.
fn dump_bytes(
    name: &str,
    bytes: &[u8],
    key: Option<&NodeKey>,
    out: &mut dyn Write,
    damage: &mut Vec<String>,
) -> fmt::Result {
    if name == "superblock" || name == "witness" {
        let kind = if name == "witness" {
            MemberKind::Witness
        } else {
            MemberKind::Drive
        };
        return dump_superblock(kind, bytes, out, damage);
    }
    if let Some(log) = log_of_anchor(name) {
        return dump_anchor(log, bytes, out, damage);
    }
    let (log, slot) = slot_of_name(name).expect("the name was looked at");
    dump_log(log, slot, bytes, key, out, damage)
}

/// Whether a file of this name can be one of the engine's.
fn is_written_by_engine(name: &str) -> bool {
    ["superblock", "witness"].contains(&name)
        || log_of_anchor(name).is_some()
        || slot_of_name(name).is_some()
        || segment_of_file_name(name).is_some()
}

/// The log that a file is the anchor of, by its name.
fn log_of_anchor(name: &str) -> Option<LogId> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".anchor")?;
    u32::from_str_radix(digits, 16).ok().map(LogId)
}

/// The copy at this place, or nothing when the file ends before it.
fn copy_at(bytes: &[u8], copy: usize, (stride, length): (usize, usize)) -> Option<&[u8]> {
    bytes.get(copy * stride..copy * stride + length)
}

fn dump_superblock(
    kind: MemberKind,
    bytes: &[u8],
    out: &mut dyn Write,
    damage: &mut Vec<String>,
) -> fmt::Result {
    for copy in 0..SUPERBLOCK_COPIES {
        let Some(block) = copy_at(bytes, copy, (SUPERBLOCK_STRIDE, BLOCK_BYTES)) else {
            damaged(format!("copy {copy}: the file ends before it"), out, damage)?;
            continue;
        };
        match Superblock::decode(kind, copy, block) {
            Ok(superblock) => writeln!(out, "copy {copy}: {superblock:#?}")?,
            Err(_) if is_blank(block) => writeln!(out, "copy {copy}: never written")?,
            Err(error) => damaged(format!("copy {copy}: does not verify: {error:?}"), out, damage)?,
        }
    }
    Ok(())
}

fn dump_anchor(log: LogId, bytes: &[u8], out: &mut dyn Write, damage: &mut Vec<String>) -> fmt::Result {
    for copy in 0..ANCHOR_COPIES {
        let Some(region) = copy_at(bytes, copy, (ANCHOR_STRIDE, ANCHOR_BYTES)) else {
            damaged(format!("copy {copy}: the file ends before it"), out, damage)?;
            continue;
        };
        match Anchor::decode(region, None, log, copy) {
            Some(anchor) => writeln!(out, "copy {copy}: {anchor:#?}")?,
            None if is_blank(region) => writeln!(out, "copy {copy}: never written")?,
            None => damaged(format!("copy {copy}: does not verify"), out, damage)?,
        }
    }
    Ok(())
}

fn dump_log(
    log: LogId,
    slot: u32,
    bytes: &[u8],
    key: Option<&NodeKey>,
    out: &mut dyn Write,
    damage: &mut Vec<String>,
) -> fmt::Result {
    let header = bytes
        .get(..BLOCK_BYTES)
        .and_then(|block| FileEntry::decode_header(block, None, log, slot));
    let Some(entry) = header else {
        if is_blank(&bytes[..BLOCK_BYTES.min(bytes.len())]) {
            return writeln!(out, "never used");
        }
        let what = "the header of the file does not verify".to_owned();
        return damaged(what, out, damage);
    };
    writeln!(out, "{entry:#?}")?;
    let cipher = key.map(|key| key.log_cipher(log, entry.number, &entry.salt));
    let mut at = BLOCK_BYTES;
    // Batches follow each other without gaps: one before a batch that verifies was a batch.
    let mut gap = None;
    while let Some(block) = bytes.get(at..at + BLOCK_BYTES) {
        let header = BatchHeader::decode(block, log, &entry, at as u64);
        let batch = header.and_then(|header| {
            let whole = bytes.get(at..at + header.blocks as usize * BLOCK_BYTES)?;
            Batch::check(header, whole, cipher.as_ref())
        });
        if header.is_some()
            && let Some(from) = gap.take()
        {
            let what =
                format!("{from:#010x} to {at:#010x}: the header of no batch verifies, and batches follow");
            damaged(what, out, damage)?;
        }
        match (header, batch) {
            (_, Some(batch)) => {
                dump_batch(at, &batch, out)?;
                at += batch.header.blocks as usize * BLOCK_BYTES;
            }
            (Some(header), None) if header.key_id != 0 && cipher.is_none() => {
                let (sequence, blocks) = (header.sequence, header.blocks);
                writeln!(
                    out,
                    "{at:#010x} batch {sequence}: {} records, {blocks} blocks, sealed: the root key shows them",
                    header.records
                )?;
                at += blocks as usize * BLOCK_BYTES;
            }
            (Some(header), None) => {
                let what = format!("{at:#010x} batch {}: its body does not verify", header.sequence);
                damaged(what, out, damage)?;
                at += header.blocks.max(1) as usize * BLOCK_BYTES;
            }
            (None, None) => {
                gap = gap.or(Some(at));
                at += BLOCK_BYTES;
            }
        }
    }
    Ok(())
}

fn dump_batch(at: usize, batch: &Batch<'_>, out: &mut dyn Write) -> fmt::Result {
    let header = &batch.header;
    let kind = if header.marker { "marker" } else { "batch" };
    writeln!(
        out,
        "{at:#010x} {kind} {}: acknowledged {}, {} records, {} blocks",
        header.sequence, header.acknowledged, header.records, header.blocks
    )?;
    for record in batch.records() {
        dump_record(&record, out)?;
    }
    Ok(())
}

fn dump_record(record: &Record<'_>, out: &mut dyn Write) -> fmt::Result {
    match RecordKind::from_byte(record.kind) {
        Some(RecordKind::Mutation) => match Mutation::decode(record.payload) {
            Ok(mutation) => dump_mutation(record, &mutation, out),
            Err(error) => writeln!(out, "    mutation: {error}"),
        },
        Some(RecordKind::Group) => match decode_group(record.payload) {
            Ok(changes) => {
                writeln!(out, "    group of {}:", changes.len())?;
                changes.iter().try_for_each(|change| {
                    write!(out, "    {:?}", change.counter)?;
                    if !change.tail.is_empty() {
                        write!(out, ", going on with the first item,")?;
                    }
                    dump_mutation(record, &change.mutation, out)
                })
            }
            Err(error) => writeln!(out, "    group: {error}"),
        },
        Some(RecordKind::Edits) => match decode_edits(record.payload) {
            Ok(edits) => edits.iter().try_for_each(|edit| writeln!(out, "    {edit:?}")),
            Err(error) => writeln!(out, "    manifest: {error}"),
        },
        None => writeln!(out, "    record of unknown kind {}", record.kind),
    }
}

fn dump_mutation(record: &Record<'_>, mutation: &Mutation<'_>, out: &mut dyn Write) -> fmt::Result {
    let (partition, index, header) = (record.partition, record.raft_index, mutation.header);
    write!(
        out,
        "    partition {partition} index {index} {:?} {}",
        header.kind, header.commit
    )?;
    write!(
        out,
        " old {:?} new {:?} ",
        header.old_item_bytes, header.new_item_bytes
    )?;
    dump_key_and_item(mutation.key, mutation.item, out)
}

fn dump_key_and_item(key: &[u8], item: &[u8], out: &mut dyn Write) -> fmt::Result {
    write!(out, "key {} ", key.escape_ascii())?;
    match ItemView::validate(item) {
        Ok(view) => {
            let mut text = Vec::new();
            json::write_item_view(&mut text, view);
            writeln!(out, "{}", String::from_utf8_lossy(&text))
        }
        Err(_) => writeln!(out, "{} bytes", item.len()),
    }
}

async fn dump_segment<R: Runtime>(
    runtime: &R,
    drive: &R::Drive,
    name: &str,
    key: Option<Arc<NodeKey>>,
    out: &mut dyn Write,
    damage: &mut Vec<String>,
) -> fmt::Result {
    let index = DriveIndex::new(0).expect("0 is a place");
    let keys = TableKeys::new(key);
    let reference = match reference_of_file(drive, index, name, &keys).await {
        Ok(reference) => reference,
        Err(why) => return damaged(format!("does not verify: {why}"), out, damage),
    };
    let config = StoreConfig {
        node: NodeId(0),
        mirrors: 1,
        cache_bytes: 0,
        item_cache_eighths: 0,
        open_files_max: 2,
    };
    let drives = [(index, drive.clone())];
    let store = SegmentStore::sealed(runtime.clone(), config, keys, &drives, Lone(index));
    let segment = match store.open(&reference).await {
        Ok(segment) => segment,
        Err(error) => return damaged(format!("does not verify: {error}"), out, damage),
    };
    describe_segment(&reference, segment.header(), segment.footer(), out)?;
    for place in segment.verify().await {
        damaged(format!("damaged at {}: {}", place.offset, place.why), out, damage)?;
    }
    let mut written = Ok(());
    let shown = segment.for_each_version(|key, version| {
        written = written.and_then(|()| {
            write!(out, "    {:?} {} ", version.kind, version.commit)?;
            dump_key_and_item(key, &version.item, out)
        });
    });
    let shown = shown.await;
    written?;
    shown.or_else(|error| damaged(format!("does not verify: {error}"), out, damage))
}

/// What the file says of itself. Its level, and what of it a partition may see, only the manifest knows: a segment moves to
/// another level, and is shared by a split, without being written again.
fn describe_segment(
    reference: &SegmentReference,
    header: &SegmentHeader,
    footer: &SegmentFooter,
    out: &mut dyn Write,
) -> fmt::Result {
    let SegmentHeader {
        id,
        table,
        partition,
        index,
        node,
        ..
    } = header;
    writeln!(
        out,
        "segment {id} of table {table}, partition {partition}, index {index}"
    )?;
    writeln!(out, "written by node {node} to drives {}", header.mirrors)?;
    let (bytes, sum) = (reference.bytes, reference.footer_checksum);
    writeln!(out, "{bytes} bytes, checksum of the footer {sum:#018x}")?;
    let SegmentFooter {
        entries,
        tombstones,
        keys,
        blocks,
        item_bytes,
        ..
    } = footer;
    writeln!(
        out,
        "{entries} versions of {keys} keys in {blocks} data blocks, {tombstones} of them tombstones, {item_bytes} bytes of items"
    )?;
    writeln!(out, "versions {} to {}", footer.commit_min, footer.commit_max)?;
    let (first, last) = (footer.first_key.escape_ascii(), footer.last_key.escape_ascii());
    writeln!(out, "keys {first} to {last}")?;
    match header.key_id {
        0 => writeln!(out, "not sealed")?,
        key => writeln!(out, "sealed with key {key} of the table")?,
    }
    writeln!(out, "packed with {:?}", header.codec)
}

/// The one drive that a file is on.
struct Lone(DriveIndex);

impl DriveWatch for Lone {
    fn live(&self) -> DriveSet {
        DriveSet::EMPTY.with(self.0)
    }

    fn report_failed(&self, _: DriveIndex, why: String) -> Reported {
        let error = VolumeError::Unusable {
            path: PathBuf::new(),
            why,
        };
        Box::pin(std::future::ready(Err(error)))
    }
}
