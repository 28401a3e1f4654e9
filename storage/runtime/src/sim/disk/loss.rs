//! What a power loss leaves of a drive, and images of it.

use super::super::fault::FaultKind;
use super::super::image::{DriveImage, FileImage, SECTORS_ALL};
use super::super::random::Random;
use super::{BLOCK, DirectoryChange, Disk, FileState};

impl Disk {
    /// What is left when the power fails. In-flight writes were dealt with before.
    pub(in crate::sim) fn lose_power(&mut self, random: &mut Random) {
        // Some losses take everything unsynced, some nothing, most a part.
        let keep_ppm = [0, 500_000, 500_000, 900_000, 1_000_000][random.index(5)];
        let ordered = random.one_in(2);
        let changes = std::mem::take(&mut self.changes);
        let prefix = random.index(changes.len() + 1);
        for (place, (_, change)) in changes.iter().enumerate() {
            let keep = if ordered {
                place < prefix
            } else {
                random.chance_ppm(keep_ppm)
            };
            if keep {
                self.make_durable(change);
            } else {
                self.counters.count(FaultKind::DirectoryChangeLost);
            }
        }
        for state in self.files.values_mut() {
            let mut bytes = if random.chance_ppm(keep_ppm) {
                state.live_bytes
            } else {
                state.durable_bytes
            };
            for write in std::mem::take(&mut state.unsynced) {
                if !write.abandoned && random.chance_ppm(keep_ppm) {
                    bytes = bytes.max(((write.block + 1) * BLOCK).min(state.live_bytes));
                    state.durable.set(write.block, write.content);
                } else {
                    self.counters.count(FaultKind::UnsyncedLost);
                }
            }
            state.durable.truncate(bytes.div_ceil(BLOCK));
            state.durable_bytes = bytes;
            state.live = state.durable.clone();
            state.live_bytes = bytes;
            state.in_flight.clear();
        }
        self.names = self.names_durable.clone();
        self.recount();
        self.collect();
        self.stalled_until = 0;
    }

    fn recount(&mut self) {
        self.files.values_mut().for_each(|file| file.names = 0);
        for file in self.names.values() {
            self.files.get_mut(file).expect("a named file exists").names += 1;
        }
        let charged = self
            .files
            .values()
            .filter(|file| file.names > 0 || file.opens > 0);
        self.used_bytes = charged.map(|file| file.live_bytes).sum();
    }

    /// The files as a read sees them, or as a power loss that takes everything unsynced would leave them.
    pub(in crate::sim) fn image(&self, durable: bool) -> DriveImage {
        let names = if durable { &self.names_durable } else { &self.names };
        let file = |id: &u64| {
            let file = &self.files[id];
            let (blocks, bytes) = if durable {
                (&file.durable, file.durable_bytes)
            } else {
                (&file.live, file.live_bytes)
            };
            (
                *id,
                FileImage {
                    blocks: blocks.clone(),
                    bytes,
                },
            )
        };
        DriveImage {
            names: names.clone(),
            files: names.values().map(file).collect(),
        }
    }

    /// Replaces everything by `image`; what was open is dead.
    pub(in crate::sim) fn restore(&mut self, image: &DriveImage) {
        self.generation += 1;
        self.lock = None;
        self.changes.clear();
        // Ids of the image may come from another drive; new ones keep the rule that none is reused.
        let base = self.file_next;
        self.file_next += image.files.keys().next_back().map_or(0, |last| last + 1);
        self.files = image
            .files
            .iter()
            .map(|(id, file)| {
                let state = FileState {
                    live: file.blocks.clone(),
                    durable: file.blocks.clone(),
                    live_bytes: file.bytes,
                    durable_bytes: file.bytes,
                    ..FileState::default()
                };
                (base + id, state)
            })
            .collect();
        self.names = image
            .names
            .iter()
            .map(|(name, file)| (name.clone(), base + file))
            .collect();
        self.names_durable = self.names.clone();
        self.recount();
    }

    /// Takes a file away from both images at once, as if it had never been there.
    pub(in crate::sim) fn delete(&mut self, name: &str) -> bool {
        self.names_durable.remove(name);
        self.changes.retain(|(_, change)| match change {
            DirectoryChange::Name { name: named, .. } | DirectoryChange::Remove { name: named } => {
                named != name
            }
            DirectoryChange::Rename { to, .. } => to != name,
        });
        self.unname(name).is_some()
    }

    /// A sector set for a torn write of `blocks` blocks: never all, never none where that can be helped.
    pub(in crate::sim) fn torn_sectors(blocks: u64, random: &mut Random) -> Vec<u8> {
        let sectors = blocks * u64::from(u8::BITS);
        let bit = |kept: &dyn Fn(u64) -> bool, block: u64| {
            (0..8u64)
                .filter(|sector| kept(block * 8 + sector))
                .fold(0u8, |bits, sector| bits | 1 << sector)
        };
        match random.below(3) {
            0 => {
                let prefix = random.within(&(1..=sectors - 1));
                (0..blocks)
                    .map(|block| bit(&|sector| sector < prefix, block))
                    .collect()
            }
            1 if blocks > 1 => {
                let hole = random.below(blocks);
                let keep = (hole + 1 + random.below(blocks - 1)) % blocks;
                (0..blocks)
                    .map(|block| {
                        let kept = block != hole && (block == keep || random.one_in(2));
                        if kept { SECTORS_ALL } else { 0 }
                    })
                    .collect()
            }
            _ => {
                let mut torn: Vec<u8> = (0..blocks).map(|_| random.below(256) as u8).collect();
                let last = torn.len() - 1;
                if torn.iter().all(|bits| *bits == SECTORS_ALL) {
                    torn[last] = 0x0f;
                }
                if torn.iter().all(|bits| *bits == 0) {
                    torn[0] = 0x0f;
                }
                torn
            }
        }
    }
}
