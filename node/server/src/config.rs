//! What a node is configured with: flags over `CAIRN_*` variables over a TOML file over defaults.
//!
//! Flags and variables are read by [`crate::cli`], the file here; [`Config::resolve`] lays them over one another
//! and refuses what cannot be meant. It looks at nothing but its arguments.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cairn_engine::Compression;
use serde::{Deserialize, Deserializer, de};

use crate::cli::{RebuildOptions, ServeOptions};
use crate::logging::{Format, Level};

/// Least memory of one shard in bytes.
pub const SHARD_BYTES_MIN: u64 = 64 << 20;
/// Most shards of a node.
pub const SHARDS_MAX: usize = 256;

/// The state directory where none is configured.
pub const STATE_DIRECTORY: &str = "./cairn-data/state";

const HTTP: SocketAddr = SocketAddr::new(LOOPBACK, 8000);
const NATIVE: SocketAddr = SocketAddr::new(LOOPBACK, 7600);
const ADMIN: SocketAddr = SocketAddr::new(LOOPBACK, 8080);
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A number of bytes, written like `512MiB`, `4GB` or `1048576`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim_start() {
            "" => Some(1),
            unit => UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, factor)| *factor),
        };
        number
            .parse::<u64>()
            .ok()
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor))
            .map(Size)
            .ok_or_else(|| format!("{text:?} is not a size such as 512MiB, 4GiB or a number of bytes"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS[..4]
            .iter()
            .rev()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match binary {
            Some((unit, factor)) => write!(formatter, "{}{unit}", self.0 / factor),
            None if self.0 >= 1 << 20 => write!(formatter, "{:.1}MiB", self.0 as f64 / f64::from(1 << 20)),
            None => write!(formatter, "{}B", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Bytes(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Bytes(bytes) => Ok(Size(bytes)),
            Form::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

/// Whether what a node writes is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// It is.
    On,
    /// It is not.
    Off,
}

impl FromStr for Encryption {
    type Err = String;

    fn from_str(text: &str) -> Result<Encryption, String> {
        match text {
            "on" => Ok(Encryption::On),
            "off" => Ok(Encryption::Off),
            other => Err(format!("{other:?} is neither on nor off")),
        }
    }
}

/// The configuration file. Every key is optional; one that is not known is an error.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Drive directories.
    pub drives: Option<Vec<PathBuf>>,
    /// Copies of every byte.
    pub mirrors: Option<usize>,
    /// State directory.
    pub state: Option<PathBuf>,
    /// Address of the DynamoDB API.
    pub http: Option<SocketAddr>,
    /// Address of the native protocol.
    pub native: Option<SocketAddr>,
    /// Address of the admin endpoints.
    pub admin: Option<SocketAddr>,
    /// Shards.
    pub shards: Option<usize>,
    /// Memory budget.
    pub memory: Option<Size>,
    /// `none`, `lz4` or `zstd`.
    #[serde(default, deserialize_with = "from_text")]
    pub compression: Option<Compression>,
    /// `on` or `off`.
    #[serde(default, deserialize_with = "from_text")]
    pub encryption: Option<Encryption>,
    /// File of the root key.
    pub root_key_file: Option<PathBuf>,
    /// Credentials file.
    pub credentials: Option<PathBuf>,
    /// Plain text on addresses other than loopback.
    pub insecure: Option<bool>,
    /// `human` or `json`.
    #[serde(default, deserialize_with = "from_text")]
    pub log_format: Option<Format>,
    /// `error`, `warn`, `info` or `debug`.
    #[serde(default, deserialize_with = "from_text")]
    pub log_level: Option<Level>,
}

fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map(Some)
        .map_err(de::Error::custom)
}

/// Why a configuration is refused, in words for an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

fn refuse<T>(what: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(what.into()))
}

impl File {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, or has a key that is not known.
    pub fn read(path: &Path) -> Result<File, ConfigError> {
        let fail =
            |what: &dyn fmt::Display| ConfigError(format!("configuration file {}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
        toml::from_str(&text).map_err(|error| fail(&error))
    }
}

/// What the defaults depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Processors that this process may use.
    pub processors: usize,
    /// Memory that this process may use, in bytes.
    pub memory_bytes: u64,
}

impl Machine {
    /// This machine, as far as its control group lets this process see it.
    #[must_use]
    pub fn detect() -> Machine {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()?
                .checked_mul(1024)
        });
        let limit = [
            "/sys/fs/cgroup/memory.max",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ]
        .into_iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
        let total = total.unwrap_or(1 << 30);
        Machine {
            processors,
            memory_bytes: total.min(limit.unwrap_or(u64::MAX)),
        }
    }
}

/// Whether somebody who connects could mean either address. Port 0 becomes a free one.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (one_ip, other_ip) = (one.ip(), other.ip());
    // An IPv6 socket on all addresses takes IPv4 as well.
    let covers = |all: IpAddr, ip: IpAddr| all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
    let same = one_ip == other_ip || covers(one_ip, other_ip) || covers(other_ip, one_ip);
    one.port() != 0 && one.port() == other.port() && same
}

/// The state directory that is meant when none is named: `state` beside one of the drives, or else where a node keeps it
/// by default. None when there is none.
pub fn find_state(drives: &[PathBuf], exists: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let beside = drives
        .iter()
        .filter_map(|drive| Some(drive.parent()?.join("state")));
    beside
        .chain([PathBuf::from(STATE_DIRECTORY)])
        .find(|state| exists(state) && !drives.contains(state))
}

/// A configuration that can be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Drive directories, each once.
    pub drives: Vec<PathBuf>,
    /// Copies of every byte, at most as many as there are drives.
    pub mirrors: usize,
    /// State directory, which is none of the drives.
    pub state: PathBuf,
    /// Address of the DynamoDB API; port 0 picks a free one.
    pub http: SocketAddr,
    /// Address of the native protocol; port 0 picks a free one.
    pub native: SocketAddr,
    /// Address of the admin endpoints; port 0 picks a free one.
    pub admin: SocketAddr,
    /// Shards.
    pub shards: usize,
    /// Memory budget of the node in bytes.
    pub memory_bytes: u64,
    /// What new segments are packed with.
    pub compression: Compression,
    /// Whether the node is to be encrypted; none leaves it to the node.
    pub encryption: Option<Encryption>,
    /// File of the root key, when it is not the one in the state directory.
    pub root_key_file: Option<PathBuf>,
    /// Credentials file.
    pub credentials: Option<PathBuf>,
    /// The operator's word that this in-sync epoch is the newest.
    pub accept_epoch: Option<u64>,
    /// Form of the log lines.
    pub log_format: Format,
    /// Level of the log lines.
    pub log_level: Level,
}

impl Config {
    /// Lays `options` over `file` over the defaults for `machine`.
    ///
    /// # Errors
    /// [`ConfigError`] for what cannot be meant or is not safe.
    pub fn resolve(options: ServeOptions, file: File, machine: Machine) -> Result<Config, ConfigError> {
        let flagged = Some(options.drive).filter(|drives| !drives.is_empty());
        let drives = flagged.or(file.drives).unwrap_or_else(|| {
            vec![
                PathBuf::from("./cairn-data/drive-a"),
                PathBuf::from("./cairn-data/drive-b"),
            ]
        });
        let mirrors = options
            .mirrors
            .or(file.mirrors)
            .unwrap_or(drives.len().clamp(1, 2));
        let shards = options
            .shards
            .or(file.shards)
            .unwrap_or(machine.processors.min(SHARDS_MAX));
        let memory = options
            .memory
            .or(file.memory)
            .unwrap_or(Size(machine.memory_bytes / 2));
        let config = Config {
            drives,
            mirrors,
            state: options
                .state
                .or(file.state)
                .unwrap_or_else(|| PathBuf::from(STATE_DIRECTORY)),
            http: options.http.or(file.http).unwrap_or(HTTP),
            native: options.native.or(file.native).unwrap_or(NATIVE),
            admin: options.admin.or(file.admin).unwrap_or(ADMIN),
            shards,
            memory_bytes: memory.0,
            compression: options.compression.or(file.compression).unwrap_or_default(),
            encryption: options.encryption.or(file.encryption),
            root_key_file: options.root_key_file.or(file.root_key_file),
            credentials: options.credentials.or(file.credentials),
            accept_epoch: options.accept_epoch,
            log_format: options.log_format.or(file.log_format).unwrap_or(Format::Human),
            log_level: options.log_level.or(file.log_level).unwrap_or(Level::Info),
        };
        config.check()?;
        config.check_exposure(options.insecure || file.insecure.unwrap_or(false))?;
        Ok(config)
    }

    /// Resolves what `cairn rebuild` needs, drives, mirrors and state directory, as [`Config::resolve`] does for
    /// `cairn serve`. What is only of use to serve is neither looked at nor refused.
    ///
    /// # Errors
    /// [`ConfigError`] for what cannot be meant.
    pub fn resolve_rebuild(options: RebuildOptions, file: File) -> Result<Config, ConfigError> {
        let options = ServeOptions {
            drive: options.drive,
            mirrors: options.mirrors,
            state: options.state,
            accept_epoch: options.accept_epoch,
            root_key_file: options.root_key_file,
            ..ServeOptions::default()
        };
        let file = File {
            drives: file.drives,
            mirrors: file.mirrors,
            state: file.state,
            root_key_file: file.root_key_file,
            ..File::default()
        };
        let machine = Machine {
            processors: 1,
            memory_bytes: 2 * SHARD_BYTES_MIN,
        };
        Config::resolve(options, file, machine)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.drives.is_empty() {
            return refuse("at least one drive directory is needed (--drive DIR)");
        }
        for (index, drive) in self.drives.iter().enumerate() {
            if self.drives[..index].contains(drive) {
                return refuse(format!("drive directory {} is given twice", drive.display()));
            }
            if *drive == self.state {
                return refuse(format!(
                    "{} is both a drive and the state directory",
                    drive.display()
                ));
            }
        }
        let drives = self.drives.len();
        if !(1..=drives).contains(&self.mirrors) {
            return refuse(format!(
                "--mirrors {} is not between 1 and the number of drives, {drives}",
                self.mirrors
            ));
        }
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return refuse(format!(
                "--shards {} is not between 1 and {SHARDS_MAX}",
                self.shards
            ));
        }
        let least = SHARD_BYTES_MIN * self.shards as u64;
        if self.memory_bytes < least {
            return refuse(format!(
                "--memory {} is less than {} for each of {} shards; give more memory or fewer --shards",
                Size(self.memory_bytes),
                Size(SHARD_BYTES_MIN),
                self.shards
            ));
        }
        let listeners = [
            ("http", self.http),
            ("native", self.native),
            ("admin", self.admin),
        ];
        for (index, (flag, address)) in listeners.into_iter().enumerate() {
            let before = &listeners[..index];
            if let Some((other, taken)) = before.iter().find(|(_, other)| overlap(*other, address)) {
                return refuse(format!(
                    "--{other} {taken} and --{flag} {address} would listen on the same address and port"
                ));
            }
        }
        Ok(())
    }

    /// Who is not on this machine must prove who they are, and is told that the line can be overheard.
    fn check_exposure(&self, insecure: bool) -> Result<(), ConfigError> {
        for (flag, address) in [
            ("http", self.http),
            ("native", self.native),
            ("admin", self.admin),
        ] {
            if address.ip().is_loopback() {
                continue;
            }
            if self.credentials.is_none() {
                return refuse(format!(
                    "--{flag} {address} can be reached from other machines, which needs --credentials FILE; \
                     without credentials only loopback addresses such as 127.0.0.1 are accepted"
                ));
            }
            if !insecure {
                return refuse(format!(
                    "--{flag} {address} can be reached from other machines and what is sent there is plain \
                     text; put TLS in front of a loopback address, or give --insecure on a network that you trust"
                ));
            }
        }
        Ok(())
    }

    /// Whether the admin endpoints ask for credentials: when other machines can reach them.
    #[must_use]
    pub fn admin_is_guarded(&self) -> bool {
        !self.admin.ip().is_loopback()
    }
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
