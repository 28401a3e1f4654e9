//! The file that holds a member's four copies: read as a quorum, written in two durable halves.

use std::io;
use std::rc::Rc;

use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Drive, File, Open, Queue, Runtime, sync};

use super::superblock::{COPIES, COPY_STRIDE, CopyError, FILE_BYTES, MemberKind, Quorum, Superblock, decide};

/// Name of a drive's superblock file.
pub(super) const SUPERBLOCK_NAME: &str = "superblock";
/// Name of the witness file.
pub(super) const WITNESS_NAME: &str = "witness";
/// Suffix of a file that is being created.
pub(super) const NEW_SUFFIX: &str = ".new";

pub(super) fn name_of(kind: MemberKind) -> &'static str {
    match kind {
        MemberKind::Drive => SUPERBLOCK_NAME,
        MemberKind::Witness => WITNESS_NAME,
    }
}

/// An open member file. Its one user is the keeper.
pub(super) struct Member<R: Runtime> {
    runtime: R,
    file: <R::Drive as Drive>::File,
    /// The highest sequence on any copy.
    sequence: u64,
}

fn offset(copy: usize) -> u64 {
    COPY_STRIDE * copy as u64
}

impl<R: Runtime> Member<R> {
    /// Opens the file and reads what it says; `NotFound` when there is none.
    pub(super) async fn open(
        runtime: &R,
        drive: &R::Drive,
        kind: MemberKind,
    ) -> io::Result<(Member<R>, Quorum)> {
        let how = Open {
            durable: true,
            ..Open::default()
        };
        let file = drive.open(name_of(kind), how).await?;
        let mut copies = Vec::with_capacity(COPIES);
        for copy in 0..COPIES {
            copies.push(match file.read_at(offset(copy), BLOCK_BYTES).await {
                Ok(block) => Superblock::decode(kind, copy, &block),
                // A copy that cannot be read is a copy less; the quorum decides.
                Err(_) => Err(CopyError::Corrupt),
            });
        }
        let quorum = decide(&copies);
        let sequence = copies
            .iter()
            .flatten()
            .map(|superblock| superblock.sequence)
            .max()
            .unwrap_or(0);
        Ok((
            Member {
                runtime: runtime.clone(),
                file,
                sequence,
            },
            quorum,
        ))
    }

    /// Creates the file with its first content: complete under its name, or not there at all.
    pub(super) async fn create(
        runtime: &R,
        drive: &R::Drive,
        superblock: &Superblock,
    ) -> io::Result<Member<R>> {
        let name = name_of(superblock.kind);
        let new = format!("{name}{NEW_SUFFIX}");
        match drive.remove(&new).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = drive
            .open(
                &new,
                Open {
                    create_new: true,
                    durable: true,
                    read_only: false,
                },
            )
            .await?;
        file.allocate(FILE_BYTES).await?;
        // Written in full: the gaps between the copies too.
        file.write_at(0, Rc::new(AlignedBuffer::zeroed(FILE_BYTES as usize)))
            .await?;
        let mut member = Member {
            runtime: runtime.clone(),
            file,
            sequence: 0,
        };
        member.write(superblock.clone()).await?;
        drive.rename(&new, name).await?;
        drive.sync().await?;
        Ok(member)
    }

    /// Writes a new version; durable when it returns. After an error the member says what it said before, or the
    /// new version; never anything else.
    pub(super) async fn write(&mut self, superblock: Superblock) -> io::Result<()> {
        self.sequence += 1;
        let superblock = Superblock {
            sequence: self.sequence,
            ..superblock
        };
        for (half, failures_max) in [([0, 1], 0), ([2, 3], 1)] {
            // Tasks of their own: a durable write is never dropped half-way.
            let writes = half.map(|copy| {
                let write = self.file.write_at(offset(copy), Rc::new(superblock.encode(copy)));
                sync::spawn(&self.runtime, Queue::Foreground, write)
            });
            let mut failures = Vec::new();
            for write in writes {
                let ended = write
                    .await
                    .unwrap_or_else(|_| Err(io::Error::other("the task was dropped")));
                failures.extend(ended.err());
            }
            if failures.len() > failures_max {
                return Err(failures.remove(0));
            }
        }
        // Three copies carry the version: one bad block is the scrub's to report, not a reason to stop.
        Ok(())
    }
}
