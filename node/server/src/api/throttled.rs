//! `ThrottlingReasons`: what of a table is throttled, and which of its resources.
//!
//! A reason is what is asked of which kind of resource, then the limit. Here that is always the one of a range of keys: what makes a
//! client slow down is a shard, a partition or an index that has more to do than it can, never a configured capacity.

use cairn_runtime::Runtime;

use super::{ApiError, Service, table};
use crate::catalog::{IndexDefinition, Table};
use crate::index::Indexed;
use crate::route::Target;

/// What a request does to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Adds the reasons to what a request of this partition was told: the partition's table or global index, or for a write that the
/// indexes hold back these.
pub(super) fn explain<R: Runtime>(
    service: &Service<R>,
    table: &Table,
    target: Target,
    access: Access,
    error: ApiError,
) -> ApiError {
    let definition = table.definition();
    let arn = table::arn(service, &definition.name);
    let of_index = |index: &IndexDefinition| {
        let reason = match access {
            Access::Read => "IndexReadKeyRangeThroughputExceeded",
            Access::Write => "IndexWriteKeyRangeThroughputExceeded",
        };
        (reason, format!("{arn}/index/{}", index.name))
    };
    let global = || {
        let indexes = definition.indexes.iter();
        indexes.filter(|index| index.global.is_some() && index.is_fed())
    };
    if Indexed::is_behind(&error) {
        return error.with_throttling_reasons(global().map(of_index));
    }
    let mut read = global().filter(|index| {
        let places = index.global.iter().flat_map(|global| &global.places);
        places.into_iter().any(|place| place.id == target.partition)
    });
    let reason = match (read.next(), access) {
        (Some(index), _) => of_index(index),
        (None, Access::Read) => ("TableReadKeyRangeThroughputExceeded", arn.clone()),
        (None, Access::Write) => ("TableWriteKeyRangeThroughputExceeded", arn.clone()),
    };
    error.with_throttling_reasons(std::iter::once(reason))
}
