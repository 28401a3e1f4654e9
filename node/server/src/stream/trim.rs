//! What becomes of records that have passed their time.
//!
//! Readers do not see them from that moment on. Their bytes go without being deleted one by one: now and then each shard tells its
//! engines, for each partition, which keys nobody reads any more ([`cairn_engine::Engine::trim`]). Records stand at the end of their
//! partition's keys in the order of their timestamps, so most segments hold either records or none, and those of one time: a segment
//! all of whose keys are named goes as a whole, and the others lose theirs when they are merged.
//!
//! Nothing of this is stored. After a restart the keys are named again.

use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::Runtime;
use cairn_runtime::sync::timeout;

use super::{horizon, record};
use crate::catalog::{StreamDefinition, TableSettings};
use crate::route::Router;

/// How often the shard looks.
const PERIOD: Duration = Duration::from_secs(60);
/// Records are kept so much longer than they are read, in milliseconds: a reader whose place has passed its time must learn whether
/// it has missed any. Iterators live for a quarter of it.
const SLACK_MS: u64 = 60 * 60 * 1000;

/// Names what nobody reads any more until the engines are closed.
pub(crate) async fn run<R: Runtime>(router: Rc<Router<R>>) {
    while !router.is_stopped() {
        let changed = router.indexes.streams_changed.notified();
        let now_ms = router.runtime.unix_ms();
        for indexed in router.indexes.all() {
            let table = indexed.table();
            let definition = table.definition();
            let lower = definition.places[indexed.place].lower;
            if let Some(upper) = trimmed_up_to(&definition.settings, lower, now_ms) {
                // One that is fenced or gone has nothing to trim.
                let _ = router.engines[indexed.engine].trim(indexed.partition, record::begin(lower), upper);
            }
        }
        if router.indexes.has_streams() {
            // Either way it looks again.
            let _ = timeout(&router.runtime, PERIOD, changed).await;
        } else {
            changed.await;
        }
    }
}

/// The end of the keys of records that are read no more; none where there never was a stream.
fn trimmed_up_to(settings: &TableSettings, lower: u64, now_ms: u64) -> Option<Vec<u8>> {
    let kept_ms = settings.streams_kept_ms().saturating_add(SLACK_MS);
    let is_gone = |stream: &&StreamDefinition| stream.is_gone(kept_ms, now_ms);
    let newest = settings.streams.last()?;
    let oldest = settings.streams.iter().find(|stream| !is_gone(stream));
    Some(match oldest {
        Some(oldest) => record::key(lower, oldest.created_ms, horizon(kept_ms, now_ms)),
        None => record::prefix(lower, newest.created_ms + 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::StreamView;

    #[test]
    fn what_is_older_than_its_time_is_named_and_nothing_else() {
        let stream = |created_ms, disabled_ms| StreamDefinition {
            created_ms,
            view: StreamView::KeysOnly,
            disabled_ms,
        };
        let day = 24 * 60 * 60 * 1000;
        let kept = day + SLACK_MS;
        let settings = |streams: &[StreamDefinition]| TableSettings {
            streams: streams.to_vec(),
            ..TableSettings::default()
        };
        let up_to = |streams: &[StreamDefinition], now_ms| trimmed_up_to(&settings(streams), 7, now_ms);
        let now = 100 * day;
        let least = record::key(7, 5, horizon(kept, now));
        assert_eq!(up_to(&[], now), None);
        assert_eq!(up_to(&[stream(5, None)], now), Some(least.clone()));
        let two = [stream(5, Some(now - kept + 1)), stream(6, None)];
        assert_eq!(up_to(&two, now), Some(least));
        let next = record::key(7, 6, horizon(kept, now + 1));
        assert_eq!(up_to(&two, now + 1), Some(next));
        let over = [stream(5, Some(now - kept))];
        assert_eq!(up_to(&over, now), Some(record::prefix(7, 6)));
    }
}
