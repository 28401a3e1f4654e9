//! The keys and how they are kept: each wrapped by the one above it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;

use cairn_runtime::Runtime;

use super::{FileCipher, KEY_BYTES, SALT_BYTES, Secret, TAG_BYTES};
use crate::canary::{self, Canary};
use crate::ids::{LogId, NodeId, SegmentId, TableId};

/// Bytes of a wrapped key: salt, sealed key, tag.
pub(crate) const WRAPPED_BYTES: usize = SALT_BYTES + KEY_BYTES + TAG_BYTES;
/// The id of a node's first key, and so far of its only one.
const FIRST_KEY_ID: u32 = 1;
/// Tables whose key is remembered although none of their segments is open; more are forgotten at once.
const IDLE_TABLES_MAX: usize = 1024;

/// Tells root keys apart without showing them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RootKeyId(pub u64);

impl fmt::Display for RootKeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// The key that everything hangs on. It is never on the drives.
#[derive(Clone, PartialEq, Eq)]
pub struct RootKey(Arc<Secret>);

impl RootKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> RootKey {
        RootKey(Arc::new(Secret::new(bytes)))
    }

    /// What identifies it.
    #[must_use]
    pub fn id(&self) -> RootKeyId {
        let derived = self.0.derive(&[0; SALT_BYTES], &[b"cairn root key id"]);
        RootKeyId(u64::from_le_bytes(
            *derived.0.first_chunk().expect("a key has 32 bytes"),
        ))
    }

    /// The key in words: 64 hexadecimal digits, which [`str::parse`] reads again.
    #[must_use]
    pub fn to_text(&self) -> String {
        hex(&self.0.0)
    }

    /// A new node key, wrapped.
    pub(crate) fn make_node_key<R: Runtime>(&self, runtime: &R, node: NodeId) -> (NodeKey, WrappedNodeKey) {
        let key = NodeKey {
            node,
            id: FIRST_KEY_ID,
            secret: random(runtime),
        };
        let wrapped = self.wrap(runtime, &key);
        (key, wrapped)
    }

    /// The node key as it is kept under this root key.
    pub(crate) fn wrap<R: Runtime>(&self, runtime: &R, key: &NodeKey) -> WrappedNodeKey {
        WrappedNodeKey {
            id: key.id,
            root: self.id(),
            wrapped: Wrapped::new(runtime, &self.0, &about_node(key.node, key.id), &key.secret),
        }
    }

    /// The node key; none when it is not kept under this root key.
    pub(crate) fn unwrap(&self, node: NodeId, kept: &WrappedNodeKey) -> Option<NodeKey> {
        Some(NodeKey {
            node,
            id: kept.id,
            secret: kept.wrapped.open(&self.0, &about_node(node, kept.id))?,
        })
    }
}

impl FromStr for RootKey {
    type Err = String;

    fn from_str(text: &str) -> Result<RootKey, String> {
        let text = text.trim();
        let wrong = || "a root key is 64 hexadecimal digits, such as `openssl rand -hex 32` makes".to_owned();
        if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; KEY_BYTES];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16)
                .ok()
                .filter(|_| text.as_bytes()[at].is_ascii_hexdigit())
                .ok_or_else(wrong)?;
        }
        Ok(RootKey::new(bytes))
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RootKey({})", self.id())
    }
}

/// What a start knows of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// Root keys, one of which is the node's: while a rotation is going on there are two. The first one is a new node's.
    pub root: Vec<RootKey>,
    /// Whether the node is to be encrypted; none leaves it to the node, and a new one is if there is a root key. A node that
    /// exists stays what it is, and is refused when that is not what is asked for.
    pub encrypted: Option<bool>,
}

impl Keys {
    /// This root key, and encryption if the node is new.
    #[must_use]
    pub fn of(root: RootKey) -> Keys {
        Keys {
            root: vec![root],
            encrypted: None,
        }
    }
}

/// A node's key as superblock and witness keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedNodeKey {
    /// Which of the node's keys it is; never 0.
    pub(crate) id: u32,
    /// The root key that opens it.
    pub root: RootKeyId,
    pub(crate) wrapped: Wrapped,
}

/// A key that another one has sealed: | salt | sealed key | tag |.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wrapped(Box<[u8; WRAPPED_BYTES]>);

impl fmt::Debug for Wrapped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex(self.bytes()))
    }
}

impl Wrapped {
    pub(crate) fn from_bytes(bytes: [u8; WRAPPED_BYTES]) -> Wrapped {
        Wrapped(Box::new(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; WRAPPED_BYTES] {
        &self.0
    }

    fn new<R: Runtime>(runtime: &R, by: &Secret, about: &[u8], secret: &Secret) -> Wrapped {
        let mut bytes = [0; WRAPPED_BYTES];
        let (salt, rest) = bytes.split_first_chunk_mut().expect("it begins with the salt");
        runtime.random_secret(salt);
        let (key, tag) = rest.split_at_mut(KEY_BYTES);
        key.copy_from_slice(&secret.0);
        tag.copy_from_slice(&wrapping(by, salt).seal(0, about, key));
        Wrapped::from_bytes(bytes)
    }

    fn open(&self, by: &Secret, about: &[u8]) -> Option<Secret> {
        let (salt, rest) = self.0.split_first_chunk().expect("it begins with the salt");
        let (key, tag) = rest.split_at(KEY_BYTES);
        let mut secret = Secret::new([0; KEY_BYTES]);
        let opened = wrapping(by, salt).open(0, about, key, tag, &mut secret.0);
        opened.ok().map(|()| secret)
    }
}

fn wrapping(by: &Secret, salt: &[u8; SALT_BYTES]) -> FileCipher {
    FileCipher::new(&by.derive(salt, &[b"cairn wrapping"]), 0)
}

fn about_node(node: NodeId, key: u32) -> Vec<u8> {
    [b"node".as_slice(), &node.0.to_le_bytes(), &key.to_le_bytes()].concat()
}

fn about_table(node: NodeId, table: TableId, key: u32) -> Vec<u8> {
    let node = node.0.to_le_bytes();
    [
        b"table".as_slice(),
        &node,
        &table.0.to_le_bytes(),
        &key.to_le_bytes(),
    ]
    .concat()
}

/// The key of a node: seals its logs and wraps the keys of its tables.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NodeKey {
    node: NodeId,
    id: u32,
    secret: Secret,
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NodeKey({})", self.id)
    }
}

impl NodeKey {
    /// Seals the batches of one use of a log file.
    pub(crate) fn log_cipher(&self, log: LogId, file_number: u64, salt: &[u8; SALT_BYTES]) -> FileCipher {
        let info: [&[u8]; 3] = [b"cairn log", &log.0.to_le_bytes(), &file_number.to_le_bytes()];
        FileCipher::new(&self.secret.derive(salt, &info), self.id)
    }
}

/// The key of a table, as one engine knows it.
pub(crate) struct TableKey {
    /// From 1; a rotation takes the next.
    pub(crate) id: u32,
    pub(crate) wrapped: Wrapped,
    secret: Secret,
}

impl fmt::Debug for TableKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TableKey({})", self.id)
    }
}

impl TableKey {
    fn new<R: Runtime>(runtime: &R, node: &NodeKey, table: TableId, id: u32) -> TableKey {
        let secret = random(runtime);
        let about = about_table(node.node, table, id);
        TableKey {
            id,
            wrapped: Wrapped::new(runtime, &node.secret, &about, &secret),
            secret,
        }
    }

    /// Seals the blocks of a segment.
    pub(crate) fn segment_cipher(&self, segment: SegmentId, salt: &[u8; SALT_BYTES]) -> FileCipher {
        let info: [&[u8]; 2] = [b"cairn segment", &segment.0.to_le_bytes()];
        FileCipher::new(&self.secret.derive(salt, &info), self.id)
    }
}

/// The keys of the tables that an engine has segments of. A key is in the header of every segment that it seals, so what
/// is here is only what has been seen, and the newest of each table is the one for new segments.
#[derive(Default)]
pub(crate) struct TableKeys {
    /// None when nothing is sealed.
    node: Option<Arc<NodeKey>>,
    newest: RefCell<BTreeMap<TableId, Rc<TableKey>>>,
}

impl TableKeys {
    pub(crate) fn new(node: Option<Arc<NodeKey>>) -> TableKeys {
        TableKeys {
            node,
            newest: RefCell::default(),
        }
    }

    /// The key for a new segment of `table`; none when nothing is sealed.
    pub(crate) fn newest<R: Runtime>(&self, runtime: &R, table: TableId) -> Option<Rc<TableKey>> {
        let node = self.node.as_ref()?;
        if let Some(key) = self.newest.borrow().get(&table) {
            return Some(Rc::clone(key));
        }
        let key = Rc::new(TableKey::new(runtime, node, table, FIRST_KEY_ID));
        self.remember(table, &key);
        Some(key)
    }

    /// The key that the header of a segment holds.
    ///
    /// # Errors
    /// When it is not one of this node's, or none, in words.
    pub(crate) fn of(
        &self,
        table: TableId,
        sealed: Option<(u32, &Wrapped)>,
    ) -> Result<Option<Rc<TableKey>>, &'static str> {
        let (node, (id, wrapped)) = match (&self.node, sealed) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err("the segment is sealed and this node's key is not known"),
            (Some(_), None) => return Err("the segment is not sealed, as everything of this node is"),
            (Some(node), Some(sealed)) => (node, sealed),
        };
        if let Some(key) = self.newest.borrow().get(&table)
            && key.wrapped == *wrapped
        {
            return Ok(Some(Rc::clone(key)));
        }
        if canary::is_in(Canary::ForgetOldTableKey)
            && let Some(known) = self.newest.borrow().get(&table)
        {
            return Ok(Some(Rc::clone(known)));
        }
        let secret = wrapped
            .open(&node.secret, &about_table(node.node, table, id))
            .ok_or("the segment's key is not sealed with this node's")?;
        let key = Rc::new(TableKey {
            id,
            wrapped: wrapped.clone(),
            secret,
        });
        let newer = self.newest.borrow().get(&table).is_none_or(|known| known.id < id);
        if newer {
            self.remember(table, &key);
        }
        Ok(Some(key))
    }

    /// From now on new segments of `table` are sealed with another key, if any were sealed before.
    pub(crate) fn rotate<R: Runtime>(&self, runtime: &R, table: TableId) {
        let Some(node) = &self.node else { return };
        let Some(id) = self.newest.borrow().get(&table).map(|key| key.id + 1) else {
            return;
        };
        let key = Rc::new(TableKey::new(runtime, node, table, id));
        self.remember(table, &key);
    }

    /// Whether new segments of `table` have a newer key than this one.
    pub(crate) fn is_old(&self, table: TableId, key: u32) -> bool {
        let newest = self.newest.borrow();
        newest.get(&table).is_some_and(|newest| newest.id > key)
    }

    fn remember(&self, table: TableId, key: &Rc<TableKey>) {
        let mut newest = self.newest.borrow_mut();
        newest.insert(table, Rc::clone(key));
        if newest.len() > IDLE_TABLES_MAX {
            // What a segment or a writer holds stays. The next segment of a table that is forgotten begins with a new key,
            // which its header holds like any other. What took the place of another key is what tells that one to be old.
            newest.retain(|_, key| Rc::strong_count(key) > 1 || key.id > FIRST_KEY_ID);
        }
    }
}

fn random<R: Runtime>(runtime: &R) -> Secret {
    let mut secret = Secret::new([0; KEY_BYTES]);
    runtime.random_secret(&mut secret.0);
    secret
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
