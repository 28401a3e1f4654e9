//! The Rust client, on tokio.
//!
//! What a caller can rely on:
//! - A call ends within [`Options::request_timeout`], retries included.
//! - A call is sent again only when that cannot do it twice: a read, a request that never left this process, or one
//!   that the node said it did not carry out ([`Retry::Later`], [`Retry::Remap`]). A write whose answer was lost is
//!   [`Error::Unknown`].
//! - Connections are opened when first needed and again after they broke; requests for a partition go to its owner.

mod connection;
mod routing;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::handshake::Welcome;
use crate::message::{
    BatchGetStatus, Failure, Key, KeyPart, Operation, Request, Retry, SortCondition, Table, Write, response,
};
use crate::wire::WireError;
use connection::{Connection, Lost, Reply};

/// Access key of a node with credentials.
#[derive(Clone)]
pub struct Credentials {
    /// The access key's id.
    pub access_key: String,
    /// Its secret; never sent.
    pub secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Credentials({}, secret withheld)", self.access_key)
    }
}

/// How a [`Client`] behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Proves who we are; none for a node without credentials.
    pub credentials: Option<Credentials>,
    /// Longest time to open a connection, handshake included. Default 5 s.
    pub connect_timeout: Duration,
    /// Longest time of one call, retries included. Default 10 s.
    pub request_timeout: Duration,
    /// Most times that one call is sent again. Default 8.
    pub retries_max: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            credentials: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            retries_max: 8,
        }
    }
}

/// Why a call did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The node answered that the request failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// No connection could be had within the time and the retries; the request was not carried out.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// The last reason.
        reason: String,
    },
    /// The node refused the handshake.
    #[error("{address} refused the handshake: {name}: {message}")]
    Refused {
        /// Where.
        address: String,
        /// DynamoDB's name of the error.
        name: String,
        /// What was wrong.
        message: String,
    },
    /// A write was sent and its answer did not arrive: it may or may not have been carried out.
    #[error(
        "the answer of {address} did not arrive ({reason}): the write may or may not have been carried out"
    )]
    Unknown {
        /// Where.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The request is longer than a frame; nothing was sent.
    #[error("the request cannot be sent: {0}")]
    TooLong(String),
    /// A read did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The node sent something that does not follow the protocol.
    #[error("the node's answer does not follow the protocol: {0}")]
    Protocol(String),
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Error {
        Error::Protocol(error.to_string())
    }
}

/// A page of archived items.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ItemsPage {
    /// Archived items, to be validated by `cairn_item`.
    pub items: Vec<Vec<u8>>,
    /// Items looked at.
    pub scanned: u32,
    /// Where the next page begins; empty when this was the last.
    pub cursor: Vec<u8>,
}

/// What became of one key of [`Client::batch_get`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchGot {
    /// There is no such item.
    Missing,
    /// The archived item.
    Found(Vec<u8>),
    /// Not read: ask for it again.
    Unprocessed,
}

/// A client of one node, or of the cluster it belongs to. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    seed: String,
    options: Options,
    /// One connection for each address, opened on demand.
    connections: Mutex<BTreeMap<String, Arc<Place>>>,
    tables: Mutex<BTreeMap<String, Arc<Table>>>,
}

/// Where the connection to an address is kept; locked while one is opened, so that all who want it share it.
type Place = tokio::sync::Mutex<Option<Connection>>;

/// First pause before a retry; it doubles up to [`BACKOFF_MAX`], with jitter.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Times that one call follows a table whose map has moved on: adding an index moves it three times within moments.
const REMAPS_MAX: usize = 4;
/// Longest pause before a retry.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

impl Client {
    /// Connects to `address` (`HOST:PORT`).
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::Refused`].
    pub async fn connect(address: &str, options: Options) -> Result<Client, Error> {
        let shared = Shared {
            seed: address.to_owned(),
            options,
            connections: Mutex::default(),
            tables: Mutex::default(),
        };
        let client = Client {
            shared: Arc::new(shared),
        };
        client.connection(address).await?;
        Ok(client)
    }

    /// The description of a table, from the handshake's map when it was there.
    ///
    /// # Errors
    /// [`Error::Failed`] with `ResourceNotFoundException` when there is none.
    pub async fn table(&self, name: &str) -> Result<Arc<Table>, Error> {
        let known = self.tables().get(name).cloned();
        match known {
            Some(table) => Ok(table),
            None => self.describe(name).await,
        }
    }

    /// The archived item with a key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get(&self, table: &Table, key: Key<'_>, consistent: bool) -> Result<Option<Vec<u8>>, Error> {
        let body = self
            .call(table, Some(key.partition), Operation::Get { consistent, key })
            .await?;
        Ok(response::decode_item(&body)?.1.map(<[u8]>::to_vec))
    }

    /// Stores an archived item; answers with the item replaced when `return_old` asks for it. `key` is the item's
    /// own and serves to find its partition.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put(
        &self,
        table: &Table,
        key: Key<'_>,
        item: &[u8],
        return_old: bool,
    ) -> Result<Option<Vec<u8>>, Error> {
        let body = self
            .call(table, Some(key.partition), Operation::Put { return_old, item })
            .await?;
        Ok(response::decode_item(&body)?.1.map(<[u8]>::to_vec))
    }

    /// Deletes the item with a key; answers with it when `return_old` asks for it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(
        &self,
        table: &Table,
        key: Key<'_>,
        return_old: bool,
    ) -> Result<Option<Vec<u8>>, Error> {
        let body = self
            .call(table, Some(key.partition), Operation::Delete { return_old, key })
            .await?;
        Ok(response::decode_item(&body)?.1.map(<[u8]>::to_vec))
    }

    /// Up to 100 items by key, in the order of `keys`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn batch_get(
        &self,
        table: &Table,
        keys: Vec<Key<'_>>,
        consistent: bool,
    ) -> Result<Vec<BatchGot>, Error> {
        let body = self
            .call(table, None, Operation::BatchGet { consistent, keys })
            .await?;
        let (_, statuses) = response::decode_batch_get(&body)?;
        let owned = |status: &BatchGetStatus<'_>| match status {
            BatchGetStatus::Missing => BatchGot::Missing,
            BatchGetStatus::Found(item) => BatchGot::Found(item.to_vec()),
            BatchGetStatus::Unprocessed => BatchGot::Unprocessed,
        };
        Ok(statuses.iter().map(owned).collect())
    }

    /// Up to 25 writes; answers for each whether it was carried out.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn batch_write(&self, table: &Table, writes: Vec<Write<'_>>) -> Result<Vec<bool>, Error> {
        let body = self.call(table, None, Operation::BatchWrite { writes }).await?;
        Ok(response::decode_batch_write(&body)?.1)
    }

    /// One page of the items of a partition key. `limit` 0 means a page's 1 MB alone.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn query(
        &self,
        table: &Table,
        partition: KeyPart<'_>,
        sort: SortCondition<'_>,
        page: QueryPage<'_>,
    ) -> Result<ItemsPage, Error> {
        let QueryPage {
            consistent,
            backward,
            limit,
            cursor,
        } = page;
        let operation = Operation::Query {
            consistent,
            backward,
            limit,
            partition,
            sort,
            cursor,
        };
        items_page(&self.call(table, Some(partition), operation).await?)
    }

    /// One page of segment `segment` of `segments` of a table.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn scan(
        &self,
        table: &Table,
        segment: u32,
        segments: u32,
        limit: u32,
        cursor: &[u8],
    ) -> Result<ItemsPage, Error> {
        let operation = Operation::Scan {
            consistent: false,
            limit,
            segment,
            segments,
            cursor,
        };
        items_page(&self.call(table, None, operation).await?)
    }

    /// Any DynamoDB operation as JSON: `name` such as `CreateTable`, the body as over HTTP. Never sent twice.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn json(&self, name: &str, body: &[u8]) -> Result<Vec<u8>, Error> {
        let answer = self
            .send(&self.shared.seed, None, None, &Operation::Json { name, body })
            .await?;
        Ok(response::decode_json(&answer)?.to_vec())
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Table>>> {
        // A panic elsewhere cannot leave a map half changed: entries are replaced whole.
        self.shared.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn describe(&self, name: &str) -> Result<Arc<Table>, Error> {
        let body = self
            .send(&self.shared.seed, None, None, &Operation::OpenTable { name })
            .await?;
        let table = Arc::new(response::decode_table(&body)?);
        self.tables().insert(name.to_owned(), table.clone());
        Ok(table)
    }

    /// Sends an operation on a table to the owner of `partition`, following the map when it has moved on.
    async fn call(
        &self,
        table: &Table,
        partition: Option<KeyPart<'_>>,
        operation: Operation<'_>,
    ) -> Result<Vec<u8>, Error> {
        let address = self.address_of(table, partition);
        let mut outcome = self.send(&address, Some(table), partition, &operation).await;
        if let Err(Error::Failed(failure)) = &outcome
            && failure.name == "ResourceNotFoundException"
        {
            // The table is gone; another may have its name by now, which the next who asks for it learns.
            self.tables().retain(|_, known| known.id != table.id);
        }
        for _ in 0..REMAPS_MAX {
            match &outcome {
                Err(Error::Failed(failure)) if failure.retry == Retry::Remap => {}
                _ => break,
            }
            let newer = self.describe(&table.name).await?;
            // Another table under the same name is not the one that the caller means.
            if newer.id != table.id {
                break;
            }
            let address = self.address_of(&newer, partition);
            outcome = self.send(&address, Some(&newer), partition, &operation).await;
        }
        outcome
    }

    fn address_of(&self, table: &Table, partition: Option<KeyPart<'_>>) -> String {
        partition
            .and_then(|key| table.partition(routing::hash(table.seed, key)?))
            .map(|partition| partition.address.as_str())
            .filter(|address| !address.is_empty())
            .unwrap_or(&self.shared.seed)
            .to_owned()
    }

    async fn send(
        &self,
        address: &str,
        table: Option<&Table>,
        partition: Option<KeyPart<'_>>,
        operation: &Operation<'_>,
    ) -> Result<Vec<u8>, Error> {
        let options = &self.shared.options;
        let deadline = Instant::now() + options.request_timeout;
        let repeatable = is_repeatable(operation);
        let mut pause = BACKOFF_MIN;
        let mut attempt = 0;
        loop {
            let outcome = self.attempt(address, table, partition, operation, deadline).await;
            let again = match &outcome {
                Ok(_) => false,
                Err(Error::Failed(failure)) => {
                    failure.retry == Retry::Later || (failure.retry == Retry::Unknown && repeatable)
                }
                Err(Error::Unreachable { .. }) => true,
                Err(Error::Unknown { .. }) => repeatable,
                Err(Error::Refused { .. } | Error::Timeout(_) | Error::TooLong(_) | Error::Protocol(_)) => {
                    false
                }
            };
            attempt += 1;
            if !again || attempt > options.retries_max || Instant::now() + pause >= deadline {
                return outcome;
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    async fn attempt(
        &self,
        address: &str,
        table: Option<&Table>,
        partition: Option<KeyPart<'_>>,
        operation: &Operation<'_>,
        deadline: Instant,
    ) -> Result<Vec<u8>, Error> {
        let request_timeout = self.shared.options.request_timeout;
        let connection = timeout_at(deadline, self.connection(address))
            .await
            .map_err(|_| Error::Unreachable {
                address: address.to_owned(),
                reason: format!("no connection within {request_timeout:?}"),
            })??;
        let left = deadline.saturating_duration_since(Instant::now());
        let request = Request {
            budget_us: u32::try_from(left.as_micros()).unwrap_or(u32::MAX).max(1),
            table: table.map_or(0, |table| table.id),
            // Only a request that was routed by the map is refused when the map is old.
            epoch: if partition.is_some() {
                table.map_or(0, |table| table.epoch)
            } else {
                0
            },
            trace: [0; 16],
            operation: operation.clone(),
        };
        let unknown = |reason: &str| Error::Unknown {
            address: address.to_owned(),
            reason: reason.to_owned(),
        };
        match timeout_at(deadline, connection.request(&request)).await {
            Ok(Ok(Reply::Response(body))) => Ok(body),
            Ok(Ok(Reply::Failure(failure))) => Err(Error::Failed(failure)),
            Ok(Err(Lost::Unsent(reason))) => Err(Error::Unreachable {
                address: address.to_owned(),
                reason: reason.to_string(),
            }),
            Ok(Err(Lost::Sent(reason))) => Err(unknown(&reason)),
            Ok(Err(Lost::TooLong(reason))) => Err(Error::TooLong(reason.to_string())),
            Err(_) if is_repeatable(operation) => Err(Error::Timeout(request_timeout)),
            Err(_) => Err(unknown("it took longer than the request timeout")),
        }
    }

    async fn connection(&self, address: &str) -> Result<Connection, Error> {
        let place = self.place(address);
        let mut place = place.lock().await;
        if let Some(connection) = place.as_ref().filter(|connection| connection.is_open()) {
            return Ok(connection.clone());
        }
        *place = None;
        let (connection, welcome) = connection::open(address, &self.shared.options).await?;
        *place = Some(connection.clone());
        self.learn(welcome);
        Ok(connection)
    }

    fn place(&self, address: &str) -> Arc<Place> {
        // A panic elsewhere cannot leave a map half changed: places are only added.
        let mut connections = self
            .shared
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match connections.get(address) {
            Some(place) => place.clone(),
            None => connections.entry(address.to_owned()).or_default().clone(),
        }
    }

    fn learn(&self, welcome: Welcome) {
        let mut tables = self.tables();
        for table in welcome.tables {
            tables.insert(table.name.clone(), Arc::new(table));
        }
    }
}

/// Which page of a query, and how it is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueryPage<'a> {
    /// Read the newest committed state.
    pub consistent: bool,
    /// From the highest sort key down.
    pub backward: bool,
    /// Most items; 0 for a page's 1 MB alone.
    pub limit: u32,
    /// Where the page before ended; empty at the start.
    pub cursor: &'a [u8],
}

/// Whether carrying it out twice is as good as once.
fn is_repeatable(operation: &Operation<'_>) -> bool {
    !matches!(
        operation,
        Operation::Put { .. }
            | Operation::Delete { .. }
            | Operation::BatchWrite { .. }
            | Operation::Json { .. }
    )
}

fn items_page(body: &[u8]) -> Result<ItemsPage, Error> {
    let (_, page) = response::decode_page(body)?;
    Ok(ItemsPage {
        items: page.items.iter().map(|item| item.to_vec()).collect(),
        scanned: page.scanned,
        cursor: page.cursor.to_vec(),
    })
}

/// Between half and all of `pause`, so that clients which failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness the pause is merely not spread.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    pause / 2 + (pause / 2) * u32::from(byte[0]) / 255
}
