//! What the engine's log records are.

/// Kind of a log record; the log itself does not interpret it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// One [`crate::mutation::Mutation`] of a partition's chain.
    Mutation = 1,
    /// A list of [`crate::manifest::Edit`]s that take effect together. Outside of any chain.
    Edits = 2,
    /// Several mutations of a partition that are one step of its chain: [`crate::group`].
    Group = 3,
}

impl RecordKind {
    /// The kind of this byte, if there is one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<RecordKind> {
        match byte {
            1 => Some(RecordKind::Mutation),
            2 => Some(RecordKind::Edits),
            3 => Some(RecordKind::Group),
            _ => None,
        }
    }
}
