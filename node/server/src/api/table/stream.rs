//! StreamSpecification, as CreateTable and UpdateTable take it.

use cairn_item::json::Reader;

use super::super::ApiError;
use super::super::constraints::Constraints;
use super::super::decode::{self, Unsupported};
use crate::catalog::{StreamChange, StreamView};

/// The values of StreamViewType, as DynamoDB lists them.
const VIEWS: [&str; 4] = ["NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES", "KEYS_ONLY"];

/// A StreamSpecification as a request gives it.
#[derive(Default)]
pub(super) struct StreamSpecification {
    enabled: Option<bool>,
    view: Option<String>,
}

pub(super) fn decode_stream(
    reader: &mut Reader<'_>,
    unsupported: &mut Unsupported,
    into: &mut Option<StreamSpecification>,
) -> Result<bool, ApiError> {
    let (mut enabled, mut view) = (None, None);
    let other = decode::members_of(reader, |member, reader| match member {
        "StreamEnabled" => decode::boolean(reader, &mut enabled),
        "StreamViewType" => decode::text(reader, &mut view),
        _ => Ok(false),
    })?;
    unsupported.merge(other);
    *into = Some(StreamSpecification {
        enabled,
        view: view.map(Into::into),
    });
    Ok(true)
}

impl StreamSpecification {
    pub(super) fn constraints(&self, constraints: &mut Constraints) {
        constraints.required(self.enabled.as_ref(), "streamSpecification.streamEnabled");
        let path = "streamSpecification.streamViewType";
        constraints.one_of(self.view.as_deref(), path, &VIEWS);
    }

    /// The view of a new table's stream, if it is to have one; the constraints hold.
    pub(super) fn of_new_table(&self) -> Result<Option<StreamView>, ApiError> {
        match (self.enabled == Some(true), self.view()) {
            (true, Some(view)) => Ok(Some(view)),
            (true, None) => Err(ApiError::parameters(
                "Table is being created with a stream enabled, UpdateViewType must be specified",
            )),
            (false, Some(_)) => Err(ApiError::parameters(
                "Table is being created with a stream disabled, UpdateViewType should not be specified",
            )),
            (false, None) => Ok(None),
        }
    }

    /// What UpdateTable is to do; the constraints hold.
    pub(super) fn change(&self) -> Result<StreamChange, ApiError> {
        match (self.enabled == Some(true), self.view()) {
            (true, Some(view)) => Ok(StreamChange::Enable(view)),
            (true, None) => Err(ApiError::parameters(
                "If stream is being enabled then UpdateViewType is required",
            )),
            (false, Some(_)) => Err(ApiError::parameters(
                "If stream is being disabled, then UpdateViewType must not be specified",
            )),
            (false, None) => Ok(StreamChange::Disable),
        }
    }

    fn view(&self) -> Option<StreamView> {
        StreamView::from_name(self.view.as_deref()?)
    }
}
