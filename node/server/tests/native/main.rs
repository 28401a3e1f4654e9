//! The native server in the simulator, frame by frame, over a whole node of several shards.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test; its helpers are not marked as such"
)]

mod answers;
mod sessions;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use cairn::credentials::Credentials;
use cairn::http::Limits;
use cairn::logging::{Format, Level, Logger};
use cairn::metrics::Metrics;
use cairn::native::Server;
use cairn::node::{Node, NodeConfig, Shard};
use cairn_engine::EngineConfig;
use cairn_item::ItemBytes;
use cairn_item::json::Reader;
use cairn_protocol::frame::{self, Kind};
use cairn_protocol::handshake::{Challenge, Hello, Proof, Refused, Welcome};
use cairn_protocol::message::{Failure, Key, KeyPart, Operation, Request, response};
use cairn_runtime::sim::{Config, Handle, NodeIndex, SimConnection, SimRuntime, Simulation};
use cairn_runtime::{Connection, Queue, Runtime, ShardIndex};

pub(crate) const NODE: NodeIndex = NodeIndex(0);
const PORT: u16 = 7600;
const SHARDS: usize = 2;
const MEMORY_BYTES: u64 = 256 << 20;
/// What large answers of a shard may take.
pub(crate) const ANSWER_BYTES_MAX: usize = MEMORY_BYTES as usize / SHARDS / 16;
/// Raised to what one body of the largest size takes.
const BODIES_BYTES: usize = 0;

/// A world with one node in it, whose first shard serves the native protocol.
pub(crate) struct World {
    pub handle: Handle,
    pub server: Server<SimRuntime>,
    pub metrics: Rc<Metrics>,
    pub lines: std::sync::mpsc::Receiver<String>,
    shards: Rc<RefCell<BTreeMap<usize, Shard<SimRuntime>>>>,
}

/// Runs `scenario` outside of the node.
pub(crate) fn with_node(credentials: Option<&str>, scenario: impl AsyncFnOnce(World) + 'static) {
    let keys = credentials.map(|text| Credentials::parse(text).unwrap());
    let config = Config {
        shards: SHARDS,
        ..Config::default()
    };
    Simulation::new(12, config).run(async move |handle| {
        let config = NodeConfig {
            drives: vec!["/drive-a".into(), "/drive-b".into()],
            state: "/state".into(),
            memory_bytes: MEMORY_BYTES,
            engine: EngineConfig {
                log_file_bytes: 16 << 20,
                ..EngineConfig::default()
            },
            ..NodeConfig::default()
        };
        let node = Node::new(config, SHARDS);
        let shards = Rc::new(RefCell::new(BTreeMap::new()));
        for shard in 0..SHARDS {
            let (node, shards) = (node.clone(), Rc::clone(&shards));
            let runtime = handle.runtime(NODE, ShardIndex(shard));
            runtime.clone().spawn(Queue::Foreground, async move {
                let started = node.start_shard(runtime).await.unwrap();
                shards.borrow_mut().insert(shard, started);
            });
        }
        while shards.borrow().len() < SHARDS {
            handle.outside().sleep(Duration::from_millis(1)).await;
        }
        let runtime = handle.runtime(NODE, ShardIndex(0));
        let (logger, lines) = Logger::new(Level::Debug, Format::Human);
        let service = shards.borrow()[&0].service();
        let metrics = Rc::new(Metrics::default());
        let server = Server::new(
            runtime.clone(),
            service,
            keys,
            Rc::clone(&metrics),
            logger,
            &Limits {
                large_bodies_bytes: BODIES_BYTES,
                ..Limits::default()
            },
        );
        let listener = runtime.listen(handle.socket_address(NODE, PORT)).unwrap();
        let running = server.clone();
        runtime.spawn(Queue::Foreground, async move {
            running.serve(listener).await.unwrap()
        });
        scenario(World {
            handle,
            server,
            metrics,
            lines,
            shards,
        })
        .await;
    });
}

impl World {
    pub(crate) async fn sleep(&self, duration: Duration) {
        self.handle.outside().sleep(duration).await;
    }

    pub(crate) async fn connect(&self) -> Client {
        let address = self.handle.socket_address(NODE, PORT);
        let connection = self.handle.outside().connect(address).await.unwrap();
        Client {
            connection,
            received: Vec::new(),
        }
    }

    /// A connection behind the handshake.
    pub(crate) async fn client(&self) -> Client {
        let mut client = self.connect().await;
        client.hello("").await;
        let (kind, _, body) = client.frame().await.unwrap();
        assert_eq!(kind, Kind::Challenge);
        Challenge::decode(&body).unwrap();
        client.send(Kind::Proof, 0, |into| Proof(&[]).encode(into)).await;
        let (kind, _, body) = client.frame().await.unwrap();
        assert_eq!(kind, Kind::Welcome);
        Welcome::decode(&body).unwrap();
        client
    }

    /// Creates a table of a partition key `pk` and a sort key `sk`, both strings; its id.
    pub(crate) async fn create(&self, name: &str) -> u64 {
        let body = format!(
            r#"{{"TableName":"{name}","BillingMode":"PAY_PER_REQUEST",
            "KeySchema":[{{"AttributeName":"pk","KeyType":"HASH"}},{{"AttributeName":"sk","KeyType":"RANGE"}}],
            "AttributeDefinitions":[{{"AttributeName":"pk","AttributeType":"S"}},{{"AttributeName":"sk","AttributeType":"S"}}]}}"#
        );
        let mut client = self.client().await;
        client.json("CreateTable", &body).await.unwrap();
        let name = Operation::OpenTable { name };
        response::decode_table(&client.ask(0, name).await.unwrap())
            .unwrap()
            .id
    }

    /// What answers take of the first shard's memory.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.shards.borrow()[&0].service().answers().taken_bytes()
    }

    /// Stops the shards under the server.
    pub(crate) async fn stop_shards(&self) {
        for (index, shard) in std::mem::take(&mut *self.shards.borrow_mut()) {
            let runtime = self.handle.runtime(NODE, ShardIndex(index));
            runtime.spawn(Queue::Foreground, async move {
                shard.close().await.unwrap();
            });
        }
        self.sleep(Duration::from_secs(1)).await;
    }
}

/// One connection to the server.
pub(crate) struct Client {
    pub connection: SimConnection,
    received: Vec<u8>,
}

impl Client {
    pub(crate) async fn send(&mut self, kind: Kind, id: u64, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, kind, id, write);
        // The server may have closed already; what it said is what counts.
        let _ = self.connection.send(bytes).await;
    }

    pub(crate) async fn hello(&mut self, access_key: &str) {
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            features: 0,
            nonce: [7; 32],
            access_key,
        };
        self.send(Kind::Hello, 0, |into| hello.encode(into)).await;
    }

    pub(crate) async fn request(&mut self, id: u64, table: u64, operation: Operation<'_>) {
        let request = Request {
            budget_us: 0,
            table,
            epoch: 0,
            trace: [0xab; 16],
            operation,
        };
        self.send(Kind::Request, id, |into| request.encode(into)).await;
    }

    /// The next frame: kind, id and body; none when the server has closed.
    pub(crate) async fn frame(&mut self) -> Option<(Kind, u64, Vec<u8>)> {
        loop {
            if let Some((frame, taken)) = frame::decode(&self.received).unwrap() {
                let found = (frame.kind, frame.request_id, frame.body.to_vec());
                self.received.drain(..taken);
                return Some(found);
            }
            if !matches!(self.connection.receive(&mut self.received).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// Sends one request and gives its answer.
    pub(crate) async fn ask(&mut self, table: u64, operation: Operation<'_>) -> Result<Vec<u8>, Failure> {
        self.request(1, table, operation).await;
        let (kind, id, body) = self.frame().await.expect("an answer");
        assert_eq!(id, 1);
        match kind {
            Kind::Response => Ok(body),
            Kind::Failure => Err(Failure::decode(&body).unwrap()),
            _ => panic!("{kind:?} {:?}", Refused::decode(&body)),
        }
    }

    pub(crate) async fn json(&mut self, name: &str, body: &str) -> Result<String, Failure> {
        let body = body.as_bytes();
        let answer = self.ask(0, Operation::Json { name, body }).await?;
        Ok(String::from_utf8(response::decode_json(&answer).unwrap().to_vec()).unwrap())
    }
}

/// An archived item of DynamoDB's JSON.
pub(crate) fn archived(json: &str) -> Vec<u8> {
    let item = Reader::new(json.as_bytes()).unwrap().item().unwrap();
    ItemBytes::from_item(&item).into_vec()
}

pub(crate) fn key<'a>(partition: &'a str, sort: &'a str) -> Key<'a> {
    Key {
        partition: KeyPart::S(partition),
        sort: Some(KeyPart::S(sort)),
    }
}
