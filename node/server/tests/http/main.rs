//! The HTTP server in the simulator: what travels on the connection, byte by byte, and what time does to it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test; its helpers are not marked as such"
)]

mod answers;
mod gzip;
mod limits;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use cairn::answers::Answers;
use cairn::api::ApiError;
use cairn::credentials::Credentials;
use cairn::http::{Dynamodb, Handler, Limits, Server};
use cairn::logging::Logger;
use cairn::metrics::Metrics;
use cairn::sigv4::Authority;
use cairn_runtime::sim::{Config, Handle, NodeIndex, SimConnection, SimRuntime, Simulation};
use cairn_runtime::{Connection, Queue, Runtime, ShardIndex};

const NODE: NodeIndex = NodeIndex(0);
const PORT: u16 = 8000;
/// What large answers may take together.
pub(crate) const ANSWERS_BYTES: usize = 1 << 20;

/// Operations that answer with what they were asked, late, or not well.
pub(crate) struct Echo {
    runtime: SimRuntime,
    calls: Rc<Cell<usize>>,
}

impl Handler for Echo {
    async fn call(&self, operation: &str, body: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
        self.calls.set(self.calls.get() + 1);
        match operation {
            "GetItem" => out.extend_from_slice(body),
            "PutItem" => {
                self.runtime.sleep(Duration::from_millis(300)).await;
                out.extend_from_slice(b"{\"late\":true}");
            }
            "Query" => self.runtime.sleep(Duration::from_secs(3600)).await,
            _ => return Err(ApiError::validation(format!("no \"{operation}\""))),
        }
        Ok(())
    }
}

pub(crate) type EchoServer = Server<SimRuntime, Dynamodb<SimRuntime, Echo>>;

/// A world with one server in it.
#[derive(Clone)]
pub(crate) struct World {
    pub handle: Handle,
    pub server: EchoServer,
    pub calls: Rc<Cell<usize>>,
}

/// Runs `scenario` outside of the node on which a server of these limits runs.
pub(crate) fn with_server(
    limits: Limits,
    credentials: Option<&str>,
    scenario: impl AsyncFnOnce(World) + 'static,
) {
    let keys = credentials.map(|text| Credentials::parse(text).unwrap());
    let sim = Simulation::new(11, Config::default());
    sim.run(async move |handle| {
        let runtime = handle.runtime(NODE, ShardIndex(0));
        let calls = Rc::new(Cell::new(0));
        let echo = Echo {
            runtime: runtime.clone(),
            calls: Rc::clone(&calls),
        };
        let authority = keys.map(|keys| Authority::new(keys, "dynamodb"));
        let metrics = Rc::new(Metrics::default());
        let expanded_bytes_max = limits.large_bodies_bytes;
        let logger = Logger::silent();
        let dynamodb = Dynamodb::new(
            runtime.clone(),
            echo,
            authority,
            metrics,
            logger,
            expanded_bytes_max,
        );
        let server = Server::new(runtime.clone(), dynamodb, limits, Answers::new(ANSWERS_BYTES));
        let listener = runtime.listen(handle.socket_address(NODE, PORT)).unwrap();
        let running = server.clone();
        runtime.spawn(Queue::Foreground, async move {
            running.serve(listener).await.unwrap()
        });
        scenario(World {
            handle,
            server,
            calls,
        })
        .await;
    });
}

impl World {
    pub(crate) async fn connect(&self) -> Client {
        let address = self.handle.socket_address(NODE, PORT);
        let connection = self.handle.outside().connect(address).await.unwrap();
        Client {
            connection,
            runtime: self.handle.outside(),
            received: Vec::new(),
        }
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        self.handle.outside().sleep(duration).await;
    }

    /// Sends a request whole and gives the answer, on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> String {
        let mut client = self.connect().await;
        client.send(request.as_bytes()).await;
        client.answer().await
    }
}

/// One connection to the server.
pub(crate) struct Client {
    connection: SimConnection,
    runtime: SimRuntime,
    received: Vec<u8>,
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // The server may have closed already; what it said is what counts.
        let _ = self.connection.send(bytes.to_vec()).await;
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        self.runtime.sleep(duration).await;
    }

    async fn receive(&mut self) -> bool {
        matches!(self.connection.receive(&mut self.received).await, Ok(1..))
    }

    /// The next answer's head and body; checks length and checksum.
    pub(crate) async fn whole_answer(&mut self) -> (String, Vec<u8>) {
        let head_bytes = loop {
            match self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if self.receive().await => {}
                None => {
                    let received = String::from_utf8_lossy(&self.received);
                    return (format!("closed after {received:?}"), Vec::new());
                }
            }
        };
        let head = String::from_utf8(self.received[..head_bytes].to_vec()).unwrap();
        let header = |name: &str| {
            let line = head.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':').unwrap().1.trim().to_owned())
        };
        let length: usize = header("Content-Length").map_or(0, |length| length.parse().unwrap());
        while self.received.len() < head_bytes + length {
            assert!(self.receive().await, "the body ends early");
        }
        let rest = self.received.split_off(head_bytes + length);
        let answer = std::mem::replace(&mut self.received, rest);
        if let Some(checksum) = header("x-amz-crc32") {
            assert_eq!(checksum, crc32fast::hash(&answer[head_bytes..]).to_string());
        }
        if let Some(id) = header("x-amzn-RequestId") {
            assert_eq!(id.len(), 52);
            assert!(
                id.bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
            );
        }
        (head, answer[head_bytes..].to_vec())
    }

    /// The next answer without the parts that differ from run to run.
    pub(crate) async fn answer(&mut self) -> String {
        let (head, body) = self.whole_answer().await;
        if !head.ends_with("\r\n\r\n") {
            return head;
        }
        let lines = head.lines().filter(|line| {
            !["x-amz-crc32", "x-amzn-RequestId", "Content-Length"]
                .iter()
                .any(|name| line.starts_with(name))
        });
        let shown: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
        format!("{}\n{}", shown.join("\n"), String::from_utf8_lossy(&body))
    }

    /// Whether the server has closed, having said nothing more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        !self.receive().await && self.received.is_empty()
    }
}

/// A request to an operation.
pub(crate) fn request(operation: &str, body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: node\r\nX-Amz-Target: DynamoDB_20120810.{operation}\r\n\
         Content-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
