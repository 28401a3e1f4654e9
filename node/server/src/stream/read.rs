//! Reading the records of a partition, on the shard that has it.
//!
//! A reader's position is a commit timestamp: everything up to it has been read. As records are applied in order, what a page shows
//! is all there was behind the position, and no record comes to stand before it later.
//!
//! A stream is over on a partition when the partition's shard has heard that it is disabled, no write that was decided before has yet to
//! propose its record, and what has been proposed is applied. Then, and not before, a page may say that it was the last.

use std::ops::Bound;

use cairn_engine::ids::PartitionId;
use cairn_engine::{Direction, Range};
use cairn_runtime::Runtime;

use super::record::{self, Record, commit_of};
use crate::api::ApiError;
use crate::route::Router;

/// Bytes of records, as they are stored, that end a page, whatever they count for.
const STORED_BYTES_MAX: usize = 4 << 20;

/// What is asked of the shard that has a partition.
#[derive(Debug, Clone)]
pub(crate) struct ReadRequest {
    /// The stream, by its creation.
    pub stream: u64,
    /// Least hash that the partition owns.
    pub lower: u64,
    /// Records behind this commit timestamp.
    pub after: u64,
    /// The newest ones, last first.
    pub newest: bool,
    /// Most records.
    pub records_max: usize,
    /// Most bytes that they may count for, but for the first.
    pub bytes_max: u64,
}

/// What was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadDone {
    /// Commit timestamp and bytes of each, in order.
    pub records: Vec<(u64, Vec<u8>)>,
    /// There were no more behind them.
    pub is_all: bool,
    /// There will be no more.
    pub is_over: bool,
    /// Greatest commit timestamp of the partition before the records were read.
    pub floor: u64,
}

/// Reads records of a partition of this shard.
pub(crate) async fn read<R: Runtime>(
    router: &Router<R>,
    engine: usize,
    partition: PartitionId,
    request: ReadRequest,
) -> Result<ReadDone, ApiError> {
    let ReadRequest {
        stream,
        lower,
        after,
        newest,
        records_max,
        bytes_max,
    } = request;
    let is_over = router
        .indexes
        .get(partition)
        .is_none_or(|indexed| indexed.is_stream_over(stream));
    let engine = &router.engines[engine];
    if is_over {
        engine.settled().await?;
    }
    let info = engine.partition(partition);
    let info = info.ok_or(cairn_engine::EngineError::NoSuchPartition(partition))?;
    let mut done = ReadDone {
        is_over,
        floor: info.floor.0,
        ..ReadDone::default()
    };
    let range = Range {
        lower: Bound::Excluded(record::key(lower, stream, after)),
        upper: Bound::Included(record::key(lower, stream, u64::MAX)),
    };
    let direction = if newest {
        Direction::Backward
    } else {
        Direction::Forward
    };
    let (mut counted, mut stored_bytes) = (0, 0);
    let mut scan = engine.scan(partition, range, direction);
    while done.records.len() < records_max && stored_bytes < STORED_BYTES_MAX {
        let Some((key, stored)) = scan.next().await? else {
            done.is_all = true;
            break;
        };
        let (Some(commit), Some(record)) = (commit_of(&key), Record::decode(&stored)) else {
            return Err(ApiError::internal(format!(
                "a record of a stream in partition {partition} cannot be read"
            )));
        };
        counted += record.page_bytes();
        if counted > bytes_max && !done.records.is_empty() {
            break;
        }
        stored_bytes += stored.len();
        done.records.push((commit, stored.to_vec()));
    }
    Ok(done)
}
