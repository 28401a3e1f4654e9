//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use cairn_engine::Compression;
use clap::{Args, Parser, Subcommand};

use crate::config::{Encryption, Size};
use crate::logging::{Format, Level};

/// A DynamoDB-compatible database node.
#[derive(Debug, Parser)]
#[command(name = "cairn", version, about, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node until SIGTERM or SIGINT.
    Serve(ServeOptions),
    /// Verify every byte of a stopped node, given all its directories.
    Check(CheckOptions),
    /// Make every drive of a stopped node a mirror again: one that was out of sync, or an empty directory in the
    /// place of one that is lost.
    Rebuild(RebuildOptions),
    /// Look after the drives of a running node.
    Drives(DrivesOptions),
    /// Copy a running node, as it is at one moment, into a new or empty directory, and wait until the copy is complete,
    /// durable and verified. `cairn check DIR/drive` verifies it again; `cairn serve --drive DIR/drive --state DIR/state`
    /// starts a node from it.
    Backup(BackupOptions),
    /// Show what any file written by a node holds.
    Dump {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// File of the root key, without which the content of an encrypted node's files is not shown
        /// [default: root.key in the state directory beside the drive, or in ./cairn-data/state]
        #[arg(long, env = "CAIRN_ROOT_KEY_FILE", value_name = "FILE")]
        root_key_file: Option<PathBuf>,
    },
    /// Look after the keys of an encrypted node.
    Keys {
        /// What to do.
        #[command(subcommand)]
        action: KeysAction,
    },
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// Wrap the keys of a stopped node with another root key. Nothing else is rewritten; the old root key opens nothing of the node
    /// afterwards. What is cut off is completed by the same command, and until then either root key opens the node.
    Rotate(RotateOptions),
    /// Give every table of a running node another key, rewrite in the background what is sealed with the one before, and wait
    /// for it.
    RotateTables(AdminOptions),
}

/// Options of `cairn keys rotate`.
#[derive(Debug, Default, Args)]
pub struct RotateOptions {
    /// The node, and its root key until now.
    #[command(flatten)]
    pub node: RebuildOptions,

    /// File of the root key from now on, made when it is not there
    /// [default: a new key takes the place of the old one in its file]
    #[arg(long, env = "CAIRN_NEW_ROOT_KEY_FILE", value_name = "FILE")]
    pub new_root_key_file: Option<PathBuf>,
}

/// Options of `cairn check`.
#[derive(Debug, Args)]
pub struct CheckOptions {
    /// Drive directories of the node
    #[arg(required = true, value_name = "DIR")]
    pub drives: Vec<PathBuf>,

    /// Directory of the witness, which is left out when it is at none of the default places
    /// [default: `state` beside a drive, or ./cairn-data/state]
    #[arg(long, env = "CAIRN_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Drives that hold a copy of every byte [default: 2, or 1 with one drive]
    #[arg(long, env = "CAIRN_MIRRORS", value_name = "N")]
    pub mirrors: Option<usize>,

    /// File of the root key that the node's data is encrypted under [default: root.key in the state directory; the
    /// variable CAIRN_ROOT_KEY holds a key itself]
    #[arg(long, env = "CAIRN_ROOT_KEY_FILE", value_name = "FILE")]
    pub root_key_file: Option<PathBuf>,
}

/// Options of `cairn drives`.
#[derive(Debug, Args)]
pub struct DrivesOptions {
    /// What to do
    #[command(subcommand)]
    pub action: DrivesAction,

    /// The node
    #[command(flatten)]
    pub admin: AdminOptions,
}

/// Where a running node is asked.
#[derive(Debug, Args)]
pub struct AdminOptions {
    /// Admin address of the node
    #[arg(
        long,
        env = "CAIRN_ADMIN",
        value_name = "ADDR",
        global = true,
        default_value = "127.0.0.1:8080"
    )]
    pub admin: SocketAddr,

    /// Access key as ID:SECRET, where the admin address asks for one; rather as the variable than on the command line
    #[arg(
        long,
        env = "CAIRN_ADMIN_KEY",
        value_name = "KEY",
        global = true,
        hide_env_values = true
    )]
    pub admin_key: Option<String>,
}

/// Options of `cairn backup`.
#[derive(Debug, Args)]
pub struct BackupOptions {
    /// Directory on the node's machine, new or empty. On the file system of one of the node's drives what is there already
    /// takes no space again (hard links), elsewhere everything is copied
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Admin address of the node
    #[arg(
        long,
        env = "CAIRN_ADMIN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080"
    )]
    pub admin: SocketAddr,

    /// Access key as ID:SECRET, where the admin address asks for one; rather as the variable than on the command line
    #[arg(long, env = "CAIRN_ADMIN_KEY", value_name = "KEY", hide_env_values = true)]
    pub admin_key: Option<String>,
}

/// What can be done with drives.
#[derive(Debug, Clone, Subcommand)]
pub enum DrivesAction {
    /// Show every drive, and how far the scrub is.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Verify every block of every segment on every mirror now, and wait for it. Fails when something is lost.
    Scrub,
    /// Take in an empty directory as a new drive, and wait until every file has all its copies.
    Add {
        /// The directory, on the node's machine.
        #[arg(value_name = "DIR")]
        drive: String,
    },
    /// Make a drive that is out of sync, or an empty directory in its place, a mirror again; empties it first.
    Rebuild {
        /// The directory, on the node's machine, or the drive's place in the list.
        #[arg(value_name = "DRIVE")]
        drive: String,
    },
    /// Copy what is on a drive to the others, and take it off the list.
    Remove {
        /// The drive's directory, on the node's machine, or its place in the list.
        #[arg(value_name = "DRIVE")]
        drive: String,
    },
}

/// Options of `cairn serve`. Each can also be given as the environment variable shown, or in the configuration
/// file; flags win over variables, variables over the file, the file over the defaults.
#[derive(Debug, Default, Args)]
pub struct ServeOptions {
    /// TOML file with any of these options [default: none]
    #[arg(long, env = "CAIRN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Directory on a drive, created at the first start; once per drive, or several separated by commas
    /// [default: ./cairn-data/drive-a and ./cairn-data/drive-b]
    #[arg(long, env = "CAIRN_DRIVE", value_name = "DIR", value_delimiter = ',')]
    pub drive: Vec<PathBuf>,

    /// Drives that hold a copy of every byte [default: 2, or 1 with one drive]
    #[arg(long, env = "CAIRN_MIRRORS", value_name = "N")]
    pub mirrors: Option<usize>,

    /// Address of the DynamoDB HTTP API; port 0 picks a free port [default: 127.0.0.1:8000]
    #[arg(long, env = "CAIRN_HTTP", value_name = "ADDR")]
    pub http: Option<SocketAddr>,

    /// Address of the native protocol; port 0 picks a free port [default: 127.0.0.1:7600]
    #[arg(long, env = "CAIRN_NATIVE", value_name = "ADDR")]
    pub native: Option<SocketAddr>,

    /// Address of /livez, /readyz and /metrics; port 0 picks a free port [default: 127.0.0.1:8080]
    #[arg(long, env = "CAIRN_ADMIN", value_name = "ADDR")]
    pub admin: Option<SocketAddr>,

    /// Shards, each a thread with its own core [default: one per processor]
    #[arg(long, env = "CAIRN_SHARDS", value_name = "N")]
    pub shards: Option<usize>,

    /// Memory budget of the node, such as 512MiB or 4GiB [default: half of the memory]
    #[arg(long, env = "CAIRN_MEMORY", value_name = "SIZE")]
    pub memory: Option<Size>,

    /// What data is packed with when it is written: none, lz4, or zstd, which packs what is old better and takes more
    /// of the processor; what is stored already stays readable [default: lz4]
    #[arg(long, env = "CAIRN_COMPRESSION", value_name = "CODEC")]
    pub compression: Option<Compression>,

    /// Directory of the witness, on none of the drives [default: ./cairn-data/state]
    #[arg(long, env = "CAIRN_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Whether everything written is encrypted: on or off. Decided when the node is created; a node that is not what is
    /// asked for is refused [default: on for a new node, else as it is]
    #[arg(long, env = "CAIRN_ENCRYPTION", value_name = "SWITCH")]
    pub encryption: Option<Encryption>,

    /// File of the root key that the node's data is encrypted under [default: root.key in the state directory, made
    /// at the first start; the variable CAIRN_ROOT_KEY holds a key itself]
    #[arg(long, env = "CAIRN_ROOT_KEY_FILE", value_name = "FILE")]
    pub root_key_file: Option<PathBuf>,

    /// TOML file of access keys; with it signatures are checked, without it only loopback addresses are accepted
    /// [default: none]
    #[arg(long, env = "CAIRN_CREDENTIALS", value_name = "FILE")]
    pub credentials: Option<PathBuf>,

    /// Accept plain text on addresses that other machines can reach [default: refuse]
    #[arg(long, env = "CAIRN_INSECURE")]
    pub insecure: bool,

    /// Start although most copies of the in-sync epoch are gone, taking epoch N for the newest: acknowledged writes
    /// of a newer epoch are lost [default: refuse]
    #[arg(long, env = "CAIRN_ACCEPT_EPOCH", value_name = "N")]
    pub accept_epoch: Option<u64>,

    /// Form of the log lines on the standard error: human or json [default: human]
    #[arg(long, env = "CAIRN_LOG_FORMAT", value_name = "FORM")]
    pub log_format: Option<Format>,

    /// Least important log lines that are written: error, warn, info, or debug, which has every request
    /// [default: info]
    #[arg(long, env = "CAIRN_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<Level>,
}

/// Options of `cairn rebuild`: those of `cairn serve` that say where the node's files are, from the same flags,
/// variables and file.
#[derive(Debug, Default, Args)]
pub struct RebuildOptions {
    /// TOML file with any of the options of `cairn serve` [default: none]
    #[arg(long, env = "CAIRN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Directory on a drive; once per drive of the node, or several separated by commas
    /// [default: ./cairn-data/drive-a and ./cairn-data/drive-b]
    #[arg(long, env = "CAIRN_DRIVE", value_name = "DIR", value_delimiter = ',')]
    pub drive: Vec<PathBuf>,

    /// Drives that hold a copy of every byte [default: 2, or 1 with one drive]
    #[arg(long, env = "CAIRN_MIRRORS", value_name = "N")]
    pub mirrors: Option<usize>,

    /// Directory of the witness [default: `state` beside a drive if it is there, or ./cairn-data/state]
    #[arg(long, env = "CAIRN_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Go on although most copies of the in-sync epoch are gone, taking epoch N for the newest: acknowledged writes
    /// of a newer epoch are lost [default: refuse]
    #[arg(long, env = "CAIRN_ACCEPT_EPOCH", value_name = "N")]
    pub accept_epoch: Option<u64>,

    /// File of the root key that the node's data is encrypted under [default: root.key in the state directory; the
    /// variable CAIRN_ROOT_KEY holds a key itself]
    #[arg(long, env = "CAIRN_ROOT_KEY_FILE", value_name = "FILE")]
    pub root_key_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_option_has_a_default_and_a_variable() {
        Cli::command().debug_assert();
        let mut command = Cli::command();
        for name in ["serve", "rebuild"] {
            let options = command.find_subcommand_mut(name).unwrap();
            for option in options.get_arguments().filter(|option| option.get_id() != "help") {
                let help = option.get_help().unwrap().to_string();
                assert!(help.contains("[default:"), "{}", option.get_id());
                let variable = option.get_env().unwrap().to_str().unwrap();
                assert_eq!(
                    variable,
                    format!("CAIRN_{}", option.get_id().as_str().to_ascii_uppercase())
                );
            }
        }
    }
}
