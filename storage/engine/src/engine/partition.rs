//! One partition as the engine holds it: its tree, what is in flight, its counters.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

