//! Shard iterators: a reader's position in a shard of a stream, which it carries itself.
//!
//! ```text
//! iterator  ARN of the stream | '|' | '1' | '|' | position in hexadecimal digits
//! position  version u8 | kind u8 | table u64 | stream u64 | partition u64 | after u64 | issued u64 | checksum u64
//! ```
//!
//! All integers are big-endian. `after`: everything up to this commit timestamp has been read. Kind: 1, from there on, and a record
//! behind it that has passed its time is missed; 2, the reader takes what there is. `issued`: when it was given out, in milliseconds
//! since the Unix epoch. The checksum shows what has been cut off or mistyped; whoever makes one up gets no more than he may read
//! anyway.

use cairn_engine::checksum::checksum;

use super::ApiError;

/// An iterator can be used for this long, in milliseconds.
pub(super) const LIFE_MS: u64 = 15 * 60 * 1000;

const VERSION: u8 = 1;
const POSITION_BYTES: usize = 50;
const CHECKSUM_SEED: u64 = 0x5348_4152_4449_5445;

/// A position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShardIterator {
    pub table: u64,
    /// The stream, by its creation.
    pub stream: u64,
    pub partition: u64,
    /// Everything up to this commit timestamp has been read.
    pub after: u64,
    /// It began where the stream does, and has not read anything: whatever has gone is not missed.
    pub from_horizon: bool,
    pub issued_ms: u64,
}

impl ShardIterator {
    pub(super) fn encode(&self, arn: &str) -> String {
        let mut bytes = vec![VERSION, if self.from_horizon { 2 } else { 1 }];
        for number in [
            self.table,
            self.stream,
            self.partition,
            self.after,
            self.issued_ms,
        ] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&checksum(CHECKSUM_SEED, &bytes).to_be_bytes());
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{arn}|1|{digits}")
    }

    /// Reads an iterator and the ARN before it.
    ///
    /// # Errors
    /// It is none that was given out.
    pub(super) fn decode(text: &str) -> Result<(ShardIterator, &str), ApiError> {
        ShardIterator::parse(text).ok_or_else(|| ApiError::validation("Invalid ShardIterator"))
    }

    fn parse(text: &str) -> Option<(ShardIterator, &str)> {
        let (arn, position) = text.split_once("|1|")?;
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if position.len() != 2 * POSITION_BYTES || !position.bytes().all(is_digit) {
            return None;
        }
        let bytes = (0..POSITION_BYTES)
            .map(|at| u8::from_str_radix(&position[2 * at..2 * at + 2], 16).ok())
            .collect::<Option<Vec<u8>>>()?;
        let number = |place: usize| {
            let bytes = bytes.get(2 + 8 * place..)?.first_chunk()?;
            Some(u64::from_be_bytes(*bytes))
        };
        let [VERSION, kind @ (1 | 2), ..] = bytes[..] else {
            return None;
        };
        let content = POSITION_BYTES - 8;
        if number(5)? != checksum(CHECKSUM_SEED, &bytes[..content]) {
            return None;
        }
        let iterator = ShardIterator {
            table: number(0)?,
            stream: number(1)?,
            partition: number(2)?,
            after: number(3)?,
            from_horizon: kind == 2,
            issued_ms: number(4)?,
        };
        Some((iterator, arn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_out_is_taken_back_and_nothing_else() {
        let iterator = ShardIterator {
            table: 1,
            stream: 2,
            partition: 3,
            after: u64::MAX,
            from_horizon: true,
            issued_ms: 5,
        };
        let other = ShardIterator {
            from_horizon: false,
            ..iterator
        };
        let text = iterator.encode("arn:a");
        assert_eq!(ShardIterator::parse(&text), Some((iterator, "arn:a")));
        assert_eq!(ShardIterator::parse(&other.encode("")), Some((other, "")));
        for end in 0..text.len() {
            assert_eq!(ShardIterator::parse(&text[..end]), None, "{end}");
        }
        let begin = "arn:a|1|".len();
        for at in begin..text.len() {
            for byte in ['0', '1', 'f', 'g', '+', 'é'] {
                let mut changed: Vec<char> = text.chars().collect();
                if changed[at] == byte {
                    continue;
                }
                changed[at] = byte;
                let changed: String = changed.into_iter().collect();
                assert_eq!(ShardIterator::parse(&changed), None, "{changed}");
            }
        }
    }
}
