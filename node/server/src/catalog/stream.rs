//! The streams of a table: which there are, and how that is stored.
//!
//! A table has one stream at most that is enabled. Each that is enabled is another stream; what was disabled can be read until its
//! records have passed their time. In the table's entry (see `definition`), absent while no stream was ever enabled:
//!
//! ```text
//! Streams  L  [M {Created N, View S KEYS_ONLY | NEW_IMAGE | OLD_IMAGE | NEW_AND_OLD_IMAGES, Disabled N}, ..]: oldest first
//! ```
//!
//! Times are milliseconds since the Unix epoch; `Disabled` is absent while it is enabled. `Created` ascends, names the stream within
//! its table and is its label. The newest is kept for ever: the records of all streams before it go by its name.

use cairn_item::{Attribute, ItemView, Value, ValueView};

use super::definition::{as_text, as_u64, attribute, number, text};

/// Milliseconds of an hour.
pub(crate) const HOUR_MS: u64 = 60 * 60 * 1000;
/// Hours that the records of a stream are kept where nothing else is set.
pub(crate) const STREAM_HOURS: u64 = 24;
/// Most that may be set: a leap year.
pub(crate) const STREAM_HOURS_MAX: u64 = 366 * 24;
/// Streams of one table that can be read at once, disabled ones counted.
pub(crate) const STREAMS_MAX: usize = 64;

/// What a stream's records hold besides the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamView {
    /// Nothing.
    KeysOnly = 1,
    /// The item after the change.
    NewImage = 2,
    /// The item before the change.
    OldImage = 3,
    /// Both.
    NewAndOldImages = 4,
}

impl StreamView {
    const ALL: [StreamView; 4] = [
        StreamView::KeysOnly,
        StreamView::NewImage,
        StreamView::OldImage,
        StreamView::NewAndOldImages,
    ];

    /// DynamoDB's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StreamView::KeysOnly => "KEYS_ONLY",
            StreamView::NewImage => "NEW_IMAGE",
            StreamView::OldImage => "OLD_IMAGE",
            StreamView::NewAndOldImages => "NEW_AND_OLD_IMAGES",
        }
    }

    /// The view of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<StreamView> {
        StreamView::ALL.into_iter().find(|view| view.name() == name)
    }

    /// The view of that byte.
    pub(crate) fn from_byte(byte: u8) -> Option<StreamView> {
        StreamView::ALL.into_iter().find(|view| *view as u8 == byte)
    }

    /// Whether records hold the item before the change.
    #[must_use]
    pub fn has_old(self) -> bool {
        matches!(self, StreamView::OldImage | StreamView::NewAndOldImages)
    }

    /// Whether records hold the item after the change.
    #[must_use]
    pub fn has_new(self) -> bool {
        matches!(self, StreamView::NewImage | StreamView::NewAndOldImages)
    }
}

/// A stream of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamDefinition {
    /// When it was enabled, in milliseconds since the Unix epoch; no other stream of the table has the same.
    pub created_ms: u64,
    /// What its records hold.
    pub view: StreamView,
    /// When it was disabled.
    pub disabled_ms: Option<u64>,
}

impl StreamDefinition {
    /// A stream that is enabled with its table, whose creation tells when.
    pub(crate) fn of_new_table(view: StreamView) -> StreamDefinition {
        StreamDefinition {
            created_ms: 0,
            view,
            disabled_ms: None,
        }
    }

    /// Whether it is gone, where records are kept for `kept_ms`.
    pub(crate) fn is_gone(&self, kept_ms: u64, now_ms: u64) -> bool {
        self.disabled_ms
            .is_some_and(|disabled_ms| disabled_ms.saturating_add(kept_ms) <= now_ms)
    }
}

/// The streams of a table, after one is enabled.
pub(crate) fn with_enabled(
    streams: &[StreamDefinition],
    view: StreamView,
    kept_ms: u64,
    now_ms: u64,
) -> Vec<StreamDefinition> {
    let least_ms = streams.last().map_or(0, |last| last.created_ms + 1);
    let mut after: Vec<StreamDefinition> = streams
        .iter()
        .filter(|stream| !stream.is_gone(kept_ms, now_ms))
        .copied()
        .collect();
    after.push(StreamDefinition {
        created_ms: now_ms.max(least_ms),
        view,
        disabled_ms: None,
    });
    after
}

/// The attribute of a table's entry that holds them; none when there are none.
pub(super) fn attribute_of(streams: &[StreamDefinition]) -> Option<Attribute> {
    if streams.is_empty() {
        return None;
    }
    let value = |stream: &StreamDefinition| {
        let mut members = vec![
            attribute("Created", number(stream.created_ms)),
            attribute("View", text(stream.view.name())),
        ];
        members.extend(stream.disabled_ms.map(|ms| attribute("Disabled", number(ms))));
        Value::map(members)
    };
    Some(attribute(
        "Streams",
        Value::L(streams.iter().map(value).collect()),
    ))
}

/// Reads them back; none when they are not what this version writes.
pub(super) fn streams_of(item: ItemView<'_>) -> Option<Vec<StreamDefinition>> {
    let Some(streams) = item.get("Streams") else {
        return Some(Vec::new());
    };
    let ValueView::L(list) = streams else { return None };
    let stream = |value: ValueView<'_>| {
        let ValueView::M(stream) = value else { return None };
        Some(StreamDefinition {
            created_ms: as_u64(stream.get("Created")?)?,
            view: StreamView::from_name(as_text(stream.get("View")?)?)?,
            disabled_ms: match stream.get("Disabled") {
                Some(ms) => Some(as_u64(ms)?),
                None => None,
            },
        })
    };
    let streams = list.iter().map(stream).collect::<Option<Vec<_>>>()?;
    let ascending = streams.is_sorted_by(|one, other| one.created_ms < other.created_ms);
    let (_, before) = streams.split_last()?;
    let closed = before.iter().all(|stream| stream.disabled_ms.is_some());
    (ascending && closed).then_some(streams)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_item::Item;

    fn read_back(attributes: Vec<Attribute>) -> Option<Vec<StreamDefinition>> {
        let bytes = cairn_item::archive(&Item::from_attributes(attributes));
        streams_of(ItemView::validate(&bytes).unwrap())
    }

    #[test]
    fn streams_survive_their_attribute_and_nothing_else_is_read() {
        let streams = [
            StreamDefinition {
                created_ms: 5,
                view: StreamView::KeysOnly,
                disabled_ms: Some(9),
            },
            StreamDefinition {
                created_ms: 10,
                view: StreamView::NewAndOldImages,
                disabled_ms: None,
            },
        ];
        for count in 0..=2 {
            let attributes = attribute_of(&streams[..count]).into_iter().collect();
            assert_eq!(read_back(attributes), Some(streams[..count].to_vec()));
        }
        let reversed = [streams[1], streams[0]];
        for wrong in [
            attribute("Streams", text("on")),
            attribute("Streams", Value::L(Vec::new())),
            attribute(
                "Streams",
                Value::L(vec![Value::map(vec![attribute("Created", number(1))])]),
            ),
            attribute_of(&reversed).unwrap(),
            attribute_of(&[streams[1], streams[1]]).unwrap(),
        ] {
            assert_eq!(read_back(vec![wrong]), None);
        }
    }

    #[test]
    fn each_stream_has_a_time_of_its_own_and_what_is_gone_is_forgotten() {
        let first = with_enabled(&[], StreamView::NewImage, 100, 1_000);
        assert_eq!(first[0].created_ms, 1_000);
        let disabled = StreamDefinition {
            disabled_ms: Some(1_000),
            ..first[0]
        };
        let second = with_enabled(&[disabled], StreamView::OldImage, 100, 1_000);
        let times: Vec<u64> = second.iter().map(|stream| stream.created_ms).collect();
        assert_eq!(times, [1_000, 1_001]);
        let later = with_enabled(&[disabled], StreamView::OldImage, 100, 1_100);
        assert_eq!(later.len(), 1);
        assert_eq!(later[0].created_ms, 1_100);
    }
}
