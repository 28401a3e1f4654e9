//! Where the root key of a node comes from, and how its file is made and replaced.
//!
//! The first of these that is there: the variable `CAIRN_ROOT_KEY`, which is the key itself; the file that `--root-key-file`
//! names; `root.key` in the state directory, which the first start makes.
//!
//! **Replacing the file** ([`Replacement`]), each step durable before the next:
//! 1. the new key is in `FILE.new`;
//! 2. the node's keys are wrapped with it;
//! 3. the old key is linked to `FILE.<its id>`, as backups from before need it, and `FILE.new` renamed to `FILE`.
//!
//! From 1 to 3 both keys are offered to the node, which knows the one that it needs; so a rotation that was cut off keeps
//! nobody from starting, and is done again by the same command.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cairn_engine::sealing::{Keys, RootKey};

use crate::config::ConfigError;

/// The name of the root key file in the state directory.
pub const FILE_NAME: &str = "root.key";
/// A longer file is no key.
const FILE_BYTES_MAX: u64 = 4096;

/// What an operator said about the root key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// The content of `CAIRN_ROOT_KEY`.
    pub variable: Option<String>,
    /// `--root-key-file`.
    pub file: Option<PathBuf>,
    /// `--encryption`; none leaves it to the node.
    pub encrypted: Option<bool>,
}

/// Where the keys came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `CAIRN_ROOT_KEY`.
    Variable,
    /// A file.
    File(PathBuf),
    /// Nowhere.
    None,
}

/// The keys to open a node with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the node is given.
    pub keys: Keys,
    /// Where they came from.
    pub source: Source,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// Finds the root key; `state` is the state directory, if it is known.
///
/// # Errors
/// [`ConfigError`] when a key that was named cannot be read or is none.
pub fn find(given: &Given, state: Option<&Path>) -> Result<Found, ConfigError> {
    let none = |encrypted| Found {
        keys: Keys {
            root: Vec::new(),
            encrypted,
        },
        source: Source::None,
        warnings: Vec::new(),
    };
    if given.encrypted == Some(false) {
        return Ok(none(Some(false)));
    }
    if let Some(text) = &given.variable {
        let key = text.parse();
        let key = key.map_err(|why: String| ConfigError(format!("CAIRN_ROOT_KEY is no root key: {why}")))?;
        return Ok(Found {
            keys: Keys {
                root: vec![key],
                encrypted: given.encrypted,
            },
            source: Source::Variable,
            warnings: Vec::new(),
        });
    }
    let default = state.map(|state| state.join(FILE_NAME));
    let Some(path) = given.file.clone().or(default) else {
        return Ok(none(given.encrypted));
    };
    let mut root = Vec::new();
    for candidate in [path.clone(), next(&path)] {
        match read(&candidate) {
            Ok(key) => root.push(key),
            // Made under a name of its own, so it is there whole or not at all.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&candidate, &error)),
        }
    }
    if root.is_empty() {
        return match &given.file {
            Some(file) => Err(unreadable(file, &io::ErrorKind::NotFound.into())),
            None => Ok(none(given.encrypted)),
        };
    }
    let mut warnings = Vec::new();
    if let Ok(metadata) = fs::metadata(&path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        warnings.push(format!(
            "{} can be read by others than its owner: chmod 600 it",
            path.display()
        ));
    }
    Ok(Found {
        keys: Keys {
            root,
            encrypted: given.encrypted,
        },
        source: Source::File(path),
        warnings,
    })
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    ConfigError(format!(
        "the root key file {} cannot be read: {error}",
        path.display()
    ))
}

/// Whether no node was ever started in these directories. What cannot be looked at is there.
#[must_use]
pub fn is_first_start(drives: &[PathBuf], state: &Path) -> bool {
    let is_there = |path: PathBuf| !matches!(path.try_exists(), Ok(false));
    let mut members = drives.iter().map(|drive| drive.join("superblock"));
    !members.any(is_there) && !is_there(state.join("witness"))
}

/// Where the next key is while the one in `path` is being replaced.
fn next(path: &Path) -> PathBuf {
    beside(path, "new")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn read(path: &Path) -> io::Result<RootKey> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is too long for a key"));
    }
    fs::read_to_string(path)?.parse().map_err(io::Error::other)
}

/// Writes a key to a new file that only its owner may read: there whole and durable, or not at all.
///
/// # Errors
/// The file system's; `AlreadyExists` when there is a file.
pub fn write(path: &Path, key: &RootKey) -> io::Result<()> {
    let directory = parent(path);
    fs::create_dir_all(directory)?;
    let part = beside(path, "part");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    // Left from another time it may have another mode.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    writeln!(file, "{}", key.to_text())?;
    file.sync_all()?;
    // A link is refused where there is a file.
    fs::hard_link(&part, path)?;
    fs::remove_file(&part)?;
    sync(directory)
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A root key on its way to take another one's place.
#[derive(Debug)]
pub struct Replacement {
    /// The key from now on.
    pub key: RootKey,
    /// The file that it is in.
    path: PathBuf,
    /// The file whose place it takes; none when it stays where it is.
    replaces: Option<PathBuf>,
}

impl Replacement {
    /// Makes the next key durable, or takes the one that a rotation before this one left: in `named`, or else beside the
    /// file that the old one is in. `fresh` is a random key.
    ///
    /// # Errors
    /// [`ConfigError`] when the old key is in no file and no other is named, or when a file cannot be read or written.
    pub fn prepare(
        source: &Source,
        named: Option<&Path>,
        fresh: RootKey,
    ) -> Result<Replacement, ConfigError> {
        let (path, replaces) = match (named, source) {
            (Some(named), _) => (named.to_owned(), None),
            (None, Source::File(file)) => (next(file), Some(file.clone())),
            (None, _) => {
                let what =
                    "the old root key is in no file: name one for the new key with --new-root-key-file";
                return Err(ConfigError(what.to_owned()));
            }
        };
        let key = match read(&path) {
            Ok(key) => key,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write(&path, &fresh).map_err(|error| {
                    ConfigError(format!(
                        "the new root key cannot be written to {}: {error}",
                        path.display()
                    ))
                })?;
                fresh
            }
            Err(error) => return Err(unreadable(&path, &error)),
        };
        Ok(Replacement { key, path, replaces })
    }

    /// The node's keys are wrapped with the new key: it takes its place. Answers what an operator is to know.
    ///
    /// # Errors
    /// The file system's; the node starts all the same, as both keys are offered to it.
    pub fn complete(self) -> io::Result<String> {
        let Some(file) = self.replaces else {
            return Ok(format!(
                "give {} to the node from now on (--root-key-file)",
                self.path.display()
            ));
        };
        let mut kept = String::new();
        match read(&file) {
            Ok(old) if old.id() != self.key.id() => {
                let path = beside(&file, &old.id().to_string());
                match fs::hard_link(&file, &path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                kept = format!(
                    "; the old one is kept in {} for backups that need it",
                    path.display()
                );
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&self.path, &file)?;
        sync(parent(&file))?;
        Ok(format!("it is in {}{kept}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use cairn_engine::sealing::RootKeyId;

    use super::*;

    const FIRST: [u8; 32] = [1; 32];
    const SECOND: [u8; 32] = [2; 32];

    fn roots(found: &Found) -> Vec<RootKeyId> {
        found.keys.root.iter().map(RootKey::id).collect()
    }

    fn id(bytes: [u8; 32]) -> RootKeyId {
        RootKey::new(bytes).id()
    }

    #[test]
    fn a_key_is_found_where_it_was_said_to_be() {
        let home = tempfile::tempdir().unwrap();
        let (state, named) = (home.path().join("state"), home.path().join("named"));
        let given = Given::default();
        assert_eq!(find(&given, Some(&state)).unwrap().source, Source::None);
        write(&state.join(FILE_NAME), &RootKey::new(FIRST)).unwrap();
        let found = find(&given, Some(&state)).unwrap();
        assert_eq!((roots(&found), found.warnings.len()), (vec![id(FIRST)], 0));
        assert!(write(&state.join(FILE_NAME), &RootKey::new(SECOND)).is_err());

        let given = Given {
            file: Some(named.clone()),
            ..given
        };
        let why = find(&given, Some(&state)).unwrap_err().to_string();
        assert!(why.contains("named"), "{why}");
        fs::write(&named, "0123").unwrap();
        assert!(
            find(&given, Some(&state))
                .unwrap_err()
                .0
                .contains("64 hexadecimal")
        );
        fs::write(
            &named,
            format!("  {}\n", RootKey::new(SECOND).to_text().to_uppercase()),
        )
        .unwrap();
        fs::set_permissions(&named, fs::Permissions::from_mode(0o644)).unwrap();
        let found = find(&given, Some(&state)).unwrap();
        assert_eq!((roots(&found), found.warnings.len()), (vec![id(SECOND)], 1));

        let given = Given {
            variable: Some(RootKey::new(FIRST).to_text()),
            ..given
        };
        let found = find(&given, Some(&state)).unwrap();
        assert_eq!((roots(&found), found.source), (vec![id(FIRST)], Source::Variable));
        let given = Given {
            encrypted: Some(false),
            ..given
        };
        assert!(find(&given, Some(&state)).unwrap().keys.root.is_empty());
    }

    #[test]
    fn a_replacement_that_is_cut_off_is_gone_on_with() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(FILE_NAME);
        write(&file, &RootKey::new(FIRST)).unwrap();
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let found = || find(&Given::default(), Some(home.path())).unwrap();
        let prepare = |bytes| Replacement::prepare(&found().source, None, RootKey::new(bytes)).unwrap();
        drop(prepare(SECOND));
        assert_eq!(roots(&found()), [id(FIRST), id(SECOND)]);
        let replacement = prepare([3; 32]);
        assert_eq!(replacement.key.id(), id(SECOND));
        replacement.complete().unwrap();
        assert_eq!(roots(&found()), [id(SECOND)]);
        let kept = home.path().join(format!("{FILE_NAME}.{}", id(FIRST)));
        assert_eq!(read(&kept).unwrap().id(), id(FIRST));

        let elsewhere = home.path().join("elsewhere");
        let named = Replacement::prepare(&Source::Variable, Some(&elsewhere), RootKey::new(FIRST)).unwrap();
        assert!(named.complete().unwrap().contains("elsewhere"));
        assert_eq!(roots(&found()), [id(SECOND)]);
        assert!(Replacement::prepare(&Source::Variable, None, RootKey::new(FIRST)).is_err());
    }
}
