//! Which drives a new file goes to.
//!
//! 1. Drives that are being emptied are left out, as long as the others suffice.
//! 2. Of the drives that files may depend on as many are taken as every file is promised holders; the rest of the mirrors
//!    may be any, those that are joining too.
//! 3. Among equals the drive with more free space is likelier, and one that is slow to answer less likely, so that drives of
//!    different sizes fill up at the same time. The file's number decides, so that files spread.

use super::{DriveIndex, DriveSet, InSync};

/// What there is to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The in-sync set and its version.
    pub in_sync: InSync,
    /// In-sync drives that nothing may depend on yet.
    pub joining: DriveSet,
    /// In-sync drives that are being emptied.
    pub leaving: DriveSet,
    /// Holders that every file has among those that are not joining.
    pub guarantee: usize,
    /// Drives that hold each file.
    pub mirrors: usize,
}

/// Weight of a drive that cannot say how much space it has: it is tried last.
const WEIGHT_UNKNOWN: u64 = 1;

impl Placement {
    /// The drives that new files may go to.
    #[must_use]
    pub fn eligible(&self) -> DriveSet {
        let all = self.in_sync.set;
        let staying = all.minus(self.leaving);
        let suffice = staying.count() >= self.mirrors.min(all.count())
            && staying.minus(self.joining).count() >= self.guarantee;
        if suffice { staying } else { all }
    }

    /// Whether a file with these mirrors is as well placed as one made now would be.
    #[must_use]
    pub fn is_proper(&self, mirrors: DriveSet) -> bool {
        let eligible = self.eligible();
        mirrors.is_within(eligible)
            && mirrors.count() >= self.mirrors.min(eligible.count())
            && mirrors.minus(self.joining).count() >= self.guarantee
    }

    /// Up to as many drives as there are mirrors for file number `salt`; `weight` is a drive's free space in bytes,
    /// or less when it is slow.
    pub fn choose(&self, salt: u64, weight: impl Fn(DriveIndex) -> Option<u64>) -> DriveSet {
        let eligible = self.eligible();
        let mut ranked: Vec<(u128, DriveIndex)> = eligible
            .iter()
            .map(|drive| {
                let chance = mix(salt ^ ((drive.get() as u64 + 1) << 56)) % 512 + 512;
                let weight = weight(drive).unwrap_or(0).max(WEIGHT_UNKNOWN);
                (u128::from(weight) * u128::from(chance), drive)
            })
            .collect();
        ranked.sort_by_key(|(rank, drive)| (std::cmp::Reverse(*rank), *drive));
        let settled = ranked
            .iter()
            .map(|(_, drive)| *drive)
            .filter(|drive| !self.joining.contains(*drive));
        let first: DriveSet = settled.take(self.guarantee.min(self.mirrors)).collect();
        let rest = ranked
            .iter()
            .map(|(_, drive)| *drive)
            .filter(|drive| !first.contains(*drive));
        let rest: DriveSet = rest.take(self.mirrors.saturating_sub(first.count())).collect();
        first.or(rest)
    }
}

/// splitmix64.
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    fn set(bits: u32) -> DriveSet {
        DriveSet::from_bits(bits)
    }

    fn placement(in_sync: u32, joining: u32, leaving: u32, guarantee: usize, mirrors: usize) -> Placement {
        Placement {
            in_sync: InSync {
                epoch: Epoch(1),
                set: set(in_sync),
            },
            joining: set(joining),
            leaving: set(leaving),
            guarantee,
            mirrors,
        }
    }

    #[test]
    fn what_is_chosen_keeps_every_promise() {
        for in_sync in 1..64u32 {
            for joining in (0..64).filter(|joining| joining & !in_sync == 0) {
                for leaving in (0..64).filter(|leaving| leaving & !in_sync == 0) {
                    let settled = set(in_sync & !joining).count();
                    for mirrors in 1..=3 {
                        for guarantee in 0..=settled.min(mirrors) {
                            let placement = placement(in_sync, joining, leaving, guarantee, mirrors);
                            let chosen = placement.choose(u64::from(in_sync) * 7, |_| Some(1 << 30));
                            assert!(placement.is_proper(chosen), "{placement:?}: {chosen}");
                            assert!(chosen.count() <= mirrors);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn files_spread_by_free_space() {
        let count = |placement: Placement, weights: [u64; 3]| {
            let mut counts = [0; 3];
            for salt in 0..1_000 {
                for drive in placement.choose(salt, |drive| Some(weights[drive.get()])).iter() {
                    counts[drive.get()] += 1;
                }
            }
            counts
        };
        let all = placement(0b111, 0, 0, 2, 2);
        let even = count(all, [100 << 30; 3]);
        assert!(even.iter().all(|count| (600..733).contains(count)), "{even:?}");
        let full = count(all, [100 << 30, 100 << 30, 1 << 30]);
        assert_eq!(full, [1_000, 1_000, 0]);
        let fuller = count(all, [100 << 30, 100 << 30, 70 << 30]);
        assert!(fuller[2] > 100 && fuller[2] < 500, "{fuller:?}");
        assert_eq!(
            count(placement(0b111, 0, 0b001, 2, 2), [1; 3])[0],
            0,
            "it is being emptied"
        );
        assert!(
            count(placement(0b011, 0, 0b001, 2, 2), [1; 3])[0] > 0,
            "it is needed"
        );
    }
}
