//! What the node tells its operator, line by line on the standard error.
//!
//! - A line is made on the shard and handed to one writer thread through a bounded queue. A shard never waits for
//!   the terminal or the disk behind it: when the queue is full the line is dropped, and the next line that gets
//!   through says how many were.
//! - Two forms: for people, `2026-01-31T23:59:59.000Z INFO listening protocol=http address=127.0.0.1:8000`; for
//!   machines, one JSON object a line with `time`, `level`, `message` and the fields.
//! - Requests are logged at the level debug only, with their request id.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::calendar::Utc;

/// Lines that may wait for the writer.
const LINES_WAITING_MAX: usize = 4096;

/// How much an operator wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The node, or a part of it, does not work.
    Error,
    /// Something wants attention.
    Warn,
    /// What the node does by itself or was told to do.
    Info,
    /// Every request.
    Debug,
}

impl Level {
    /// Such as `info`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        [Level::Error, Level::Warn, Level::Info, Level::Debug]
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or_else(|| format!("{text:?} is not one of error, warn, info, debug"))
    }
}

/// The form of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "human" => Ok(Format::Human),
            "json" => Ok(Format::Json),
            _ => Err(format!("{text:?} is neither human nor json")),
        }
    }
}

/// A field of a line.
pub type Field<'a> = (&'static str, &'a dyn fmt::Display);

/// Makes lines and hands them to the writer. Cheap to clone.
#[derive(Clone)]
pub struct Logger {
    level: Option<Level>,
    format: Format,
    lines: SyncSender<String>,
    dropped: Arc<AtomicU64>,
}

impl Logger {
    /// A logger of lines up to `level` and the queue that its lines come out of.
    #[must_use]
    pub fn new(level: Level, format: Format) -> (Logger, Receiver<String>) {
        let (lines, receiver) = sync_channel(LINES_WAITING_MAX);
        (
            Logger {
                level: Some(level),
                format,
                lines,
                dropped: Arc::default(),
            },
            receiver,
        )
    }

    /// A logger that says nothing.
    #[must_use]
    pub fn silent() -> Logger {
        let (lines, _) = sync_channel(0);
        Logger {
            level: None,
            format: Format::Human,
            lines,
            dropped: Arc::default(),
        }
    }

    /// Whether a line of `level` would be written.
    #[must_use]
    pub fn is_enabled(&self, level: Level) -> bool {
        Some(level) <= self.level
    }

    /// Writes one line, if its level is wanted. `unix_ms` is the wall clock.
    pub fn log(&self, level: Level, unix_ms: u64, message: &str, fields: &[Field<'_>]) {
        if !self.is_enabled(level) {
            return;
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let mut line = String::with_capacity(256);
        let all = fields.iter().copied();
        let result = if dropped == 0 {
            self.format.write(&mut line, level, unix_ms, message, all)
        } else {
            let lost: Field<'_> = ("lines_dropped", &dropped);
            self.format
                .write(&mut line, level, unix_ms, message, all.chain([lost]))
        };
        result.expect("a String takes all text");
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
    }

    /// Lets the writer end behind everything logged before. Waits for room in the queue: for the end of a process.
    pub fn finish(&self) {
        // A writer that is gone has ended.
        let _ = self.lines.send(String::new());
    }
}

impl Format {
    fn write<'a>(
        self,
        line: &mut String,
        level: Level,
        unix_ms: u64,
        message: &str,
        fields: impl Iterator<Item = Field<'a>>,
    ) -> fmt::Result {
        let Utc {
            year,
            month,
            day,
            hour,
            minute,
            second,
            millisecond,
        } = Utc::from_unix_ms(unix_ms);
        let time =
            format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z");
        match self {
            Format::Human => {
                write!(line, "{time} {:<5} ", level.name().to_ascii_uppercase())?;
                write!(OneLine(line), "{message}")?;
                for (name, value) in fields {
                    write!(line, " {name}=")?;
                    write!(OneLine(line), "{value}")?;
                }
            }
            Format::Json => {
                write!(
                    line,
                    "{{\"time\":\"{time}\",\"level\":\"{}\",\"message\":\"",
                    level.name()
                )?;
                write!(Escaped(line), "{message}")?;
                for (name, value) in fields {
                    write!(line, "\",\"{name}\":\"")?;
                    write!(Escaped(line), "{value}")?;
                }
                line.push_str("\"}");
            }
        }
        line.push('\n');
        Ok(())
    }
}

/// Keeps what others sent from looking like lines of our own.
struct OneLine<'a>(&'a mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character.is_control() {
                write!(self.0, "{}", character.escape_default())?;
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

/// The inside of a JSON string.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                control if control.is_control() => write!(self.0, "\\u{:04x}", u32::from(control))?,
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

/// Writes lines to the standard error until [`Logger::finish`]; for a thread of its own. Whatever waits is written
/// at once.
pub fn write_lines(lines: &Receiver<String>) {
    let mut finished = false;
    while !finished && let Ok(mut line) = lines.recv() {
        finished = line.is_empty();
        while line.len() < 64 * 1024
            && let Ok(next) = lines.try_recv()
        {
            finished |= next.is_empty();
            line.push_str(&next);
        }
        // Nobody is left to tell when the standard error is gone.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: Format, message: &str, fields: &[Field<'_>], expected: &str) {
        let (logger, lines) = Logger::new(Level::Info, format);
        logger.log(Level::Debug, 0, "not wanted", &[]);
        logger.log(Level::Warn, 1_769_903_999_042, message, fields);
        assert_eq!(lines.try_recv().unwrap(), expected);
        assert!(lines.try_recv().is_err());
    }

    #[test]
    fn forms() {
        check(
            Format::Human,
            "a drive left",
            &[("drive", &"b"), ("epoch", &3)],
            "2026-01-31T23:59:59.042Z WARN  a drive left drive=b epoch=3\n",
        );
        check(
            Format::Json,
            "a drive left",
            &[("drive", &"b"), ("epoch", &3)],
            "{\"time\":\"2026-01-31T23:59:59.042Z\",\"level\":\"warn\",\"message\":\"a drive left\",\
             \"drive\":\"b\",\"epoch\":\"3\"}\n",
        );
    }

    #[test]
    fn text_of_others_stays_within_its_field() {
        let hostile = "x\n\"\\\u{1b}[31m";
        check(
            Format::Human,
            "m",
            &[("f", &hostile)],
            "2026-01-31T23:59:59.042Z WARN  m f=x\\n\"\\\\u{1b}[31m\n",
        );
        check(
            Format::Json,
            "m",
            &[("f", &hostile)],
            "{\"time\":\"2026-01-31T23:59:59.042Z\",\"level\":\"warn\",\"message\":\"m\",\
             \"f\":\"x\\n\\\"\\\\\\u001b[31m\"}\n",
        );
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (logger, lines) = Logger::new(Level::Info, Format::Human);
        for _ in 0..LINES_WAITING_MAX + 3 {
            logger.log(Level::Info, 0, "x", &[]);
        }
        lines.try_recv().unwrap();
        logger.log(Level::Info, 0, "y", &[]);
        let last = lines.try_iter().last().unwrap();
        assert!(last.ends_with("y lines_dropped=3\n"), "{last}");
        assert!(!Logger::silent().is_enabled(Level::Error));
    }
}
