//! Makes a failing run small: the same seed with less of everything, as long as it still fails.
//!
//! A run is drawn from its seed as a whole, so a smaller one is the same seed with some of its sizes **set**. Every
//! size is tried at its least, then at half of what it is, over and over until nothing can be taken away. What fails may
//! change on the way: any failure of a smaller run is worth more than the same one of a larger.

use std::fmt;
use std::str::FromStr;

use super::run::{Failure, run};
use super::scenario::{MirrorFault, Scenario};

/// Runs that one shrinking may make.
const RUNS_MAX: u32 = 400;

/// A size of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Rounds.
    Rounds,
    /// Clients.
    Clients,
    /// Operations of a client in a round.
    Operations,
    /// Partitions.
    Partitions,
    /// Keys of a partition.
    Keys,
    /// Bytes of the largest item.
    ItemBytes,
    /// 0: the mirrors are healthy.
    Faults,
    /// Places damaged while the node is down.
    Damage,
}

const SIZES: [(Size, &str, u64); 8] = [
    (Size::Rounds, "rounds", 1),
    (Size::Faults, "faults", 0),
    (Size::Damage, "damage", 0),
    (Size::Clients, "clients", 1),
    (Size::Operations, "operations", 1),
    (Size::Partitions, "partitions", 1),
    (Size::Keys, "keys", 1),
    (Size::ItemBytes, "item-bytes", 16),
];

/// A size, set: `clients=1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    size: Size,
    value: u64,
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = SIZES.iter().find(|(size, ..)| *size == self.size);
        let (_, name, _) = row.expect("all sizes are listed");
        write!(formatter, "{name}={}", self.value)
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Setting, String> {
        let names = SIZES.map(|(_, name, _)| name).join(", ");
        let wrong = || format!("{text:?} is not NAME=NUMBER with a name of: {names}");
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let row = SIZES.iter().find(|(_, known, _)| *known == name);
        let &(size, _, least) = row.ok_or_else(wrong)?;
        let value: u64 = value.parse().map_err(|_| wrong())?;
        if value < least {
            return Err(format!("{name} is at least {least}"));
        }
        Ok(Setting { size, value })
    }
}

impl Scenario {
    /// The same run with a size set. It is never larger than the seed made it.
    #[must_use]
    pub fn set(mut self, setting: Setting) -> Scenario {
        let value = setting.value;
        let count = usize::try_from(value).unwrap_or(usize::MAX);
        match setting.size {
            Size::Rounds => {
                // The last is what closes the node.
                let keep = count.clamp(1, self.rounds.len());
                let fewer = self.rounds.len() - keep;
                self.rounds.drain(..fewer);
                self.rotations.drain(..fewer);
                self.backups.drain(..fewer);
                self.looks.drain(..fewer);
            }
            Size::Clients => self.clients = self.clients.min(count),
            Size::Operations => self.operations = self.operations.min(value),
            Size::Partitions => self.partitions = self.partitions.min(value),
            Size::Keys => self.keys = self.keys.min(value),
            Size::ItemBytes => {
                let (least, most) = (*self.item_bytes.start(), *self.item_bytes.end());
                self.item_bytes = least..=most.min(value.max(least));
            }
            Size::Faults if value == 0 => (self.fault, self.fails) = (MirrorFault::None, None),
            Size::Faults => {}
            Size::Damage => {
                self.damage = self
                    .damage
                    .map(|damage| damage.min(u32::try_from(value).unwrap_or(damage)))
            }
        }
        self
    }

    fn size(&self, size: Size) -> u64 {
        match size {
            Size::Rounds => self.rounds.len() as u64,
            Size::Clients => self.clients as u64,
            Size::Operations => self.operations,
            Size::Partitions => self.partitions,
            Size::Keys => self.keys,
            Size::ItemBytes => *self.item_bytes.end(),
            Size::Faults => u64::from(self.fault != MirrorFault::None || self.fails.is_some()),
            Size::Damage => self.damage.map_or(0, u64::from),
        }
    }
}

/// The smallest run that was found to fail still, as settings of `scenario`, and how it fails; `failure` is how the whole
/// one does.
#[must_use]
pub fn shrink(scenario: &Scenario, failure: Failure) -> (Vec<Setting>, Failure) {
    let (mut smallest, mut failure, mut settings) = (scenario.clone(), failure, Vec::<Setting>::new());
    let mut runs = 0;
    loop {
        let mut smaller = false;
        for (size, _, least) in SIZES {
            let now = smallest.size(size);
            for value in [least, now / 2, now.saturating_sub(1)] {
                if value < least || value >= smallest.size(size) || runs == RUNS_MAX {
                    continue;
                }
                runs += 1;
                let setting = Setting { size, value };
                let tried = smallest.clone().set(setting);
                if let Err(how) = run(tried.clone(), false) {
                    (smallest, failure, smaller) = (tried, how, true);
                    settings.retain(|other| other.size != size);
                    settings.push(setting);
                }
            }
        }
        if !smaller || runs == RUNS_MAX {
            return (settings, failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_engine::canary::{Canary, put_in};

    use super::*;

    #[test]
    fn settings_are_written_and_read() {
        for text in ["rounds=1", "clients=3", "faults=0", "item-bytes=16"] {
            assert_eq!(text.parse::<Setting>().unwrap().to_string(), text);
        }
        for wrong in ["clients", "clients=0", "clients=x", "shards=1"] {
            assert!(wrong.parse::<Setting>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_failing_run_becomes_a_small_one_that_fails() {
        let _bug = put_in(Canary::AcknowledgeBeforeDurable);
        let scenario = Scenario::of;
        let mut seeds = (0..100).map(|seed| (seed, run(scenario(seed), false)));
        let (seed, failure) = seeds
            .find_map(|(seed, result)| Some((seed, result.err()?)))
            .expect("the bug is found");
        let (settings, _) = shrink(&scenario(seed), failure);
        assert!(!settings.is_empty());
        let small = settings
            .iter()
            .fold(scenario(seed), |scenario, setting| scenario.set(*setting));
        let whole = scenario(seed);
        assert!(
            small.size(Size::Operations) * (small.size(Size::Clients))
                < whole.operations * whole.clients as u64
        );
        // As the command line would repeat it.
        let again = settings
            .iter()
            .map(|setting| setting.to_string().parse().unwrap());
        assert!(run(again.fold(scenario(seed), Scenario::set), false).is_err());
    }
}
