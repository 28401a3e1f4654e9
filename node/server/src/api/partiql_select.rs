//! SELECT: the reads of a plan, one after the other, until a limit ends the page.
//!
//! - Where the key is pinned an item is got, a partition key is queried, and only else is the table scanned. Every item is held
//!   against the whole WHERE clause by the shard that has it.
//! - A page ends after `Limit` items looked at, or as pages of Query do. Its token says where the next one begins, in which table
//!   and of which statement: its text as it was written and its parameters by value. A plan depends on nothing else.

use aws_lc_rs::digest::{Context, SHA256};
use cairn_engine::ids::TableId;
use cairn_expression::partiql::{Plan, Read, ReadOrder};
use cairn_item::json::{Reader, decode_base64, write_base64, write_value};
use cairn_item::{Item, KeyCondition, Value};
use cairn_runtime::Runtime;

use super::capacity::Capacity;
use super::index::{IndexConditions, IndexRead, IndexStart, write_entry_key};
use super::partiql::{Prepared, index_schema, schema};
use super::service::{PAGE_BYTES_MAX, Page, write_key_of};
use super::{ApiError, Query, Scan, Service};
use crate::catalog::{IndexDefinition, PrimaryKey, Table};
use crate::index::entry;
use crate::route::{Condition, Filter, ItemHandle};

/// What the items of a page may take in memory before its last read.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// First byte of a token.
const TOKEN_VERSION: u8 = 1;
/// Bytes of a token before the key: version, table, digest, number of the read.
const TOKEN_HEAD_BYTES: usize = 1 + 8 + 16 + 4;

/// One page.
#[derive(Default)]
pub(super) struct Selected {
    pub items: Vec<ItemHandle>,
    /// DynamoDB sizes of the items looked at, summed.
    pub scanned_bytes: u64,
    /// Where the next page begins, if there is one.
    pub token: Option<Token>,
    /// What it took to fetch whole items by a local index, when consistent.
    pub fetched_capacity: Capacity,
    scanned_count: u64,
    answer_bytes: usize,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    table: TableId,
    digest: [u8; 16],
    /// Number of the read.
    read: u32,
    /// The last item looked at in it, as the JSON of its key; none begins the read.
    key: Option<Vec<u8>>,
}

/// What makes two statements the same for a token.
pub(super) fn digest(text: &str, parameters: &[Value]) -> [u8; 16] {
    let mut bytes = text.as_bytes().to_vec();
    for parameter in parameters {
        bytes.push(0);
        write_value(&mut bytes, parameter);
    }
    let mut context = Context::new(&SHA256);
    context.update(&bytes);
    let digest = context.finish();
    digest.as_ref()[..16].try_into().expect("SHA-256 has 32 bytes")
}

impl Token {
    pub(super) fn encode(&self) -> String {
        let mut bytes = vec![TOKEN_VERSION];
        bytes.extend_from_slice(&self.table.0.to_be_bytes());
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&self.read.to_be_bytes());
        bytes.extend_from_slice(self.key.as_deref().unwrap_or_default());
        let mut text = Vec::new();
        write_base64(&mut text, &bytes);
        String::from_utf8(text).expect("base64 is ASCII")
    }

    pub(super) fn decode(text: &str) -> Result<Token, ApiError> {
        let bytes = decode_base64(text).map_err(|_| invalid_token())?;
        let (head, key) = bytes
            .split_at_checked(TOKEN_HEAD_BYTES)
            .ok_or_else(invalid_token)?;
        if head[0] != TOKEN_VERSION {
            return Err(invalid_token());
        }
        let fixed = "the head has this length";
        Ok(Token {
            table: TableId(u64::from_be_bytes(head[1..9].try_into().expect(fixed))),
            digest: head[9..25].try_into().expect(fixed),
            read: u32::from_be_bytes(head[25..].try_into().expect(fixed)),
            key: (!key.is_empty()).then(|| key.to_vec()),
        })
    }

    /// The key that the page begins after.
    fn start(&self) -> Result<Option<Item>, ApiError> {
        let Some(key) = &self.key else { return Ok(None) };
        let read = || -> Option<Item> {
            let mut reader = Reader::new(key).ok()?;
            let item = reader.item().ok()?;
            reader.finish().ok()?;
            Some(item)
        };
        read().ok_or_else(invalid_token).map(Some)
    }
}

fn invalid_token() -> ApiError {
    ApiError::validation("Invalid NextToken")
}

/// Reads one page.
pub(super) async fn select<R: Runtime>(
    service: &Service<R>,
    table: &Table,
    index: Option<&IndexDefinition>,
    prepared: &Prepared,
    limit: Option<u64>,
    token: Option<Token>,
) -> Result<Selected, ApiError> {
    let (statement, values) = (&prepared.statement, &prepared.operands.values);
    prepared.check_scalars(table)?;
    let (partition, sort) = index.map_or_else(|| schema(table), index_schema);
    let plan = statement.plan(values, partition, sort)?;
    let mut begin = (0, None);
    if let Some(token) = &token {
        if token.table != table.definition().id || token.digest != prepared.digest {
            return Err(ApiError::validation("NextToken does not match request"));
        }
        begin = (
            usize::try_from(token.read).map_err(|_| invalid_token())?,
            token.start()?,
        );
    }
    let selecting = Selecting {
        service,
        table,
        index,
        fetch: match index {
            Some(index) => fetches(table, index, prepared, statement.is_keyed(partition))?,
            None => false,
        },
        prepared,
        filter: prepared.condition(),
        limit,
    };
    match plan {
        Plan::Scan => selecting.scan(begin.1).await,
        Plan::Reads(reads, order) => selecting.reads(&reads, order, begin).await,
    }
}

/// Whether whole items are to be fetched by an index for what the statement names. Where it is keyed the WHERE clause may not name
/// what the index does not project; else that is simply not there.
fn fetches(
    table: &Table,
    index: &IndexDefinition,
    prepared: &Prepared,
    keyed: bool,
) -> Result<bool, ApiError> {
    let missing_of = |attributes: Vec<&str>| {
        let mut missing: Vec<String> = Vec::new();
        for attribute in attributes {
            let known = entry::projects(table.definition(), index, attribute);
            if !known && !missing.iter().any(|other| other == attribute) {
                missing.push(attribute.to_owned());
            }
        }
        missing
    };
    let list = prepared.statement.list();
    let missing = missing_of(list.map(|list| list.attributes().collect()).unwrap_or_default());
    if !missing.is_empty() && index.global.is_some() {
        return Err(ApiError::parameters(format!(
            "Global secondary index {} does not project [{}]",
            index.name,
            missing.join(", ")
        )));
    }
    let filter = prepared.condition();
    let bound = filter.as_ref().map(Condition::bound);
    let filtered = missing_of(
        bound
            .map(|bound| bound.attributes().collect())
            .unwrap_or_default(),
    );
    if keyed && !filtered.is_empty() {
        return Err(ApiError::parameters(format!(
            "Secondary index {} does not project one or more filter attributes: [{}]",
            index.name,
            filtered.join(", ")
        )));
    }
    Ok(!missing.is_empty())
}

struct Selecting<'s, R: Runtime> {
    service: &'s Service<R>,
    table: &'s Table,
    index: Option<&'s IndexDefinition>,
    /// Whether whole items are fetched by the index.
    fetch: bool,
    prepared: &'s Prepared,
    filter: Option<Filter>,
    /// Items to look at, at most.
    limit: Option<u64>,
}

impl<R: Runtime> Selecting<'_, R> {
    /// The read of an index that goes on after an entry of this key.
    fn index_read(
        &self,
        index: &IndexDefinition,
        start: Option<&Item>,
        limit: Option<u64>,
    ) -> Result<IndexRead, ApiError> {
        let start = start.map(|start| IndexStart::of(self.table, index, start, false));
        Ok(IndexRead {
            start: start.transpose().map_err(|_| invalid_token())?,
            limit,
            filter: self.filter.clone(),
            count_only: false,
            fetch: self.fetch,
        })
    }

    fn start_key(&self, start: Option<&Item>) -> Result<Option<PrimaryKey>, ApiError> {
        let key = start.map(|start| self.table.key_of_key(start));
        key.transpose().map_err(|_| invalid_token())
    }

    async fn scan(&self, start: Option<Item>) -> Result<Selected, ApiError> {
        let mut selected = Selected::default();
        if let Some(index) = self.index {
            let read = self.index_read(index, start.as_ref(), self.limit)?;
            let page = self.service.scan_index(self.table, index, None, read).await?;
            self.add(&mut selected, page, 0);
            return Ok(selected);
        }
        let start = self.start_key(start.as_ref())?;
        let scan = Scan {
            segment: None,
            start,
            limit: self.limit,
            filter: self.filter.clone(),
            count_only: false,
        };
        let page = self.service.scan(self.table, scan).await?;
        self.add(&mut selected, page, 0);
        Ok(selected)
    }

    async fn reads(
        &self,
        reads: &[Read],
        order: ReadOrder,
        (first, mut start): (usize, Option<Item>),
    ) -> Result<Selected, ApiError> {
        if first > reads.len() {
            return Err(invalid_token());
        }
        let filter = self.filter.as_ref().map(Condition::bound);
        let mut selected = Selected::default();
        for (number, read) in reads.iter().enumerate().skip(first) {
            let start = start.take();
            let forward = order == ReadOrder::Forward;
            let limit = self.limit.map(|limit| limit - selected.scanned_count);
            if let Some(index) = self.index {
                let conditions = IndexConditions::of_read(read.partition.clone(), read.condition.clone());
                let asked = self.index_read(index, start.as_ref(), limit)?;
                let page = self
                    .service
                    .query_index(self.table, index, &conditions, forward, asked)
                    .await?;
                self.add(&mut selected, page, number);
            } else if let Some(key) = self.point(read) {
                if let Some(item) = self.service.get(self.table, &key).await? {
                    selected.scanned_count += 1;
                    selected.scanned_bytes += u64::from(item.item_bytes());
                    if filter
                        .as_ref()
                        .is_none_or(|filter| filter.matches(Some(item.view())))
                    {
                        selected.answer_bytes += item.bytes().len();
                        selected.items.push(item);
                    }
                }
            } else {
                let query = Query {
                    partition: read.partition.clone(),
                    condition: read.condition.clone(),
                    forward,
                    start: self.start_key(start.as_ref())?,
                    limit,
                    filter: self.filter.clone(),
                    count_only: false,
                };
                let page = self.service.query(self.table, query).await?;
                self.add(&mut selected, page, number);
            }
            let last = number + 1 == reads.len();
            let counted = self.limit.is_some_and(|limit| selected.scanned_count >= limit);
            let large = selected.scanned_bytes >= PAGE_BYTES_MAX || selected.answer_bytes >= ANSWER_BYTES_MAX;
            if selected.token.is_none() && (counted || large && !last) {
                selected.token = Some(self.token(number + 1, None));
            }
            if selected.token.is_some() {
                break;
            }
        }
        Ok(selected)
    }

    /// The key of a read of one item.
    fn point(&self, read: &Read) -> Option<PrimaryKey> {
        let sort = match (&read.condition, &self.table.definition().sort_key) {
            (KeyCondition::Equal(sort), Some(_)) => Some(sort.clone()),
            (KeyCondition::All, None) => None,
            _ => return None,
        };
        Some(PrimaryKey {
            partition: read.partition.clone(),
            sort,
        })
    }

    fn add(&self, selected: &mut Selected, page: Page, read: usize) {
        selected.scanned_count += page.scanned_count;
        selected.scanned_bytes += page.scanned_bytes;
        selected.fetched_capacity = selected.fetched_capacity.plus(page.fetched_capacity);
        selected.answer_bytes += page.items.iter().map(|item| item.bytes().len()).sum::<usize>();
        selected.items.extend(page.items);
        selected.token = page.last.map(|last| {
            let mut key = Vec::new();
            match self.index {
                Some(index) => write_entry_key(&mut key, self.table, index, last.view()),
                None => write_key_of(&mut key, self.table, last.view()),
            }
            self.token(read, Some(key))
        });
    }

    fn token(&self, read: usize, key: Option<Vec<u8>>) -> Token {
        Token {
            table: self.table.definition().id,
            digest: self.prepared.digest,
            read: u32::try_from(read).expect("plans are bounded"),
            key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_nothing_else_is_one() {
        let token = Token {
            table: TableId(7),
            digest: digest("SELECT", &[Value::Null]),
            read: 3,
            key: Some(br#"{"pk":{"S":"a"}}"#.to_vec()),
        };
        assert_eq!(Token::decode(&token.encode()), Ok(token.clone()));
        let begins = Token { key: None, ..token };
        assert_eq!(Token::decode(&begins.encode()), Ok(begins));
        for text in ["", "x", "AAAA", "AgAAAA=="] {
            assert_eq!(Token::decode(text), Err(invalid_token()), "{text}");
        }
    }

    #[test]
    fn a_digest_is_of_the_text_and_the_values() {
        let number = |text: &str| Value::N(text.parse().unwrap());
        assert_eq!(digest("a", &[number("1.0")]), digest("a", &[number("1")]));
        let different = [
            digest("a", &[]),
            digest("A", &[]),
            digest("a", &[number("1")]),
            digest("a", &[Value::S("1".to_owned())]),
            digest("a", &[number("1"), number("1")]),
        ];
        for (place, one) in different.iter().enumerate() {
            assert!(!different[..place].contains(one));
        }
    }
}
