//! One shard's entrance to the operations: by name and JSON body, or typed.

use std::cell::RefCell;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cairn_engine::ids::{NodeId, TableId};
use cairn_engine::{Direction, Range};
use cairn_item::{Item, ItemBytes, ItemView, KeyCondition, KeyValue, Space, StorageKey};
use cairn_runtime::mailbox::{MailboxSender, ReplySender, reply};
use cairn_runtime::sync::{oneshot, timeout};
use cairn_runtime::{Queue, Runtime};

use super::capacity::Capacity;
use super::error::{LIMIT_EXCEEDED, RESOURCE_IN_USE, RESOURCE_NOT_FOUND, UNAVAILABLE, UNKNOWN_OPERATION};
use super::parsed::Parsed;
use super::throttled::{self, Access};
use super::{ApiError, batch, item, partiql, partiql_batch, query, scan, streams, table};
use super::{partiql_transaction, transact_get, transact_write, update, write};
use crate::answers::Answers;
use crate::catalog::{Catalog, Order, PrimaryKey, Table, TableDraft, TableStatus, Usage, hash_of};
use crate::index::effects::check_keys;
use crate::node::Control;
use crate::route::{
    Action, Condition, Filter, ItemHandle, PageRequest, Returns, Router, Target, Write, Written, stored_view,
};
use crate::stream::read::{ReadDone, ReadRequest};

use crate::transact::{self, LEDGER_TABLE, Token, TransactRead, TransactWrite, Transacted, Transactions};

/// A page of Query or Scan ends with the item that makes it reach this size.
pub const PAGE_BYTES_MAX: u64 = 1 << 20;
/// It ends too with the item that makes its items take this many bytes: twice that still fits a native frame.
pub(super) const PAGE_ANSWER_BYTES_MAX: usize = cairn_protocol::frame::BODY_BYTES_MAX / 2;

/// How often it is looked whether the table of transactions is there, and the pause between.
const LEDGER_ATTEMPTS: usize = 500;
const LEDGER_PAUSE: Duration = Duration::from_millis(2);
/// A client waits this long for its transaction; then that goes on without it.
const TRANSACTION_WAIT_MAX: Duration = Duration::from_secs(30);

const _: () = assert!(
    cairn_engine::mutation::ITEM_ARCHIVE_BYTES_MAX <= PAGE_ANSWER_BYTES_MAX / 2,
    "the last item and the cursor fit as well"
);

/// The operations, as one shard offers them. Cheap to clone.
pub struct Service<R: Runtime> {
    inner: Rc<Inner<R>>,
}

struct Inner<R: Runtime> {
    router: Rc<Router<R>>,
    catalog: Rc<RefCell<Catalog>>,
    control: Vec<MailboxSender<Control>>,
    region: String,
    account: String,
    node: NodeId,
    answers: Answers,
    parsed: Parsed,
}

impl<R: Runtime> Clone for Service<R> {
    fn clone(&self) -> Service<R> {
        Service {
            inner: Rc::clone(&self.inner),
        }
    }
}

/// A read of all items of one partition key that satisfy a condition on the sort key, in its order.
pub struct Query {
    /// The partition key.
    pub partition: KeyValue,
    /// The condition on the sort key.
    pub condition: KeyCondition,
    /// Ascending sort keys, else descending.
    pub forward: bool,
    /// Where the page before ended.
    pub start: Option<PrimaryKey>,
    /// Items to look at, at most.
    pub limit: Option<u64>,
    /// Items to leave out.
    pub filter: Option<Filter>,
    /// Only count the items.
    pub count_only: bool,
}

/// A read of all items of a table, or of one of `total` parts of it, in the order of their hashes.
pub struct Scan {
    /// The part and the number of parts.
    pub segment: Option<(u32, u32)>,
    /// Where the page before ended.
    pub start: Option<PrimaryKey>,
    /// Items to look at, at most.
    pub limit: Option<u64>,
    /// Items to leave out.
    pub filter: Option<Filter>,
    /// Only count the items.
    pub count_only: bool,
}

/// What is asked of which item, or what is wrong with that.
pub(super) type PlacedWrite = Result<(PrimaryKey, Write), ApiError>;

/// One page of a Query or Scan.
#[derive(Debug, Default)]
pub struct Page {
    /// Items that passed the filter, unless only their count was wanted.
    pub items: Vec<ItemHandle>,
    /// Items that passed the filter.
    pub count: u64,
    /// Items looked at.
    pub scanned_count: u64,
    /// Their DynamoDB sizes summed.
    pub scanned_bytes: u64,
    /// What the items take in the answer's memory.
    pub(super) answer_bytes: usize,
    /// What it took to fetch whole items by a local index, when consistent.
    pub fetched_capacity: Capacity,
    /// The last item looked at, when a limit ended the page. Its key is where the next page starts.
    pub last: Option<ItemHandle>,
}

impl Page {
    /// Adds what another partition gave.
    pub(super) fn add(&mut self, other: Page) {
        self.items.extend(other.items);
        self.count += other.count;
        self.scanned_count += other.scanned_count;
        self.scanned_bytes += other.scanned_bytes;
        self.answer_bytes += other.answer_bytes;
        self.fetched_capacity = self.fetched_capacity.plus(other.fetched_capacity);
        self.last = other.last;
    }
}

impl<R: Runtime> Service<R> {
    pub(crate) fn new(
        router: Rc<Router<R>>,
        catalog: Rc<RefCell<Catalog>>,
        control: Vec<MailboxSender<Control>>,
        region: String,
        account: String,
        node: NodeId,
        answers: Answers,
    ) -> Service<R> {
        Service {
            inner: Rc::new(Inner {
                router,
                catalog,
                control,
                region,
                account,
                node,
                answers,
                parsed: Parsed::default(),
            }),
        }
    }

    /// Executes `operation` (the part of `X-Amz-Target` after the point) on the request `body` and
    /// appends the response body to `out`. `out` is as it was when an error is returned.
    ///
    /// # Errors
    /// What DynamoDB answers.
    pub async fn call(&self, operation: &str, body: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
        let before = out.len();
        let result = match operation {
            "GetItem" => item::get_item(self, body, out).await,
            "PutItem" => write::put_item(self, body, out).await,
            "DeleteItem" => write::delete_item(self, body, out).await,
            "UpdateItem" => update::update_item(self, body, out).await,
            // The rarer ones are boxed, so that their state does not make every request's future larger.
            "BatchGetItem" => Box::pin(batch::batch_get_item(self, body, out)).await,
            "BatchWriteItem" => Box::pin(batch::batch_write_item(self, body, out)).await,
            "Query" => Box::pin(query::query(self, body, out)).await,
            "Scan" => Box::pin(scan::scan(self, body, out)).await,
            "TransactGetItems" => Box::pin(transact_get::transact_get_items(self, body, out)).await,
            "TransactWriteItems" => Box::pin(transact_write::transact_write_items(self, body, out)).await,
            "ExecuteStatement" => Box::pin(partiql::execute_statement(self, body, out)).await,
            "BatchExecuteStatement" => {
                Box::pin(partiql_batch::batch_execute_statement(self, body, out)).await
            }
            "ExecuteTransaction" => Box::pin(partiql_transaction::execute_transaction(self, body, out)).await,
            "CreateTable" => Box::pin(table::create_table(self, body, out)).await,
            "DescribeTable" => Box::pin(table::describe_table(self, body, out)).await,
            "DeleteTable" => Box::pin(table::delete_table(self, body, out)).await,
            "ListTables" => table::list_tables(self, body, out),
            _ => Box::pin(self.call_rare(operation, body, out)).await,
        };
        if result.is_err() {
            out.truncate(before);
        }
        result
    }

    async fn call_rare(&self, operation: &str, body: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
        match operation {
            "UpdateTable" => table::update_table(self, body, out).await,
            "TagResource" => table::tag_resource(self, body).await,
            "UntagResource" => table::untag_resource(self, body).await,
            "ListTagsOfResource" => table::list_tags_of_resource(self, body, out),
            "UpdateTimeToLive" => table::update_time_to_live(self, body, out).await,
            "DescribeTimeToLive" => table::describe_time_to_live(self, body, out),
            "DescribeLimits" => table::describe_limits(body, out),
            "DescribeContinuousBackups" => table::describe_continuous_backups(self, body, out),
            "UpdateContinuousBackups" => table::update_continuous_backups(self, body, out),
            "DescribeContributorInsights" => table::describe_contributor_insights(self, body, out),
            "ListContributorInsights" => table::list_contributor_insights(self, body, out),
            "DescribeKinesisStreamingDestination" => {
                table::describe_kinesis_streaming_destination(self, body, out)
            }
            "GetResourcePolicy" => table::get_resource_policy(self, body),
            "ListBackups" => table::list_backups(body, out),
            "ListExports" => table::list_exports(body, out),
            "ListImports" => table::list_imports(body, out),
            "ListGlobalTables" => table::list_global_tables(body, out),
            "DescribeStream" => streams::describe_stream(self, body, out).await,
            "GetShardIterator" => streams::get_shard_iterator(self, body, out).await,
            "GetRecords" => streams::get_records(self, body, out).await,
            "ListStreams" => streams::list_streams(self, body, out),
            _ => Err(ApiError::new(UNKNOWN_OPERATION, "")),
        }
    }

    /// A table that may be read and written, by its name or ARN.
    ///
    /// # Errors
    /// `ResourceNotFoundException` when there is none of that name, or it is being created or deleted; an ARN that is not a
    /// table's.
    pub fn table(&self, name: &str) -> Result<Rc<Table>, ApiError> {
        let name = table::named_by(self, name)?;
        match self.inner.catalog.borrow().get(name) {
            Some(table) if table.is_open() => Ok(Rc::clone(table)),
            _ => Err(ApiError::new(RESOURCE_NOT_FOUND, "Requested resource not found")),
        }
    }

    /// As [`Service::table`], by the id that a client learned with the name.
    ///
    /// # Errors
    /// As there.
    pub fn table_by_id(&self, id: TableId) -> Result<Rc<Table>, ApiError> {
        match self.inner.catalog.borrow().get_by_id(id) {
            Some(table) if table.is_open() => Ok(Rc::clone(table)),
            _ => Err(ApiError::new(RESOURCE_NOT_FOUND, "Requested resource not found")),
        }
    }

    /// All tables, by name, whatever their status.
    #[must_use]
    pub fn tables(&self) -> Vec<Rc<Table>> {
        let catalog = self.inner.catalog.borrow();
        catalog
            .tables()
            .filter(|table| !table.is_hidden())
            .cloned()
            .collect()
    }

    /// The node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// What the answers of this shard may take.
    #[must_use]
    pub fn answers(&self) -> &Answers {
        &self.inner.answers
    }

    /// The runtime of this shard.
    #[must_use]
    pub fn runtime(&self) -> &R {
        &self.inner.router.runtime
    }

    pub(super) fn catalog(&self) -> std::cell::Ref<'_, Catalog> {
        self.inner.catalog.borrow()
    }

    /// The expressions that this shard has parsed.
    pub(super) fn parsed(&self) -> &Parsed {
        &self.inner.parsed
    }

    pub(super) fn region(&self) -> &str {
        &self.inner.region
    }

    pub(super) fn account(&self) -> &str {
        &self.inner.account
    }

    /// An item of this shard that is in memory, by the bytes of its key's values; none when it must be waited for with
    /// [`Service::get`]. The storage key comes together in `scratch`, so that nothing is allocated.
    pub fn get_cached(
        &self,
        table: &Table,
        (partition, sort): (&[u8], Option<&[u8]>),
        scratch: &mut Vec<u8>,
    ) -> Option<Result<Option<ItemHandle>, ApiError>> {
        scratch.clear();
        let target = table.locate_into(scratch, partition, sort);
        self.inner.router.get_cached(target, scratch)
    }

    /// The item of a primary key. All reads are strongly consistent as long as a partition has one replica.
    ///
    /// # Errors
    /// What keeps the partition from being read.
    pub async fn get(&self, table: &Table, key: &PrimaryKey) -> Result<Option<ItemHandle>, ApiError> {
        let (target, storage_key) = table.locate(key);
        let router = &self.inner.router;
        let read = match router.get_cached(target, storage_key.as_bytes()) {
            Some(read) => read,
            None => router.get(target, storage_key.as_bytes()).await,
        };
        read.map_err(|error| self.explain(table, target, Access::Read, error))
    }

    /// Stores an item; resolves when it is durable. `key` must be the item's.
    ///
    /// # Errors
    /// The condition's; what keeps the partition from being written.
    pub async fn put(
        &self,
        table: &Table,
        key: &PrimaryKey,
        item: ItemBytes,
        condition: Option<Condition>,
        return_old: bool,
    ) -> Result<Written, ApiError> {
        let item_bytes = u32::try_from(item.view().size_bytes()).expect("item sizes are limited");
        let action = Action::Put {
            item: item.into_vec(),
            item_bytes,
        };
        self.write(
            table,
            key,
            Write {
                action,
                condition,
                returns: Returns {
                    old: return_old,
                    ..Returns::default()
                },
            },
        )
        .await
    }

    /// Removes an item; resolves when that is durable, also when there was none.
    ///
    /// # Errors
    /// The condition's; what keeps the partition from being written.
    pub async fn delete(
        &self,
        table: &Table,
        key: &PrimaryKey,
        condition: Option<Condition>,
        return_old: bool,
    ) -> Result<Written, ApiError> {
        self.write(
            table,
            key,
            Write {
                action: Action::Delete,
                condition,
                returns: Returns {
                    old: return_old,
                    ..Returns::default()
                },
            },
        )
        .await
    }

    /// Writes an item.
    ///
    /// # Errors
    /// The condition's; what keeps the partition from being written.
    pub async fn write(&self, table: &Table, key: &PrimaryKey, write: Write) -> Result<Written, ApiError> {
        if let Action::Put { item, .. } = &write.action
            && !table.definition().indexes.is_empty()
        {
            check_keys(table.definition(), None, stored_view(item))?;
        }
        let (target, storage_key) = table.locate(key);
        let written = self
            .inner
            .router
            .write(target, storage_key.as_bytes(), write)
            .await;
        written.map_err(|error| self.explain(table, target, Access::Write, error))
    }

    /// What this shard knows of transactions.
    pub(super) fn transactions(&self) -> &Transactions {
        &self.inner.router.transactions
    }

    /// The table of transactions, made when there is none.
    async fn ledger(&self) -> Result<Rc<Table>, ApiError> {
        for _ in 0..LEDGER_ATTEMPTS {
            let ledger = self.inner.catalog.borrow().get(LEDGER_TABLE).cloned();
            match ledger {
                Some(ledger) if ledger.definition().status == TableStatus::Active => return Ok(ledger),
                Some(_) => {}
                None => {
                    let draft = Box::new(TableDraft::ledger());
                    match self.order(|reply| Order::Create { draft, reply }).await {
                        Err(error) if error.kind != RESOURCE_IN_USE => return Err(error),
                        Ok(_) | Err(_) => {}
                    }
                }
            }
            self.inner.router.runtime.sleep(LEDGER_PAUSE).await;
        }
        Err(ApiError::new(
            UNAVAILABLE,
            "the ledger of transactions is being made",
        ))
    }

    /// Carries out a transaction that writes: items by table and key, or what is wrong with one. Or only says what would be refused.
    ///
    /// # Errors
    /// The token's; what keeps the partitions or the ledger from being written.
    pub(super) async fn transact_write(
        &self,
        writes: Vec<(Rc<Table>, PlacedWrite)>,
        token: Option<Token>,
        collections: bool,
        only_judge: bool,
    ) -> Result<Transacted, ApiError> {
        let mut reasons: Vec<Option<ApiError>> = Vec::with_capacity(writes.len());
        let mut operations = Vec::with_capacity(writes.len());
        for (table, write) in writes {
            let write = write.map(|(key, write)| {
                let (target, key) = table.locate(&key);
                operations.push((target, key.into_bytes(), write));
            });
            reasons.push(write.err());
        }
        let only_judge = only_judge || reasons.iter().any(Option::is_some);
        let request = TransactWrite {
            operations,
            token,
            collections,
            only_judge,
        };
        let ledger = self.ledger().await?;
        let router = Rc::clone(&self.inner.router);
        let (sender, answer) = oneshot();
        self.inner.router.runtime.spawn(Queue::Foreground, async move {
            // The client may have gone away.
            let _ = sender.send(transact::write(router, ledger, request).await);
        });
        let answered = timeout(self.runtime(), TRANSACTION_WAIT_MAX, answer).await;
        let transacted = match answered {
            Ok(Ok(transacted)) => transacted?,
            Ok(Err(_)) => return Err(ApiError::internal("the node stopped during the transaction")),
            Err(_) => {
                return Err(ApiError::internal(
                    "the transaction takes long; whether it was committed is not known yet",
                ));
            }
        };
        if !only_judge {
            return Ok(transacted);
        }
        // What the request got wrong, and what the items have against the rest of it.
        let Transacted::Cancelled {
            reasons: judged,
            absent: judged_absent,
        } = transacted
        else {
            return Err(ApiError::internal("a refused transaction was carried out"));
        };
        let mut absent = vec![false; reasons.len()];
        let mut judged = judged.into_iter().zip(judged_absent);
        let places = reasons.iter_mut().zip(&mut absent);
        for (reason, absent) in places.filter(|(reason, _)| reason.is_none()) {
            (*reason, *absent) = judged.next().unwrap_or_default();
        }
        Ok(Transacted::Cancelled { reasons, absent })
    }

    /// Reads items as they are at one moment.
    ///
    /// # Errors
    /// What keeps a partition from being read.
    pub(super) async fn transact_read(
        &self,
        tables: &[Rc<Table>],
        keys: &[PrimaryKey],
    ) -> Result<TransactRead, ApiError> {
        let located = tables.iter().zip(keys).map(|(table, key)| {
            let (target, key) = table.locate(key);
            (target, key.into_bytes())
        });
        let located: Vec<_> = located.collect();
        transact::read(&self.inner.router, &located).await
    }

    /// One page of a query.
    ///
    /// # Errors
    /// The starting key is not one of the query's; BETWEEN is reversed; what keeps the partition from being read.
    pub async fn query(&self, table: &Table, query: Query) -> Result<Page, ApiError> {
        let seed = table.definition().seed;
        let (mut lower, mut upper) = query.condition.range(Space::Base, seed, &query.partition)?;
        let place = table
            .definition()
            .place_of(StorageKey::hash(seed, &query.partition));
        if let Some(start) = &query.start {
            let (_, start_key) = table.locate(start);
            if start.partition != query.partition {
                return Err(ApiError::validation(START_OUTSIDE_QUERY));
            }
            if !contains_key((lower.as_ref(), upper.as_ref()), start_key.as_bytes()) {
                return Err(ApiError::validation(START_OUTSIDE_PREDICATE));
            }
            let after = Bound::Excluded(start_key.into_bytes());
            if query.forward {
                lower = after
            } else {
                upper = after
            }
        }
        let request = PageRequest {
            range: Range { lower, upper },
            direction: if query.forward {
                Direction::Forward
            } else {
                Direction::Backward
            },
            items_max: query.limit.unwrap_or(u64::MAX),
            bytes_max: PAGE_BYTES_MAX,
            answer_bytes_max: PAGE_ANSWER_BYTES_MAX,
            filter: query.filter,
            count_only: query.count_only,
            local: None,
        };
        if is_empty(&request.range) {
            return Ok(Page::default());
        }
        self.page(table, table.target(place), request).await
    }

    /// Records of a stream in one partition.
    pub(super) async fn records(
        &self,
        table: &Table,
        place: usize,
        request: ReadRequest,
    ) -> Result<ReadDone, ApiError> {
        let target = table.target(place);
        let done = self.inner.router.records(target, request).await;
        done.map_err(|error| self.explain_missing(table, error))
    }

    /// A page of one partition.
    pub(super) async fn page(
        &self,
        table: &Table,
        target: Target,
        request: PageRequest,
    ) -> Result<Page, ApiError> {
        let done = self.inner.router.page(target, request).await;
        let done = done.map_err(|error| self.explain(table, target, Access::Read, error))?;
        Ok(Page {
            items: done.items,
            count: done.count,
            scanned_count: done.scanned_count,
            scanned_bytes: done.scanned_bytes,
            answer_bytes: done.answer_bytes,
            fetched_capacity: done.fetched_capacity,
            last: done.last,
        })
    }

    /// One page of a scan.
    ///
    /// # Errors
    /// The starting key is in another segment; what keeps a partition from being read.
    pub async fn scan(&self, table: &Table, scan: Scan) -> Result<Page, ApiError> {
        let (first, end) = scan.segment.map_or((0, 1 << 64), segment_hashes);
        let mut hash = first;
        let mut lower = Bound::Included(hash_bound(Space::Base, first));
        if let Some(start) = &scan.start {
            let (_, start_key) = table.locate(start);
            hash = u128::from(hash_of(start_key.as_bytes()));
            if hash < first || hash >= end {
                return Err(wrong_segment(scan.segment));
            }
            lower = Bound::Excluded(start_key.into_bytes());
        }
        let places = &table.definition().places;
        let mut page = Page::default();
        // A segment may be empty when there are more of them than hashes can tell apart.
        let begin = u64::try_from(hash).map_or(places.len(), |hash| table.definition().place_of(hash));
        for (index, place) in places.iter().enumerate().skip(begin) {
            if u128::from(place.lower) >= end {
                break;
            }
            let request = PageRequest {
                range: Range {
                    lower: lower.clone(),
                    upper: Bound::Excluded(hash_bound(Space::Base, end)),
                },
                direction: Direction::Forward,
                items_max: scan.limit.unwrap_or(u64::MAX) - page.scanned_count,
                bytes_max: PAGE_BYTES_MAX - page.scanned_bytes,
                answer_bytes_max: PAGE_ANSWER_BYTES_MAX - page.answer_bytes,
                filter: scan.filter.clone(),
                count_only: scan.count_only,
                local: None,
            };
            page.add(self.page(table, table.target(index), request).await?);
            if page.last.is_some() {
                break;
            }
        }
        Ok(page)
    }

    /// What the client is told of an error of one partition of the table or of its indexes.
    fn explain(&self, table: &Table, target: Target, access: Access, error: ApiError) -> ApiError {
        if error.is_throttled() {
            return throttled::explain(self, table, target, access, error);
        }
        self.explain_missing(table, error)
    }

    /// A partition that is not there belongs to a table that has just been deleted, or else is an error of ours.
    fn explain_missing(&self, table: &Table, error: ApiError) -> ApiError {
        let definition = table.definition();
        if error.kind == RESOURCE_NOT_FOUND
            && self
                .table(&definition.name)
                .is_ok_and(|now| now.definition().id == definition.id)
        {
            return ApiError::internal("a partition of the table is missing");
        }
        error
    }

    /// Has the catalog changed by shard 0.
    pub(super) async fn order<T: Send>(
        &self,
        order: impl FnOnce(ReplySender<Result<T, ApiError>>) -> Order,
    ) -> Result<T, ApiError> {
        let (sender, answer) = reply();
        if self.inner.control[0]
            .try_send(Control::Order(order(sender)))
            .is_err()
        {
            return Err(ApiError::new(
                LIMIT_EXCEEDED,
                "Subscriber limit exceeded: too many operations on tables at once; try again later",
            ));
        }
        answer
            .await
            // Shard 0 is gone, and with it the process; whether it changed the catalog is not known.
            .map_err(|_| ApiError::internal("the node stopped during the operation"))?
    }

    /// What a table holds on all shards.
    pub(super) async fn usage(&self, table: &Table) -> Usage {
        let definition = Arc::new(table.definition().clone());
        let mut replies = Vec::new();
        for control in &self.inner.control {
            let (sender, answer) = reply();
            let question = Control::Usage {
                table: Arc::clone(&definition),
                reply: sender,
            };
            if control.send(question).await.is_ok() {
                replies.push(answer);
            }
        }
        let mut usage = Usage::default();
        for answer in replies {
            // A shard that is gone takes the node with it; until then its items are not counted.
            usage.add(answer.await.unwrap_or_default());
        }
        usage
    }
}

pub(crate) const START_OUTSIDE_QUERY: &str =
    "The provided starting key is outside query boundaries based on provided conditions";
pub(crate) const START_OUTSIDE_PREDICATE: &str =
    "The provided starting key does not match the range key predicate";

/// Hashes of one segment of a table: from the first to before the second, which may be 2^64.
pub(super) fn segment_hashes((segment, total): (u32, u32)) -> (u128, u128) {
    let begin = |segment: u32| (u128::from(segment) << 64).div_ceil(u128::from(total));
    (begin(segment), begin(segment + 1))
}

/// Where a hash begins among storage keys; 2^64 is the end of the space.
pub(super) fn hash_bound(space: Space, hash: u128) -> Vec<u8> {
    match u64::try_from(hash) {
        Ok(hash) => StorageKey::hash_prefix(space, hash),
        Err(_) => vec![space as u8 + 1],
    }
}

/// Why a scan cannot start where it is asked to.
pub(super) fn wrong_segment(segment: Option<(u32, u32)>) -> ApiError {
    let (segment, total) = segment.expect("every hash is in the whole");
    ApiError::validation(format!(
        "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use ExclusiveStartKey with correct \
         Segment. TotalSegments: {total} Segment: {segment}"
    ))
}

/// Whether a key is in a range.
pub(super) fn contains_key((lower, upper): (Bound<&Vec<u8>>, Bound<&Vec<u8>>), key: &[u8]) -> bool {
    let above = match lower {
        Bound::Included(lower) => key >= lower.as_slice(),
        Bound::Excluded(lower) => key > lower.as_slice(),
        Bound::Unbounded => true,
    };
    let below = match upper {
        Bound::Included(upper) => key <= upper.as_slice(),
        Bound::Excluded(upper) => key < upper.as_slice(),
        Bound::Unbounded => true,
    };
    above && below
}

/// Whether no key can be in the range. Such ranges arise when a page starts at the end of its query.
pub(super) fn is_empty(range: &Range) -> bool {
    match (&range.lower, &range.upper) {
        (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
        (Bound::Included(lower) | Bound::Excluded(lower), Bound::Excluded(upper))
        | (Bound::Excluded(lower), Bound::Included(upper)) => lower >= upper,
        _ => false,
    }
}

/// Writes the key attributes of an item.
pub(super) fn write_key_of(out: &mut Vec<u8>, table: &Table, item: ItemView<'_>) {
    let definition = table.definition();
    out.push(b'{');
    for (index, key) in std::iter::once(&definition.partition_key)
        .chain(&definition.sort_key)
        .enumerate()
    {
        if index > 0 {
            out.push(b',');
        }
        cairn_item::json::write_string(out, &key.name);
        out.push(b':');
        let value = item.get(&key.name).expect("stored items have their keys");
        cairn_item::json::write_value_view(out, value);
    }
    out.push(b'}');
}

/// The key given as `ExclusiveStartKey`.
pub(super) fn start_key(table: &Table, key: &Item) -> Result<PrimaryKey, ApiError> {
    table.key_of_key(key).map_err(|error| {
        ApiError::validation(format!("The provided starting key is invalid: {}", error.message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_tile_the_hashes() {
        for total in [1, 2, 3, 7, 1000, 1_000_000] {
            let mut end = 0;
            for segment in 0..total {
                let hashes = segment_hashes((segment, total));
                assert_eq!(hashes.0, end, "segment {segment} of {total}");
                assert!(hashes.0 < hashes.1);
                end = hashes.1;
            }
            assert_eq!(end, 1 << 64);
        }
    }
}
