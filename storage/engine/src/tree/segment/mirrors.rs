//! The mirrors of one segment file: whatever one of them has come to, the bytes are had.
//!
//! A verified read:
//! 1. choose the mirror with fewer reads in flight, by turns when they tie;
//! 2. read, and verify against what refers to the place;
//! 3. if the drive fails or the bytes do not verify, try the next mirror;
//! 4. good bytes go to the caller at once and, in a task of their own, to the mirrors that were bad;
//! 5. when no mirror has good bytes: [`TreeError::Unreadable`], with what each of them said.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;

use cairn_runtime::{AlignedBuffer, Drive, File, Open, Runtime, is_exhaustion};

use super::UNIT_BYTES;
use super::scrub::Damage;
use crate::canary::{self, Canary};
use crate::ids::{PartitionId, SegmentId};
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

/// Counts a read in flight, also when its future is dropped.
struct InFlight<'a, D>(&'a DriveSlot<D>);

impl<'a, D> InFlight<'a, D> {
    fn new(slot: &'a DriveSlot<D>) -> InFlight<'a, D> {
        slot.in_flight.set(slot.in_flight.get() + 1);
        InFlight(slot)
    }
}

impl<D> Drop for InFlight<'_, D> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl<R: Runtime> Files<'_, R> {
    /// The live mirrors, the one to ask first first.
    pub(super) fn order(&self) -> Vec<usize> {
        let count = self.mirrors.len();
        let turn = self.turn.get();
        self.turn.set((turn + 1) % count);
        let mut order: Vec<usize> = (0..count).map(|at| (turn + at) % count).collect();
        order.retain(|at| self.store.is_live(self.mirrors[*at].index));
        order.sort_by_key(|at| self.mirrors[*at].in_flight.get());
        order
    }

    pub(super) async fn read_mirror(
        &self,
        at: usize,
        unit: u32,
        units: u32,
    ) -> std::io::Result<AlignedBuffer> {
        let slot = &self.mirrors[at];
        let file = self.store.file(self.reference.0, self.name, slot).await?;
        let bytes = units as usize * UNIT_BYTES;
        self.store.count(|stats| {
            stats.device_reads += 1;
            stats.device_read_bytes += bytes as u64;
        });
        slot.count(|counts| counts.reads += 1);
        let _in_flight = InFlight::new(slot);
        file.read_at(u64::from(unit) * UNIT_BYTES as u64, bytes).await
    }

    /// Reads from one mirror and checks; what was wrong, in words.
    async fn try_mirror<T>(
        &self,
        at: usize,
        unit: u32,
        units: u32,
        check: &impl Fn(&[u8]) -> Result<T, &'static str>,
    ) -> Result<(T, AlignedBuffer), Refused> {
        match self.read_mirror(at, unit, units).await {
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
                self.store.count(|stats| stats.read_errors += 1);
                self.mirrors[at].count(|counts| counts.read_errors += 1);
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
        for at in self.order() {
            match self.try_mirror(at, unit, units, &check).await {
                Ok((content, buffer)) => {
                    self.repair(&bad, unit, buffer);
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
            match self.try_mirror(at, unit, units, &check).await {
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
