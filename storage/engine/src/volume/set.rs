//! Drives by their place in the node's ordered list, and sets of them.

use std::fmt;

/// Drives a node can ever have had; a place in the ordered list is never given to another drive.
pub const DRIVES_MAX: usize = 32;

/// Place of a drive in the node's ordered list, below [`DRIVES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriveIndex(u8);

impl DriveIndex {
    /// Place `index`; `None` at [`DRIVES_MAX`] and above.
    #[must_use]
    pub fn new(index: usize) -> Option<DriveIndex> {
        (index < DRIVES_MAX).then(|| DriveIndex(u8::try_from(index).expect("below DRIVES_MAX")))
    }

    /// The place as a number.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for DriveIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// A set of drives of one node, one bit per [`DriveIndex`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DriveSet(u32);

const _: () = assert!(DRIVES_MAX <= u32::BITS as usize);

impl DriveSet {
    /// The set without drives.
    pub const EMPTY: DriveSet = DriveSet(0);

    /// The set with these bits.
    #[must_use]
    pub fn from_bits(bits: u32) -> DriveSet {
        DriveSet(bits)
    }

    /// One bit per drive.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether the drive is a member.
    #[must_use]
    pub fn contains(self, drive: DriveIndex) -> bool {
        self.0 & (1 << drive.0) != 0
    }

    /// Members of either set.
    #[must_use]
    pub fn or(self, other: DriveSet) -> DriveSet {
        DriveSet(self.0 | other.0)
    }

    /// The set and this drive.
    #[must_use]
    pub fn with(self, drive: DriveIndex) -> DriveSet {
        DriveSet(self.0 | 1 << drive.0)
    }

    /// The set but for this drive.
    #[must_use]
    pub fn without(self, drive: DriveIndex) -> DriveSet {
        DriveSet(self.0 & !(1 << drive.0))
    }

    /// Members of both sets.
    #[must_use]
    pub fn and(self, other: DriveSet) -> DriveSet {
        DriveSet(self.0 & other.0)
    }

    /// Members of this set that the other lacks.
    #[must_use]
    pub fn minus(self, other: DriveSet) -> DriveSet {
        DriveSet(self.0 & !other.0)
    }

    /// Whether every member is in the other set.
    #[must_use]
    pub fn is_within(self, other: DriveSet) -> bool {
        self.0 & !other.0 == 0
    }

    /// Number of members.
    #[must_use]
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Members in order.
    pub fn iter(self) -> impl Iterator<Item = DriveIndex> {
        (0..DRIVES_MAX)
            .filter_map(DriveIndex::new)
            .filter(move |drive| self.contains(*drive))
    }
}

impl FromIterator<DriveIndex> for DriveSet {
    fn from_iter<I: IntoIterator<Item = DriveIndex>>(drives: I) -> DriveSet {
        drives.into_iter().fold(DriveSet::EMPTY, DriveSet::with)
    }
}

impl fmt::Display for DriveSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_set()
            .entries(self.iter().map(DriveIndex::get))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded() {
        assert_eq!(DriveIndex::new(DRIVES_MAX), None);
        assert_eq!(
            DriveSet::EMPTY
                .with(DriveIndex::new(31).expect("below the limit"))
                .bits(),
            1 << 31
        );
    }
}
