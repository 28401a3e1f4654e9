//! Which directories may be those of one node: no drive is in another one, and the state directory is on none.
//!
//! What counts is where a path leads ([`cairn_runtime::Runtime::resolve`]), however it is spelled. A drive may be in the state
//! directory: what is mounted there is another device.

use std::path::{Path, PathBuf};

use super::VolumeError;

/// Refuses directories that no node can have together. Nothing is opened or made.
///
/// # Errors
/// [`VolumeError::Config`], naming both.
pub fn check_directories(
    drives: &[PathBuf],
    state: &Path,
    resolve: impl Fn(&Path) -> PathBuf,
) -> Result<(), VolumeError> {
    for (index, path) in drives.iter().enumerate() {
        check_beside(path, &drives[..index], state, &resolve)?;
    }
    Ok(())
}

/// As [`check_directories`], for a drive beside others that have been checked.
pub(super) fn check_beside(
    path: &Path,
    drives: &[PathBuf],
    state: &Path,
    resolve: impl Fn(&Path) -> PathBuf,
) -> Result<(), VolumeError> {
    let whole = resolve(path);
    let refused = |what: String| Err(VolumeError::Config(what));
    for other in drives {
        let other_whole = resolve(other);
        let (shown, other_shown) = (path.display(), other.display());
        if whole == other_whole {
            return refused(format!(
                "{other_shown} and {shown} are the same directory, {}: name every drive once",
                whole.display()
            ));
        }
        let nested = match (whole.starts_with(&other_whole), other_whole.starts_with(&whole)) {
            (true, _) => Some((shown, other_shown)),
            (_, true) => Some((other_shown, shown)),
            _ => None,
        };
        if let Some((inner, outer)) = nested {
            return refused(format!(
                "the drive {inner} is inside the drive {outer}: every drive needs a directory of its own"
            ));
        }
    }
    // Empty: nobody knows where the state is.
    if !state.as_os_str().is_empty() && resolve(state).starts_with(&whole) {
        return refused(format!(
            "the state directory {} is on the drive {}: the witness must be off the drives",
            state.display(),
            path.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leads links `/link` to `/real`, and takes `a/..` away.
    fn resolve(path: &Path) -> PathBuf {
        let mut whole = PathBuf::new();
        for part in path.components() {
            match part.as_os_str().to_str() {
                Some("..") => drop(whole.pop()),
                Some("link") => whole.push("real"),
                _ => whole.push(part),
            }
        }
        whole
    }

    fn check(drives: &[&str], state: &str, expected: &str) {
        let drives: Vec<PathBuf> = drives.iter().map(PathBuf::from).collect();
        let said = check_directories(&drives, Path::new(state), resolve);
        let said = said.err().map_or_else(String::new, |error| error.to_string());
        assert!(
            said.contains(expected) && said.is_empty() == expected.is_empty(),
            "{drives:?} {state}: {said}"
        );
    }

    #[test]
    fn no_directory_is_in_another() {
        check(&["/a", "/b"], "/state", "");
        check(&["/a", "/ab"], "/abc", "");
        check(&["/state/a", "/state/b"], "/state", "");
        check(&["/a", "/b"], "", "");
        check(&["/a", "/a"], "/state", "/a and /a are the same directory");
        check(
            &["/real", "/link"],
            "/state",
            "/real and /link are the same directory, /real",
        );
        check(
            &["/a", "/b/../a"],
            "/state",
            "/a and /b/../a are the same directory",
        );
        check(
            &["/a", "/a/b"],
            "/state",
            "the drive /a/b is inside the drive /a:",
        );
        check(
            &["/link/b", "/real"],
            "/state",
            "the drive /link/b is inside the drive /real:",
        );
        check(&["/a", "/b"], "/b", "the state directory /b is on the drive /b");
        check(
            &["/a", "/real"],
            "/link/state",
            "/link/state is on the drive /real",
        );
        check(&["/a", "/b"], "/c/../a/state", "/c/../a/state is on the drive /a");
    }
}
