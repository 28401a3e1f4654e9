//! One shard's entrance to the operations.

use std::rc::Rc;

use cairn_runtime::Runtime;

use super::ApiError;

/// The operations, as one shard offers them. Cheap to clone.
pub struct Service<R: Runtime> {
    inner: Rc<Inner<R>>,
}

struct Inner<R: Runtime> {
    #[allow(dead_code, reason = "used by the operations")]
    runtime: R,
}

impl<R: Runtime> Clone for Service<R> {
    fn clone(&self) -> Service<R> {
        Service { inner: Rc::clone(&self.inner) }
    }
}

impl<R: Runtime> Service<R> {
    pub(crate) fn new(runtime: R) -> Service<R> {
        Service { inner: Rc::new(Inner { runtime }) }
    }

    /// Executes `operation` (the part of `X-Amz-Target` after `DynamoDB_20120810.`) on the request `body` and
    /// appends the response body to `out`. `out` is as it was when an error is returned.
    ///
    /// # Errors
    /// What DynamoDB answers.
    pub async fn call(&self, operation: &str, body: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
        let _ = (operation, body, out, &self.inner);
        Err(ApiError::new(super::error::UNKNOWN_OPERATION, ""))
    }
}
