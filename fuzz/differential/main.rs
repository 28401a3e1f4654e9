//! `cargo run -p cairn-fuzz --bin differential -- --requests N --seed S`: the same random requests to Cairn and to a peer.
//!
//! 1. Requests are drawn from a grammar ([`requests`], [`expressions`], [`values`]): most are right, some are spoilt in one place.
//!    The same seed gives the same requests.
//! 2. Each goes to both, one after the other, so that both are in the same state before every request.
//! 3. Answers are compared ([`compare`]): the HTTP status, the error's type, and the body, without what has no order or is
//!    given out by chance. Reads of several pages are followed to their end and compared whole.
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
mod values;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use cairn_runtime::sim::Random;
use clap::Parser;

use client::{Answer, Client};
use requests::Request;
use servers::Server;
use world::World;

/// Sends the same random requests to Cairn and to a peer, and says where they differ.
#[derive(Parser)]
struct Arguments {
    /// How many requests.
    #[arg(long, default_value_t = 10_000)]
    requests: u64,
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
    };
    let mut random = Random::new(arguments.seed);
    let mut world = World::default();
    pair.begin_again(&mut world)?;
    let mut report = Report::default();
    for number in 0..arguments.requests {
        let request = requests::draw(&mut random, &mut world);
        let (node, peer) = pair.send(&request)?;
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
        let Some(difference) = compare::difference(&request, &node, &peer) else {
            world.note(&request, node.is_ok());
            continue;
        };
        let known = known::explanation(&request, &node, &peer);
        match known {
            Some(name) => *report.known.entry(name).or_default() += 1,
            None => {
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
        }
        if request.writes() && (node.is_ok() != peer.is_ok() || known.is_none()) {
            pair.begin_again(&mut world)?;
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
}

/// Pages of one read, at most: the tables are small.
const PAGES_MAX: usize = 200;

impl Pair {
    fn send(&mut self, request: &Request) -> Result<(Answer, Answer), String> {
        let peer = follow(&mut self.peer, request)?;
        // Global indexes are behind their table by moments, and a table that is being changed by milliseconds.
        let mut node = follow(&mut self.node, request)?;
        for _ in 0..40 {
            if !request.may_lag() || compare::difference(request, &node, &peer).is_none() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
            node = follow(&mut self.node, request)?;
        }
        Ok((node, peer))
    }

    /// Both with empty tables.
    fn begin_again(&mut self, world: &mut World) -> Result<(), String> {
        *world = World::default();
        for client in [&mut self.node, &mut self.peer] {
            world::clear(client)?;
            world::create(client)?;
        }
        Ok(())
    }
}

/// A request and, of a read of pages, all that follow.
fn follow(client: &mut Client, request: &Request) -> Result<Answer, String> {
    let mut answer = client.call(request.operation, &request.body)?;
    if !request.is_followed() {
        return Ok(answer);
    }
    let mut body = request.body.clone();
    for _ in 0..PAGES_MAX {
        let Some(last) = answer.take_last() else {
            return Ok(answer);
        };
        body["ExclusiveStartKey"] = last;
        let next = client.call(request.operation, &body)?;
        if !next.is_ok() {
            return Ok(next);
        }
        answer.append(next);
    }
    Err(format!("{} {} does not end", request.operation, request.body))
}
