//! Bounded little-endian cursors: reading never panics, never allocates and never passes the end.

/// Bytes that do not follow the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends inside a field.
    #[error("the message ends inside the field `{0}`")]
    Short(&'static str),
    /// Bytes follow the last field.
    #[error("{0} bytes follow the last field of the message")]
    Trailing(usize),
    /// A field holds a value that the protocol does not know.
    #[error("the field `{field}` holds {value}, which the protocol does not know")]
    Unknown {
        /// Name of the field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
    /// A text field is not UTF-8.
    #[error("the field `{0}` is not UTF-8")]
    NotUtf8(&'static str),
    /// A field exceeds its limit.
    #[error("the field `{field}` has {got}, at most {limit} are allowed")]
    TooLarge {
        /// Name of the field.
        field: &'static str,
        /// Its length or count.
        got: usize,
        /// What is allowed.
        limit: usize,
    },
}

/// Reads fields from the front of a message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of a whole message.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Reader<'a> {
        Reader { rest: message }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Everything not read yet.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn bytes(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        let (front, rest) = self.rest.split_at_checked(count).ok_or(WireError::Short(field))?;
        self.rest = rest;
        Ok(front)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let (front, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(WireError::Short(field))?;
        self.rest = rest;
        Ok(*front)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        Ok(self.array::<1>(field)?[0])
    }

    /// A byte that must be 0 or 1.
    ///
    /// # Errors
    /// [`WireError::Short`] or [`WireError::Unknown`].
    pub fn flag(&mut self, field: &'static str) -> Result<bool, WireError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::Unknown {
                field,
                value: u64::from(other),
            }),
        }
    }

    /// Two bytes, little-endian.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A `u16` length and as many bytes.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn short_bytes(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let count = usize::from(self.u16(field)?);
        self.bytes(count, field)
    }

    /// A `u32` length and as many bytes.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn long_bytes(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let count = self.u32(field)? as usize;
        self.bytes(count, field)
    }

    /// A `u16` length and as many bytes of UTF-8.
    ///
    /// # Errors
    /// [`WireError::Short`] or [`WireError::NotUtf8`].
    pub fn text(&mut self, field: &'static str) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.short_bytes(field)?).map_err(|_| WireError::NotUtf8(field))
    }

    /// Ends the message.
    ///
    /// # Errors
    /// [`WireError::Trailing`].
    pub fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing(self.rest.len()))
        }
    }
}

/// Appends a `u16` length and the bytes.
///
/// # Panics
/// When `bytes` is longer than 65,535; callers bound what they send by the limits of docs/protocol.md.
pub fn put_short_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    let count = u16::try_from(bytes.len()).expect("short fields are bounded by the protocol's limits");
    into.extend_from_slice(&count.to_le_bytes());
    into.extend_from_slice(bytes);
}

/// Appends a `u32` length and the bytes.
///
/// # Panics
/// When `bytes` is longer than a frame can be.
pub fn put_long_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    let count = u32::try_from(bytes.len()).expect("long fields are bounded by the frame limit");
    into.extend_from_slice(&count.to_le_bytes());
    into.extend_from_slice(bytes);
}

/// Appends a text, cut at a character boundary to the 65,535 bytes that a short field holds.
pub fn put_text(into: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    put_short_bytes(into, &text.as_bytes()[..end]);
}
