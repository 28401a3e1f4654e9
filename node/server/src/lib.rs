//! The Cairn node.
//!
//! Read in this order:
//! - [`node`]: a node's life, from its drives to its shutdown;
//! - [`catalog`]: which tables and partitions exist;
//! - [`route`]: how a request reaches the shard that owns its partition;
//! - [`expiry`]: what deletes items whose time to live is over;
//! - [`index`]: secondary indexes;
//! - `transact`: transactions;
//! - [`api`]: the DynamoDB operations;
//! - [`answers`]: what their answers may take in memory;
//! - [`http`], [`sigv4`], [`credentials`]: the DynamoDB HTTP API;
//! - [`native`]: the native protocol;
//! - [`admin`], [`metrics`], [`logging`], `notices`: what an operator sees;
//! - [`cli`], [`config`]: what an operator says; [`drives`]: and does about the drives of a running node;
//! - [`backup`]: a copy of a running node;
//! - [`serve`]: all of it together;
//! - [`keys`]: the root key of an encrypted node;
//! - [`rebuild`]: what makes a drive of a stopped node a mirror again.

pub mod node;

pub mod catalog;
pub mod expiry;
pub mod route;

pub mod index;
mod stream;
pub mod transact;

pub mod answers;
pub mod api;

pub mod credentials;
pub mod http;
pub mod native;
pub mod sigv4;

pub mod admin;
pub mod logging;
pub mod metrics;
mod notices;

pub mod backup;
pub mod calendar;
pub mod cli;
pub mod config;
pub mod drives;
pub mod keys;

pub mod rebuild;
pub mod serve;
