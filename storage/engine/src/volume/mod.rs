//! INTERIM, until the author of this module publishes it.

use std::marker::PhantomData;

/// The drives of a node as one shard sees them.
#[derive(Debug, Clone)]
pub struct Volume<R>(PhantomData<R>);
