//! What a client asks.

use crate::message::{BATCH_GET_KEYS_MAX, BATCH_WRITES_MAX, CURSOR_BYTES_MAX};
use crate::wire::{Reader, WireError, put_long_bytes, put_short_bytes, put_text};

/// One key attribute's value as it travels: a type byte, a length, the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPart<'a> {
    /// A string.
    S(&'a str),
    /// A number in decimal text, such as `-1.5E+10`.
    N(&'a str),
    /// Binary.
    B(&'a [u8]),
}

impl<'a> KeyPart<'a> {
    fn encode(&self, into: &mut Vec<u8>) {
        let (kind, bytes) = match self {
            KeyPart::S(text) => (b'S', text.as_bytes()),
            KeyPart::N(text) => (b'N', text.as_bytes()),
            KeyPart::B(bytes) => (b'B', *bytes),
        };
        into.push(kind);
        put_short_bytes(into, bytes);
    }

    fn decode(reader: &mut Reader<'a>) -> Result<KeyPart<'a>, WireError> {
        match reader.u8("key type")? {
            b'S' => Ok(KeyPart::S(reader.text("string key")?)),
            b'N' => Ok(KeyPart::N(reader.text("number key")?)),
            b'B' => Ok(KeyPart::B(reader.short_bytes("binary key")?)),
            other => Err(WireError::Unknown {
                field: "key type",
                value: u64::from(other),
            }),
        }
    }
}

/// A primary key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// Partition key.
    pub partition: KeyPart<'a>,
    /// Sort key, for tables that have one.
    pub sort: Option<KeyPart<'a>>,
}

impl<'a> Key<'a> {
    fn encode(&self, into: &mut Vec<u8>) {
        self.partition.encode(into);
        into.push(u8::from(self.sort.is_some()));
        if let Some(sort) = &self.sort {
            sort.encode(into);
        }
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Key<'a>, WireError> {
        let partition = KeyPart::decode(reader)?;
        let sort = if reader.flag("has sort key")? {
            Some(KeyPart::decode(reader)?)
        } else {
            None
        };
        Ok(Key { partition, sort })
    }
}

/// Condition of a Query on the sort key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortCondition<'a> {
    /// Every sort key.
    All,
    /// Equal.
    Equal(KeyPart<'a>),
    /// Less.
    Less(KeyPart<'a>),
    /// Less or equal.
    LessOrEqual(KeyPart<'a>),
    /// Greater.
    Greater(KeyPart<'a>),
    /// Greater or equal.
    GreaterOrEqual(KeyPart<'a>),
    /// From the first to the second, both included.
    Between(KeyPart<'a>, KeyPart<'a>),
    /// Begins with; strings and binary only.
    BeginsWith(KeyPart<'a>),
}

impl<'a> SortCondition<'a> {
    fn encode(&self, into: &mut Vec<u8>) {
        let (code, parts) = match self {
            SortCondition::All => (0, [None, None]),
            SortCondition::Equal(part) => (1, [Some(part), None]),
            SortCondition::Less(part) => (2, [Some(part), None]),
            SortCondition::LessOrEqual(part) => (3, [Some(part), None]),
            SortCondition::Greater(part) => (4, [Some(part), None]),
            SortCondition::GreaterOrEqual(part) => (5, [Some(part), None]),
            SortCondition::Between(low, high) => (6, [Some(low), Some(high)]),
            SortCondition::BeginsWith(part) => (7, [Some(part), None]),
        };
        into.push(code);
        for part in parts.into_iter().flatten() {
            part.encode(into);
        }
    }

    fn decode(reader: &mut Reader<'a>) -> Result<SortCondition<'a>, WireError> {
        let code = reader.u8("sort condition")?;
        if code == 0 {
            return Ok(SortCondition::All);
        }
        let part = KeyPart::decode(reader)?;
        Ok(match code {
            1 => SortCondition::Equal(part),
            2 => SortCondition::Less(part),
            3 => SortCondition::LessOrEqual(part),
            4 => SortCondition::Greater(part),
            5 => SortCondition::GreaterOrEqual(part),
            6 => SortCondition::Between(part, KeyPart::decode(reader)?),
            7 => SortCondition::BeginsWith(part),
            _ => {
                return Err(WireError::Unknown {
                    field: "sort condition",
                    value: u64::from(code),
                });
            }
        })
    }
}

/// Code of a put within a BatchWrite.
pub const WRITE_PUT: u8 = 0;
/// Code of a delete within a BatchWrite.
pub const WRITE_DELETE: u8 = 1;

/// One write of a BatchWrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write<'a> {
    /// Puts an archived item.
    Put(&'a [u8]),
    /// Deletes by key.
    Delete(Key<'a>),
}

/// Codes of the operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum OperationCode {
    /// [`Operation::Ping`].
    Ping = 0,
    /// [`Operation::Get`].
    Get = 1,
    /// [`Operation::Put`].
    Put = 2,
    /// [`Operation::Delete`].
    Delete = 3,
    /// [`Operation::BatchGet`].
    BatchGet = 4,
    /// [`Operation::BatchWrite`].
    BatchWrite = 5,
    /// [`Operation::Query`].
    Query = 6,
    /// [`Operation::Scan`].
    Scan = 7,
    /// [`Operation::OpenTable`].
    OpenTable = 8,
    /// [`Operation::Json`].
    Json = 9,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Answers with nothing.
    Ping,
    /// One item by key.
    Get {
        /// Read the newest committed state; otherwise any recent one will do.
        consistent: bool,
        /// Its key.
        key: Key<'a>,
    },
    /// Stores an item in place of the one with its key.
    Put {
        /// Answer with the item replaced.
        return_old: bool,
        /// The archived item.
        item: &'a [u8],
    },
    /// Deletes the item with a key.
    Delete {
        /// Answer with the item deleted.
        return_old: bool,
        /// Its key.
        key: Key<'a>,
    },
    /// Up to 100 items of one table.
    BatchGet {
        /// As for Get.
        consistent: bool,
        /// Their keys.
        keys: Vec<Key<'a>>,
    },
    /// Up to 25 puts and deletes of one table, each on its own.
    BatchWrite {
        /// What to write.
        writes: Vec<Write<'a>>,
    },
    /// The items of one partition key, by sort key.
    Query {
        /// As for Get.
        consistent: bool,
        /// From the highest sort key down.
        backward: bool,
        /// Most items of the page; 0 for no limit but a page's 1 MB.
        limit: u32,
        /// The partition key.
        partition: KeyPart<'a>,
        /// Which sort keys.
        sort: SortCondition<'a>,
        /// Where the page before ended; empty at the start.
        cursor: &'a [u8],
    },
    /// The items of a table, or of one segment of it.
    Scan {
        /// As for Get.
        consistent: bool,
        /// As for Query.
        limit: u32,
        /// This segment, of
        segment: u32,
        /// so many segments.
        segments: u32,
        /// Where the page before ended; empty at the start.
        cursor: &'a [u8],
    },
    /// A table's description by its name.
    OpenTable {
        /// The name.
        name: &'a str,
    },
    /// Any DynamoDB operation as JSON, for those that have no form of their own.
    Json {
        /// Its name, such as `CreateTable`.
        name: &'a str,
        /// The request as over HTTP.
        body: &'a [u8],
    },
}

/// One request.
///
/// ```text
///  0           2          4            8          16               24         40
///  +-----------+----------+------------+----------+----------------+----------+------
///  | operation | reserved | budget, us | table id | epoch of table | trace id | operation's own fields
///  +-----------+----------+------------+----------+----------------+----------+------
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// Microseconds the client will wait from when the node receives the request; 0 for no end. A request that the
    /// node could not begin within it fails with `RequestTimeout` and has done nothing.
    pub budget_us: u32,
    /// The table; 0 for operations that name none.
    pub table: u64,
    /// [`crate::message::Table::epoch`] that the client routed by; 0 when it did not route.
    pub epoch: u64,
    /// Repeated in logs; all zero for none.
    pub trace: [u8; 16],
    /// What to do.
    pub operation: Operation<'a>,
}

const CONSISTENT: u8 = 1;
const BACKWARD: u8 = 2;

fn flags(reader: &mut Reader<'_>, known: u8) -> Result<u8, WireError> {
    let flags = reader.u8("flags")?;
    if flags & !known != 0 {
        return Err(WireError::Unknown {
            field: "flags",
            value: u64::from(flags),
        });
    }
    Ok(flags)
}

fn cursor<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let cursor = reader.short_bytes("cursor")?;
    if cursor.len() > CURSOR_BYTES_MAX {
        return Err(WireError::TooLarge {
            field: "cursor",
            got: cursor.len(),
            limit: CURSOR_BYTES_MAX,
        });
    }
    Ok(cursor)
}

fn count(reader: &mut Reader<'_>, field: &'static str, limit: usize) -> Result<usize, WireError> {
    let got = usize::from(reader.u16(field)?);
    if got > limit {
        Err(WireError::TooLarge { field, got, limit })
    } else {
        Ok(got)
    }
}

impl Operation<'_> {
    /// The operation's code.
    #[must_use]
    pub fn code(&self) -> OperationCode {
        match self {
            Operation::Ping => OperationCode::Ping,
            Operation::Get { .. } => OperationCode::Get,
            Operation::Put { .. } => OperationCode::Put,
            Operation::Delete { .. } => OperationCode::Delete,
            Operation::BatchGet { .. } => OperationCode::BatchGet,
            Operation::BatchWrite { .. } => OperationCode::BatchWrite,
            Operation::Query { .. } => OperationCode::Query,
            Operation::Scan { .. } => OperationCode::Scan,
            Operation::OpenTable { .. } => OperationCode::OpenTable,
            Operation::Json { .. } => OperationCode::Json,
        }
    }
}

impl<'a> Request<'a> {
    /// Appends the request.
    ///
    /// # Panics
    /// When a list exceeds [`BATCH_GET_KEYS_MAX`] or [`BATCH_WRITES_MAX`], or a key 65,535 bytes.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&(self.operation.code() as u16).to_le_bytes());
        into.extend_from_slice(&[0; 2]);
        into.extend_from_slice(&self.budget_us.to_le_bytes());
        into.extend_from_slice(&self.table.to_le_bytes());
        into.extend_from_slice(&self.epoch.to_le_bytes());
        into.extend_from_slice(&self.trace);
        match &self.operation {
            Operation::Ping => {}
            Operation::Get { consistent, key } => {
                into.push(u8::from(*consistent));
                key.encode(into);
            }
            Operation::Put { return_old, item } => {
                into.push(u8::from(*return_old));
                into.extend_from_slice(item);
            }
            Operation::Delete { return_old, key } => {
                into.push(u8::from(*return_old));
                key.encode(into);
            }
            Operation::BatchGet { consistent, keys } => {
                assert!(keys.len() <= BATCH_GET_KEYS_MAX, "too many keys for one batch");
                into.push(u8::from(*consistent));
                into.extend_from_slice(&u16::try_from(keys.len()).expect("checked").to_le_bytes());
                for key in keys {
                    key.encode(into);
                }
            }
            Operation::BatchWrite { writes } => {
                assert!(writes.len() <= BATCH_WRITES_MAX, "too many writes for one batch");
                into.extend_from_slice(&u16::try_from(writes.len()).expect("checked").to_le_bytes());
                for write in writes {
                    match write {
                        Write::Put(item) => {
                            into.push(WRITE_PUT);
                            put_long_bytes(into, item);
                        }
                        Write::Delete(key) => {
                            into.push(WRITE_DELETE);
                            key.encode(into);
                        }
                    }
                }
            }
            Operation::Query {
                consistent,
                backward,
                limit,
                partition,
                sort,
                cursor,
            } => {
                into.push(u8::from(*consistent) | if *backward { BACKWARD } else { 0 });
                into.extend_from_slice(&limit.to_le_bytes());
                partition.encode(into);
                sort.encode(into);
                put_short_bytes(into, cursor);
            }
            Operation::Scan {
                consistent,
                limit,
                segment,
                segments,
                cursor,
            } => {
                into.push(u8::from(*consistent));
                for field in [limit, segment, segments] {
                    into.extend_from_slice(&field.to_le_bytes());
                }
                put_short_bytes(into, cursor);
            }
            Operation::OpenTable { name } => put_text(into, name),
            Operation::Json { name, body } => {
                put_text(into, name);
                into.extend_from_slice(body);
            }
        }
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(body: &'a [u8]) -> Result<Request<'a>, WireError> {
        let mut reader = Reader::new(body);
        let code = reader.u16("operation")?;
        if reader.u16("reserved")? != 0 {
            return Err(WireError::Unknown {
                field: "reserved",
                value: 1,
            });
        }
        let budget_us = reader.u32("budget")?;
        let table = reader.u64("table id")?;
        let epoch = reader.u64("epoch")?;
        let trace = reader.array("trace id")?;
        let operation = decode_operation(code, &mut reader)?;
        reader.end()?;
        Ok(Request {
            budget_us,
            table,
            epoch,
            trace,
            operation,
        })
    }
}

fn decode_operation<'a>(code: u16, reader: &mut Reader<'a>) -> Result<Operation<'a>, WireError> {
    Ok(match code {
        0 => Operation::Ping,
        1 => Operation::Get {
            consistent: flags(reader, CONSISTENT)? != 0,
            key: Key::decode(reader)?,
        },
        2 => Operation::Put {
            return_old: reader.flag("return old")?,
            item: reader.take_rest(),
        },
        3 => Operation::Delete {
            return_old: reader.flag("return old")?,
            key: Key::decode(reader)?,
        },
        4 => {
            let consistent = flags(reader, CONSISTENT)? != 0;
            let count = count(reader, "keys", BATCH_GET_KEYS_MAX)?;
            let keys = (0..count)
                .map(|_| Key::decode(reader))
                .collect::<Result<_, _>>()?;
            Operation::BatchGet { consistent, keys }
        }
        5 => {
            let count = count(reader, "writes", BATCH_WRITES_MAX)?;
            let writes = (0..count)
                .map(|_| decode_write(reader))
                .collect::<Result<_, _>>()?;
            Operation::BatchWrite { writes }
        }
        6 => {
            let flags = flags(reader, CONSISTENT | BACKWARD)?;
            Operation::Query {
                consistent: flags & CONSISTENT != 0,
                backward: flags & BACKWARD != 0,
                limit: reader.u32("limit")?,
                partition: KeyPart::decode(reader)?,
                sort: SortCondition::decode(reader)?,
                cursor: cursor(reader)?,
            }
        }
        7 => Operation::Scan {
            consistent: flags(reader, CONSISTENT)? != 0,
            limit: reader.u32("limit")?,
            segment: reader.u32("segment")?,
            segments: reader.u32("segments")?,
            cursor: cursor(reader)?,
        },
        8 => Operation::OpenTable {
            name: reader.text("table name")?,
        },
        9 => Operation::Json {
            name: reader.text("operation name")?,
            body: reader.take_rest(),
        },
        other => {
            return Err(WireError::Unknown {
                field: "operation",
                value: u64::from(other),
            });
        }
    })
}

fn decode_write<'a>(reader: &mut Reader<'a>) -> Result<Write<'a>, WireError> {
    match reader.u8("write")? {
        WRITE_PUT => Ok(Write::Put(reader.long_bytes("item")?)),
        WRITE_DELETE => Ok(Write::Delete(Key::decode(reader)?)),
        other => Err(WireError::Unknown {
            field: "write",
            value: u64::from(other),
        }),
    }
}
