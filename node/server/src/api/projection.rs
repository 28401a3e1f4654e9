//! Which parts of the items a read answers with: `ProjectionExpression`, or `AttributesToGet`, which it replaced.

use std::sync::Arc;

use cairn_expression::legacy::attributes_to_get;
use cairn_expression::{BoundProjection, Names, Projection as ParsedProjection, Values};
use cairn_runtime::Runtime;

use super::index::index_key_names;
use super::legacy::Legacy;
use super::{ApiError, Service};
use crate::catalog::Table;
use crate::route::Operands;

/// A projection with its request's names, checked.
pub(super) struct Projection {
    parsed: Arc<ParsedProjection>,
    operands: Arc<Operands>,
}

impl Projection {
    /// The projection of a request; none when it wants whole items.
    pub(super) fn of<R: Runtime>(
        service: &Service<R>,
        text: Option<&str>,
        legacy: &Legacy,
        operands: &Arc<Operands>,
    ) -> Result<Option<Projection>, ApiError> {
        let projection = match (text, legacy.attributes()) {
            (Some(text), _) => Projection {
                parsed: service.parsed().projection(text)?,
                operands: Arc::clone(operands),
            },
            (None, Some(attributes)) => Projection::of_attributes(attributes)?,
            (None, None) => return Ok(None),
        };
        projection.parsed.bind(&projection.operands.names)?;
        Ok(Some(projection))
    }

    fn of_attributes(attributes: &[String]) -> Result<Projection, ApiError> {
        let parsed = attributes_to_get(attributes.to_vec())?;
        let operands = Operands {
            names: Names::none(),
            values: Values::none(),
        };
        Ok(Projection {
            parsed: Arc::new(parsed),
            operands: Arc::new(operands),
        })
    }

    /// Ready to be applied.
    pub(super) fn bound(&self) -> BoundProjection<'_> {
        self.parsed
            .bind(&self.operands.names)
            .expect("bound before, to check it")
    }
}

/// Checks that a projection does not go into the key of the table or of an index.
pub(super) fn check_projection(table: &Table, projection: Option<&Projection>) -> Result<(), ApiError> {
    let Some(projection) = projection else {
        return Ok(());
    };
    let bound = projection.bound();
    bound.check_key_scalar("Key", &table.key_names())?;
    bound.check_key_scalar("IndexKey", &index_key_names(table))?;
    Ok(())
}
