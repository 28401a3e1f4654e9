//! The mirrors of one segment file: whatever one of them has come to, the bytes are had.
//!
//! A verified read:
//! 1. choose the mirror with fewer reads in flight, by turns when they tie; one that is slow ([`crate::latency`]) last;
//! 2. read, and verify against what refers to the place. When that takes longer than one is patient, ask the next mirror
//!    as well, unless it lets its own reads wait: the first good answer wins, and the late one is still counted;
//! 3. if the drive fails or the bytes do not verify, try the next mirror;
//! 4. good bytes go to the caller at once and, in a task of their own, to the mirrors that were bad;
//! 5. when no mirror has good bytes: [`TreeError::Unreadable`], with what each of them said.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use cairn_runtime::{AlignedBuffer, Drive, File, Open, Runtime, is_exhaustion};

use super::UNIT_BYTES;
use super::scrub::Damage;
use crate::canary::{self, Canary};
use crate::ids::{PartitionId, SegmentId};
use crate::latency::ESTIMATED_BYTES_MAX;
use crate::tree::store::{DriveSlot, SegmentStore, TreeError};

/// Why a mirror does not give the bytes.
struct Refused {
    why: String,
    /// Not the mirror's fault.
    exhausted: bool,
}

/// The drives that have a segment's file.
pub(super) type Mirrors<R> = Rc<[Rc<DriveSlot<<R as Runtime>::Drive>>]>;

/// Files of a segment that is not open yet: what a verified read needs.
pub(super) struct Files<'a, R: Runtime> {
    pub(super) store: &'a Rc<SegmentStore<R>>,
    /// The drives that have the file.
    pub(super) mirrors: Mirrors<R>,
    pub(super) turn: &'a Cell<usize>,
    pub(super) name: &'a str,
    pub(super) reference: (SegmentId, PartitionId),
}

/// A read in flight, also when its future is dropped.
struct InFlight<D>(Rc<DriveSlot<D>>);

impl<D> Drop for InFlight<D> {
    fn drop(&mut self) {
        self.0.speed.left();
    }
}

/// Reads a place of a segment from one drive.
async fn read_slot<R: Runtime>(
    store: Rc<SegmentStore<R>>,
    slot: Rc<DriveSlot<R::Drive>>,
    segment: SegmentId,
    unit: u32,
    units: u32,
) -> io::Result<AlignedBuffer> {
    slot.speed.began(store.runtime.now());
    let in_flight = InFlight(Rc::clone(&slot));
    let file = store.file(segment, &slot).await?;
    let bytes = units as usize * UNIT_BYTES;
    store.count(|stats| {
        stats.device_reads += 1;
        stats.device_read_bytes += bytes as u64;
    });
    slot.count(|counts| counts.reads += 1);
    let began = store.runtime.now();
    let content = file.read_at(u64::from(unit) * UNIT_BYTES as u64, bytes).await;
    let now = store.runtime.now();
    // An error is an answer too, but says nothing of how long a read takes.
    slot.speed.answered(now);
    drop(in_flight);
    let content = content?;
    store.took(&slot, now.since(began), bytes);
    Ok(content)
}

/// A read that has been begun on the mirror at this place.
type Reading = (usize, Pin<Box<dyn Future<Output = io::Result<AlignedBuffer>>>>);

impl<R: Runtime> Files<'_, R> {
    /// The live mirrors, the one to ask first first.
    pub(super) fn order(&self) -> Vec<usize> {
        let count = self.mirrors.len();
        let turn = self.turn.get();
        self.turn.set((turn + 1) % count);
        let mut order: Vec<usize> = (0..count).map(|at| (turn + at) % count).collect();
        order.retain(|at| self.store.is_live(self.mirrors[*at].index));
        let now = self.store.runtime.now();
        order.sort_by_key(|at| {
            let speed = &self.mirrors[*at].speed;
            (speed.rank(now), speed.in_flight())
        });
        let prompt = |first: &usize| self.mirrors[*first].speed.is_prompt(now);
        if order.first().is_some_and(prompt) {
            let stalled = order.iter().filter(|at| self.mirrors[**at].speed.is_stalled(now));
            stalled.for_each(|at| self.store.stalls(&self.mirrors[*at]));
        }
        order
    }

    /// Begins to read on one mirror.
    fn begin(&self, at: usize, unit: u32, units: u32) -> Reading {
        let (store, slot) = (Rc::clone(self.store), Rc::clone(&self.mirrors[at]));
        (
            at,
            Box::pin(read_slot(store, slot, self.reference.0, unit, units)),
        )
    }

    /// The first of `reading` that ends. When all take too long and `next` answers its reads, that one is asked as well.
    async fn first_of(
        &self,
        reading: &mut Vec<Reading>,
        next: &mut std::vec::IntoIter<usize>,
        unit: u32,
        units: u32,
    ) -> (usize, io::Result<AlignedBuffer>) {
        let runtime = &self.store.runtime;
        loop {
            let patience = next.as_slice().first().and(reading.last()).map(|(at, _)| {
                let bytes = units as usize * UNIT_BYTES;
                runtime.sleep(self.mirrors[*at].speed.patience(bytes))
            });
            let mut patience = pin!(patience);
            let ended = poll_fn(|context| {
                for place in 0..reading.len() {
                    if let Poll::Ready(content) = reading[place].1.as_mut().poll(context) {
                        let (at, _) = reading.swap_remove(place);
                        return Poll::Ready(Some((at, content)));
                    }
                }
                match patience.as_mut().as_pin_mut() {
                    Some(patience) => patience.poll(context).map(|()| None),
                    None => Poll::Pending,
                }
            });
            if let Some(ended) = ended.await {
                return ended;
            }
            let waits = |at: &usize| self.mirrors[*at].speed.is_stalled(runtime.now());
            if let Some(at) = next.as_slice().first().copied().filter(|at| !waits(at)) {
                next.next();
                self.store.count(|stats| stats.late_reads += 1);
                reading.push(self.begin(at, unit, units));
            }
        }
    }

    /// Nobody waits for these any more; how long they take is counted all the same.
    fn let_go(&self, reading: Vec<Reading>) {
        for (_, read) in reading {
            drop(self.store.task(read));
        }
    }

    /// Reads from one mirror, unverified; from another when that one is late.
    pub(super) async fn read_any(&self, unit: u32, units: u32) -> Option<AlignedBuffer> {
        let mut next = self.order().into_iter();
        let mut reading = vec![self.begin(next.next()?, unit, units)];
        let (at, content) = self.first_of(&mut reading, &mut next, unit, units).await;
        self.let_go(reading);
        if content.is_err() {
            self.count_error(at);
        }
        content.ok()
    }

    fn count_error(&self, at: usize) {
        self.store.count(|stats| stats.read_errors += 1);
        self.mirrors[at].count(|counts| counts.read_errors += 1);
    }

    /// Repeats a read on the mirrors that are slow, now and then: to see whether they still are.
    fn probe(&self, unit: u32, units: u32) {
        if units as usize * UNIT_BYTES > ESTIMATED_BYTES_MAX {
            return;
        }
        let now = self.store.runtime.now();
        for slot in self.mirrors.iter() {
            if !self.store.is_live(slot.index) || !slot.speed.wants_probe(now) {
                continue;
            }
            let (store, slot) = (Rc::clone(self.store), Rc::clone(slot));
            let read = read_slot(store, slot, self.reference.0, unit, units);
            // Detached. Who needs the bytes of a drive meets its errors.
            drop(self.store.task(read));
        }
    }

    /// What a mirror has answered, checked; what was wrong, in words.
    fn checked<T>(
        &self,
        at: usize,
        content: io::Result<AlignedBuffer>,
        check: &impl Fn(&[u8]) -> Result<T, &'static str>,
    ) -> Result<(T, AlignedBuffer), Refused> {
        match content {
            Ok(buffer) => match check(&buffer) {
                Ok(content) => Ok((content, buffer)),
                Err(why) => {
                    self.store.count(|stats| stats.mismatches += 1);
                    self.mirrors[at].count(|counts| counts.mismatches += 1);
                    Err(Refused {
                        why: why.to_owned(),
                        exhausted: false,
                    })
                }
            },
            Err(error) => {
                self.count_error(at);
                Err(Refused {
                    why: error.to_string(),
                    exhausted: is_exhaustion(&error),
                })
            }
        }
    }

    /// A verified read.
    pub(super) async fn read<T>(
        &self,
        unit: u32,
        units: u32,
        check: impl Fn(&[u8]) -> Result<T, &'static str>,
    ) -> Result<T, TreeError> {
        let mut bad = Vec::new();
        let mut whys = Vec::new();
        let mut out_of = None;
        let mut next = self.order().into_iter();
        let mut reading: Vec<Reading> = Vec::with_capacity(1);
        loop {
            if reading.is_empty() {
                let Some(at) = next.next() else { break };
                reading.push(self.begin(at, unit, units));
            }
            let (at, content) = self.first_of(&mut reading, &mut next, unit, units).await;
            match self.checked(at, content, &check) {
                Ok((content, buffer)) => {
                    self.let_go(reading);
                    self.repair(&bad, unit, buffer);
                    self.probe(unit, units);
                    return Ok(content);
                }
                Err(Refused { why, exhausted }) => {
                    whys.push(format!("drive {}: {why}", self.mirrors[at].index));
                    if canary::gives_up(&why) {
                        break;
                    }
                    if exhausted {
                        out_of = Some(why);
                    } else {
                        bad.push(at);
                    }
                }
            }
        }
        if whys.is_empty() {
            return Err(TreeError::NoMirror {
                segment: self.reference.0,
            });
        }
        if let Some(why) = out_of {
            return Err(TreeError::Exhausted {
                why: format!("{}: {why}", self.name).into(),
            });
        }
        Err(self.corrupt(unit, &whys.join("; ")))
    }

    /// Checks one place on every live mirror, and repairs it there if asked and possible.
    pub(super) async fn scrub<T>(
        &self,
        unit: u32,
        units: u32,
        repair: bool,
        check: impl Fn(&[u8]) -> Result<T, &'static str>,
    ) -> Vec<Damage> {
        let mut bad = Vec::new();
        let mut damages = Vec::new();
        let mut good = None;
        for at in self.order() {
            let (_, read) = self.begin(at, unit, units);
            match self.checked(at, read.await, &check) {
                Ok((_, buffer)) => good = Some(buffer),
                Err(Refused { why, .. }) => {
                    let drive = self.mirrors[at].index;
                    damages.push(Damage {
                        drive,
                        offset: offset(unit),
                        why,
                        lost: false,
                    });
                    bad.push(at);
                }
            }
        }
        match good {
            Some(good) if repair => self.repair(&bad, unit, good),
            Some(_) => {}
            None => damages.iter_mut().for_each(|damage| damage.lost = true),
        }
        damages
    }

    pub(super) fn corrupt(&self, unit: u32, why: &str) -> TreeError {
        let (segment, partition) = self.reference;
        TreeError::Unreadable {
            segment,
            partition,
            offset: offset(unit),
            why: why.into(),
        }
    }

    /// Rewrites a place of the mirrors `bad`, each in a task of its own that ends even if the reader goes.
    fn repair(&self, bad: &[usize], unit: u32, good: AlignedBuffer) {
        if bad.is_empty() {
            return;
        }
        let good = if canary::is_in(Canary::RepairWrongWay) {
            Rc::new(AlignedBuffer::zeroed(good.len()))
        } else {
            Rc::new(good)
        };
        let wrong_way = usize::from(canary::is_in(Canary::RepairWrongWay));
        for at in bad {
            let slot = Rc::clone(&self.mirrors[(*at + wrong_way) % self.mirrors.len()]);
            // A reader may hold on to a drive whose place another has taken meanwhile.
            if !self.store.is_live(slot.index) || !self.store.has(&slot) {
                continue;
            }
            let place = (self.reference.0, slot.index, unit);
            if !self.store.repairing.borrow_mut().insert(place) {
                continue;
            }
            let store = Rc::clone(self.store);
            let name = self.name.to_owned();
            let good = Rc::clone(&good);
            // Detached: the repair reports to the counters and to the store's hook.
            drop(self.store.write_task(&Rc::clone(&slot), async move {
                let result = rewrite::<R>(&slot.drive, &name, unit, good).await;
                store.repairing.borrow_mut().remove(&place);
                match result {
                    Ok(()) => {
                        store.count(|stats| stats.repairs += 1);
                        slot.count(|counts| counts.repairs += 1);
                    }
                    Err(error) => {
                        store.count(|stats| stats.repair_failures += 1);
                        // The file may have been removed meanwhile, a full drive is a healthy one, and the process
                        // may be short of something; any other drive that cannot take its own blocks back must
                        // not count as a mirror.
                        let healthy = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::StorageFull)
                            || is_exhaustion(&error);
                        if !healthy && store.has(&slot) {
                            let why = format!("repair of {name}: {error}");
                            let _ = store.report_failed(slot.index, why).await;
                        }
                    }
                }
            }));
        }
    }
}

async fn rewrite<R: Runtime>(
    drive: &R::Drive,
    name: &str,
    unit: u32,
    good: Rc<AlignedBuffer>,
) -> std::io::Result<()> {
    let file = drive
        .open(
            name,
            Open {
                durable: true,
                ..Open::default()
            },
        )
        .await?;
    file.write_at(u64::from(unit) * UNIT_BYTES as u64, good).await
}

fn offset(unit: u32) -> u64 {
    u64::from(unit) * UNIT_BYTES as u64
}
