//! What an operation does to a drive when it completes, with or without a fault, or when it is cut off.

use std::io;

use super::disk::{BLOCK, Disk, input_output_error, storage_full};
use super::fault::{Fault, FaultKind};
use super::image::{BLOCK_SECTORS, SECTOR_BYTES, SECTORS_ALL, damage};
use super::random::Random;
use super::storage::{Request, Response};
use crate::AlignedBuffer;

/// What becomes of a write that was cut off.
pub(super) fn cut_off(disk: &mut Disk, request: &Request, may_tear: bool, random: &mut Random) {
    match request {
        Request::Write {
            file,
            offset,
            content,
            durable,
        } => {
            let kind = match random.below(if may_tear { 3 } else { 2 }) {
                0 => FaultKind::InFlightLost,
                1 => {
                    // A full file system refuses it even now.
                    let _ = disk.write(*file, *offset, content, *durable, |_| SECTORS_ALL);
                    FaultKind::InFlightApplied
                }
                _ => {
                    let torn = Disk::torn_sectors(content.len() as u64 / BLOCK, random);
                    let _ = disk.write(*file, *offset, content, *durable, |block| torn[block as usize]);
                    FaultKind::InFlightTorn
                }
            };
            disk.counters.count(kind);
        }
        _ if random.one_in(2) => {}
        // The results of these no longer interest anybody.
        Request::Open { name, how } if how.create_new => {
            if let Ok(file) = disk.open(name, true) {
                disk.close(file);
            }
        }
        Request::Rename { from, to } => drop(disk.rename(from, to)),
        Request::Link { from, to } => drop(disk.link(from, to)),
        Request::Remove { name } => drop(disk.remove(name)),
        Request::SyncDirectory { sequence } => disk.sync_directory(*sequence),
        Request::Allocate { file, bytes } => drop(disk.allocate(*file, *bytes)),
        Request::SyncFile { file, sequence } => drop(disk.sync_file(*file, *sequence)),
        Request::Open { .. } | Request::List | Request::Read { .. } => {}
    }
}

pub(super) fn perform_write(
    disk: &mut Disk,
    fault: Option<Fault>,
    (file, offset): (u64, u64),
    content: &AlignedBuffer,
    durable: bool,
    random: &mut Random,
) -> io::Result<()> {
    let bytes = content.len() as u64;
    match fault {
        None | Some(Fault::Slow(_) | Fault::Stall(_) | Fault::Vanish) => {
            disk.write(file, offset, content, durable, |_| SECTORS_ALL)
        }
        Some(Fault::Error) => {
            disk.counters.hit(FaultKind::WriteError);
            match random.below(3) {
                0 => {}
                1 => disk.write(file, offset, content, durable, |_| SECTORS_ALL)?,
                _ => {
                    let torn = Disk::torn_sectors(bytes / BLOCK, random);
                    disk.write(file, offset, content, durable, |block| torn[block as usize])?;
                }
            }
            Err(input_output_error())
        }
        Some(Fault::NoSpace) => {
            disk.counters.hit(FaultKind::NoSpace);
            Err(storage_full())
        }
        Some(Fault::Exhausted) => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
        Some(Fault::Short) => {
            disk.counters.hit(FaultKind::ShortWrite);
            let stored = random.below(bytes);
            let sectors = stored / SECTOR_BYTES as u64;
            disk.write(file, offset, content, durable, |block| {
                let before = (sectors.saturating_sub(block * BLOCK_SECTORS as u64)).min(BLOCK_SECTORS as u64);
                // The first sectors are the lowest bits.
                ((1_u16 << before) - 1) as u8
            })?;
            let reason = format!("{stored} of {bytes} bytes were written");
            Err(io::Error::new(io::ErrorKind::WriteZero, reason))
        }
        Some(Fault::Torn) => {
            disk.counters.hit(FaultKind::TornWrite);
            let torn = Disk::torn_sectors(bytes / BLOCK, random);
            disk.write(file, offset, content, durable, |block| torn[block as usize])
        }
        Some(Fault::Lost) => {
            disk.counters.hit(FaultKind::LostWrite);
            disk.write(file, offset, content, durable, |_| 0)
        }
        Some(Fault::Misdirected) => {
            disk.counters.hit(FaultKind::MisdirectedWrite);
            if let Some((wrong_file, wrong_offset)) = disk.wrong_place(file, offset, bytes, random) {
                disk.write(wrong_file, wrong_offset, content, durable, |_| SECTORS_ALL)?;
            }
            disk.write(file, offset, content, durable, |_| 0)
        }
        Some(Fault::Corrupt | Fault::Rot) => {
            disk.counters.hit(FaultKind::CorruptWrite);
            let mut damaged = content.to_vec();
            damage(&mut damaged, random);
            disk.write(file, offset, &damaged, durable, |_| SECTORS_ALL)
        }
    }
}

pub(super) fn perform_read(
    disk: &mut Disk,
    fault: Option<Fault>,
    file: u64,
    offset: u64,
    into: &mut [u8],
    random: &mut Random,
) -> io::Result<()> {
    match fault {
        None | Some(Fault::Slow(_) | Fault::Stall(_) | Fault::Vanish) => disk.read(file, offset, into),
        Some(Fault::Corrupt) => {
            disk.read(file, offset, into)?;
            disk.counters.hit(FaultKind::CorruptRead);
            damage(into, random);
            Ok(())
        }
        Some(Fault::Rot) => {
            disk.read(file, offset, into)?;
            disk.counters.hit(FaultKind::Rot);
            disk.rot(
                file,
                offset / BLOCK,
                offset / BLOCK + into.len() as u64 / BLOCK,
                random,
            );
            disk.read(file, offset, into)
        }
        Some(Fault::Lost) => {
            disk.read(file, offset, into)?;
            disk.counters.hit(FaultKind::LostRead);
            into.fill(0);
            Ok(())
        }
        Some(fault @ (Fault::Torn | Fault::Misdirected)) => {
            disk.read(file, offset, into)?;
            let mut other = vec![0; into.len()];
            if let Some((wrong_file, wrong_offset)) =
                disk.wrong_place(file, offset, into.len() as u64, random)
            {
                disk.read(wrong_file, wrong_offset, &mut other)?;
            }
            let torn = fault == Fault::Torn;
            disk.counters.hit(if torn {
                FaultKind::TornRead
            } else {
                FaultKind::MisdirectedRead
            });
            for (sector, wrong) in into.chunks_mut(SECTOR_BYTES).zip(other.chunks(SECTOR_BYTES)) {
                if !torn || random.one_in(2) {
                    sector.copy_from_slice(wrong);
                }
            }
            Ok(())
        }
        Some(Fault::Exhausted) => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
        Some(_) => {
            disk.counters.hit(FaultKind::ReadError);
            Err(input_output_error())
        }
    }
}

pub(super) fn perform_other(
    disk: &mut Disk,
    fault: Option<Fault>,
    request: &Request,
    random: &mut Random,
) -> io::Result<Response> {
    match fault {
        None | Some(Fault::Slow(_) | Fault::Stall(_) | Fault::Vanish) => {}
        Some(Fault::NoSpace) => {
            disk.counters.hit(FaultKind::NoSpace);
            return Err(storage_full());
        }
        Some(Fault::Exhausted) => return Err(io::Error::from_raw_os_error(libc::EMFILE)),
        Some(_) => {
            if let Request::SyncFile { file, .. } = request {
                disk.fail_sync_file(*file, random);
            }
            let sync = matches!(request, Request::SyncFile { .. } | Request::SyncDirectory { .. });
            disk.counters.hit(if sync {
                FaultKind::SyncError
            } else {
                FaultKind::MetadataError
            });
            return Err(input_output_error());
        }
    }
    match request {
        Request::List => return Ok(Response::Entries(disk.list())),
        Request::Rename { from, to } => disk.rename(from, to)?,
        Request::Link { from, to } => disk.link(from, to)?,
        Request::Remove { name } => disk.remove(name)?,
        Request::SyncDirectory { sequence } => disk.sync_directory(*sequence),
        Request::Allocate { file, bytes } => disk.allocate(*file, *bytes)?,
        Request::SyncFile { file, sequence } => disk.sync_file(*file, *sequence)?,
        // The caller makes the handle; here only the fault matters.
        Request::Open { .. } => {}
        Request::Read { .. } | Request::Write { .. } => unreachable!("handled by the caller"),
    }
    Ok(Response::Done)
}
