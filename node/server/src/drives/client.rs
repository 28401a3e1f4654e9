//! `cairn drives`: asks a running node over its admin address, and waits until what was asked for is true.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Drives;
use crate::config::Size;

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// A node's admin address.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    /// Access key id and secret, where the admin address asks for one.
    key: Option<(String, String)>,
}

impl Client {
    /// A client of the admin address; `key` is `ID:SECRET`.
    ///
    /// # Errors
    /// In words, when `key` has no colon.
    pub fn new(address: SocketAddr, key: Option<&str>) -> Result<Client, String> {
        let pair = |key: &str| {
            let (id, secret) = key
                .split_once(':')
                .ok_or("an admin key is ID:SECRET, with a colon in between")?;
            Ok::<_, String>((id.to_owned(), secret.to_owned()))
        };
        let key = key.map(pair).transpose()?;
        Ok(Client { address, key })
    }

    /// The drives now.
    ///
    /// # Errors
    /// In words, naming the address.
    pub fn drives(&self) -> Result<Drives, String> {
        Drives::from_json(self.ask("GET", "/drives", "")?.as_bytes())
    }

    /// Sends a request and gives the answer's body.
    ///
    /// # Errors
    /// In words: that nobody answers at the address, or what the node says.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<String, String> {
        let address = self.address;
        let unreachable = |error: std::io::Error| {
            format!("no node answers at {address}: {error}; name its admin address with --admin")
        };
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX).map_err(unreachable)?;
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(unreachable)?;
        let authorization = self.key.as_ref().map_or_else(String::new, |(id, secret)| {
            let mut encoded = Vec::new();
            cairn_item::json::write_base64(&mut encoded, format!("{id}:{secret}").as_bytes());
            let encoded = String::from_utf8(encoded).expect("base64 is text");
            format!("Authorization: Basic {encoded}\r\n")
        });
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Content-Length: {}\r\nConnection: \
             close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).map_err(unreachable)?;
        let mut answer = Vec::new();
        let mut bounded = stream.take(ANSWER_BYTES_MAX);
        bounded.read_to_end(&mut answer).map_err(unreachable)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| format!("what listens at {address} is no admin address of a node"))?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        match status {
            "200" | "202" => Ok(body.to_owned()),
            "401" => Err(format!(
                "{address} asks for an access key: give it as ID:SECRET in CAIRN_ADMIN_KEY"
            )),
            "404" => Err(format!("{address} is no admin address of a node of this version")),
            _ => Err(body.trim_end().to_owned()),
        }
    }
}

/// Tells how far something is, a line for every few percent.
#[derive(Default)]
pub(crate) struct Steps {
    told: Option<u64>,
}

impl Steps {
    const PERCENT: u64 = 5;

    pub(crate) fn line(&mut self, what: &str, done: u64, total: u64) -> Option<String> {
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
        let due = self.told.is_none_or(|told| percent >= told + Steps::PERCENT);
        due.then(|| {
            self.told = Some(percent);
            format!("{what}: {} of {} ({percent}%)", Size(done), Size(total))
        })
    }
}

/// Has the tables' data sealed with other keys and waits for it; `say` is told how far it is, `nap` lets time pass between two
/// looks.
///
/// # Errors
/// In words: what the node says.
pub fn rotate_tables(
    client: &Client,
    say: &mut dyn FnMut(&str),
    nap: &mut dyn FnMut(),
) -> Result<(), String> {
    let answer = client.ask("POST", "/keys/rotate", "")?;
    let number: u64 = answer
        .trim()
        .parse()
        .map_err(|_| format!("the node answers {answer:?}, which is no number of a request"))?;
    let mut steps = Steps { told: None };
    let mut total = 0;
    loop {
        let drives = client.drives()?;
        if !drives.logs.is_empty() && drives.logs.iter().all(|log| log.rekey_answered >= number) {
            let left = drives.logs.iter().map(|log| log.old_key_bytes).sum::<u64>();
            if left == 0 {
                say("everything in segments is sealed with the tables' new keys");
                return Ok(());
            }
            // What is written meanwhile has the new keys, and what is compacted is no longer there.
            total = left.max(total);
            if let Some(line) = steps.line("sealing anew", total - left, total) {
                say(&line);
            }
        }
        nap();
    }
}

/// Has everything verified and waits for it; `say` is told how far it is, `nap` lets time pass between two looks.
///
/// # Errors
/// In words: what the node says, or how many places are lost.
pub fn scrub(client: &Client, say: &mut dyn FnMut(&str), nap: &mut dyn FnMut()) -> Result<(), String> {
    let lost = |drives: &Drives| drives.logs.iter().map(|log| log.lost).sum::<u64>();
    let before = client.drives()?;
    let answer = client.ask("POST", "/drives/scrub", "")?;
    let number: u64 = answer
        .trim()
        .parse()
        .map_err(|_| format!("the node answers {answer:?}, which is no number of a request"))?;
    let mut steps = Steps::default();
    loop {
        let drives = client.drives()?;
        if !drives.logs.is_empty() && drives.logs.iter().all(|log| log.answered >= number) {
            let damaged = |drives: &Drives| drives.logs.iter().map(|log| log.damaged).sum::<u64>();
            let found = damaged(&drives).saturating_sub(damaged(&before));
            return match lost(&drives).saturating_sub(lost(&before)) {
                0 => {
                    say(&format!(
                        "every block has been verified on every mirror; {found} places were damaged and have a good copy"
                    ));
                    Ok(())
                }
                lost => Err(format!(
                    "{lost} places are damaged on every mirror: `cairn check` on the stopped node names them"
                )),
            };
        }
        if let Some((done, total)) = drives.progress()
            && let Some(line) = steps.line("verifying", done, total)
        {
            say(&line);
        }
        nap();
    }
}

/// A drive as the node is told of it: by its place in the list, or by its whole path.
#[must_use]
pub fn absolute(drive: &str) -> String {
    if drive.parse::<usize>().is_ok() {
        return drive.to_owned();
    }
    let path = std::path::absolute(drive).ok();
    path.and_then(|path| path.to_str().map(str::to_owned))
        .unwrap_or_else(|| drive.to_owned())
}

/// Has something done about a drive, and waits for it: `action` is `add`, `remove` or `rebuild`.
///
/// # Errors
/// What the node says, which names the drive.
pub fn operate(
    client: &Client,
    action: &str,
    drive: &str,
    say: &mut dyn FnMut(&str),
    nap: &mut dyn FnMut(),
) -> Result<(), String> {
    let answer = client.ask("POST", &format!("/drives/{action}"), &absolute(drive))?;
    let number: u64 = answer
        .trim()
        .parse()
        .map_err(|_| format!("the node answers {answer:?}, which is no number of an operation"))?;
    let mut steps = Steps { told: None };
    let mut step = String::new();
    loop {
        let drives = client.drives()?;
        let operation = drives.operation.filter(|operation| operation.number == number);
        let operation = operation.ok_or("the node has been restarted meanwhile: see `cairn drives list`")?;
        match operation.state.as_str() {
            "done" => {
                say(&operation.said);
                return Ok(());
            }
            "running" => {
                if step != operation.said {
                    step.clone_from(&operation.said);
                    steps.told = None;
                }
                let (done, total) = (operation.bytes_done, operation.bytes_total);
                if let Some(line) = steps.line(&format!("{drive}: {step}"), done, total) {
                    say(&line);
                }
            }
            _ => return Err(operation.said),
        }
        nap();
    }
}
