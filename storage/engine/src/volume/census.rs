//! What a start has found, taken together: do the members belong to one node, and what do they let it go on from?

use std::path::PathBuf;

use cairn_runtime::Runtime;

use super::keeper::majority;
use super::open::Found;
use super::superblock::Superblock;
use super::{DriveSet, VolumeConfig, VolumeError};
use crate::ids::{DriveId, Epoch};

/// Everything present, checked to belong together.
pub(super) struct Census<'a, R: Runtime> {
    /// Configured directory and what it is.
    drives: Vec<(&'a PathBuf, &'a Found<R>)>,
    pub(super) witness: Option<&'a Superblock>,
    highest: &'a Superblock,
    /// Directories without a member, and why.
    pub(super) missing: Vec<(PathBuf, String)>,
}

impl<'a, R: Runtime> Census<'a, R> {
    pub(super) fn take(
        config: &'a VolumeConfig,
        witness: &'a Found<R>,
        drives: &'a [Found<R>],
    ) -> Result<Census<'a, R>, VolumeError> {
        let drives: Vec<(&PathBuf, &Found<R>)> = config.drives.iter().zip(drives).collect();
        let mut missing: Vec<(PathBuf, String)> = Vec::new();
        for (path, found) in drives.iter().copied().chain([(&config.state, witness)]) {
            match found {
                Found::Absent => missing.push((path.clone(), "no such directory".to_owned())),
                Found::Missing(why) => missing.push((path.clone(), why.clone())),
                Found::Blank(_) => {
                    missing.push((path.clone(), "it is empty: not mounted, or replaced".to_owned()));
                }
                Found::Present(_) => {}
            }
        }
        let records = || {
            drives
                .iter()
                .filter_map(|(path, found)| Some((*path, found.superblock()?)))
        };
        let witness = witness.superblock();
        let Some(highest) = records()
            .map(|(_, record)| record)
            .chain(witness)
            .max_by_key(|r| r.epoch)
        else {
            if let Some((path, Found::Missing(why))) = drives
                .iter()
                .find(|(_, found)| matches!(found, Found::Missing(_)))
            {
                return Err(VolumeError::Unusable {
                    path: (*path).clone(),
                    why: why.clone(),
                });
            }
            let copies = drives.len() + 1;
            return Err(VolumeError::NoMajority {
                readable: 0,
                copies,
                missing,
                epoch: Epoch(0),
            });
        };
        check_nodes(config, records().collect(), witness)?;
        let mut seen: Vec<(&PathBuf, DriveId)> = Vec::new();
        for (path, record) in records() {
            if let Some((first, _)) = seen.iter().find(|(_, id)| *id == record.drive) {
                return Err(VolumeError::Duplicate {
                    first: (*first).clone(),
                    second: path.clone(),
                });
            }
            if highest.index_of(record.drive).is_none() {
                return Err(VolumeError::NotMember(path.clone()));
            }
            seen.push((path, record.drive));
        }
        let counted = highest.counted().count();
        if drives.len() < counted {
            // A forgotten drive would leave the mirrors by this start alone.
            return Err(VolumeError::Config(format!(
                "the node has {counted} drives and {} named: name the directory of every one, also of one that is lost",
                match drives.len() {
                    1 => "1 is".to_owned(),
                    more => format!("{more} are"),
                }
            )));
        }
        if drives.len() > highest.drives.len() {
            let blank = drives
                .iter()
                .find(|(_, found)| !matches!(found, Found::Present(_)));
            if let Some((path, _)) = blank {
                return Err(VolumeError::NotMember((*path).clone()));
            }
        }
        for (path, record) in records().chain(witness.map(|record| (&config.state, record))) {
            if record.epoch == highest.epoch && record.in_sync != highest.in_sync {
                return Err(VolumeError::Config(format!(
                    "{} holds another in-sync set of epoch {} than the other drives: it was started apart \
                     from them with --accept-epoch; remove it from the configuration",
                    path.display(),
                    record.epoch
                )));
            }
        }
        Ok(Census {
            drives,
            witness,
            highest,
            missing,
        })
    }

    pub(super) fn records(&self) -> impl Iterator<Item = (&'a PathBuf, &'a Superblock)> {
        self.drives
            .iter()
            .filter_map(|(path, found)| Some((*path, found.superblock()?)))
    }

    /// Drives present, by place.
    pub(super) fn present(&self) -> DriveSet {
        self.records()
            .filter_map(|(_, record)| self.highest.index_of(record.drive))
            .collect()
    }

    /// Copies of the epoch that can be read, of those that count.
    fn readable(&self) -> usize {
        self.present().and(self.highest.counted()).count() + usize::from(self.witness.is_some())
    }

    /// The record to continue from, and whether an operator forced it.
    pub(super) fn choose(&self, accept: Option<Epoch>) -> Result<(&'a Superblock, bool), VolumeError> {
        let majority = majority(self.highest);
        let rest = |record: &Superblock| record.in_sync.and(self.present());
        let alive = |record: &Superblock| !rest(record).is_empty();
        if self.readable() >= majority && alive(self.highest) {
            let whole = rest(self.highest) == self.highest.in_sync;
            // Where it is not known that every file has a holder, an operator may know better.
            let serves = match accept {
                None => true,
                Some(asked) if asked < self.highest.epoch => self.highest.hold_everything(rest(self.highest)),
                Some(_) => whole || self.highest.hold_everything(rest(self.highest)),
            };
            if serves {
                return Ok((self.highest, false));
            }
        }
        if let Some(asked) = accept {
            let mut records = self.records().map(|(_, record)| record).chain(self.witness);
            return match records.find(|record| record.epoch == asked && alive(record)) {
                Some(record) => Ok((record, true)),
                None => Err(VolumeError::WrongAcceptEpoch {
                    asked,
                    highest: self.highest.epoch,
                }),
            };
        }
        if self.readable() < majority {
            let copies = self.highest.counted().count() + 1;
            let mut missing = self.missing.clone();
            let unnamed = self.highest.drives.len().saturating_sub(self.drives.len());
            if unnamed > 0 {
                missing.push((
                    PathBuf::from(format!("{unnamed} more")),
                    "not in the configuration".to_owned(),
                ));
            }
            return Err(VolumeError::NoMajority {
                readable: self.readable(),
                copies,
                missing,
                epoch: self.highest.epoch,
            });
        }
        Err(VolumeError::OnlyStale {
            epoch: self.highest.epoch,
            stale: self
                .records()
                .map(|(path, record)| (path.clone(), record.epoch))
                .collect(),
            missing: self.missing.clone(),
        })
    }

    fn is_counted(&self, record: &Superblock) -> bool {
        self.highest
            .index_of(record.drive)
            .is_some_and(|index| self.highest.counted().contains(index))
    }

    /// Whether every counted drive and the witness is there, whole, and says exactly what `record` says.
    pub(super) fn is_uniform(&self, record: &Superblock) -> bool {
        let same = |other: &Superblock| {
            Superblock {
                kind: record.kind,
                drive: record.drive,
                sequence: record.sequence,
                ..other.clone()
            } == *record
        };
        let whole = self.drives.iter().all(|(_, found)| match found {
            Found::Present(present) => present.complete || !self.is_counted(&present.superblock),
            _ => true,
        });
        whole
            && self.witness.is_some_and(same)
            && self
                .records()
                .all(|(_, other)| same(other) || !self.is_counted(other))
            && self.highest.counted().is_within(self.present())
    }
}

/// Refuses members of different nodes, naming the one that is alone.
fn check_nodes(
    config: &VolumeConfig,
    drives: Vec<(&PathBuf, &Superblock)>,
    witness: Option<&Superblock>,
) -> Result<(), VolumeError> {
    let Some((_, first)) = drives.first().copied() else {
        return Ok(());
    };
    let agree = drives.iter().all(|(_, record)| record.node == first.node);
    let expected = match witness {
        Some(witness) if agree && witness.node != first.node && drives.len() > 1 => {
            let path = config.state.clone();
            return Err(VolumeError::AnotherNode {
                path,
                found: witness.node,
                expected: first.node,
            });
        }
        Some(witness) => witness.node,
        None => first.node,
    };
    if let Some((path, record)) = drives.iter().find(|(_, record)| record.node != expected) {
        return Err(VolumeError::AnotherNode {
            path: (*path).clone(),
            found: record.node,
            expected,
        });
    }
    let all = drives
        .into_iter()
        .chain(witness.map(|witness| (&config.state, witness)));
    match all.into_iter().find(|(_, record)| record.copy != first.copy) {
        Some((path, _)) => Err(VolumeError::AnotherCopy(path.clone())),
        None => Ok(()),
    }
}
