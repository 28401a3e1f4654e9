//! A whole node with its fronts in the simulator: how it ends when something is in its way.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test; its helpers are not marked as such"
)]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use cairn::http::Limits;
use cairn::logging::Logger;
use cairn::node::{Node, NodeConfig};
use cairn::serve::{Addresses, Fronts, Plan, Stopper};
use cairn_engine::EngineConfig;
use cairn_runtime::sim::{Config, Handle, NodeIndex, Simulation};
use cairn_runtime::{Connection, Queue, Runtime, ShardIndex};

const NODE: NodeIndex = NodeIndex(0);
const SHARDS: usize = 3;
const SECOND: Duration = Duration::from_secs(1);

/// Which shards have ended, and what they said.
type Ended = Rc<RefCell<Vec<(usize, Result<(), String>)>>>;

/// A node that runs, or has ended.
struct Running {
    handle: Handle,
    stopper: Stopper,
    ended: Ended,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// An address that no node here has.
fn elsewhere() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 1))
}

fn usual() -> Addresses {
    Addresses {
        http: loopback(8000),
        native: loopback(7600),
        admin: loopback(8080),
    }
}

/// Starts a node on the addresses and hands it to `scenario`.
fn with_node(addresses: Addresses, scenario: impl AsyncFnOnce(Running) + 'static) {
    let config = Config {
        shards: SHARDS,
        ..Config::default()
    };
    Simulation::new(5, config).run(async move |handle| {
        let node = NodeConfig {
            drives: vec!["/drive-a".into(), "/drive-b".into()],
            state: "/state".into(),
            memory_bytes: 64 << 20,
            engine: EngineConfig {
                log_file_bytes: 1 << 20,
                ..EngineConfig::default()
            },
            ..NodeConfig::default()
        };
        let (fronts, stopper) = Fronts::new(Plan {
            node: Node::new(node, SHARDS),
            shards: SHARDS,
            addresses,
            credentials: None,
            guard_admin: false,
            limits: Limits::default(),
            logger: Logger::silent(),
            on_ready: Box::new(|_, _| {}),
        });
        let ended = Ended::default();
        for shard in 0..SHARDS {
            let (fronts, ended) = (fronts.clone(), Rc::clone(&ended));
            let runtime = handle.runtime(NODE, ShardIndex(shard));
            runtime.clone().spawn(Queue::Foreground, async move {
                let result = fronts.run_shard(runtime).await;
                let result = result.map_err(|error| error.to_string());
                ended.borrow_mut().push((shard, result));
            });
        }
        scenario(Running {
            handle,
            stopper,
            ended,
        })
        .await;
    });
}

impl Running {
    async fn sleep(&self, duration: Duration) {
        self.handle.outside().sleep(duration).await;
    }

    /// Waits until all shards have ended; answers with what each said, by shard.
    async fn results(&self, patience: Duration) -> Vec<Result<(), String>> {
        let begun = self.handle.elapsed();
        while self.ended.borrow().len() < SHARDS {
            let waited = self.handle.elapsed() - begun;
            assert!(waited < patience, "only these ended: {:?}", self.ended.borrow());
            self.sleep(SECOND / 10).await;
        }
        let mut ended = self.ended.borrow().clone();
        ended.sort();
        ended.into_iter().map(|(_, result)| result).collect()
    }

    /// Asks from the node's own machine; the answer as far as it came.
    async fn ask(&self, port: u16, request: &str) -> String {
        let runtime = self.handle.runtime(NODE, ShardIndex(0));
        let connection = runtime.connect(loopback(port)).await.unwrap();
        connection.send(request.as_bytes().to_vec()).await.unwrap();
        let mut answer = Vec::new();
        while let Ok(1..) = connection.receive(&mut answer).await {}
        String::from_utf8(answer).unwrap()
    }
}

const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";

#[test]
fn a_node_that_cannot_listen_ends_on_every_shard() {
    type Break = fn(&mut Addresses);
    let breaks: [Break; 3] = [
        |addresses| addresses.http = elsewhere(),
        |addresses| addresses.native = elsewhere(),
        |addresses| addresses.admin = elsewhere(),
    ];
    for make in breaks {
        let mut addresses = usual();
        make(&mut addresses);
        with_node(addresses, async |node| {
            let results = node.results(30 * SECOND).await;
            let first = results[0].as_ref().unwrap_err();
            assert!(first.starts_with("cannot listen on 192.0.2.1:1: "), "{first}");
        });
    }
}

#[test]
fn the_admin_port_answers_whatever_it_is_asked() {
    with_node(usual(), async |node| {
        node.sleep(SECOND).await;
        let close = "HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
        let long = "x".repeat(20_000);
        for (request, status, ending) in [
            (format!("GET /livez {close}\r\n"), "200 OK", "\r\n\r\nlive\n"),
            (
                format!("GET /readyz?verbose {close}\r\n"),
                "200 OK",
                "\r\n\r\nready\n",
            ),
            (
                format!("HEAD /readyz {close}\r\n"),
                "200 OK",
                "Content-Length: 6\r\nConnection: close\r\n\r\n",
            ),
            (
                format!("GET / {close}\r\n"),
                "404 Not Found",
                "there are /livez, /readyz, /metrics, /drives and /backup\n",
            ),
            (
                format!("GET /metrics/ {close}\r\n"),
                "404 Not Found",
                "there are /livez, /readyz, /metrics, /drives and /backup\n",
            ),
            (format!("HEAD /nothing {close}\r\n"), "404 Not Found", "\r\n\r\n"),
            (
                format!("POST /livez {close}Content-Length: 2\r\n\r\n{{}}"),
                "405 Method Not Allowed",
                "GET and HEAD, and POST for /drives/scrub, add, rebuild, remove, /backup and /keys/rotate\n",
            ),
            (
                format!("POST /livez {close}Content-Length: 9999999\r\n\r\n"),
                "413 Request Entity Too Large",
                "nothing here takes a body\n",
            ),
            (
                format!("GET /{long} {close}\r\n"),
                "431 Request Header Fields Too Large",
                "headers\n",
            ),
            (
                format!("GET /livez {close}X: {long}\r\n\r\n"),
                "431 Request Header Fields Too Large",
                "headers\n",
            ),
            ("hello\r\n\r\n".to_owned(), "400 Bad Request", "\n"),
        ] {
            let shown: String = request.chars().take(60).collect();
            let answer = node.ask(8080, &request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{shown}: {answer}"
            );
            assert!(answer.ends_with(ending), "{shown}: {answer}");
        }
        node.stopper.stop();
        assert_eq!(node.results(30 * SECOND).await, vec![Ok(()); SHARDS]);
    });
}

#[test]
fn a_backup_is_asked_for_and_told_of() {
    with_node(usual(), async |node| {
        let ask = async |line: &str| {
            let request = format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            node.ask(8080, &request).await
        };
        node.sleep(SECOND).await;
        assert!(ask("GET /backup").await.contains(r#""state":"none""#));
        let relative = ask("POST /backup?directory=here").await;
        assert!(relative.starts_with("HTTP/1.1 409 "), "{relative}");
        for (number, expected) in [(1, "complete"), (2, "failed")] {
            let begun = ask("POST /backup?directory=%2Fthe%20backup").await;
            assert!(begun.starts_with("HTTP/1.1 202 "), "{begun}");
            assert!(begun.ends_with(&format!("\r\n\r\n{number}\n")), "{begun}");
            let busy = ask("POST /backup?directory=/other").await;
            assert!(busy.starts_with("HTTP/1.1 409 "), "{busy}");
            node.sleep(30 * SECOND).await;
            let told = ask("GET /backup").await;
            assert!(told.contains(&format!(r#""state":"{expected}""#)), "{told}");
            assert!(told.contains(r#""directory":"/the backup""#), "{told}");
        }
        node.stopper.stop();
        assert_eq!(node.results(30 * SECOND).await, vec![Ok(()); SHARDS]);
    });
}

/// A drive fails while the witness stalls: whoever asks the volume waits for the keeper, which waits for it.
#[test]
fn a_scrape_that_waits_for_the_volume_keeps_no_node_from_ending() {
    with_node(usual(), async |node| {
        node.sleep(SECOND).await;
        let scraped = node.ask(8080, SCRAPE).await;
        assert!(scraped.contains("\ncairn_drives_in_sync 2\n"), "{scraped}");
        node.handle.drive(NODE, "/drive-b").detach();
        node.handle.drive(NODE, "/state").stall_for(60 * SECOND);
        let node = Rc::new(node);
        let runtime = node.handle.runtime(NODE, ShardIndex(0));
        let writer = Rc::clone(&node);
        runtime.spawn(Queue::Foreground, async move {
            let table = r#"{"TableName":"things","KeySchema":[{"AttributeName":"p","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"p","AttributeType":"S"}],"BillingMode":"PAY_PER_REQUEST"}"#;
            let head = "POST / HTTP/1.1\r\nHost: node\r\nX-Amz-Target: DynamoDB_20120810.CreateTable\r\n\
                        Content-Type: application/x-amz-json-1.0\r\nContent-Length: ";
            writer.ask(8000, &format!("{head}{}\r\n\r\n{table}", table.len())).await;
        });
        // Drained after 20 s, while a scrape that has just begun still waits.
        let scrapes = Rc::new(RefCell::new(Vec::new()));
        for begin in 1..30 {
            let (asker, scrapes, runtime) = (Rc::clone(&node), Rc::clone(&scrapes), runtime.clone());
            runtime.clone().spawn(Queue::Foreground, async move {
                runtime.sleep(SECOND * begin).await;
                let answer = asker.ask(8080, SCRAPE).await;
                scrapes.borrow_mut().push(answer);
            });
        }
        node.sleep(2 * SECOND).await;
        node.stopper.stop();
        let results = node.results(200 * SECOND).await;
        assert_eq!(results, vec![Ok(()); SHARDS]);
        let waited = scrapes
            .borrow()
            .iter()
            .filter(|answer| answer.contains("the volume did not answer"))
            .count();
        assert!(
            waited > 10,
            "{waited} of {} scrapes waited",
            scrapes.borrow().len()
        );
    });
}
