//! Where faults met the code under test: which operation, on which class of files.
//!
//! A class is a file's name without its numbers: `segment-0000000000000003` is `segment`, `log-00000000-00000001.new` is
//! `log.new`. It tells one place of the code from another without knowing any.

use std::collections::BTreeMap;

use super::fault::Operation;

/// What was counted at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Met {
    /// The operation was refused for want of space.
    NoSpace,
    /// The operation was in flight when the power failed.
    PowerLoss,
}

/// How often what was met where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sites {
    counts: BTreeMap<(Met, Operation, String), u64>,
}

/// A file's name without its numbers.
fn class_of(name: &str) -> String {
    let (stem, rest) = name
        .split_once('.')
        .map_or((name, None), |(stem, rest)| (stem, Some(rest)));
    let kind = stem.split('-').next().unwrap_or_default();
    match rest {
        Some(rest) => format!("{kind}.{rest}"),
        None if kind.is_empty() => "directory".to_owned(),
        None => kind.to_owned(),
    }
}

impl Sites {
    pub(super) fn count(&mut self, met: Met, operation: Operation, name: &str) {
        *self.counts.entry((met, operation, class_of(name))).or_default() += 1;
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Sites) {
        for (site, count) in &other.counts {
            *self.counts.entry(site.clone()).or_default() += count;
        }
    }

    /// Operations and classes of files where `met` happened, with how often.
    pub fn of(&self, met: Met) -> impl Iterator<Item = (Operation, &str, u64)> {
        let counts = self.counts.iter().filter(move |((other, ..), _)| *other == met);
        counts.map(|((_, operation, class), count)| (*operation, class.as_str(), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_a_name_without_its_numbers() {
        let classes = [
            ("segment-0000000000000003", "segment"),
            ("log-00000000-00000001", "log"),
            ("log-00000000-00000001.new", "log.new"),
            ("log-00000000.anchor", "log.anchor"),
            ("superblock", "superblock"),
            ("superblock.new", "superblock.new"),
            ("", "directory"),
        ];
        for (name, class) in classes {
            assert_eq!(class_of(name), class);
        }
    }
}
