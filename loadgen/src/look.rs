//! What a run looks at before it begins: a table that is not there or of another kind, items of another size and items that
//! were never loaded would all seem damaged, one by one.
//!
//! 1. The table must be what `load` makes.
//! 2. The first item, if it is there, must have the run's size.
//! 3. The last item must be there, unless the workload itself makes what it finds missing: `load` stores the items in their
//!    order, so a table that was loaded with fewer ends before it. Where it ends is found by bisection, for the message.
//!
//! Items between the first and the last are for the run to judge: what is missing there is damage. A node that does not answer
//! these questions is for the run to judge, too.

use std::io;
use std::net::SocketAddr;

use cairn_runtime::{Connection, Runtime};
use serde_json::{Value, json};

use crate::options::Workload;
use crate::run::{OPEN_MAX, open, within};
use crate::table;
use crate::wire::{Settings, Wire};
use crate::workload::key_text;

fn unusable(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Refuses what a run cannot be about.
///
/// # Errors
/// `InvalidInput`, with what to give instead; `Other` when the table cannot be described.
pub(crate) async fn look<R: Runtime>(
    runtime: &R,
    address: SocketAddr,
    settings: &Settings,
    workload: Workload,
) -> io::Result<()> {
    let ask = async {
        let (connection, mut wire) = open(runtime, address, settings).await?;
        let wanted = (settings.common.table.as_str(), workload == Workload::Index);
        table::check(runtime, &connection, &mut wire, wanted).await?;
        let mut items = Items {
            runtime,
            connection: &connection,
            wire: &mut wire,
            table: &settings.common.table,
        };
        let looked = items.look(settings, workload).await;
        connection.shutdown();
        looked
    };
    match within(runtime, OPEN_MAX, "answer", ask).await {
        Err(error) if [io::ErrorKind::InvalidInput, io::ErrorKind::Other].contains(&error.kind()) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// What is known of an item.
enum Found {
    /// Its DynamoDB size, without what the workload `counter` adds to it.
    Bytes(usize),
    Nothing,
    /// The node did not say, or said something else.
    Unknown,
}

struct Items<'a, R: Runtime> {
    runtime: &'a R,
    connection: &'a R::Connection,
    wire: &'a mut Wire,
    table: &'a str,
}

impl<R: Runtime> Items<'_, R> {
    async fn look(&mut self, settings: &Settings, workload: Workload) -> io::Result<()> {
        let (table, wanted) = (self.table, &settings.common);
        let (items, item_bytes) = (wanted.items, wanted.item_size as usize);
        let first = self.find(0).await?;
        if let Found::Bytes(bytes) = first
            && bytes != item_bytes
        {
            return Err(unusable(format!(
                "the items of table {table} have {bytes} B and --item-size says {item_bytes}: give `run` what `load` was given"
            )));
        }
        if workload.makes_items() || !matches!(self.find(items - 1).await?, Found::Nothing) {
            return Ok(());
        }
        if matches!(first, Found::Nothing) {
            return Err(unusable(format!(
                "table {table} has neither the first nor the last of --items {items}: fill it with `loadgen load`; if that was \
                 done, they are lost"
            )));
        }
        let ends = self.bisect(items - 1).await?;
        Err(unusable(format!(
            "table {table} has the first {ends} items and --items says {items}: give `run` what `load` was given, or load \
             the others; if that was done, they are lost"
        )))
    }

    /// An item that is missing behind one that is there; `missing` is one.
    async fn bisect(&mut self, mut missing: u64) -> io::Result<u64> {
        let mut there = 0;
        while missing - there > 1 {
            let middle = there + (missing - there) / 2;
            match self.find(middle).await? {
                Found::Nothing => missing = middle,
                Found::Bytes(_) | Found::Unknown => there = middle,
            }
        }
        Ok(missing)
    }

    async fn find(&mut self, key: u64) -> io::Result<Found> {
        // A Query, because an indexed table has a sort key, too.
        let query = json!({
            "TableName": self.table, "KeyConditionExpression": "p = :p", "Limit": 1, "ConsistentRead": true,
            "ExpressionAttributeValues": {":p": {"S": key_text(key)}},
        });
        let query = query.to_string();
        let answer = self
            .wire
            .call(self.connection, "Query", &query, self.runtime.unix_ms());
        let Ok(body) = answer.await? else {
            return Ok(Found::Unknown);
        };
        Ok(found(&body).unwrap_or(Found::Unknown))
    }
}

/// What a Query's answer says of the item.
fn found(body: &[u8]) -> Option<Found> {
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    let Some(item) = answer["Items"].as_array_mut()?.first_mut() else {
        return Some(Found::Nothing);
    };
    item.as_object_mut()?.remove("n");
    let item = item.to_string();
    let item = cairn_item::json::Reader::new(item.as_bytes()).ok()?.item().ok()?;
    Some(Found::Bytes(item.size()))
}
