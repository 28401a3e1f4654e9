//! Start: what the directories say, and whether that suffices to go on.
//!
//! 1. Lock every directory, read its superblock, read the witness.
//! 2. Nothing there, or only the remains of a creation that never completed (epoch 0): create the node, with the
//!    drives first, the witness next, and epoch 1 last, so that a crash in between leaves a creation to repeat.
//! 3. Else check that everything belongs together, and choose the record of the highest epoch; a majority of the
//!    copies must be readable, and so many of its drives present that every file has a holder. Exception: `accept_epoch`.
//! 4. Unless all copies say the same and every in-sync drive is present, make a new epoch durable.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_runtime::{Drive, Queue, Runtime, mailbox};

use super::census::Census;
use super::directories::check_directories;
use super::keeper::{Copy, Task};
use super::member::{Member, NEW_SUFFIX, SUPERBLOCK_NAME};
use super::shared::{Seat, Shared};
use super::superblock::{DrivePlace, MemberKind, Quorum, Superblock};
use super::{DRIVES_MAX, DriveIndex, DriveSet, Keeper, VolumeConfig, VolumeError, VolumeHandle};
use crate::canary::{self, Canary};
use crate::ids::{DriveId, Epoch, NodeId};
use crate::sealing::{Keys, NodeKey, RootKey};

/// Requests that may wait for the keeper.
const REQUESTS_MAX: usize = 256;
/// How far an accepted epoch jumps: further than what the drives given up can have reached unseen.
const ACCEPTED_JUMP: u64 = 1024;
/// Ends the warning about a drive that is not used.
const REBUILD: &str = "can be made a mirror again with `cairn drives rebuild DIR`";
/// Ends the warning about a directory that is none of the node's.
const NO_DRIVE_MISSING: &str = "no drive of this node is missing: take it out of the configuration, or have it taken in with `cairn drives add DIR`";
/// Why a drive is not in sync that an operator has removed.
pub(super) const RETIRED: &str = "it was removed";

/// What a directory turned out to be.
pub(super) enum Found<R: Runtime> {
    /// No such directory.
    Absent,
    /// Cannot be read, or is no longer what it was, in words.
    Missing(String),
    /// An empty directory.
    Blank(R::Drive),
    /// A drive or witness.
    Present(Present<R>),
}

pub(super) struct Present<R: Runtime> {
    pub(super) drive: R::Drive,
    pub(super) member: Member<R>,
    pub(super) superblock: Superblock,
    /// All four copies agree.
    pub(super) complete: bool,
}

impl<R: Runtime> Found<R> {
    pub(super) fn superblock(&self) -> Option<&Superblock> {
        match self {
            Found::Present(present) => Some(&present.superblock),
            _ => None,
        }
    }

    /// It was only looked at.
    fn abandon(&self) {
        match self {
            Found::Blank(drive) | Found::Present(Present { drive, .. }) => drive.abandon(),
            Found::Absent | Found::Missing(_) => {}
        }
    }
}

pub(super) fn unusable(path: &Path, error: &io::Error) -> VolumeError {
    VolumeError::Unusable {
        path: path.to_owned(),
        why: error.to_string(),
    }
}

/// Opens one directory without creating anything.
async fn look<R: Runtime>(runtime: &R, path: &Path, kind: MemberKind) -> Result<Found<R>, VolumeError> {
    let drive = match runtime.drive(path, false).await {
        Ok(drive) => drive,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Found::Absent);
        }
        Err(error) => return Ok(Found::Missing(error.to_string())),
    };
    match drive.lock() {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(VolumeError::InUse(path.to_owned()));
        }
        Err(error) => return Ok(Found::Missing(error.to_string())),
    }
    match Member::open(runtime, &drive, kind).await {
        Ok((_, Quorum::Valid { superblock, .. })) if superblock.incomplete => {
            Err(VolumeError::IncompleteBackup(path.to_owned()))
        }
        Ok((
            member,
            Quorum::Valid {
                superblock, complete, ..
            },
        )) => Ok(Found::Present(Present {
            drive,
            member,
            superblock,
            complete,
        })),
        Ok((_, Quorum::TooNew(what))) => Err(VolumeError::TooNew {
            path: path.to_owned(),
            what,
        }),
        Ok((_, Quorum::Damaged)) => Ok(Found::Missing(
            "its superblock is damaged in all copies".to_owned(),
        )),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Ok(Found::Missing(error.to_string())),
        Err(_) if kind == MemberKind::Witness => Ok(Found::Blank(drive)),
        Err(_) => {
            let names = match names_in(&drive).await {
                Ok(names) => names,
                Err(error) => return Ok(Found::Missing(error.to_string())),
            };
            let creating = format!("{SUPERBLOCK_NAME}{NEW_SUFFIX}");
            match names.into_iter().find(|name| *name != creating) {
                Some(file) => {
                    drive.abandon();
                    Err(VolumeError::Foreign {
                        path: path.to_owned(),
                        file,
                    })
                }
                None => Ok(Found::Blank(drive)),
            }
        }
    }
}

/// Names of everything in a directory but what a file system has there of itself.
pub(super) async fn names_in<D: Drive>(drive: &D) -> io::Result<Vec<String>> {
    let files = drive.list().await?.into_iter().map(|entry| entry.name);
    let names = files.chain(drive.strangers().await?);
    Ok(names.filter(|name| name != "lost+found").collect())
}

fn check_config<R: Runtime>(runtime: &R, config: &VolumeConfig) -> Result<(), VolumeError> {
    let count = config.drives.len();
    if count == 0 || count > DRIVES_MAX {
        return Err(VolumeError::Config(format!(
            "a node has 1 to {DRIVES_MAX} drives, not {count}"
        )));
    }
    if config.mirrors == 0 || config.mirrors > count {
        return Err(VolumeError::Config(format!(
            "{} mirrors need as many drives, and {count} are configured",
            config.mirrors
        )));
    }
    check_directories(&config.drives, &config.state, |path| runtime.resolve(path))
}

/// Locks and reads every directory: the witness's, and those of the drives.
async fn look_at_all<R: Runtime>(
    runtime: &R,
    config: &VolumeConfig,
) -> Result<(Found<R>, Vec<Found<R>>), VolumeError> {
    check_config(runtime, config)?;
    let witness = look(runtime, &config.state, MemberKind::Witness).await?;
    let mut drives = Vec::with_capacity(config.drives.len());
    for path in &config.drives {
        match look(runtime, path, MemberKind::Drive).await {
            Ok(found) => drives.push(found),
            Err(why) => {
                drives.iter().chain([&witness]).for_each(Found::abandon);
                return Err(why);
            }
        }
    }
    Ok((witness, drives))
}

/// A node as a start finds and leaves it, before anybody serves it.
pub(super) async fn task<R: Runtime>(
    runtime: &R,
    config: &VolumeConfig,
    may_create: bool,
) -> Result<Task<R>, VolumeError> {
    let (witness, drives) = look_at_all(runtime, config).await?;
    if !is_first_start(&witness, &drives) {
        return resume(runtime, config, witness, drives).await;
    }
    if !may_create {
        let what = "there is no node in the configured directories: a new one is made by `cairn serve` only";
        return Err(VolumeError::Config(what.to_owned()));
    }
    create(runtime, config, witness, drives).await
}

pub(super) async fn open<R: Runtime>(
    runtime: R,
    config: VolumeConfig,
    may_create: bool,
) -> Result<Keeper<R>, VolumeError> {
    let mut task = task(&runtime, &config, may_create).await?;
    task.find_logs().await;
    let (sender, receiver) = mailbox::mailbox(REQUESTS_MAX);
    let handle = VolumeHandle {
        shared: task.shared.clone(),
        requests: sender,
    };
    runtime.spawn(Queue::Foreground, task.serve(receiver, handle.clone()));
    Ok(Keeper {
        handle,
        runtime: std::marker::PhantomData,
    })
}

/// Whether nothing was ever stored: no member knows an epoch, and none is damaged or unreadable.
fn is_first_start<R: Runtime>(witness: &Found<R>, drives: &[Found<R>]) -> bool {
    drives.iter().chain([witness]).all(|found| match found {
        Found::Absent | Found::Blank(_) => true,
        Found::Missing(_) => false,
        Found::Present(present) => present.superblock.epoch == Epoch(0),
    })
}

/// 128 random bits that are not zero.
pub(super) fn random_id<R: Runtime>(runtime: &R) -> u128 {
    let mut bytes = [0; 16];
    runtime.random_secret(&mut bytes);
    u128::from_le_bytes(bytes).max(1)
}

async fn make<R: Runtime>(runtime: &R, path: &Path, found: Found<R>) -> Result<R::Drive, VolumeError> {
    match found {
        Found::Blank(drive) => Ok(drive),
        Found::Present(present) => Ok(present.drive),
        Found::Absent | Found::Missing(_) => make_directory(runtime, path).await,
    }
}

/// Makes a directory and locks it.
pub(super) async fn make_directory<R: Runtime>(runtime: &R, path: &Path) -> Result<R::Drive, VolumeError> {
    let drive = runtime
        .drive(path, true)
        .await
        .map_err(|error| unusable(path, &error))?;
    drive.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => VolumeError::InUse(path.to_owned()),
        _ => unusable(path, &error),
    })?;
    Ok(drive)
}

/// The root key of a node that is being created; none when it is not to be encrypted.
fn root_of_new(keys: &Keys) -> Result<Option<&RootKey>, VolumeError> {
    match (keys.encrypted, keys.root.first()) {
        (Some(false), _) => Ok(None),
        (Some(true), None) => Err(VolumeError::Config(
            "an encrypted node needs a root key, and none was given: name its file with --root-key-file"
                .to_owned(),
        )),
        (_, root) => Ok(root),
    }
}

/// The key of the node that `record` describes. Looks only.
fn open_key(keys: &Keys, record: &Superblock) -> Result<Option<NodeKey>, VolumeError> {
    let Some(kept) = &record.key else {
        let asked = keys.encrypted.unwrap_or(!keys.root.is_empty());
        return if asked {
            Err(VolumeError::EncryptionMismatch { encrypted: false })
        } else {
            Ok(None)
        };
    };
    if keys.encrypted == Some(false) {
        return Err(VolumeError::EncryptionMismatch { encrypted: true });
    }
    let given: Vec<_> = keys.root.iter().map(RootKey::id).collect();
    let tried = canary::first_of(Canary::TryFirstRootOnly, given.len());
    let Some(root) = given.iter().take(tried).position(|id| *id == kept.root) else {
        let needed = kept.root;
        return Err(if given.is_empty() {
            VolumeError::KeyMissing { needed }
        } else {
            VolumeError::WrongKey { needed, given }
        });
    };
    match keys.root[root].unwrap(record.node, kept) {
        Some(key) => Ok(Some(key)),
        None => Err(VolumeError::KeyDamaged(kept.root)),
    }
}

async fn create<R: Runtime>(
    runtime: &R,
    config: &VolumeConfig,
    witness: Found<R>,
    drives: Vec<Found<R>>,
) -> Result<Task<R>, VolumeError> {
    let places: Vec<DrivePlace> = drives
        .iter()
        .map(|_| DrivePlace {
            id: DriveId(random_id(runtime)),
            joined: Epoch(0),
        })
        .collect();
    let all: DriveSet = (0..places.len()).filter_map(DriveIndex::new).collect();
    let node = NodeId(random_id(runtime));
    let made = root_of_new(&config.keys)?.map(|root| root.make_node_key(runtime, node));
    let (key, wrapped) = made.unzip();
    let content = Superblock {
        kind: MemberKind::Drive,
        sequence: 0,
        node,
        copy: 0,
        incomplete: false,
        drive: DriveId(0),
        promised: Epoch(0),
        epoch: Epoch(0),
        in_sync: DriveSet::EMPTY,
        removed: DriveSet::EMPTY,
        retired: DriveSet::EMPTY,
        mirrors: u16::try_from(config.mirrors).expect("at most DRIVES_MAX"),
        guarantee: 0,
        joining: DriveSet::EMPTY,
        compatible: 0,
        incompatible: 0,
        read_only: 0,
        key: wrapped,
        drives: places.clone(),
    };
    let mut copies = Vec::new();
    let mut opened = Vec::new();
    for ((found, path), index) in drives.into_iter().zip(&config.drives).zip(all.iter()) {
        let drive = make(runtime, path, found).await?;
        let id = places[index.get()].id;
        let superblock = Superblock {
            drive: id,
            ..content.clone()
        };
        let member = Member::create(runtime, &drive, &superblock)
            .await
            .map_err(|error| unusable(path, &error))?;
        copies.push(Copy::new(Some((index, id)), member));
        opened.push(drive);
    }
    let state = make(runtime, &config.state, witness).await?;
    let superblock = Superblock {
        kind: MemberKind::Witness,
        ..content.clone()
    };
    let member = Member::create(runtime, &state, &superblock)
        .await
        .map_err(|error| unusable(&config.state, &error))?;
    copies.push(Copy::new(None, member));
    let seats = places.iter().zip(&config.drives).map(|(place, path)| Seat {
        id: place.id,
        path: Some(path.clone()),
        invitation: 0,
    });
    let key = key.map(Arc::new);
    let shared = Arc::new(Shared::new(content.node, config.mirrors, key, seats.collect()));
    let mut task = Task::new(runtime.clone(), shared, copies, content, config);
    task.created = true;
    task.devices = opened.iter().map(|drive| Some(drive.device())).collect();
    task.warnings = shared_devices(&config.drives, &opened);
    task.drives = opened.into_iter().map(Some).collect();
    task.state = Some(state);
    task.change(all, DriveSet::EMPTY, 1).await?;
    Ok(task)
}

pub(super) fn shared_devices<D: Drive>(paths: &[PathBuf], drives: &[D]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, drive) in drives.iter().enumerate() {
        if let Some(earlier) = drives[..index]
            .iter()
            .position(|other| other.device() == drive.device())
        {
            warnings.push(format!(
                "{} and {} are on the same device: losing it loses both",
                paths[earlier].display(),
                paths[index].display()
            ));
        }
    }
    warnings
}

impl<R: Runtime> Task<R> {
    /// Looks which logs there are, so that none is forgotten whose engine is not there.
    async fn find_logs(&mut self) {
        for index in self.content.in_sync.iter() {
            let Some(drive) = &self.drives[index.get()] else {
                continue;
            };
            // Every log is on every in-sync drive: one that cannot be listed is one less.
            let entries = drive.list().await.unwrap_or_default();
            let names = entries.iter().map(|entry| entry.name.as_str());
            self.logs.extend(names.filter_map(crate::log::log_of_name));
        }
    }
}

async fn resume<R: Runtime>(
    runtime: &R,
    config: &VolumeConfig,
    witness: Found<R>,
    drives: Vec<Found<R>>,
) -> Result<Task<R>, VolumeError> {
    let census = Census::take(config, &witness, &drives)?;
    let (chosen, forced) = census.choose(config.accept_epoch.map(Epoch))?;
    let key = open_key(&config.keys, chosen)?;
    let present = census.present();
    let chosen = &*chosen.as_believed(present);
    let uniform = census.is_uniform(chosen) && !forced && chosen.mirrors == config.mirrors as u16;
    let uniform = uniform && !matches!(&witness, Found::Present(found) if !found.complete);
    let promised = census
        .records()
        .map(|(_, record)| record)
        .chain(census.witness)
        .map(|r| r.promised)
        .max();
    let mirrors = u16::try_from(config.mirrors).expect("at most DRIVES_MAX");
    let content = Superblock {
        promised: promised.unwrap_or(chosen.promised),
        mirrors,
        // What is written from now on has no more copies than that; what was written before, no more than it had.
        guarantee: chosen.guarantee.min(mirrors),
        ..chosen.clone()
    };
    let before = chosen.in_sync;
    let after = before.and(present);
    if !forced && !chosen.may_shrink_to(after) {
        return Err(VolumeError::HolderMissing {
            missing: census.missing,
            epoch: chosen.epoch,
        });
    }
    let removed = if forced {
        DriveSet::from_bits(content.removed.bits() | content.counted().minus(present).bits())
    } else {
        content.removed
    };
    let all_there = content.expected().is_within(present);
    let mut warnings: Vec<String> = census
        .missing
        .iter()
        .map(|(path, why)| {
            let not_used = format!("{} is not used: {why}", path.display());
            match (*path == config.state, all_there) {
                (true, _) => not_used,
                (_, true) => format!("{not_used}; {NO_DRIVE_MISSING}"),
                _ => format!("{not_used}; when it is back, or an empty one in its place, it {REBUILD}"),
            }
        })
        .collect();
    if forced {
        warnings.push(format!(
            "continuing from epoch {} because --accept-epoch names it",
            chosen.epoch
        ));
    } else if config.accept_epoch.is_some() {
        warnings.push("--accept-epoch is not needed: a majority is there; remove it".to_owned());
    }

    let mut paths = vec![None; content.drives.len()];
    let mut devices = vec![None; content.drives.len()];
    let mut why = vec!["its directory is not there".to_owned(); content.drives.len()];
    content
        .retired
        .iter()
        .for_each(|index| why[index.get()] = RETIRED.to_owned());
    let (mut copies, mut opened, mut opened_paths) = (Vec::new(), Vec::new(), Vec::new());
    let mut by_place = vec![None; content.drives.len()];
    let mut blanks = Vec::new();
    for (path, found) in config.drives.iter().zip(drives) {
        let path = path.clone();
        let found = match found {
            Found::Present(found) => found,
            Found::Blank(drive) => {
                blanks.push((path, drive));
                continue;
            }
            Found::Absent | Found::Missing(_) => continue,
        };
        let index = content
            .index_of(found.superblock.drive)
            .expect("the census checked membership");
        paths[index.get()] = Some(path.clone());
        devices[index.get()] = Some(found.drive.device());
        by_place[index.get()] = Some(found.drive.clone());
        if !removed.contains(index) {
            copies.push(Copy::new(Some((index, found.superblock.drive)), found.member));
        }
        if after.contains(index) {
            why[index.get()].clear();
        } else if content.retired.contains(index) {
            warnings.push(format!(
                "{} is not used: {RETIRED}; take it out of the configuration",
                path.display()
            ));
        } else {
            let stale = match content.drives[index.get()].joined {
                Epoch(0) => "its rebuild was not completed".to_owned(),
                _ => format!("it left the in-sync set after epoch {}", found.superblock.epoch),
            };
            warnings.push(format!("{} is not used: {stale}; it {REBUILD}", path.display()));
            why[index.get()] = stale;
        }
        opened.push(found.drive);
        opened_paths.push(path);
    }
    warnings.extend(shared_devices(&opened_paths, &opened));
    let mut copies_witness = None;
    let mut state = None;
    match witness {
        Found::Present(found) => {
            copies_witness = Some(found.member);
            state = Some(found.drive);
        }
        // Elsewhere: another one would be in its place.
        _ if config.state.as_os_str().is_empty() => {}
        // Lost, but the drives have a majority, or an operator took their word: written anew.
        found @ (Found::Absent | Found::Blank(_) | Found::Missing(_)) => {
            let superblock = Superblock {
                kind: MemberKind::Witness,
                drive: DriveId(0),
                ..content.clone()
            };
            let made = match make(runtime, &config.state, found).await {
                Ok(drive) => Member::create(runtime, &drive, &superblock)
                    .await
                    .map(|made| (made, drive)),
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            match made {
                Ok((member, drive)) => {
                    warnings.push(format!(
                        "{} held no witness of this node: it has been written anew, from what the drives say",
                        config.state.display()
                    ));
                    copies_witness = Some(member);
                    state = Some(drive);
                }
                Err(error) => {
                    warnings.push(format!("{} holds no witness: {error}", config.state.display()));
                }
            }
        }
    }
    copies.extend(copies_witness.map(|member| Copy::new(None, member)));

    let seats = content.drives.iter().zip(paths).map(|(place, path)| Seat {
        id: place.id,
        path,
        invitation: 0,
    });
    let key = key.map(Arc::new);
    let shared = Arc::new(Shared::new(content.node, config.mirrors, key, seats.collect()));
    let mut task = Task::new(runtime.clone(), shared, copies, content, config);
    task.devices = devices;
    task.why = why;
    task.warnings = warnings;
    task.drives = by_place;
    task.blanks = blanks;
    task.state = state;
    if uniform && after == before {
        task.publish();
    } else {
        task.change(after, removed, if forced { ACCEPTED_JUMP } else { 1 })
            .await?;
    }
    Ok(task)
}
