//! `cargo run -p cairn-fuzz --bin differential -- --requests N --seed S`: the same random requests to Cairn and to a peer.
//!
//! 1. Requests are drawn from a grammar ([`requests`], [`expressions`], [`statements`], [`values`], ..): most are right, some are spoilt in one place.
//!    The same seed gives the same requests.
//! 2. Each goes to both, one after the other, so that both are in the same state before every request.
//! 3. Answers are compared ([`compare`]): the HTTP status, the error's type, and the body, without what has no order or is
//!    given out by chance. Reads of several pages are followed to their end and compared whole.
//!    A change of a table is waited for, so that the next request meets the same table on both. What streams say is read
//!    whole and compared item by item ([`streams`]).
//! 4. What differs on purpose is in a list with its source ([`known`]); how often each was met is said at the end.
//! 5. After a difference of a request that writes, both begin again with empty tables: one difference must not become many.
//!
//! Exit code 0: nothing unexplained; 1: there is; 2: the servers cannot be had. DynamoDB Local is the oracle for behaviour and not
//! for words: which messages differ is only said, with `--messages`.
#![expect(
    clippy::disallowed_methods,
    reason = "a program that drives two servers from outside: it waits, and waits are real"
)]

mod client;
mod compare;
mod expressions;
mod known;
mod requests;
mod servers;
mod statements;
mod streams;
mod tables;
mod transactions;
mod values;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cairn_runtime::sim::Random;
use clap::Parser;

use client::{Answer, Client};
use requests::Request;
use servers::Server;
use streams::Cursors;
use world::{ARN_OF, World};

/// Sends the same random requests to Cairn and to a peer, and says where they differ.
#[derive(Parser)]
struct Arguments {
    /// How many requests.
    #[arg(long, default_value_t = 10_000)]
    requests: u64,
    /// Stop after this long, whatever is left.
    #[arg(long)]
    minutes: Option<u64>,
    /// What they are drawn from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A running peer, `http://HOST:PORT`; else DynamoDB Local is started, from `bench/peers/install`.
    #[arg(long)]
    peer: Option<String>,
    /// A running node; else one is started.
    #[arg(long)]
    node: Option<String>,
    /// Where the program `cairn` is.
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    /// Where `bench/peers/install` has put the peers.
    #[arg(long, default_value = "target/peers")]
    peers: PathBuf,
    /// Shards of the node that is started.
    #[arg(long, default_value_t = 2)]
    shards: u32,
    /// Unexplained differences that are shown whole.
    #[arg(long, default_value_t = 20)]
    show: usize,
    /// Differences on purpose that are shown whole, of each kind.
    #[arg(long, default_value_t = 0)]
    examples: u64,
    /// Compare whole tables after every write: what differs is then found where it began. It takes several times as long.
    #[arg(long)]
    thorough: bool,
    /// Say which messages of errors differ.
    #[arg(long)]
    messages: bool,
}

/// What a run has found.
#[derive(Default)]
struct Report {
    /// Requests and how many of them were accepted by both, by operation.
    operations: BTreeMap<&'static str, (u64, u64)>,
    known: BTreeMap<&'static str, u64>,
    unexplained: u64,
    /// Differences of requests that one of the servers may have carried out twice, as its connection was closed.
    twice: u64,
    /// Unexplained differences by operation, difference and messages.
    groups: BTreeMap<(&'static str, String, String, String), u64>,
    /// By operation and both messages, digits and quoted names left out.
    messages: BTreeMap<(String, String, String), u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("differential: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<u64, String> {
    let own = match &arguments.node {
        None => Some(Server::cairn(&arguments.binaries, arguments.shards)?),
        Some(_) => None,
    };
    let local = match &arguments.peer {
        None => Some(Server::dynamodb_local(&arguments.peers)?),
        Some(_) => None,
    };
    let address = |given: &Option<String>, started: &Option<Server>| {
        let started = started.as_ref().map(|server| server.address.clone());
        given.clone().or(started).unwrap_or_default()
    };
    let mut pair = Pair {
        node: Client::new(&address(&arguments.node, &own))?,
        peer: Client::new(&address(&arguments.peer, &local))?,
        cursors: Default::default(),
    };
    let mut random = Random::new(arguments.seed);
    let mut world = World::default();
    pair.begin_again(&mut world)?;
    let mut report = Report::default();
    let begun = std::time::Instant::now();
    let is_over = || {
        let limit = arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes));
        limit.is_some_and(|limit| begun.elapsed() >= limit)
    };
    for number in 0..arguments.requests {
        if is_over() {
            break;
        }
        let request = requests::draw(&mut random, &mut world);
        let repeated = pair.repeated();
        let (node, peer) = pair.send(&request)?;
        let twice = request.writes() && pair.repeated() > repeated;
        let counts = report.operations.entry(request.operation).or_default();
        counts.0 += 1;
        counts.1 += u64::from(node.is_ok() && peer.is_ok());
        if !node.is_ok() && !peer.is_ok() && node.message() != peer.message() {
            let key = (
                request.operation.to_owned(),
                compare::shape(node.message()),
                compare::shape(peer.message()),
            );
            *report.messages.entry(key).or_default() += 1;
        }
        let difference = compare::difference(&request, &node, &peer);
        let known = difference
            .as_ref()
            .and_then(|_| known::explanation(&request, &node, &peer));
        if let Some(name) = known {
            let met = report.known.entry(name).or_default();
            *met += 1;
            if *met <= arguments.examples {
                println!(
                    "request {number} of seed {}, on purpose: {name}\n  {} {}\n  node {}\n  peer {}\n",
                    arguments.seed, request.operation, request.body, node, peer
                );
            }
        } else if twice && difference.is_some() {
            report.twice += 1;
            println!(
                "request {number} of seed {}: the connection was closed, and it was sent again\n  {} {}\n  node {node}\n  peer {peer}\n",
                arguments.seed, request.operation, request.body
            );
        } else if let Some(difference) = &difference {
            report.unexplained += 1;
            let group = (
                request.operation,
                difference.clone(),
                compare::shape(node.message()),
                compare::shape(peer.message()),
            );
            *report.groups.entry(group).or_default() += 1;
            if report.unexplained <= arguments.show as u64 {
                println!(
                    "request {number} of seed {}: {difference}\n  {} {}\n  node {}\n  peer {}\n",
                    arguments.seed, request.operation, request.body, node, peer
                );
            }
        }
        // Of a batch both have carried out a part, and perhaps not the same.
        let in_part = request.operation == "BatchExecuteStatement";
        // Local carries out a part of a batch that it refuses for two statements about one item.
        let refused_in_part = in_part && peer.message().ends_with("item keys contains duplicates");
        // Local may have taken off a protection together with another change that it refused.
        let protection = &request.body["DeletionProtectionEnabled"];
        let protected_in_part =
            request.operation == "UpdateTable" && protection.is_boolean() && !node.is_ok() && !peer.is_ok();
        let parted = refused_in_part
            || protected_in_part
            || twice
            || known.is_some_and(known::parts)
            || difference.is_some() && (node.is_ok() != peer.is_ok() || known.is_none() || in_part);
        if parted && request.writes() {
            pair.begin_again(&mut world)?;
            continue;
        }
        world.note(&request, node.is_ok());
        if arguments.thorough && request.writes() {
            for table in &world::TABLES {
                let scan = Request::new("Scan", serde_json::json!({"TableName": table.name}));
                let (left, right) = pair.send(&scan)?;
                if compare::difference(&scan, &left, &right).is_some() {
                    report.unexplained += 1;
                    println!(
                        "request {number} of seed {}: {} is another table since\n  {} {}\n  node {node}\n  peer {peer}\n  node {left}\n  peer {right}\n",
                        arguments.seed, table.name, request.operation, request.body
                    );
                    pair.begin_again(&mut world)?;
                }
            }
        }
        if let Some(table) = request.changed_table().filter(|_| node.is_ok()) {
            pair.settle(table)?;
        }
    }
    print(arguments, &report);
    Ok(report.unexplained)
}

fn print(arguments: &Arguments, report: &Report) {
    let all: u64 = report.operations.values().map(|(sent, _)| sent).sum();
    println!(
        "{all} requests, seed {}: {} unexplained differences",
        arguments.seed, report.unexplained
    );
    if report.twice > 0 {
        println!("  {} differences of requests that were sent twice", report.twice);
    }
    for (operation, (sent, accepted)) in &report.operations {
        println!("  {operation:28} {sent:7} sent, {accepted:7} accepted");
    }
    for ((operation, difference, node, peer), count) in &report.groups {
        println!(
            "  UNEXPLAINED {count:6}: {operation}: {difference}\n       node: {node}\n       peer: {peer}"
        );
    }
    for (name, count) in &report.known {
        println!("  on purpose {count:6}: {name}, as {}", known::source(name));
    }
    if arguments.messages {
        let mut messages: Vec<_> = report.messages.iter().collect();
        messages.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((operation, node, peer), count) in messages {
            println!("{count:6} {operation}\n       node: {node}\n       peer: {peer}");
        }
    }
}

/// Both servers.
struct Pair {
    node: Client,
    peer: Client,
    /// How far the streams of both have been read.
    cursors: (Cursors, Cursors),
}

/// Pages of one read, at most: the tables are small.
const PAGES_MAX: usize = 200;
/// Looks at what may be behind, and the time between two.
const LAG_WAITS: usize = 40;
const LAG_WAIT: Duration = Duration::from_millis(25);

impl Pair {
    fn send(&mut self, request: &Request) -> Result<(Answer, Answer), String> {
        if request.operation == "GetRecords" {
            return self.records(request);
        }
        if let Some(table) = request.body["ResourceArn"]
            .as_str()
            .and_then(|arn| arn.strip_prefix(ARN_OF))
        {
            let mut answers = Vec::new();
            for client in [&mut self.node, &mut self.peer] {
                let mut body = request.body.clone();
                body["ResourceArn"] = world::arn(client, table)?;
                answers.push(client.call(request.operation, &body)?);
            }
            let peer = answers.remove(1);
            return Ok((answers.remove(0), peer));
        }
        let peer = follow(&mut self.peer, &in_one_page(request))?;
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
    fn repeated(&self) -> u64 {
        self.node.repeated + self.peer.repeated
    }

    /// What the streams of a table say that is new.
    fn records(&mut self, request: &Request) -> Result<(Answer, Answer), String> {
        let table = request.body["TableName"].as_str().unwrap_or_default();
        let (mut node, mut peer) = (None, None);
        self.cursors.1.read(&mut self.peer, table, &mut peer)?;
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

    /// Waits until both are done with a change of a table.
    fn settle(&mut self, table: &str) -> Result<(), String> {
        for (name, client) in [("Cairn", &mut self.node), ("the peer", &mut self.peer)] {
            world::settle(client, table).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }

    /// Both with empty tables.
    fn begin_again(&mut self, world: &mut World) -> Result<(), String> {
        *world = World::default();
        self.cursors = Default::default();
        for (name, client) in [("Cairn", &mut self.node), ("the peer", &mut self.peer)] {
            world::clear(client)
                .and_then(|()| world::create(client))
                .map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }
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
