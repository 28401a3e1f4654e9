//! Rows that need an operation of the table first: F1, a filtered Scan beside the peers, and S1, what a stream costs the
//! writers of its table.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Options;
use crate::alone::{Load, drive, fill, median, start};
use crate::measure;
use crate::servers::{Kind, Server, Setup, Tools};

/// The table that `loadgen` makes.
const TABLE: &str = "loadgen";

/// Longest wait for a table to become active.
const ACTIVE_MAX: Duration = Duration::from_secs(30);

/// Servers of F1. On a file the peers scan the same way.
const SCANNED: &[Kind] = &[Kind::Cairn, Kind::DynoxideMemory, Kind::DynamoDbLocalMemory];

/// Row F1: Scan of a whole table with a filter that every item is put to and none passes.
pub(crate) fn filtered_scan(options: &Options, tools: &Tools) -> Result<String, String> {
    let mut text = format!(
        "### F1: Scan with a filter, {} items of 1 KB, cached, one client\n\n\
         | server | MB/s | server CPU ms/MB | Cairn's rate : its rate | its CPU : Cairn's CPU |\n|---|---|---|---|---|\n",
        options.items
    );
    let mut servers = Vec::new();
    for &kind in SCANNED {
        let Some(server) = Server::start(kind, options, tools)? else {
            let _ = writeln!(text, "| {} | missing | | | |", kind.name());
            continue;
        };
        measure::fill(&server, measure::Load::HttpGet, options, tools)?;
        servers.push((server, Vec::new()));
    }
    for round in 0..options.rounds {
        for (server, found) in &mut servers {
            let began = (Instant::now(), server.cpu_seconds());
            let mut items = 0;
            while began.0.elapsed() < Duration::from_secs(options.seconds.into()) {
                items += scan(server)?;
            }
            let megabytes = items as f64 * 1024.0 / 1e6;
            let took = (began.0.elapsed().as_secs_f64(), server.cpu_seconds() - began.1);
            eprintln!(
                "peers: F1 round {} {}: {:.1} MB/s",
                round + 1,
                server.kind.name(),
                megabytes / took.0
            );
            found.push((megabytes / took.0, took.1 * 1e3 / megabytes));
        }
    }
    let medians: Vec<(Kind, f64, f64)> = servers
        .iter()
        .map(|(server, found)| {
            let rate = median(found.iter().map(|found| found.0).collect());
            (
                server.kind,
                rate,
                median(found.iter().map(|found| found.1).collect()),
            )
        })
        .collect();
    let (_, cairn_rate, cairn_cpu) = medians[0];
    for (kind, rate, cpu) in &medians {
        let ratios = if kind.is_cairn() {
            " | ".to_owned()
        } else {
            format!("{:.1} | {:.1}", cairn_rate / rate, cpu / cairn_cpu)
        };
        let _ = writeln!(text, "| {} | {rate:.1} | {cpu:.2} | {ratios} |", kind.name());
    }
    text.push_str(
        "\nThe filter is `contains(f0, :absent) AND g > :number`: a search in an attribute of some 100 B and a comparison.\n\n",
    );
    Ok(text)
}

/// Scans the table once; how many items the filter was put to.
fn scan(server: &Server) -> Result<u64, String> {
    let mut body = json!({
        "TableName": TABLE,
        "FilterExpression": "contains(f0, :absent) AND g > :number",
        "ExpressionAttributeValues": {":absent": {"S": "~absent~"}, ":number": {"N": "-1"}},
    });
    let mut items = 0;
    loop {
        let page = call(server.port, "Scan", &body)?;
        if page["Count"] != 0 {
            return Err(format!("{}: the filter let an item pass", server.kind.name()));
        }
        items += page["ScannedCount"]
            .as_u64()
            .ok_or("a page without ScannedCount")?;
        match page.get("LastEvaluatedKey") {
            Some(key) => body["ExclusiveStartKey"] = key.clone(),
            None => return Ok(items),
        }
    }
}

/// Row S1: PutItem of existing keys into tables whose streams differ.
pub(crate) fn streams(options: &Options, tools: &Tools) -> Result<String, String> {
    let views = [
        ("no stream", None),
        ("KEYS_ONLY", Some("KEYS_ONLY")),
        ("NEW_IMAGE", Some("NEW_IMAGE")),
        ("OLD_IMAGE", Some("OLD_IMAGE")),
        ("NEW_AND_OLD_IMAGES", Some("NEW_AND_OLD_IMAGES")),
    ];
    let mut servers = Vec::new();
    for (name, view) in views {
        let server = start(options, tools, &Setup::default())?;
        fill(&server, tools, options.items)?;
        if let Some(view) = view {
            let stream = json!({"StreamEnabled": true, "StreamViewType": view});
            call(
                server.port,
                "UpdateTable",
                &json!({"TableName": TABLE, "StreamSpecification": stream}),
            )?;
            wait_until_active(&server)?;
        }
        servers.push((name, server, Vec::new()));
    }
    let load = Load {
        native: false,
        workload: "put",
        items: options.items,
        connections: 32,
        in_flight: 1,
        seconds: options.seconds,
        rate: None,
        core: Some(1),
        distribution: "uniform",
    };
    for round in 0..options.rounds {
        for (name, server, found) in &mut servers {
            found.push(drive(server, tools, &load)?);
            eprintln!(
                "peers: S1 round {} {name}: {:.2} us CPU",
                round + 1,
                found[round].cpu_us
            );
        }
    }
    let mut text = String::from(
        "### S1: what a stream costs PutItem, HTTP, durable, 32 connections, items that exist\n\n\
         | stream | requests/s | p50 ms | p99 ms | server CPU us/request | CPU : without |\n|---|---|---|---|---|---|\n",
    );
    let cpus: Vec<f64> = servers
        .iter()
        .map(|(_, _, found)| median(found.iter().map(|found| found.cpu_us).collect()))
        .collect();
    for ((name, _, found), cpu) in servers.iter().zip(&cpus) {
        let latency = |at: usize| median(found.iter().map(|found| found.latency_ms[at]).collect());
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.2} | {:.2} | {cpu:.2} | {:.2} |",
            median(found.iter().map(|found| found.rate).collect()),
            latency(0),
            latency(1),
            cpu / cpus[0]
        );
    }
    text.push('\n');
    Ok(text)
}

fn wait_until_active(server: &Server) -> Result<(), String> {
    let began = Instant::now();
    while call(server.port, "DescribeTable", &json!({"TableName": TABLE}))?["Table"]["TableStatus"]
        != "ACTIVE"
    {
        if began.elapsed() > ACTIVE_MAX {
            return Err(format!("the table is not active after {ACTIVE_MAX:?}"));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// One operation over HTTP. The peers want a signature in the head and look no further.
fn call(port: u16, operation: &str, body: &Value) -> Result<Value, String> {
    let failed = |error: std::io::Error| format!("{operation}: {error}");
    let body = body.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed)?;
    stream.set_read_timeout(Some(ACTIVE_MAX)).map_err(failed)?;
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Type: application/x-amz-json-1.0\r\n\
         X-Amz-Target: DynamoDB_20120810.{operation}\r\nX-Amz-Date: 20260101T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 \
         Credential=none/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=none\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, rest) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("{operation}: an answer without a body"))?;
    // Chunked or not, the body is the one JSON object in it.
    let json = rest
        .find('{')
        .zip(rest.rfind('}'))
        .map(|(from, to)| &rest[from..=to]);
    let value = json.and_then(|json| serde_json::from_str(json).ok());
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("{operation}: {rest}"));
    }
    value.ok_or_else(|| format!("{operation}: an answer that is no JSON: {rest}"))
}
