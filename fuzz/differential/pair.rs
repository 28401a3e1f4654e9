//! Both servers: every request to each of them, tables that are waited for, and a peer that is started anew when it hangs.

use std::any::Any;
use std::time::Duration;

use crate::client::{Answer, Client};
use crate::requests::Request;
use crate::streams::{self, Cursors};
use crate::world::{self, ARN_OF, World};
use crate::{compare, known};

/// How often a peer is started anew before it is given up.
const RESTARTS_MAX: u64 = 20;

/// What starts a peer: its address, and what stops it when it is dropped.
type Start = Box<dyn FnMut() -> Result<(String, Box<dyn Any>), String>>;

/// The server that Cairn is compared with.
pub(crate) struct Peer {
    client: Client,
    /// Keeps it running, when it was started here.
    server: Option<Box<dyn Any>>,
    start: Option<Start>,
    restarts: u64,
}

impl Peer {
    /// One that somebody else has started.
    pub(crate) fn running(address: &str) -> Result<Peer, String> {
        Ok(Peer {
            client: Client::new(address)?,
            server: None,
            start: None,
            restarts: 0,
        })
    }

    /// One that is started here, and again when it hangs.
    pub(crate) fn started(
        mut start: impl FnMut() -> Result<(String, Box<dyn Any>), String> + 'static,
    ) -> Result<Peer, String> {
        let (address, server) = start()?;
        Ok(Peer {
            server: Some(server),
            start: Some(Box::new(start)),
            ..Peer::running(&address)?
        })
    }

    /// Starts it anew, with no tables.
    fn restart(&mut self, why: &str) -> Result<(), String> {
        let Some(start) = self.start.as_mut().filter(|_| self.restarts < RESTARTS_MAX) else {
            return Err(format!("the peer: {why}"));
        };
        println!("the peer is started anew: {why}");
        // The old one has ended before.
        self.server = None;
        let (address, server) = start()?;
        let settle_waits = self.client.settle_waits;
        self.client = Client::new(&address)?;
        self.client.settle_waits = settle_waits;
        self.server = Some(server);
        self.restarts += 1;
        Ok(())
    }
}

/// Both servers.
pub(crate) struct Pair {
    node: Client,
    peer: Peer,
    /// How far the streams of both have been read.
    cursors: (Cursors, Cursors),
}

/// Pages of one read, at most: the tables are small.
const PAGES_MAX: usize = 200;
/// Looks at what may be behind, and the time between two.
const LAG_WAITS: usize = 40;
const LAG_WAIT: Duration = Duration::from_millis(25);

impl Pair {
    pub(crate) fn new(node: Client, peer: Peer) -> Pair {
        Pair {
            node,
            peer,
            cursors: Default::default(),
        }
    }

    /// How often the peer was started anew.
    pub(crate) fn restarts(&self) -> u64 {
        self.peer.restarts
    }

    /// The answers of both to a request.
    pub(crate) fn send(&mut self, request: &Request) -> Result<(Answer, Answer), String> {
        if request.operation == "GetRecords" {
            return self.records(request);
        }
        if let Some(table) = request.body["ResourceArn"]
            .as_str()
            .and_then(|arn| arn.strip_prefix(ARN_OF))
        {
            let mut answers = Vec::new();
            for client in [&mut self.node, &mut self.peer.client] {
                let mut body = request.body.clone();
                body["ResourceArn"] = world::arn(client, table)?;
                answers.push(client.call(request.operation, &body)?);
            }
            let peer = answers.remove(1);
            return Ok((answers.remove(0), peer));
        }
        let peer = follow(&mut self.peer.client, &in_one_page(request))?;
        // Global indexes are behind their table by moments, and a table that is being changed by milliseconds.
        let mut node = follow(&mut self.node, request)?;
        for _ in 0..LAG_WAITS {
            let is_same = || compare::difference(request, &node, &peer).is_none();
            if !request.may_lag() || is_same() || known::explanation(request, &node, &peer).is_some() {
                break;
            }
            std::thread::sleep(LAG_WAIT);
            node = follow(&mut self.node, request)?;
        }
        Ok((node, peer))
    }

    /// Requests that were sent a second time, to either.
    pub(crate) fn repeated(&self) -> u64 {
        self.node.repeated + self.peer.client.repeated
    }

    /// What the streams of a table say that is new.
    fn records(&mut self, request: &Request) -> Result<(Answer, Answer), String> {
        let table = request.body["TableName"].as_str().unwrap_or_default();
        let (mut node, mut peer) = (None, None);
        self.cursors.1.read(&mut self.peer.client, table, &mut peer)?;
        let peer = streams::answer(&peer);
        for wait in 0..LAG_WAITS {
            if wait > 0 {
                std::thread::sleep(LAG_WAIT);
            }
            self.cursors.0.read(&mut self.node, table, &mut node)?;
            if compare::difference(request, &streams::answer(&node), &peer).is_none() {
                break;
            }
        }
        let (mut node, mut peer) = (streams::answer(&node), peer);
        streams::leave_out_same(&mut node, &mut peer);
        Ok((node, peer))
    }

    /// Waits until both are done with a change of a table. When the peer never is, both begin again with empty tables.
    pub(crate) fn settle(&mut self, table: &str, world: &mut World) -> Result<(), String> {
        world::settle(&mut self.node, table).map_err(of_node)?;
        if let Err(why) = world::settle(&mut self.peer.client, table) {
            self.peer.restart(&why)?;
            self.begin_again(world)?;
        }
        Ok(())
    }

    /// Both with empty tables.
    pub(crate) fn begin_again(&mut self, world: &mut World) -> Result<(), String> {
        *world = World::default();
        self.cursors = Default::default();
        let empty = |client: &mut Client| world::clear(client).and_then(|()| world::create(client));
        empty(&mut self.node).map_err(of_node)?;
        while let Err(why) = empty(&mut self.peer.client) {
            self.peer.restart(&why)?;
        }
        Ok(())
    }
}

fn of_node(error: String) -> String {
    format!("Cairn: {error}")
}

/// The request as Local can be asked: its pages of a SELECT of several partition keys begin with the first key again, and those
/// in falling order with the greatest (docs/compatibility.md), so that the items have to come at once.
fn in_one_page(request: &Request) -> Request {
    let mut request = request.clone();
    let statement = request.body["Statement"].as_str().unwrap_or_default();
    let is_wrong = [" IN ", " OR ", " DESC"]
        .iter()
        .any(|word| statement.contains(word));
    // A limit that is none is to be refused.
    let is_limit = request.body["Limit"].as_u64().is_some_and(|limit| limit > 0);
    if request.operation == "ExecuteStatement"
        && is_wrong
        && is_limit
        && let Some(body) = request.body.as_object_mut()
    {
        body.remove("Limit");
    }
    request
}

/// A request and, of a read of pages, all that follow.
fn follow(client: &mut Client, request: &Request) -> Result<Answer, String> {
    let mut answer = client.call(request.operation, &request.body)?;
    if !request.is_followed() {
        return Ok(answer);
    }
    let mut body = request.body.clone();
    for _ in 0..PAGES_MAX {
        let Some((member, value)) = answer.take_next() else {
            return Ok(answer);
        };
        body[member] = value;
        let next = client.call(request.operation, &body)?;
        if !next.is_ok() {
            return Ok(next);
        }
        answer.append(next);
    }
    Err(format!("{} {} does not end", request.operation, request.body))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use serde_json::{Value, json};

    use super::*;

    /// A server that has tables; an index of each stays CREATING when it is `stuck`. Gives its address.
    fn fake(stuck: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut tables = BTreeSet::new();
            while let Ok((stream, _)) = listener.accept() {
                let mut stream = BufReader::new(stream);
                while serve(&mut stream, &mut tables, stuck).is_some() {}
            }
        });
        address
    }

    fn serve(stream: &mut BufReader<TcpStream>, tables: &mut BTreeSet<String>, stuck: bool) -> Option<()> {
        let (mut operation, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
            let line = line.trim();
            if let Some((_, name)) = line.split_once("DynamoDB_20120810.") {
                operation = name.to_owned();
            }
            if let Some(bytes) = line.strip_prefix("Content-Length: ") {
                length = bytes.parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).ok()?;
        let name = body["TableName"].as_str()?.to_owned();
        let is_there = tables.contains(&name);
        let status = if stuck { "CREATING" } else { "ACTIVE" };
        let answer = match operation.as_str() {
            "CreateTable" => {
                tables.insert(name);
                json!({})
            }
            "DeleteTable" => {
                tables.remove(&name);
                json!({})
            }
            _ if is_there => json!({"Table": {
                "TableStatus": "ACTIVE", "GlobalSecondaryIndexes": [{"IndexStatus": status}],
            }}),
            _ => json!({"__type": "#ResourceNotFoundException"}),
        };
        let status = if answer["__type"].is_null() { 200 } else { 400 };
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.get_mut().write_all((head + &answer).as_bytes()).ok()
    }

    /// A pair whose peers are stuck so many times before one is not.
    fn pair(stuck: u64) -> Pair {
        let left = Cell::new(stuck);
        let peer = Peer::started(move || {
            let is_stuck = left.get() > 0;
            left.set(left.get().saturating_sub(1));
            Ok((fake(is_stuck), Box::new(())))
        });
        let mut pair = Pair::new(Client::new(&fake(false)).unwrap(), peer.unwrap());
        pair.peer.client.settle_waits = 2;
        pair
    }

    #[test]
    fn a_peer_whose_index_stays_creating_is_started_anew() {
        let mut pair = pair(2);
        let mut world = World::default();
        pair.begin_again(&mut world).unwrap();
        assert_eq!(pair.restarts(), 2);
        pair.settle(world::TABLES[0].name, &mut world).unwrap();
        assert_eq!(pair.restarts(), 2);
        // Later, too: then both begin again, and what was known of their tables is forgotten.
        pair.peer.client = Client::new(&fake(true)).unwrap();
        pair.peer.client.settle_waits = 2;
        assert!(world::create(&mut pair.peer.client).is_err());
        world.passing = [true; 3];
        pair.settle(world::TABLES[0].name, &mut world).unwrap();
        assert_eq!((pair.restarts(), world.passing), (3, [false; 3]));
        assert!(
            world::settle(&mut pair.peer.client, world::TABLES[0].name)
                .unwrap()
                .is_ok()
        );
    }

    #[test]
    fn one_that_always_hangs_or_is_not_ours_is_given_up() {
        let mut world = World::default();
        let mut always = pair(u64::MAX);
        let error = always.begin_again(&mut world).unwrap_err();
        assert!(error.contains("does not settle"), "{error}");
        assert_eq!(always.restarts(), RESTARTS_MAX);
        let theirs = Peer::running(&fake(true)).unwrap();
        let mut pair = Pair::new(Client::new(&fake(false)).unwrap(), theirs);
        pair.peer.client.settle_waits = 2;
        let error = pair.begin_again(&mut world).unwrap_err();
        assert!(
            error.starts_with("the peer: table ") && pair.restarts() == 0,
            "{error}"
        );
    }
}
