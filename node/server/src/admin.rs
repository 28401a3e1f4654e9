//! What an operator and his machines ask: `/livez`, `/readyz`, `/metrics`, `/drives`.
//!
//! - `/livez` answers as long as the first shard turns.
//! - `/readyz` answers 200 while the node serves, 503 while it recovers or drains.
//! - `/metrics` collects from every shard and from the volume by message; one that does not answer in time fails the
//!   scrape rather than leave a hole in the counters.
//! - `GET /drives` tells of the drives, `POST /drives/scrub` has them verified, `POST /drives/add`, `rebuild` and `remove`, with
//!   the drive as the body, begin what their names say, and `POST /keys/rotate` has the tables' data sealed with other keys
//!   ([`crate::drives`]). `POST /backup` begins a backup, `GET /backup` tells how far it is ([`crate::backup`]). Nothing is
//!   changed for a request from a web page.
//!
//! When other machines can reach the admin address, all but the probes ask for an access key by HTTP basic authentication;
//! the two probes tell nothing that a connection attempt would not.

use std::cell::Cell;
use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_engine::EngineStats;
use cairn_engine::latency::Latencies;
use cairn_engine::volume::{VolumeHandle, VolumeStatus};
use cairn_runtime::Runtime;
use cairn_runtime::mailbox::{MailboxReceiver, MailboxSender, ReplySender, mailbox, reply};
use cairn_runtime::sync::timeout;

use crate::backup::Backups;
use crate::credentials::Credentials;
use crate::drives::{Action, Drives, begin};
use crate::expiry::ExpiryStats;
use crate::http::decode::{Head, Malformed, Request};
use crate::http::encode::{self, After};
use crate::http::server::{Application, Exchange};
use crate::index::IndexStats;
use crate::metrics::{DriveLatencies, Family, Snapshot};
use crate::sigv4::percent_decode;
use crate::transact::TransactionStats;

/// How long a scrape waits for the shards.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Scrapes that may wait at a shard.
const SCRAPES_WAITING_MAX: usize = 8;

/// Asks every shard for its counters. Cheap to clone.
#[derive(Clone)]
pub struct Collector {
    shards: Vec<MailboxSender<ReplySender<Snapshot>>>,
}

/// Where a shard is asked.
pub struct Inbox(MailboxReceiver<ReplySender<Snapshot>>);

impl fmt::Debug for Inbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Inbox")
    }
}

impl Collector {
    /// A collector and the inboxes of `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> (Collector, Vec<Inbox>) {
        let (senders, inboxes) = (0..shards)
            .map(|_| {
                let (sender, receiver) = mailbox(SCRAPES_WAITING_MAX);
                (sender, Inbox(receiver))
            })
            .unzip();
        (Collector { shards: senders }, inboxes)
    }

    /// The counters of all shards, added up; None when one did not answer.
    async fn collect(&self) -> Option<Snapshot> {
        let mut replies = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let (sender, reply) = reply();
            shard.send(sender).await.ok()?;
            replies.push(reply);
        }
        let mut sum = Snapshot::default();
        for reply in replies {
            sum.add(&reply.await.ok()?);
        }
        Some(sum)
    }
}

impl Inbox {
    /// Answers with what `snapshot` gives, until the collector is gone.
    pub async fn serve(mut self, snapshot: impl Fn() -> Snapshot) {
        while let Some(asker) = self.0.recv().await {
            asker.send(snapshot());
        }
    }
}

/// Whether the node serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Logs are being read, partitions opened.
    Recovering,
    /// Requests are answered.
    Ready,
    /// The node is about to stop.
    Draining,
}

/// What is the node's and not a shard's; collected on the admin's own shard. Values are added to the sum.
pub trait NodeFacts: 'static {
    /// Adds values of the whole node.
    fn add(&self, snapshot: &mut Snapshot) -> impl Future<Output = ()>;

    /// The drives, once they are known.
    fn volume(&self) -> Option<VolumeHandle>;

    /// What makes backups, once the node serves.
    fn backups(&self) -> Option<Backups>;
}

/// The admin endpoints as an application of the HTTP server.
pub struct Admin<R, F> {
    runtime: R,
    collector: Collector,
    readiness: Rc<Cell<Readiness>>,
    /// Whether an engine has stopped.
    failed: Arc<AtomicBool>,
    facts: F,
    /// Who may read metrics; None: everybody who can connect.
    guards: Option<Credentials>,
}

impl<R: Runtime, F: NodeFacts> Admin<R, F> {
    /// The admin endpoints over what the shards count.
    pub fn new(
        runtime: R,
        collector: Collector,
        readiness: Rc<Cell<Readiness>>,
        failed: Arc<AtomicBool>,
        facts: F,
        guards: Option<Credentials>,
    ) -> Admin<R, F> {
        Admin {
            runtime,
            collector,
            readiness,
            failed,
            facts,
            guards,
        }
    }

    async fn metrics(&self) -> Option<String> {
        let collect = async {
            let mut snapshot = self.collector.collect().await?;
            self.facts.add(&mut snapshot).await;
            Some(snapshot)
        };
        let mut snapshot = timeout(&self.runtime, COLLECT_TIMEOUT, collect).await.ok()??;
        snapshot.set(READY, u64::from(self.readiness.get() == Readiness::Ready));
        let mut text = String::with_capacity(16 * 1024);
        snapshot.write_text(&mut text);
        Some(text)
    }

    async fn drives(&self) -> Option<Drives> {
        let volume = self.facts.volume()?;
        let status = timeout(&self.runtime, COLLECT_TIMEOUT, volume.status()).await;
        Some(Drives::new(&volume, &status.ok()?.ok()?))
    }

    fn is_allowed(&self, authorization: Option<&[u8]>) -> bool {
        let Some(credentials) = &self.guards else {
            return true;
        };
        let given = authorization.and_then(|value| value.strip_prefix(b"Basic "));
        let Some((id, secret)) = given.and_then(basic_pair) else {
            return false;
        };
        credentials.secret(&id).is_some_and(|known| {
            aws_lc_rs::constant_time::verify_slices_are_equal(known.expose().as_bytes(), &secret).is_ok()
        })
    }
}

/// User and password of basic authentication.
fn basic_pair(encoded: &[u8]) -> Option<(String, Vec<u8>)> {
    let decoded = decode_base64(encoded.trim_ascii())?;
    let colon = memchr::memchr(b':', &decoded)?;
    Some((
        String::from_utf8(decoded[..colon].to_vec()).ok()?,
        decoded[colon + 1..].to_vec(),
    ))
}

/// Standard alphabet; padding may be left out.
fn decode_base64(encoded: &[u8]) -> Option<Vec<u8>> {
    let digits = encoded
        .strip_suffix(b"==")
        .or(encoded.strip_suffix(b"="))
        .unwrap_or(encoded);
    let (mut bits, mut count, mut decoded) = (0u32, 0, Vec::new());
    for &digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0x3FFF;
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count) as u8);
        }
    }
    Some(decoded)
}

/// The directory that a request for a backup names; empty when it names none.
fn directory_of(target: &str) -> PathBuf {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let named = query.split('&').find_map(|pair| pair.strip_prefix("directory="));
    let decoded = percent_decode(named.unwrap_or_default().as_bytes()).into_owned();
    PathBuf::from(OsString::from_vec(decoded))
}

enum Endpoint {
    Live,
    Ready,
    Metrics,
    Drives,
    Scrub,
    Operate(Action, String),
    Backup,
    MakeBackup(PathBuf),
    Rekey,
    WebPage,
    Forbidden,
    Unknown,
    Method,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const NOT_OPEN: &str = "the drives are not open yet\n";

impl<R: Runtime, F: NodeFacts> Application for Admin<R, F> {
    fn answer<'a>(
        &'a self,
        request: &Request<'_, 'a>,
        exchange: Exchange,
        out: &'a mut Vec<u8>,
    ) -> impl Future<Output = ()> + use<'a, R, F> {
        let head = &request.head;
        let path = head.target.split('?').next().unwrap_or_default();
        // A drive by its directory, or by its place in the list.
        let named = String::from_utf8_lossy(request.body).trim().to_owned();
        let endpoint = match (head.method, path) {
            ("GET" | "HEAD", "/livez") => Endpoint::Live,
            ("GET" | "HEAD", "/readyz") => Endpoint::Ready,
            (
                _,
                "/metrics" | "/drives" | "/drives/scrub" | "/drives/add" | "/drives/rebuild"
                | "/drives/remove" | "/backup" | "/keys/rotate",
            ) if !self.is_allowed(head.authorization) => Endpoint::Forbidden,
            ("GET" | "HEAD", "/metrics") => Endpoint::Metrics,
            ("GET" | "HEAD", "/drives") => Endpoint::Drives,
            // Any page in the operator's browser could send it.
            ("POST", _) if head.origin.is_some() => Endpoint::WebPage,
            ("POST", "/drives/scrub") => Endpoint::Scrub,
            ("POST", "/drives/add") => Endpoint::Operate(Action::Add, named),
            ("POST", "/drives/rebuild") => Endpoint::Operate(Action::Rebuild, named),
            ("POST", "/drives/remove") => Endpoint::Operate(Action::Remove, named),
            ("GET" | "HEAD", "/backup") => Endpoint::Backup,
            ("POST", "/backup") => Endpoint::MakeBackup(directory_of(head.target)),
            ("POST", "/keys/rotate") => Endpoint::Rekey,
            ("GET" | "HEAD", _) => Endpoint::Unknown,
            _ => Endpoint::Method,
        };
        let is_head = head.method == "HEAD";
        async move {
            let (status, content, headers, text) = match endpoint {
                Endpoint::Live => ((200, "OK"), TEXT, "", "live\n".to_owned()),
                Endpoint::Ready => match self.readiness.get() {
                    Readiness::Ready if self.failed.load(Ordering::Relaxed) => {
                        let text =
                            "an engine has stopped: writes are refused until the node is started again\n";
                        (UNAVAILABLE, TEXT, "", text.to_owned())
                    }
                    Readiness::Ready => ((200, "OK"), TEXT, "", "ready\n".to_owned()),
                    Readiness::Recovering => (UNAVAILABLE, TEXT, "", "recovering\n".to_owned()),
                    Readiness::Draining => (UNAVAILABLE, TEXT, "", "draining\n".to_owned()),
                },
                Endpoint::Metrics => match self.metrics().await {
                    Some(text) => ((200, "OK"), "text/plain; version=0.0.4; charset=utf-8", "", text),
                    None => (
                        UNAVAILABLE,
                        TEXT,
                        "",
                        "a shard or the volume did not answer\n".to_owned(),
                    ),
                },
                Endpoint::Drives => match self.drives().await {
                    Some(drives) => ((200, "OK"), JSON, "", drives.to_json()),
                    None => (UNAVAILABLE, TEXT, "", NOT_OPEN.to_owned()),
                },
                Endpoint::Scrub => match self.facts.volume() {
                    Some(volume) => (
                        (202, "Accepted"),
                        TEXT,
                        "",
                        format!("{}\n", volume.request_scrub()),
                    ),
                    None => (UNAVAILABLE, TEXT, "", NOT_OPEN.to_owned()),
                },
                Endpoint::Operate(action, named) => match self.facts.volume() {
                    None => (UNAVAILABLE, TEXT, "", NOT_OPEN.to_owned()),
                    Some(volume) => match begin(&volume, action, &named).await {
                        Ok(number) => ((202, "Accepted"), TEXT, "", format!("{number}\n")),
                        Err(error) => ((409, "Conflict"), TEXT, "", format!("{error}\n")),
                    },
                },
                Endpoint::Backup => match self.facts.backups() {
                    Some(backups) => {
                        let status = serde_json::to_string(&backups.status());
                        let status = status.expect("numbers and text are JSON");
                        ((200, "OK"), JSON, "", status + "\n")
                    }
                    None => (UNAVAILABLE, TEXT, "", NOT_OPEN.to_owned()),
                },
                Endpoint::MakeBackup(directory) => match self.facts.backups() {
                    Some(backups) if self.readiness.get() == Readiness::Ready => {
                        match backups.start(&self.runtime, directory) {
                            Ok(number) => ((202, "Accepted"), TEXT, "", format!("{number}\n")),
                            Err(why) => ((409, "Conflict"), TEXT, "", format!("{why}\n")),
                        }
                    }
                    _ => (UNAVAILABLE, TEXT, "", NOT_OPEN.to_owned()),
                },
                Endpoint::Rekey => match self.facts.volume() {
                    Some(volume) if volume.is_encrypted() => (
                        (202, "Accepted"),
                        TEXT,
                        "",
                        format!("{}\n", volume.request_rekey()),
                    ),
                    Some(_) => (
                        (409, "Conflict"),
                        TEXT,
                        "",
                        "the node is not encrypted: there are no keys to change\n".to_owned(),
                    ),
                    None => (UNAVAILABLE, TEXT, "", NOT_OPEN.to_owned()),
                },
                Endpoint::WebPage => (
                    (403, "Forbidden"),
                    TEXT,
                    "",
                    "requests from web pages change nothing here\n".to_owned(),
                ),
                Endpoint::Forbidden => (
                    (401, "Unauthorized"),
                    TEXT,
                    "WWW-Authenticate: Basic realm=\"cairn\"\r\n",
                    "an access key id and its secret are needed\n".to_owned(),
                ),
                Endpoint::Unknown => (
                    (404, "Not Found"),
                    TEXT,
                    "",
                    "there are /livez, /readyz, /metrics, /drives and /backup\n".to_owned(),
                ),
                Endpoint::Method => (
                    (405, "Method Not Allowed"),
                    TEXT,
                    "Allow: GET, HEAD, POST\r\n",
                    "GET and HEAD, and POST for /drives/scrub, add, rebuild, remove, /backup and /keys/rotate\n"
                        .to_owned(),
                ),
            };
            encode::plain(out, status, content, headers, exchange.after, text.as_bytes());
            if is_head {
                out.truncate(out.len() - text.len());
            }
        }
    }

    fn turn_away(&self, _head: &Head<'_, '_>, _exchange: Exchange, out: &mut Vec<u8>) {
        let status = Malformed::BodyTooLarge.status();
        encode::plain(
            out,
            status,
            TEXT,
            "",
            After::Close,
            b"nothing here takes a body\n",
        );
    }

    fn refuse(&self, malformed: Malformed, _exchange: Exchange, out: &mut Vec<u8>) {
        let body = format!("{malformed}\n");
        encode::plain(out, malformed.status(), TEXT, "", After::Close, body.as_bytes());
    }

    fn overloaded(&self, _exchange: Exchange, out: &mut Vec<u8>) {
        encode::plain(
            out,
            UNAVAILABLE,
            TEXT,
            "",
            After::Close,
            b"too many large requests\n",
        );
    }
}

const UNAVAILABLE: (u16, &str) = (503, "Service Unavailable");

const READY: Family = gauge("cairn_ready", "1 while the node serves.");

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        help,
        counter: false,
    }
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        help,
        counter: true,
    }
}

/// Adds a shard's counters of items that expire.
pub fn add_expiry(snapshot: &mut Snapshot, stats: &ExpiryStats) {
    #[rustfmt::skip]
    let values = [
        (counter("cairn_expired_items_total", "Items deleted because their time to live was over."), stats.deleted),
        (counter("cairn_expiry_examined_total", "Items gone through to find those that expire."), stats.examined),
        (counter("cairn_expiry_failures_total", "Failures of deleting expired items, tried again since."), stats.failures),
        (gauge("cairn_expiry_scheduled", "Items that will expire and are known."), stats.scheduled),
    ];
    for (family, value) in values {
        *snapshot.values.entry((family, String::new())).or_default() += value;
    }
}

/// Adds a shard's counters of global indexes.
pub fn add_indexes(snapshot: &mut Snapshot, stats: &IndexStats) {
    #[rustfmt::skip]
    let values = [
        (gauge("cairn_index_backlog_records", "Changes of items that wait for global indexes."), stats.backlog_records),
        (gauge("cairn_index_backlog_bytes", "Bytes of changes that wait for global indexes."), stats.backlog_bytes),
        (counter("cairn_index_backfill_examined_total", "Items gone through to fill global indexes."), stats.examined),
        (counter("cairn_index_backfill_failures_total", "Failures of filling global indexes, tried again since."), stats.failures),
    ];
    for (family, value) in values {
        *snapshot.values.entry((family, String::new())).or_default() += value;
    }
    for ((table, index), filling) in &stats.filling {
        // Names have no characters that would have to be escaped.
        let labels = format!("{{table=\"{table}\",index=\"{index}\"}}");
        #[rustfmt::skip]
        let values = [
            (gauge("cairn_index_backfill_done_items", "Items gone through of those that an index is being filled with."), filling.examined),
            (gauge("cairn_index_backfill_items", "Items that an index is being filled with."), filling.items),
        ];
        for (family, value) in values {
            *snapshot.values.entry((family, labels.clone())).or_default() += value;
        }
    }
}

/// Adds a shard's counters of transactions.
pub fn add_transactions(snapshot: &mut Snapshot, stats: &TransactionStats) {
    #[rustfmt::skip]
    let values = [
        (counter("cairn_transactions_committed_total", "Transactions that wrote and were committed."), stats.committed),
        (gauge("cairn_transactions_in_flight", "Transactions that write and are under way."), stats.in_flight),
        (gauge("cairn_transactions_prepared", "Parts of transactions that are prepared, one for each partition."), stats.prepared),
        (gauge("cairn_transaction_held_items", "Items that transactions hold."), stats.held_items),
    ];
    for (family, value) in values {
        *snapshot.values.entry((family, String::new())).or_default() += value;
    }
    #[rustfmt::skip]
    let by_reason = counter("cairn_transactions_cancelled_total", "Transactions that were cancelled, by the codes of their reasons.");
    for (reason, count) in &stats.cancelled {
        let labels = format!("{{reason=\"{reason}\"}}");
        *snapshot.values.entry((by_reason, labels)).or_default() += count;
    }
    #[rustfmt::skip]
    let met = counter("cairn_transaction_conflicts_total", "Items met while a transaction held them, by who met them.");
    for (by, count) in &stats.conflicts {
        let labels = format!("{{by=\"{}\"}}", by.name());
        *snapshot.values.entry((met, labels)).or_default() += count;
    }
    #[rustfmt::skip]
    let recovered = counter("cairn_transactions_recovered_total", "Parts of transactions that nobody led any more, ended as the ledger said.");
    for (outcome, count) in [
        ("committed", stats.recovered_committed),
        ("given_up", stats.recovered_given_up),
    ] {
        let labels = format!("{{outcome=\"{outcome}\"}}");
        *snapshot.values.entry((recovered, labels)).or_default() += count;
    }
}

/// Adds what an engine counts.
pub fn add_engine(snapshot: &mut Snapshot, stats: &EngineStats) {
    #[rustfmt::skip]
    let values = [
        (counter("cairn_mutations_total", "Mutations applied."), stats.mutations),
        (counter("cairn_unchanged_total", "Writes that changed nothing: failed conditions and deletes of nothing."), stats.unchanged),
        (counter("cairn_gets_total", "Point reads."), stats.gets + stats.gets_cached),
        (counter("cairn_gets_cached_total", "Point reads answered without a drive read."), stats.gets_cached),
        (counter("cairn_write_delays_total", "Writes slowed down by back-pressure."), stats.delays),
        (counter("cairn_write_stalls_total", "Writes that waited for memory or log space."), stats.stalls),
        (counter("cairn_flushes_total", "Memtables moved into segments."), stats.flushes),
        (counter("cairn_compactions_total", "Compactions."), stats.compactions),
        (counter("cairn_background_failures_total", "Failures of background work, tried again since."), stats.background_failures),
        (counter("cairn_clock_refused_total", "Clock readings too far ahead to be followed."), stats.clock_refused),
        (counter("cairn_segments_restored_total", "Segment files that a mirror lacked, copied from another."), stats.restored),
        (counter("cairn_scrub_passes_total", "Complete passes of the scrub, by log."), stats.scrubs),
        (counter("cairn_scrub_read_bytes_total", "Bytes that the scrub has read, on all mirrors."), stats.scrubbed_bytes),
        (counter("cairn_scrub_damaged_total", "Places that the scrub found damaged or missing on a mirror."), stats.scrub_damaged),
        (counter("cairn_scrub_lost_total", "Places among them that no mirror had whole."), stats.scrub_lost),
        (gauge("cairn_partitions", "Partitions on this node."), stats.partitions),
        (gauge("cairn_room_low", "Engines that refuse puts because a drive is nearly full."), stats.room_low),
        (gauge("cairn_partitions_fenced", "Partitions fenced because data is lost."), stats.partitions_fenced),
        (gauge("cairn_memtable_bytes", "Bytes in memtables."), stats.memtable_bytes),
        (gauge("cairn_memtable_bytes_max", "Budget of the memtables in bytes."), stats.memtable_bytes_max),
        (counter("cairn_log_batches_total", "Batches made durable, markers included."), stats.log.batches),
        (counter("cairn_log_records_total", "Records in them."), stats.log.records),
        (counter("cairn_log_bytes_total", "Bytes of log written per mirror, padding included."), stats.log.bytes),
        (gauge("cairn_log_live_bytes", "Bytes of the log files in use."), stats.log.live_bytes),
        (counter("cairn_log_mirror_failures_total", "Mirrors of logs that failed or lagged."), stats.log.mirror_failures),
        (counter("cairn_drive_reads_total", "Reads of segments asked of drives."), stats.segments.device_reads),
        (counter("cairn_drive_read_bytes_total", "Bytes of them."), stats.segments.device_read_bytes),
        (counter("cairn_cache_hits_total", "Blocks found in the block cache."), stats.segments.cache_hits),
        (counter("cairn_cache_misses_total", "Blocks read because they were not in the block cache."), stats.segments.cache_misses),
        (gauge("cairn_cache_bytes", "Bytes in the block cache."), stats.segments.cache_bytes),
        (counter("cairn_cache_item_hits_total", "Point reads that the cache of items answered."), stats.segments.item_hits),
        (counter("cairn_cache_item_misses_total", "Point reads that found their item in a segment because it was not there."), stats.segments.item_misses),
        (gauge("cairn_cache_item_bytes", "Bytes in the cache of items."), stats.segments.item_cache_bytes),
        (gauge("cairn_index_resident_bytes", "Bytes of filters and index tops in memory."), stats.segments.resident_bytes),
        (counter("cairn_filter_false_positives_total", "Point reads that a filter let pass in vain."), stats.segments.filter_false_positives),
        (counter("cairn_checksum_mismatches_total", "Blocks whose content did not verify."), stats.segments.mismatches),
        (counter("cairn_read_errors_total", "Reads that a drive failed."), stats.segments.read_errors),
        (counter("cairn_repairs_total", "Places rewritten from another mirror."), stats.segments.repairs),
        (counter("cairn_log_repairs_total", "Batches of logs that a mirror lacked at the start, written again."), stats.log_repaired),
        (counter("cairn_log_dropped_total", "Torn batches at the end of logs, never acknowledged, dropped at the start."), stats.log_dropped),
        (counter("cairn_repair_failures_total", "Repairs that failed."), stats.segments.repair_failures),
        (counter("cairn_late_reads_total", "Reads that were asked of another drive as well, because the first was late."), stats.segments.late_reads),
        (counter("cairn_segments_missing_mirrors_total", "Mirrors of segments that could not be opened."), stats.segments.mirrors_missing),
        (counter("cairn_flushed_bytes_total", "Bytes of segments written by flushes, per mirror."), stats.segments.flushed_bytes),
        (counter("cairn_compacted_bytes_total", "Bytes of segments written by compactions, per mirror."), stats.segments.compacted_bytes),
        (counter("cairn_blocks_bytes_total", "Bytes of data blocks written, per mirror, before they were packed."), stats.segments.blocks_bytes),
        (counter("cairn_blocks_stored_bytes_total", "Bytes that they took on a drive."), stats.segments.blocks_stored_bytes),
        (counter("cairn_log_record_bytes_total", "Bytes of the records in the log: what write amplification is reckoned against."), stats.log.record_bytes),
        (counter("cairn_segments_searched_total", "Segments that point reads searched."), stats.segments.segments_searched),
        (counter("cairn_segments_skipped_total", "Segments that queries left out because their filters said no."), stats.segments.segments_skipped),
        (gauge("cairn_items", "Items of all tables and indexes."), stats.item_count),
        (gauge("cairn_item_bytes", "Their DynamoDB sizes summed."), stats.item_bytes),
        (gauge("cairn_segment_bytes", "Bytes of segments, per mirror."), stats.segment_bytes),
        (gauge("cairn_segment_versions", "Versions in segments, obsolete ones and tombstones included."), stats.segment_versions),
        (gauge("cairn_compaction_debt_bytes", "Bytes that compaction has to move before every tree is in shape."), stats.compaction_debt_bytes),
        (gauge("cairn_compaction_rate_bytes", "Bytes per second that compaction may merge at present, all shards together."), stats.compaction_rate),
        (gauge("cairn_snapshots_open", "Snapshots that are open for readers."), stats.snapshots_open),
        (gauge("cairn_segments", "Segments open."), stats.segments.segments_open),
    ];
    for (family, value) in values {
        *snapshot.values.entry((family, String::new())).or_default() += value;
    }
}

/// Adds what an operator should know of the drives.
pub fn add_volume(snapshot: &mut Snapshot, status: &VolumeStatus) {
    let drives = || status.drives.iter().filter(|drive| !drive.retired);
    let in_sync = drives().filter(|drive| drive.in_sync).count();
    snapshot.set(
        gauge("cairn_mirrors", "Copies of every byte, as configured."),
        status.mirrors as u64,
    );
    snapshot.set(
        gauge(
            "cairn_drives",
            "Drives of this node, in sync or not; those that were removed are none.",
        ),
        drives().count() as u64,
    );
    snapshot.set(
        gauge(
            "cairn_drives_in_sync",
            "Drives that hold everything acknowledged.",
        ),
        in_sync as u64,
    );
    snapshot.set(
        gauge("cairn_in_sync_epoch", "Version of the set of drives in sync."),
        status.in_sync.epoch.0,
    );
    for drive in drives() {
        let label = format!("{{drive=\"{}\"}}", drive.index.get());
        let slow = gauge(
            "cairn_drive_slow",
            "1 while reads go round a drive because others answer much sooner.",
        );
        snapshot.values.insert((slow, label), u64::from(drive.slow));
        let mut latencies = DriveLatencies {
            drive: drive.index.get(),
            reads: Latencies::default(),
            writes: Latencies::default(),
        };
        for (_, report) in &status.logs {
            let reads = report.drives.iter().filter(|(index, _)| *index == drive.index);
            reads.for_each(|(_, counts)| latencies.reads.merge(&counts.latencies));
            let writes = report.writes.iter().filter(|(index, _)| *index == drive.index);
            writes.for_each(|(_, writes)| latencies.writes.merge(writes));
        }
        snapshot.drives.push(latencies);
    }
    snapshot.set(
        gauge(
            "cairn_copies_guaranteed",
            "Drives in sync that every file is on at least.",
        ),
        status.guarantee as u64,
    );
    for drive in drives() {
        let Some(space) = drive.space else { continue };
        let label = format!("{{drive=\"{}\"}}", drive.index.get());
        for (family, bytes) in [
            (
                gauge("cairn_drive_bytes", "Size of a drive's file system."),
                space.total_bytes,
            ),
            (
                gauge("cairn_drive_free_bytes", "Bytes of it that are free."),
                space.free_bytes,
            ),
        ] {
            snapshot.values.insert((family, label.clone()), bytes);
        }
    }
    let verified = status.logs.iter().map(|(_, report)| report.scrub.verified_ms);
    snapshot.set(
        gauge(
            "cairn_scrub_verified_timestamp_seconds",
            "When the pass of the scrub began since which every block was verified on every mirror; 0: never.",
        ),
        verified.min().unwrap_or(0) / 1_000,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_authentication() {
        for (encoded, expected) in [
            ("QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", "open sesame"))),
            ("YTpi", Some(("a", "b"))),
            ("YTpiYw==", Some(("a", "bc"))),
            ("YTpiYw", Some(("a", "bc"))),
            ("YTo=", Some(("a", ""))),
            ("YWI=", None),
            ("Y!!=", None),
            ("", None),
        ] {
            let pair = basic_pair(encoded.as_bytes());
            let expected = expected.map(|(id, secret)| (id.to_owned(), secret.as_bytes().to_vec()));
            assert_eq!(pair, expected, "{encoded}");
        }
    }
}
