//! A set of document paths: what a projection keeps, and what an update touches.
//!
//! The paths are sorted, so that those that go into one attribute are neighbours, and each level of the item is walked once
//! beside them. No path is a prefix of another, and the steps from one place are all names or all indexes.

use std::collections::BTreeMap;

use cairn_item::json::{write_string, write_value_view};
use cairn_item::{Attribute, Item, ItemView, Value, ValueView};

use crate::bind::{Bound, Checker, Place, places_text};
use crate::error::{ExpressionError, Parameter, Problem};
use crate::tree::PathId;

#[derive(Debug, Clone)]
pub(crate) struct Paths<'a> {
    places: Vec<Place<'a>>,
    /// Sorted by their places.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    start: usize,
    end: usize,
    /// Number of the path in the text, from 0.
    pub(crate) number: usize,
}

impl<'a> Paths<'a> {
    /// Checks paths, given in the order of the text, from the last to the first as DynamoDB does.
    ///
    /// # Errors
    /// A path is too deep or has an undefined name, or two paths meet.
    pub(crate) fn new(
        parameter: Parameter,
        checker: &mut Checker<'_, 'a>,
        paths: &[PathId],
    ) -> Result<Paths<'a>, ExpressionError> {
        for (number, path) in paths.iter().enumerate().rev() {
            if let Err(error) = checker.path(*path) {
                // Two of the paths after it that meet would have been found before it.
                Paths::apart(parameter, checker.bound, &paths[number + 1..])?;
                return Err(error);
            }
        }
        Paths::apart(parameter, checker.bound, paths)
    }

    fn apart(
        parameter: Parameter,
        bound: &Bound<'a>,
        paths: &[PathId],
    ) -> Result<Paths<'a>, ExpressionError> {
        let mut places = Vec::new();
        let mut entries = Vec::with_capacity(paths.len());
        for (number, path) in paths.iter().enumerate() {
            let start = places.len();
            places.extend(bound.places(*path));
            entries.push(Entry {
                start,
                end: places.len(),
                number,
            });
        }
        entries.sort_by(|left, right| places[left.start..left.end].cmp(&places[right.start..right.end]));
        let set = Paths { places, entries };
        let meet = set.entries.windows(2).any(|pair| {
            let (left, right) = (set.places(pair[0]), set.places(pair[1]));
            let common = left
                .iter()
                .zip(right)
                .take_while(|(left, right)| left == right)
                .count();
            match (left.get(common), right.get(common)) {
                (Some(left), Some(right)) => is_index(left) != is_index(right),
                _ => true,
            }
        });
        if meet {
            return Err(ExpressionError::of(parameter, set.meeting()));
        }
        Ok(set)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn places(&self, entry: Entry) -> &[Place<'a>] {
        &self.places[entry.start..entry.end]
    }

    /// Splits off the leading entries that have the same step at `depth`.
    pub(crate) fn split<'e>(
        &self,
        entries: &'e [Entry],
        depth: usize,
    ) -> Option<(Place<'a>, &'e [Entry], &'e [Entry])> {
        let first = *self.places(*entries.first()?).get(depth)?;
        let count = entries
            .iter()
            .take_while(|entry| self.places(**entry).get(depth) == Some(&first))
            .count();
        Some((first, &entries[..count], &entries[count..]))
    }

    /// Whether a group that was split off at `depth` is one path that ends there.
    pub(crate) fn ends(&self, group: &[Entry], depth: usize) -> bool {
        group.len() == 1 && self.places(group[0]).len() == depth + 1
    }

    /// Which two paths meet, as DynamoDB finds it: it takes the paths from the last to the first and enters them in a tree of
    /// hash maps; the other path it names is the one that its hash order meets first.
    fn meeting(&self) -> Problem {
        let mut in_text = self.entries.clone();
        in_text.sort_by_key(|entry| std::cmp::Reverse(entry.number));
        let mut root = Branch::default();
        for entry in in_text {
            let places = self.places(entry);
            let mut branch = &mut root;
            for (depth, place) in places.iter().enumerate() {
                let last = depth + 1 == places.len();
                let conflict = !branch.children.contains_key(place)
                    && branch
                        .first()
                        .is_some_and(|first| is_index(first) != is_index(place));
                let overlap = branch
                    .children
                    .get(place)
                    .is_some_and(|(_, child)| last || child.children.is_empty());
                if conflict || overlap {
                    let one = places_text(places.iter().copied());
                    let mut other = places[..depth].to_vec();
                    branch.first_path(&mut other);
                    let two = places_text(other.into_iter());
                    return if conflict {
                        Problem::PathsConflict { one, two }
                    } else {
                        Problem::PathsOverlap { one, two }
                    };
                }
                let order = branch.children.len();
                branch = &mut branch
                    .children
                    .entry(*place)
                    .or_insert_with(|| (order, Branch::default()))
                    .1;
            }
        }
        unreachable!("called when two paths meet")
    }

    /// The parts of the item that the paths name.
    pub(crate) fn project(&self, item: ItemView<'_>) -> Item {
        let get = |place: Place<'_>| match place {
            Place::Name(name) => item.get(name),
            Place::Index(_) => None,
        };
        match self.project_level(&self.entries, 0, &get) {
            Some(Value::M(attributes)) => Item::from_attributes(attributes),
            _ => Item::new(),
        }
    }

    /// A map or list of what the paths name below one place; `None` when there is nothing.
    fn project_level<'i>(
        &self,
        mut entries: &[Entry],
        depth: usize,
        get: &dyn Fn(Place<'_>) -> Option<ValueView<'i>>,
    ) -> Option<Value> {
        let (mut attributes, mut elements) = (Vec::new(), Vec::new());
        while let Some((place, group, rest)) = self.split(entries, depth) {
            entries = rest;
            let Some(view) = get(place) else { continue };
            let value = if self.ends(group, depth) {
                view.to_value()
            } else {
                match self.project_level(group, depth + 1, &|place| child(view, place)) {
                    Some(value) => value,
                    None => continue,
                }
            };
            match place {
                Place::Name(name) => attributes.push(Attribute {
                    name: name.to_owned(),
                    value,
                }),
                Place::Index(_) => elements.push(value),
            }
        }
        match (attributes.is_empty(), elements.is_empty()) {
            (false, _) => Some(Value::M(attributes)),
            (true, false) => Some(Value::L(elements)),
            _ => None,
        }
    }

    /// Appends what the paths name as DynamoDB's JSON of an item.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>, item: ItemView<'_>) {
        out.push(b'{');
        self.write_level(out, &self.entries, 0, &|place| match place {
            Place::Name(name) => item.get(name),
            Place::Index(_) => None,
        });
        out.push(b'}');
    }

    /// Appends the members of a map or the elements of a list, and says whether there were any.
    fn write_level<'i>(
        &self,
        out: &mut Vec<u8>,
        mut entries: &[Entry],
        depth: usize,
        get: &dyn Fn(Place<'_>) -> Option<ValueView<'i>>,
    ) -> bool {
        let mut any = false;
        while let Some((place, group, rest)) = self.split(entries, depth) {
            entries = rest;
            let Some(view) = get(place) else { continue };
            let before = out.len();
            if any {
                out.push(b',');
            }
            if let Place::Name(name) = place {
                write_string(out, name);
                out.push(b':');
            }
            if self.ends(group, depth) {
                write_value_view(out, view);
                any = true;
                continue;
            }
            let (open, close): (&[u8], &[u8]) = match view {
                ValueView::M(_) => (b"{\"M\":{", b"}}"),
                _ => (b"{\"L\":[", b"]}"),
            };
            out.extend_from_slice(open);
            if self.write_level(out, group, depth + 1, &|place| child(view, place)) {
                out.extend_from_slice(close);
                any = true;
            } else {
                out.truncate(before);
            }
        }
        any
    }
}

fn is_index(place: &Place<'_>) -> bool {
    matches!(place, Place::Index(_))
}

/// One step down.
pub(crate) fn child<'i>(view: ValueView<'i>, place: Place<'_>) -> Option<ValueView<'i>> {
    match (view, place) {
        (ValueView::M(map), Place::Name(name)) => map.get(name),
        (ValueView::L(list), Place::Index(index)) => list.get(usize::try_from(index).ok()?),
        _ => None,
    }
}

/// Children by their step, each with the order in which it came.
#[derive(Default)]
struct Branch<'a> {
    children: BTreeMap<Place<'a>, (usize, Branch<'a>)>,
}

impl<'a> Branch<'a> {
    /// The child that a Java `HashMap` gives first: buckets in order, and in a bucket the elder first.
    fn first(&self) -> Option<&Place<'a>> {
        let mut buckets = 16;
        while self.children.len() > buckets / 4 * 3 {
            buckets *= 2;
        }
        let bucket = |place: &Place<'_>| {
            let hash = (8191 * 127_u32).wrapping_add(match place {
                Place::Name(name) => name.encode_utf16().fold(0_u32, |hash, unit| {
                    hash.wrapping_mul(31).wrapping_add(unit.into())
                }),
                Place::Index(index) => *index,
            });
            (hash ^ (hash >> 16)) as usize & (buckets - 1)
        };
        let by_bucket = |(place, (order, _)): &(&Place<'_>, &(usize, Branch<'_>))| (bucket(place), *order);
        self.children.iter().min_by_key(by_bucket).map(|(place, _)| place)
    }

    /// Appends the steps to the first leaf.
    fn first_path(&self, path: &mut Vec<Place<'a>>) {
        let mut branch = self;
        while let Some(place) = branch.first() {
            path.push(*place);
            branch = &branch.children[place].1;
        }
    }
}
