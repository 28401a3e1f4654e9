//! What must be there: for each key the last acknowledged write, and the one in flight. Every change is also a line
//! of a file, so that a run that fails can be read afterwards.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Write {
    version: u64,
    delete: bool,
}

impl Write {
    /// What a read finds after it.
    fn visible(self) -> Option<u64> {
        (!self.delete).then_some(self.version)
    }
}

#[derive(Debug, Default)]
struct State {
    acknowledged: Option<Write>,
    in_flight: Option<Write>,
}

pub(crate) struct Expected {
    file: File,
    path: PathBuf,
    versions: u64,
    keys: BTreeMap<String, State>,
}

impl Expected {
    pub(crate) fn create(path: PathBuf) -> Expected {
        let file = File::create(&path).unwrap();
        Expected {
            file,
            path,
            versions: 0,
            keys: BTreeMap::new(),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.keys.keys().cloned().collect()
    }

    /// A write is about to be sent; gives its version.
    pub(crate) fn begin(&mut self, name: &str, delete: bool) -> u64 {
        self.versions += 1;
        let write = Write {
            version: self.versions,
            delete,
        };
        writeln!(
            self.file,
            "begin {name} {} {}",
            write.version,
            if delete { "delete" } else { "put" }
        )
        .unwrap();
        let state = self.keys.entry(name.to_owned()).or_default();
        assert_eq!(state.in_flight, None, "one write of a key at a time");
        state.in_flight = Some(write);
        write.version
    }

    pub(crate) fn acknowledge(&mut self, name: &str) {
        let state = self.keys.get_mut(name).unwrap();
        state.acknowledged = state.in_flight.take();
        writeln!(self.file, "acknowledged {name}").unwrap();
    }

    /// A read after a restart: it settles what became of the write in flight.
    pub(crate) fn observe(&mut self, name: &str, found: Option<u64>) {
        writeln!(self.file, "found {name} {found:?}").unwrap();
        let state = self.keys.get_mut(name).unwrap();
        let before = state.acknowledged.and_then(Write::visible);
        let in_flight = state.in_flight.take();
        if found == before && in_flight.is_none_or(|write| write.visible() != found) {
            return;
        }
        match in_flight {
            Some(write) if write.visible() == found => state.acknowledged = Some(write),
            _ => panic!(
                "{name} holds {found:?}; acknowledged was {:?}, in flight {in_flight:?} (see {})",
                state.acknowledged,
                self.path.display()
            ),
        }
    }
}
