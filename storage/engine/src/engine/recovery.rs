//! From a stopped node's files to a serving engine.
//!
//! 1. The log decides which batches there are, makes its mirrors alike and replays them ([`super::replay`]).
//! 2. Segment files that no partition refers to are deleted, after their ids have durably been used up, and an in-sync mirror that lacks one that is
//!    referred to gets a copy ([`super::files`]).
//! 3. Every segment referred to is opened.
//! 4. Mutations that no segment holds go to memtables; counters and floors move on with them.
//! 5. A partition with a loss is fenced, durably, before the log can forget what was lost.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use cairn_runtime::Runtime;
use cairn_runtime::sync::{Notify, Progress, WaitGroup};

use super::partition::{Applied, IndexCounts, Partition, Standing};
use super::rekey::Rekey;
use super::remirror::Remirror;
use super::replay::{Recovered, Replay};
use super::scrub::Scrub;
use super::space::Room;
use super::timestamps::Clock;
use super::{Inner, files};
use crate::canary::{self, Canary};
use crate::config::EngineConfig;
use crate::error::EngineError;
use crate::ids::{CommitTimestamp, LogId, LogSequence, SegmentId};
use crate::log::{Log, LogError, Recovery};
use crate::manifest::{Edit, ManifestState, SegmentReference, encode_edits};
use crate::stats::Counts;
use crate::tree::{Tree, TreeContext, TreeError};
use crate::volume::Volume;

pub(super) async fn recover<R: Runtime>(
    runtime: R,
    volume: Volume<R>,
    id: LogId,
    config: EngineConfig,
) -> Result<Inner<R>, EngineError> {
    let mut replay = Replay::default();
    let opened = Log::open(runtime.clone(), volume.clone(), id, config.log(), |event| {
        replay.meet(event)
    })
    .await;
    let (log, recovery) = opened.map_err(open_failed)?;
    let whole = replay
        .finish()
        .map_err(|why| EngineError::Corrupt(format!("log {id}: {why}").into()))?;
    let trees = TreeContext::new(runtime.clone(), volume.clone(), config.tree());
    let mut manifest = ManifestState {
        next_segment: whole.next_segment,
        scrub: whole.scrub,
        ..ManifestState::default()
    };
    let references: BTreeMap<SegmentId, SegmentReference> = whole
        .partitions
        .iter()
        .flat_map(|recovered| {
            recovered
                .state
                .segments
                .iter()
                .map(|(id, reference)| (*id, reference.clone()))
        })
        .collect();
    let survey = files::survey(&volume, id, &references).await?;
    manifest.next_segment = manifest.next_segment.max(survey.next_segment);
    let mut inner = new(runtime, volume, log, recovery, trees, config);
    if manifest.next_segment > whole.next_segment {
        // Durable before the file that shows it is deleted: its id is never given again.
        let mut payload = Vec::new();
        encode_edits(&[Edit::NextSegment(manifest.next_segment)], &mut payload);
        let appended = inner.append_edits(&payload);
        let sequence = appended.map_err(|error| inner.log_refused(&error))?;
        inner.durable(sequence).await?;
    }
    let tidied = files::tidy(&inner.volume, &references, survey, whole.losses == 0).await?;
    inner.counts.orphans.set(tidied.orphans);
    inner.counts.restored.set(tidied.restored);
    let mut newly_fenced = Vec::new();
    let mut memory = 0;
    for recovered in whole.partitions {
        let id = recovered.state.descriptor.id;
        manifest.partitions.insert(id, recovered.state.clone());
        let lost = recovered.lost.clone();
        let partition = open_partition(&inner, recovered).await?;
        memory += partition.tree.memtable_bytes();
        if let (Some(why), None) = (lost, &manifest.partitions[&id].fenced) {
            *partition.standing.borrow_mut() = Standing::Fenced(why.as_str().into());
            newly_fenced.push((id, Edit::Fenced { partition: id, why }));
        }
        inner.partitions.get_mut().insert(id, Rc::new(partition));
    }
    inner.memory.set(memory);
    inner.next_segment.set(manifest.next_segment);
    inner.manifest = RefCell::new(manifest);
    let mut last = None;
    for (partition, edit) in newly_fenced {
        last = Some(inner.edit(partition, &[edit]).await?);
    }
    if let Some(last) = last {
        inner.durable(last).await?;
    }
    Ok(inner)
}

/// Why a log cannot be opened, as the engine's error.
fn open_failed(error: LogError) -> EngineError {
    match error {
        LogError::NoMirror { .. } | LogError::AnchorLost { .. } => {
            EngineError::Corrupt(error.to_string().into())
        }
        error => EngineError::Stopped(error.to_string().into()),
    }
}

fn new<R: Runtime>(
    runtime: R,
    volume: Volume<R>,
    log: Log<R>,
    recovery: Recovery,
    trees: TreeContext<R>,
    config: EngineConfig,
) -> Inner<R> {
    let clock = Clock::new(runtime.now(), runtime.unix_ms(), config.clock_step_max);
    let last = log.acknowledged();
    let scrub = Scrub::new(runtime.now());
    Inner {
        runtime,
        config,
        volume,
        log,
        recovery,
        trees,
        partitions: RefCell::new(BTreeMap::new()),
        dropping: RefCell::default(),
        manifest: RefCell::default(),
        next_segment: Cell::new(0),
        snapshot_start: Cell::new(LogSequence(0)),
        snapshot_cost: Cell::default(),
        released: Cell::new(LogSequence(0)),
        clock: RefCell::new(clock),
        queue: RefCell::new(VecDeque::new()),
        proposals: Cell::new(0),
        proposed: Notify::new(),
        applied: Progress::new(0),
        last_applied: Cell::new(last),
        scratch: RefCell::new(Vec::new()),
        memory: Cell::new(0),
        gate: super::pressure::Gate::default(),
        log_tight: Cell::new(false),
        out_of_space: RefCell::default(),
        room: Room::default(),
        relief: Notify::new(),
        work: Notify::new(),
        compactable: Notify::new(),
        attention: Notify::new(),
        scrub,
        remirror: Remirror::default(),
        backing: super::backup::Backing::default(),
        rekey: Rekey::default(),
        tasks: WaitGroup::new(),
        stopped: RefCell::new(None),
        closing: Cell::new(false),
        counts: Counts::default(),
    }
}

async fn open_partition<R: Runtime>(
    inner: &Inner<R>,
    recovered: Recovered,
) -> Result<Partition<R>, EngineError> {
    let Recovered {
        state,
        pending,
        last_index,
        ..
    } = recovered;
    let tree = Tree::new(&inner.trees, &state.descriptor);
    tree.pack_with(state.compression);
    let mut broken = None;
    if let Err(error) = tree.open_segments(state.segments.values()).await {
        match error {
            TreeError::Volume(error) => return Err(EngineError::Stopped(error.to_string().into())),
            TreeError::OutOfSpace { drive } => return Err(EngineError::OutOfSpace(inner.drive_name(drive))),
            TreeError::Exhausted { why } => return Err(EngineError::Exhausted(why)),
            error => broken = Some(error.to_string()),
        }
    }
    let mut applied = Applied {
        index: state.flushed_index,
        floor: state.floor,
        item_count: state.item_count,
        item_bytes: state.item_bytes,
    };
    let now = inner.runtime.now();
    let first = pending.front().map(|pending| (pending.sequence, now));
    let mut counted = Some(applied);
    let indexes: Vec<_> = state.indexes.values().copied().collect();
    let index_counts = RefCell::new(IndexCounts::of(&indexes));
    for step in pending {
        // A chain with a gap cannot be counted; its partition is fenced.
        counted = counted.and_then(|mut counted| {
            step.count(&mut counted, &index_counts)?;
            Some(counted)
        });
        applied.floor = applied.floor.max(step.commit);
        for change in step.changes() {
            tree.insert(&change.key, change.version(), step.sequence);
        }
    }
    let applied = counted.unwrap_or(applied);
    let mut applied = Applied {
        index: last_index,
        ..applied
    };
    if canary::is_in(Canary::ForgetFloor) {
        applied.floor = CommitTimestamp(0);
    }
    let partition = Partition::new(state.descriptor, tree, applied);
    partition.index_counts.replace(index_counts.into_inner());
    partition.active_since.set(first);
    if let Some(why) = state.fenced.or(broken) {
        *partition.standing.borrow_mut() = Standing::Fenced(why.into());
    }
    Ok(partition)
}
