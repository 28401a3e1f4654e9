//! `cairn backup`: asks a running node for a backup over its admin address, and waits until it is complete.

use std::path::Path;

use super::{BackupStatus, State};
use crate::config::Size;
use crate::drives::client::{Client, Steps};
use crate::sigv4::percent_encode;

impl Client {
    /// The last backup that was asked for.
    ///
    /// # Errors
    /// In words, naming the address.
    pub fn backup(&self) -> Result<BackupStatus, String> {
        let answer = self.ask("GET", "/backup", "")?;
        serde_json::from_str(&answer).map_err(|error| format!("the node's answer is not understood: {error}"))
    }
}

/// Has a backup made in `directory`, an absolute path on the node's machine, and waits for it; `say` is told how far it is,
/// `nap` lets time pass between two looks.
///
/// # Errors
/// In words: what the node says. There is no backup then.
pub fn backup(
    client: &Client,
    directory: &Path,
    say: &mut dyn FnMut(&str),
    nap: &mut dyn FnMut(),
) -> Result<(), String> {
    let name = directory
        .to_str()
        .ok_or("the name of the directory is not UTF-8")?;
    let mut encoded = Vec::new();
    percent_encode(&mut encoded, name.as_bytes());
    let encoded = String::from_utf8(encoded).expect("percent encoding is ASCII");
    let answer = client.ask("POST", &format!("/backup?directory={encoded}"), "")?;
    let number: u64 = answer
        .trim()
        .parse()
        .map_err(|_| format!("the node answers {answer:?}, which is no number of a backup"))?;
    let mut steps = Steps::default();
    loop {
        let status = client.backup()?;
        if status.number != number {
            return Err(format!(
                "the node was started again, or another backup was begun, before this one was seen to be complete: `cairn \
                 check {name}/drive` tells whether it is"
            ));
        }
        match status.state {
            State::Complete => {
                say(&format!(
                    "the backup in {name} is complete and verified: {} in {} segments, {} of them hard links",
                    Size(status.bytes_total),
                    status.segments,
                    status.linked
                ));
                return Ok(());
            }
            State::Failed => return Err(format!("there is no backup in {name}: {}", status.why)),
            State::None | State::Running => {}
        }
        if status.bytes_total > 0
            && let Some(line) = steps.line("copying", status.bytes_done, status.bytes_total)
        {
            say(&line);
        }
        nap();
    }
}
