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
//! 5. After a difference of a request that writes, both begin again with empty tables: one difference must not become many. So
//!    they do when an index of Local's stays CREATING, as one does now and then: Local is started anew ([`pair`]).
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
mod pair;
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

use client::Client;
use pair::{Pair, Peer};
use requests::Request;
use servers::Server;
use world::World;

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
    /// How often the peer was started anew.
    restarts: u64,
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
    let started = own.as_ref().map(|server| server.address.clone());
    let node = arguments.node.clone().or(started).unwrap_or_default();
    let peer = match &arguments.peer {
        Some(address) => Peer::running(address)?,
        None => {
            let peers = arguments.peers.clone();
            Peer::started(move || {
                let server = Server::dynamodb_local(&peers)?;
                Ok((server.address.clone(), Box::new(server)))
            })?
        }
    };
    let mut pair = Pair::new(Client::new(&node)?, peer);
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
            pair.settle(table, &mut world)?;
        }
    }
    report.restarts = pair.restarts();
    print(arguments, &report);
    Ok(report.unexplained)
}

fn print(arguments: &Arguments, report: &Report) {
    let all: u64 = report.operations.values().map(|(sent, _)| sent).sum();
    println!(
        "{all} requests, seed {}: {} unexplained differences",
        arguments.seed, report.unexplained
    );
    if report.restarts > 0 {
        println!(
            "  the peer was started anew {} times, as a table of its did not become ready; both began again with empty tables",
            report.restarts
        );
    }
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
