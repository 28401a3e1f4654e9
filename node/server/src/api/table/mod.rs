//! The operations on tables.
//!
//! Read in this order: [`create`], [`indexes`] and [`stream`] (what it says of secondary indexes and streams), [`describe`] and [`describe_index`] (what every
//! answer shows of a table, DescribeTable, DeleteTable, ListTables), [`update`] and [`index_updates`] (UpdateTable), [`tags`],
//! [`expiry`] (the time to live), [`facts`] (what is the same for all tables, and lists that are always empty here).
//!
//! An operation that changes a table sends a [`TableChange`](crate::catalog::TableChange) to the catalog's store, which
//! decides on the newest entry. It is done when the entry is durable and all shards have it, before the answer; the
//! states in between that DynamoDB shows for a while are only seen in the answer. Only an index that is being filled or removed
//! takes its time.

mod arn;
mod shape;

mod create;
mod indexes;
mod stream;

mod describe;
mod describe_index;

mod index_updates;
mod update;

mod expiry;
mod facts;
mod tags;

pub(super) use arn::named_by;
pub(super) use create::create_table;
pub(super) use describe::{
    arn, delete_table, describe_table, list_tables, stream_arn, stream_label, write_pairs, write_time,
};
pub(super) use expiry::{describe_time_to_live, update_time_to_live};
pub(super) use facts::{
    describe_continuous_backups, describe_contributor_insights, describe_kinesis_streaming_destination,
    describe_limits, get_resource_policy, list_backups, list_contributor_insights, list_exports,
    list_global_tables, list_imports, update_continuous_backups,
};
pub(super) use tags::{list_tags_of_resource, tag_resource, untag_resource};
pub(super) use update::update_table;
