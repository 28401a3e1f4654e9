//! What the keeper does for an operation ([`super::online`]): places, votes and the set. Each turn is one change of the epoch
//! at most, and leaves a node that may stop there.

use std::path::{Path, PathBuf};

use cairn_runtime::{Drive, Runtime};

use super::directories::check_beside;
use super::keeper::{Copy, Ending, Task};
use super::online::{Seated, Turn};
use super::open;
use super::shared::Seat;
use super::superblock::{DrivePlace, MemberKind, Superblock};
use super::{DRIVES_MAX, DriveIndex, DriveSet, VolumeError};
use crate::ids::{DriveId, Epoch};

impl<R: Runtime> Task<R> {
    pub(super) async fn turn(&mut self, turn: Turn) -> Result<Seated, VolumeError> {
        match turn {
            Turn::Name { path, new } => self.name(path, new),
            Turn::Holds { path, device } => Ok(self.holds(&path, device)),
            Turn::Seat {
                path,
                known,
                replaces,
            } => self.seat(path, known, replaces).await,
            Turn::Written { index } => {
                let handed = self.handed.borrow_mut().take();
                if let Some(member) = handed.and_then(|handed| handed.member) {
                    let id = self.content.drives[index.get()].id;
                    self.copies.push(Copy::new(Some((index, id)), member));
                }
                Ok(Seated::Yes)
            }
            Turn::Invite { index } => {
                self.shared.change(|slow| {
                    slow.seats[index.get()].invitation += 1;
                    slow.invited = slow.invited.with(index);
                });
                Ok(Seated::Yes)
            }
            Turn::Withdraw { index } => {
                self.shared
                    .change(|slow| slow.invited = slow.invited.without(index));
                Ok(Seated::Yes)
            }
            Turn::Ready { index } => Ok(self.is_ready(index)),
            Turn::Admit { index } => {
                if matches!(self.is_ready(index), Seated::No) {
                    return Ok(Seated::No);
                }
                let content = &self.content;
                let next = Superblock {
                    in_sync: content.in_sync.with(index),
                    joining: content.joining.with(index),
                    removed: content.removed.without(index),
                    retired: content.retired.without(index),
                    ..content.clone()
                };
                self.try_change(next).await?;
                self.why[index.get()].clear();
                Ok(Seated::Yes)
            }
            Turn::Leave { index } => {
                let content = &self.content;
                let rest = content.in_sync.without(index);
                if content.guarantee < content.mirrors || !content.joining.is_empty() {
                    return Err(VolumeError::Config(
                        "some files have too few copies: first let the drives be rebuilt".to_owned(),
                    ));
                }
                if rest.count() < usize::from(content.mirrors) {
                    return Err(VolumeError::Config(format!(
                        "the {} drives that would be left cannot hold {} copies: first add a drive",
                        rest.count(),
                        content.mirrors
                    )));
                }
                self.shared.change(|slow| slow.leaving = slow.leaving.with(index));
                Ok(Seated::Yes)
            }
            Turn::Stay { index } => {
                self.shared
                    .change(|slow| slow.leaving = slow.leaving.without(index));
                Ok(Seated::Yes)
            }
            Turn::Retire { index } => self.retire(index).await,
        }
    }

    /// A directory by the name that the node has for it; a `new` drive's must be beside those of the others.
    fn name(&self, path: PathBuf, new: bool) -> Result<Seated, VolumeError> {
        let resolve = |path: &Path| self.runtime.resolve(path);
        let whole = resolve(&path);
        let seats = self.shared.seats();
        let seated = || seats.iter().filter_map(|seat| seat.path.as_ref());
        let known = seated()
            .chain(&self.configured)
            .find(|known| resolve(known) == whole);
        if new {
            let retired: Vec<&PathBuf> = self
                .content
                .retired
                .iter()
                .filter_map(|index| seats.get(index.get())?.path.as_ref())
                .collect();
            let others = seated().chain(&self.configured);
            let others = others.filter(|other| !retired.contains(other) && resolve(other) != whole);
            let others: Vec<PathBuf> = others.cloned().collect();
            check_beside(&path, &others, &self.state_path, resolve)?;
        }
        Ok(Seated::Named(known.cloned().unwrap_or(path)))
    }

    fn holds(&self, path: &Path, device: u64) -> Seated {
        let seated = self.drives.iter().enumerate().any(|(at, drive)| {
            let there = DriveIndex::new(at).and_then(|index| self.shared.path(index));
            let on_device = drive.as_ref().is_some_and(|drive| drive.device() == device);
            there.is_some_and(|there| there == path) && on_device
        });
        let blank = |(there, drive): &(PathBuf, R::Drive)| there == path && drive.device() == device;
        match seated || self.blanks.iter().any(blank) {
            true => Seated::Yes,
            false => Seated::No,
        }
    }

    fn is_ready(&self, index: DriveIndex) -> Seated {
        let seats = self.shared.seats();
        let invitation = (index, seats[index.get()].invitation);
        let ready = self.all_say(|report| {
            report.places.opened.contains(&invitation) && !report.places.named.contains(index)
        });
        if ready { Seated::Yes } else { Seated::No }
    }

    /// Gives the drive handed over its place; a blank one gets a new id there.
    async fn seat(
        &mut self,
        path: PathBuf,
        known: Option<DriveId>,
        replaces: bool,
    ) -> Result<Seated, VolumeError> {
        let Some(handed) = self.handed.borrow_mut().take() else {
            return Err(VolumeError::Stopped);
        };
        let index = match known {
            Some(id) => self.content.index_of(id),
            None => self.free_place(&path, replaces),
        };
        let index = index.ok_or_else(|| {
            VolumeError::Config(match replaces {
                true => format!(
                    "{0} is empty, and no drive of this node is lost that it could take the place of: `cairn drives add \
                     {0}` takes in a new drive",
                    path.display()
                ),
                false => format!(
                    "a node can have had {DRIVES_MAX} drives, and no place is free: `cairn drives remove` one that is out \
                     of sync"
                ),
            })
        })?;
        if self.content.in_sync.contains(index) {
            let first = self.shared.path(index).unwrap_or_default();
            return Err(VolumeError::Duplicate { first, second: path });
        }
        self.endings.retain(Ending::is_writing);
        let at = |copy: &Copy<R>| copy.drive.is_some_and(|(other, _)| other == index);
        let ending = self.endings.iter().any(|ending| ending.0 == index);
        if ending || self.copies.iter().any(|copy| at(copy) && copy.is_writing()) {
            *self.handed.borrow_mut() = Some(handed);
            return Ok(Seated::No);
        }
        let id = known.unwrap_or_else(|| DriveId(open::random_id(&self.runtime)));
        if known.is_none() {
            let mut drives = self.content.drives.clone();
            let place = DrivePlace { id, joined: Epoch(0) };
            match drives.get_mut(index.get()) {
                Some(taken) => *taken = place,
                None => drives.push(place),
            }
            let next = Superblock {
                removed: self.content.removed.with(index),
                retired: self.content.retired.without(index),
                drives,
                ..self.content.clone()
            };
            self.replace(index, next).await?;
        }
        let places = self.content.drives.len();
        self.why.resize(places, String::new());
        self.devices.resize(places, None);
        self.drives.resize(places, None);
        if let Some(member) = handed.member {
            // What was opened before the drive went away may be dead.
            self.copies.retain(|copy| !at(copy));
            self.copies.push(Copy::new(Some((index, id)), member));
        }
        self.why[index.get()] = "its rebuild was not completed".to_owned();
        self.devices[index.get()] = Some(handed.drive.device());
        self.warn_of_shared_device(&path, &handed.drive);
        let blank = self.blanks.iter().position(|(there, _)| *there == path);
        let blank = blank.map(|at| self.blanks.swap_remove(at).1);
        if handed.locked {
            self.drives[index.get()] = Some(handed.drive);
        } else if let Some(blank) = blank {
            self.drives[index.get()] = Some(blank);
        }
        self.shared.change(|slow| {
            slow.seats.resize_with(places, || Seat {
                id: DriveId(0),
                path: None,
                invitation: 0,
            });
            let seat = &mut slow.seats[index.get()];
            seat.id = id;
            seat.path = Some(path);
        });
        let written = Superblock {
            kind: MemberKind::Drive,
            drive: id,
            ..self.content.clone()
        };
        Ok(Seated::At(index, known.is_none().then(|| Box::new(written))))
    }

    /// Makes a change by which another drive has the place `index`: the one that had it is not written any more.
    async fn replace(&mut self, index: DriveIndex, next: Superblock) -> Result<(), VolumeError> {
        let at = |copy: &Copy<R>| copy.drive.is_some_and(|(other, _)| other == index);
        let (taken, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.copies).into_iter().partition(at);
        self.copies = kept;
        let changed = self.try_change(next).await;
        match &changed {
            Ok(()) => self.endings.extend(taken.iter().filter_map(Copy::end)),
            Err(_) => self.copies.extend(taken),
        }
        changed
    }

    fn warn_of_shared_device(&mut self, path: &Path, drive: &R::Drive) {
        let other = self.drives.iter().enumerate().find_map(|(at, other)| {
            let other_path = self.shared.path(DriveIndex::new(at)?)?;
            let shares = other.as_ref()?.device() == drive.device() && other_path != *path;
            shares.then(|| (other_path, other.clone()))
        });
        if let Some((other_path, Some(other))) = other {
            for warning in open::shared_devices(&[other_path, path.to_owned()], &[other, drive.clone()]) {
                if !self.warnings.contains(&warning) {
                    self.warnings.push(warning);
                }
            }
        }
    }

    /// The place for a blank directory.
    ///
    /// One that `replaces` a drive gets the place of one that is lost, none when there is none: first its own, then that of a
    /// drive that is not there, first of those that still have a vote: beside it a node that stops before all is copied would
    /// have a drive more than directories. What is there and out of sync may be the last to have something.
    ///
    /// Any other gets the one it had; one whose drive never came; a new one; or, when there is none, that of a removed drive.
    fn free_place(&self, path: &Path, replaces: bool) -> Option<DriveIndex> {
        let content = &self.content;
        let places = || (0..content.drives.len()).filter_map(DriveIndex::new);
        let out = places().filter(|index| !content.in_sync.contains(*index));
        let own = |index: &DriveIndex| self.shared.path(*index).as_deref() == Some(path);
        let absent = |index: &DriveIndex| self.drives[index.get()].is_none();
        if replaces {
            let lost = out.filter(|index| !content.retired.contains(*index));
            let spared = lost.filter(|index| own(index) || absent(index) || content.guarantee > 0);
            return spared
                .min_by_key(|index| (!own(index), !absent(index), content.removed.contains(*index)));
        }
        let never = |index: &DriveIndex| absent(index) && content.drives[index.get()].joined == Epoch(0);
        let next = DriveIndex::new(content.drives.len()).filter(|index| index.get() < DRIVES_MAX);
        let rest: Vec<DriveIndex> = out.collect();
        let of = |set: DriveSet| rest.iter().copied().find(|index| set.contains(*index));
        let had = rest.iter().copied().find(own);
        had.or_else(|| rest.iter().copied().find(never))
            .or(next)
            .or_else(|| of(content.retired))
            .or_else(|| of(content.removed))
    }

    async fn retire(&mut self, index: DriveIndex) -> Result<Seated, VolumeError> {
        let content = &self.content;
        if content.in_sync.contains(index) {
            let left = self.all_say(|report| {
                report.places.avoided.contains(index) && !report.places.named.contains(index)
            });
            if !left {
                return Ok(Seated::No);
            }
        } else {
            if content.guarantee == 0 {
                return Err(VolumeError::Config(
                    "some file may have its only copy there: rebuild it, or have the file lost by `--accept-epoch`"
                        .to_owned(),
                ));
            }
            let left = content.counted().without(index).count();
            if left < usize::from(content.mirrors) {
                return Err(VolumeError::Config(format!(
                    "the {left} drives that would be left cannot hold {} copies: first add a drive",
                    content.mirrors
                )));
            }
        }
        // Nothing is on it: what is promised stays true without it.
        let next = Superblock {
            in_sync: content.in_sync.without(index),
            removed: content.removed.with(index),
            retired: content.retired.with(index),
            ..content.clone()
        };
        self.try_change(next).await?;
        self.why[index.get()] = open::RETIRED.to_owned();
        Ok(Seated::Yes)
    }
}
