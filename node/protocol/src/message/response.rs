//! What a node answers: encoders and decoders of each operation's response.
//!
//! Every body begins with the consumed capacity in tenths of a unit (u32), so that half units of eventually
//! consistent reads are whole numbers. The client knows from the request id which operation a response answers.

use crate::message::{BATCH_GET_KEYS_MAX, BATCH_WRITES_MAX, Table};
use crate::wire::{Reader, WireError, put_long_bytes, put_short_bytes};

/// What became of one key of a BatchGet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchGetStatus<'a> {
    /// There is no such item.
    Missing,
    /// The archived item.
    Found(&'a [u8]),
    /// Not read: ask for it again.
    Unprocessed,
}

/// A page of a Query or Scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<'a> {
    /// The archived items.
    pub items: Vec<&'a [u8]>,
    /// Items looked at.
    pub scanned: u32,
    /// Where the next page begins; empty when this was the last.
    pub cursor: &'a [u8],
}

/// Items of one page: even items of one byte fill the 1 MB of a page before.
const PAGE_ITEMS_MAX: usize = 1 << 20;

const MISSING: u8 = 0;
const FOUND: u8 = 1;
const UNPROCESSED: u8 = 2;

/// Appends the body of Ping, and the head of every other response.
pub fn encode_head(into: &mut Vec<u8>, capacity_tenths: u32) {
    into.extend_from_slice(&capacity_tenths.to_le_bytes());
}

/// Reads the head: the consumed capacity in tenths of a unit.
///
/// # Errors
/// [`WireError`].
pub fn decode_head(reader: &mut Reader<'_>) -> Result<u32, WireError> {
    reader.u32("capacity")
}

/// Appends the body of Get, Put and Delete: an item or none.
pub fn encode_item(into: &mut Vec<u8>, capacity_tenths: u32, item: Option<&[u8]>) {
    encode_head(into, capacity_tenths);
    into.push(u8::from(item.is_some()));
    into.extend_from_slice(item.unwrap_or_default());
}

/// Reads what [`encode_item`] wrote: capacity and the item.
///
/// # Errors
/// [`WireError`].
pub fn decode_item(body: &[u8]) -> Result<(u32, Option<&[u8]>), WireError> {
    let mut reader = Reader::new(body);
    let capacity = decode_head(&mut reader)?;
    let found = reader.flag("found")?;
    let item = found.then(|| reader.take_rest());
    reader.end()?;
    Ok((capacity, item))
}

/// Appends the body of BatchGet, one status for each key in the request's order.
pub fn encode_batch_get<'a>(
    into: &mut Vec<u8>,
    capacity_tenths: u32,
    statuses: impl ExactSizeIterator<Item = BatchGetStatus<'a>>,
) {
    encode_head(into, capacity_tenths);
    into.extend_from_slice(
        &u16::try_from(statuses.len())
            .expect("at most 100 keys")
            .to_le_bytes(),
    );
    for status in statuses {
        match status {
            BatchGetStatus::Missing => into.push(MISSING),
            BatchGetStatus::Unprocessed => into.push(UNPROCESSED),
            BatchGetStatus::Found(item) => {
                into.push(FOUND);
                put_long_bytes(into, item);
            }
        }
    }
}

/// Reads what [`encode_batch_get`] wrote.
///
/// # Errors
/// [`WireError`].
pub fn decode_batch_get(body: &[u8]) -> Result<(u32, Vec<BatchGetStatus<'_>>), WireError> {
    let mut reader = Reader::new(body);
    let capacity = decode_head(&mut reader)?;
    let count = usize::from(reader.u16("keys")?);
    if count > BATCH_GET_KEYS_MAX {
        return Err(WireError::TooLarge {
            field: "keys",
            got: count,
            limit: BATCH_GET_KEYS_MAX,
        });
    }
    let mut statuses = Vec::with_capacity(count);
    for _ in 0..count {
        statuses.push(match reader.u8("status")? {
            MISSING => BatchGetStatus::Missing,
            FOUND => BatchGetStatus::Found(reader.long_bytes("item")?),
            UNPROCESSED => BatchGetStatus::Unprocessed,
            other => {
                return Err(WireError::Unknown {
                    field: "status",
                    value: u64::from(other),
                });
            }
        });
    }
    reader.end()?;
    Ok((capacity, statuses))
}

/// Appends the body of BatchWrite: for each write in the request's order whether it was carried out.
pub fn encode_batch_write(into: &mut Vec<u8>, capacity_tenths: u32, done: &[bool]) {
    encode_head(into, capacity_tenths);
    into.extend_from_slice(
        &u16::try_from(done.len())
            .expect("at most 25 writes")
            .to_le_bytes(),
    );
    into.extend(done.iter().map(|&done| u8::from(done)));
}

/// Reads what [`encode_batch_write`] wrote.
///
/// # Errors
/// [`WireError`].
pub fn decode_batch_write(body: &[u8]) -> Result<(u32, Vec<bool>), WireError> {
    let mut reader = Reader::new(body);
    let capacity = decode_head(&mut reader)?;
    let count = usize::from(reader.u16("writes")?);
    if count > BATCH_WRITES_MAX {
        return Err(WireError::TooLarge {
            field: "writes",
            got: count,
            limit: BATCH_WRITES_MAX,
        });
    }
    let done = (0..count)
        .map(|_| reader.flag("done"))
        .collect::<Result<_, _>>()?;
    reader.end()?;
    Ok((capacity, done))
}

/// Appends the body of Query and Scan.
pub fn encode_page<'a>(
    into: &mut Vec<u8>,
    capacity_tenths: u32,
    scanned: u32,
    items: impl ExactSizeIterator<Item = &'a [u8]>,
    cursor: &[u8],
) {
    encode_head(into, capacity_tenths);
    into.extend_from_slice(&scanned.to_le_bytes());
    put_short_bytes(into, cursor);
    into.extend_from_slice(&u32::try_from(items.len()).expect("a page has 1 MB").to_le_bytes());
    for item in items {
        put_long_bytes(into, item);
    }
}

/// Reads what [`encode_page`] wrote.
///
/// # Errors
/// [`WireError`].
pub fn decode_page(body: &[u8]) -> Result<(u32, Page<'_>), WireError> {
    let mut reader = Reader::new(body);
    let capacity = decode_head(&mut reader)?;
    let scanned = reader.u32("scanned")?;
    let cursor = reader.short_bytes("cursor")?;
    let count = reader.u32("items")? as usize;
    // Every item has at least its length: a count that cannot fit is refused before anything is reserved.
    let limit = PAGE_ITEMS_MAX.min(reader.remaining() / 4);
    if count > limit {
        return Err(WireError::TooLarge {
            field: "items",
            got: count,
            limit,
        });
    }
    let items = (0..count)
        .map(|_| reader.long_bytes("item"))
        .collect::<Result<_, _>>()?;
    reader.end()?;
    Ok((
        capacity,
        Page {
            items,
            scanned,
            cursor,
        },
    ))
}

/// Appends the body of OpenTable.
pub fn encode_table(into: &mut Vec<u8>, table: &Table) {
    encode_head(into, 0);
    table.encode(into);
}

/// Reads what [`encode_table`] wrote.
///
/// # Errors
/// [`WireError`].
pub fn decode_table(body: &[u8]) -> Result<Table, WireError> {
    let mut reader = Reader::new(body);
    decode_head(&mut reader)?;
    let table = Table::decode(&mut reader)?;
    reader.end()?;
    Ok(table)
}

/// Appends the body of Json.
pub fn encode_json(into: &mut Vec<u8>, body: &[u8]) {
    encode_head(into, 0);
    into.extend_from_slice(body);
}

/// Reads what [`encode_json`] wrote.
///
/// # Errors
/// [`WireError`].
pub fn decode_json(body: &[u8]) -> Result<&[u8], WireError> {
    let mut reader = Reader::new(body);
    decode_head(&mut reader)?;
    Ok(reader.take_rest())
}
