//! Clients: random operations against an engine, every answer held against the model.

use std::cell::{Cell, RefCell};
use std::ops::Bound;
use std::time::Duration;

use cairn_engine::ids::{IndexId, PartitionId, TableId};
use cairn_engine::{Change, Direction, Engine, EngineError, ErrorKind, PartitionDescriptor, Range};
use cairn_runtime::Runtime;
use cairn_runtime::sim::Random;

use super::backup::Made;
use super::model::{Model, Place, item_of};
use super::operator::Fleet;
use super::scenario::{MirrorFault, Scenario};

/// What outlives the node: the models, and the first thing that was wrong.
pub struct Context {
    /// The run.
    pub scenario: Scenario,
    models: RefCell<Vec<Model>>,
    operation: Cell<u64>,
    failure: RefCell<Option<String>>,
    /// Partitions that would not serve since the last start: in safety mode only.
    given_up: RefCell<Vec<bool>>,
    given_up_count: Cell<u64>,
    /// The node waits for room on its drives.
    pub wants_space: Cell<bool>,
    /// Answers, by what they were; for the summary.
    pub answered: Cell<u64>,
    /// Writes refused.
    pub refused: Cell<u64>,
    /// The round under way.
    pub round: Cell<usize>,
    /// The round's backup.
    pub backup: RefCell<Option<Made>>,
    /// Backups given up in the round.
    pub backups_refused: Cell<u64>,
    /// The drives, where they come and go.
    pub fleet: Option<Fleet>,
    /// Whether every operation is shown.
    pub verbose: bool,
}

/// How long a read may take while one drive stalls: what one is patient for, in each segment that it looks into.
const READ_MAX: Duration = Duration::from_millis(250);

fn add(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

/// The id of partition `at`.
pub fn partition_id(at: usize) -> PartitionId {
    PartitionId(at as u64 + 1)
}

fn key_of(number: u64) -> Vec<u8> {
    // Spread like the engine's keys: space byte, hash, then the components.
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [&[0], &hash.to_be_bytes()[..], format!("key-{number}").as_bytes()].concat()
}

impl Context {
    /// Empty partitions, nothing done.
    pub fn new(scenario: Scenario, verbose: bool) -> Context {
        let fleet = scenario.fleet.map(|plan| Fleet::new(plan, verbose));
        let models = (0..scenario.partitions).map(|_| Model::default()).collect();
        Context {
            scenario,
            models: RefCell::new(models),
            operation: Cell::new(0),
            failure: RefCell::default(),
            given_up: RefCell::default(),
            given_up_count: Cell::new(0),
            wants_space: Cell::default(),
            answered: Cell::new(0),
            refused: Cell::new(0),
            round: Cell::default(),
            backup: RefCell::default(),
            backups_refused: Cell::default(),
            fleet,
            verbose,
        }
    }

    /// What is known now of every partition.
    pub fn models_now(&self) -> Vec<Model> {
        self.models.borrow().clone()
    }

    /// Whether anything was answered.
    pub fn has_answered(&self) -> bool {
        self.answered.get() > 0
    }

    /// To hold a copy against what was known when it was made.
    pub fn at(&self, models: Vec<Model>) -> Context {
        Context {
            models: RefCell::new(models),
            ..Context::new(self.scenario.clone(), self.verbose)
        }
    }

    /// Keeps the first failure.
    pub fn fail(&self, what: impl Into<String>) {
        self.failure.borrow_mut().get_or_insert(what.into());
    }

    /// What was wrong first.
    pub fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// How often a partition would not serve.
    pub fn given_up(&self) -> u64 {
        self.given_up_count.get()
    }

    fn is_given_up(&self, at: usize) -> bool {
        self.given_up.borrow().get(at).copied().unwrap_or(false)
    }

    /// An answer that is none: a failure, unless both mirrors are damaged. Then nobody asks the partition again until the
    /// next start.
    fn unserved(&self, at: usize, what: String) {
        if self.scenario.damage.is_none() {
            return self.fail(what);
        }
        let mut given_up = self.given_up.borrow_mut();
        given_up.resize(self.scenario.partitions as usize, false);
        if !std::mem::replace(&mut given_up[at], true) {
            add(&self.given_up_count);
        }
        drop(given_up);
        self.note(|| format!("partition {} gives up: {what}", partition_id(at)));
    }

    fn check(&self, partition: usize, key: &[u8], doing: &str, result: Result<(), String>) {
        if let Err(why) = result {
            let key = String::from_utf8_lossy(key.get(9..).unwrap_or_default()).into_owned();
            self.fail(format!(
                "{doing} {key} of partition {}: {why}",
                partition_id(partition)
            ));
        }
    }

    fn model<T>(&self, partition: usize, act: impl FnOnce(&mut Model) -> T) -> T {
        act(&mut self.models.borrow_mut()[partition])
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("  {}", what());
        }
    }

    fn next_operation(&self) -> u64 {
        add(&self.operation);
        self.operation.get()
    }

    /// Creates the partitions that are not there.
    pub async fn create<R: Runtime>(&self, engine: &Engine<R>) -> Result<(), EngineError> {
        for at in 0..self.scenario.partitions as usize {
            let descriptor = PartitionDescriptor {
                id: partition_id(at),
                table: TableId(1),
                index: IndexId(0),
                lower: Vec::new(),
                upper: None,
            };
            engine.create_partition(descriptor).await?;
        }
        Ok(())
    }

    /// Holds what was recovered against the model, and the model to what was recovered.
    pub async fn verify_recovered<R: Runtime>(&self, engine: &Engine<R>) {
        // Whatever serves again must be right again.
        self.given_up.borrow_mut().clear();
        for at in 0..self.scenario.partitions as usize {
            if let Some(why) = engine.partition(partition_id(at)).and_then(|info| info.fenced) {
                self.unserved(at, format!("partition {} is fenced: {why}", partition_id(at)));
            }
            for key in self.model(at, |model| model.keys()) {
                if self.is_given_up(at) {
                    break;
                }
                match engine.get(partition_id(at), &key).await {
                    Ok(stored) => {
                        let (item, size) = stored
                            .as_ref()
                            .map_or((None, 0), |s| (Some(s.item()), s.item_bytes()));
                        let recovered = self.model(at, |model| model.recovered(&key, item, size));
                        self.check(at, &key, "recovering", recovered);
                    }
                    Err(error) => self.unserved(at, format!("reading after recovery: {error}")),
                }
            }
            let Some(info) = engine.partition(partition_id(at)) else {
                continue;
            };
            if !self.is_given_up(at) && info.floor < self.model(at, |model| model.commit_max()) {
                self.fail(format!("the floor of {} went back to {}", info.id, info.floor));
            }
        }
        self.verify_quiet(engine).await;
    }

    /// Nothing is in flight: scans in both directions and counters equal the model.
    pub async fn verify_quiet<R: Runtime>(&self, engine: &Engine<R>) {
        for at in 0..self.scenario.partitions as usize {
            if self.is_given_up(at) {
                continue;
            }
            let Some(info) = engine.partition(partition_id(at)) else {
                if !self.model(at, |model| model.live()).is_empty() {
                    self.fail(format!("partition {} is gone", partition_id(at)));
                }
                continue;
            };
            if let Some(why) = info.fenced {
                self.unserved(at, format!("partition {} is fenced: {why}", info.id));
                continue;
            }
            let counted = self.model(at, |model| model.counters(info.item_count, info.item_bytes));
            self.check(at, b"", "counting", counted);
            let mut live = self.model(at, |model| model.live());
            for direction in [Direction::Forward, Direction::Backward] {
                let range = Range {
                    lower: Bound::Unbounded,
                    upper: Bound::Unbounded,
                };
                let mut scan = engine.scan(info.id, range, direction);
                for (key, operation, item_bytes) in &live {
                    match scan.next().await {
                        Ok(Some((found, stored))) if found == *key && stored.item_bytes() == *item_bytes => {
                            if stored.item().get(..8) != Some(&operation.to_le_bytes()[..]) {
                                self.check(at, key, "scanning", Err("another version than get".to_owned()));
                            }
                        }
                        Ok(found) => {
                            let found = found.map(|(key, _)| key);
                            let why = format!("found {found:?} instead");
                            return self.check(at, key, "scanning", Err(why));
                        }
                        Err(error) => {
                            self.unserved(at, format!("scanning: {error}"));
                            break;
                        }
                    }
                }
                if self.is_given_up(at) {
                    break;
                }
                match scan.next().await {
                    Ok(None) => {}
                    Ok(Some((key, _))) => {
                        self.check(at, &key, "scanning", Err("not in the model".to_owned()))
                    }
                    Err(error) => self.unserved(at, format!("scanning: {error}")),
                }
                live.reverse();
            }
        }
    }

    /// One client's operations of a round.
    pub async fn client<R: Runtime>(&self, engine: &Engine<R>, runtime: &R, mut random: Random) {
        for _ in 0..self.scenario.operations {
            if self.failure.borrow().is_some() {
                return;
            }
            let partition = random.index(self.scenario.partitions as usize);
            if self.is_given_up(partition) {
                continue;
            }
            // A third of the work goes to one hot key.
            let number = if random.one_in(3) {
                0
            } else {
                random.below(self.scenario.keys)
            };
            let key = key_of(number);
            let goes_on = match random.below(100) {
                0..55 => self.write(engine, partition, &key, &mut random).await,
                55..65 => self.write_unchanged(engine, partition, &key).await,
                65..89 => self.read(engine, runtime, partition, &key).await,
                89..92 => self.snapshot(engine, runtime, partition, &mut random).await,
                _ => self.scan(engine, partition, &mut random).await,
            };
            if !goes_on {
                return;
            }
            if random.one_in(8) {
                runtime
                    .sleep(std::time::Duration::from_micros(
                        random.below(self.scenario.pause_us_max),
                    ))
                    .await;
            }
        }
    }

    async fn write<R: Runtime>(
        &self,
        engine: &Engine<R>,
        at: usize,
        key: &[u8],
        random: &mut Random,
    ) -> bool {
        let operation = self.next_operation();
        let bytes = random.within(&self.scenario.item_bytes) as usize;
        let item_bytes = bytes as u32 + random.below(9) as u32;
        let delete = random.one_in(5);
        let mut proposed: Option<Place> = None;
        let answer = engine
            .update(partition_id(at), key, |old| {
                let on = self.model(at, |model| model.decided_on(key, old));
                let (on, result) = on.map_or_else(|why| (None, Err(why)), |on| (Some(on), Ok(())));
                self.check(at, key, "writing", result);
                if delete && old.is_none() {
                    return (Change::Delete, on);
                }
                let size = (!delete).then_some(item_bytes);
                let place = self.model(at, |model| model.proposed(key, operation, size));
                proposed = Some(place);
                if delete {
                    (Change::Delete, Some(place))
                } else {
                    (
                        Change::Put {
                            item: item_of(operation, bytes),
                            item_bytes,
                        },
                        Some(place),
                    )
                }
            })
            .await;
        self.note(|| {
            format!(
                "operation {operation}: write {key:?} of {at}: {proposed:?} {:?}",
                answer.as_ref().err()
            )
        });
        match answer {
            Ok(updated) => {
                let Some(place) = updated.outcome else {
                    return false;
                };
                let result = match (proposed, updated.commit) {
                    (Some(place), Some(commit)) => {
                        self.model(at, |model| model.acknowledged(key, place, commit))
                    }
                    (None, None) => {
                        self.model(at, |model| model.told(key, place));
                        Ok(())
                    }
                    _ => Err("a commit timestamp without a change, or the reverse".to_owned()),
                };
                self.check(at, key, "acknowledging", result);
                add(&self.answered);
                true
            }
            Err(error) => self.refused(at, key, proposed, &error),
        }
    }

    /// An update that changes nothing: its answer tells of a version, which must therefore survive.
    async fn write_unchanged<R: Runtime>(&self, engine: &Engine<R>, at: usize, key: &[u8]) -> bool {
        let answer = engine
            .update(partition_id(at), key, |old| {
                (Change::Keep, self.model(at, |model| model.decided_on(key, old)))
            })
            .await;
        match answer {
            Ok(updated) => {
                let result = updated
                    .outcome
                    .map(|place| self.model(at, |model| model.told(key, place)));
                self.check(at, key, "keeping", result);
                add(&self.answered);
                true
            }
            Err(error) => self.refused(at, key, None, &error),
        }
    }

    fn refused(&self, at: usize, key: &[u8], proposed: Option<Place>, error: &EngineError) -> bool {
        add(&self.refused);
        match error.kind() {
            // One mirror is always healthy, so nothing may stop an engine; in safety mode it may stop.
            kind @ (ErrorKind::Unknown | ErrorKind::Stopped) => {
                // What an engine had not proposed when it stopped is not written.
                if let (ErrorKind::Stopped, Some(place)) = (kind, proposed) {
                    let refused = self.model(at, |model| model.refused(key, place));
                    self.check(at, key, "refusing", refused);
                }
                self.unserved(at, format!("writing: {error}"));
                false
            }
            ErrorKind::Throttle | ErrorKind::Retry => {
                if let Some(place) = proposed {
                    let refused = self.model(at, |model| model.refused(key, place));
                    self.check(at, key, "refusing", refused);
                }
                true
            }
            ErrorKind::Fenced => {
                self.unserved(at, format!("writing: {error}"));
                self.scenario.damage.is_some()
            }
            ErrorKind::NotFound | ErrorKind::Invalid => {
                self.fail(format!("writing: {error}"));
                false
            }
        }
    }

    async fn read<R: Runtime>(&self, engine: &Engine<R>, runtime: &R, at: usize, key: &[u8]) -> bool {
        let floor = self.model(at, |model| model.floor(key));
        let began = runtime.now();
        let answer = engine.get(partition_id(at), key).await;
        let took = runtime.now().since(began);
        let scenario = &self.scenario;
        let honest = scenario.damage.is_none() && scenario.fails.is_none();
        let one_is_well = scenario.fault == MirrorFault::OneStalls && honest;
        if one_is_well && took > READ_MAX {
            self.fail(format!("a read has waited {took:?} although one drive is well"));
        }
        match answer {
            Ok(stored) => {
                let (item, size) = stored
                    .as_ref()
                    .map_or((None, 0), |s| (Some(s.item()), s.item_bytes()));
                let result = self.model(at, |model| model.read(key, floor, item, size));
                self.check(at, key, "reading", result);
                add(&self.answered);
                true
            }
            Err(error) => {
                self.unserved(at, format!("reading: {error}"));
                self.scenario.damage.is_some()
            }
        }
    }

    /// Holds a snapshot for a while: what it shows is what was there, by gets and by scans, and stays so.
    async fn snapshot<R: Runtime>(
        &self,
        engine: &Engine<R>,
        runtime: &R,
        at: usize,
        random: &mut Random,
    ) -> bool {
        let snapshot = match engine.snapshot(None).await {
            Ok(snapshot) => snapshot,
            Err(error) => return self.refused(at, b"", None, &error),
        };
        self.note(|| format!("snapshot of {at} at {}", snapshot.at()));
        let mut shown: Option<Vec<(Vec<u8>, Vec<u8>)>> = None;
        for turn in 0..3 {
            let direction = if turn == 1 {
                Direction::Backward
            } else {
                Direction::Forward
            };
            let range = Range {
                lower: Bound::Unbounded,
                upper: Bound::Unbounded,
            };
            let mut scan = snapshot.scan(partition_id(at), range, direction);
            let mut items = Vec::new();
            loop {
                match scan.next().await {
                    Ok(Some((key, stored))) => items.push((key, stored.item().to_vec())),
                    Ok(None) => break,
                    Err(error) => {
                        self.unserved(at, format!("scanning a snapshot: {error}"));
                        return self.scenario.damage.is_some();
                    }
                }
            }
            if turn == 1 {
                items.reverse();
            }
            for number in 0..self.scenario.keys {
                let key = key_of(number);
                let item = items
                    .iter()
                    .find(|(found, _)| *found == key)
                    .map(|(_, item)| &**item);
                let result = self.model(at, |model| model.read_at(&key, snapshot.at(), item));
                self.check(at, &key, "looking at a snapshot", result);
            }
            let key = key_of(random.below(self.scenario.keys));
            match snapshot.get(partition_id(at), &key).await {
                Ok(stored) => {
                    let scanned = items
                        .iter()
                        .find(|(found, _)| *found == key)
                        .map(|(_, item)| &**item);
                    if stored.as_ref().map(|stored| stored.item()) != scanned {
                        let why = Err("get and scan of one snapshot differ".to_owned());
                        self.check(at, &key, "looking at a snapshot", why);
                    }
                }
                Err(error) => {
                    self.unserved(at, format!("reading a snapshot: {error}"));
                    return self.scenario.damage.is_some();
                }
            }
            if shown.as_ref().is_some_and(|shown| *shown != items) {
                let why = Err("it has changed".to_owned());
                self.check(at, b"", "looking at a snapshot again", why);
            }
            shown = Some(items);
            runtime
                .sleep(std::time::Duration::from_micros(random.below(20_000)))
                .await;
        }
        snapshot.release();
        add(&self.answered);
        true
    }

    /// Every key of the range is a read that may have happened at any time during the scan.
    async fn scan<R: Runtime>(&self, engine: &Engine<R>, at: usize, random: &mut Random) -> bool {
        let mut bounds = [
            key_of(random.below(self.scenario.keys)),
            key_of(random.below(self.scenario.keys)),
        ];
        bounds.sort();
        let [lower, upper] = bounds;
        let direction = if random.one_in(2) {
            Direction::Forward
        } else {
            Direction::Backward
        };
        let keys: Vec<Vec<u8>> = (0..self.scenario.keys)
            .map(key_of)
            .filter(|key| lower <= *key && *key < upper)
            .collect();
        let mut floors: std::collections::BTreeMap<_, _> = keys
            .into_iter()
            .map(|key| (key.clone(), self.model(at, |model| model.floor(&key))))
            .collect();
        let range = Range {
            lower: Bound::Included(lower),
            upper: Bound::Excluded(upper),
        };
        let mut scan = engine.scan(partition_id(at), range, direction);
        let mut last: Option<Vec<u8>> = None;
        loop {
            match scan.next().await {
                Ok(Some((key, stored))) => {
                    let ordered = last.as_ref().is_none_or(|last| match direction {
                        Direction::Forward => *last < key,
                        Direction::Backward => *last > key,
                    });
                    let result = match floors.remove(&key) {
                        Some(floor) if ordered => self.model(at, |model| {
                            model.read(&key, floor, Some(stored.item()), stored.item_bytes())
                        }),
                        _ => Err("out of order or out of range".to_owned()),
                    };
                    self.check(at, &key, "scanning", result);
                    last = Some(key);
                }
                Ok(None) => break,
                Err(error) => {
                    self.unserved(at, format!("scanning: {error}"));
                    return self.scenario.damage.is_some();
                }
            }
        }
        for (key, floor) in floors {
            let result = self.model(at, |model| model.read(&key, floor, None, 0));
            self.check(at, &key, "scanning past", result);
        }
        add(&self.answered);
        true
    }
}
