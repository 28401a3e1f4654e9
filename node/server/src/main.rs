//! The binary: what touches the process. Everything else is in the library.
#![allow(
    clippy::disallowed_methods,
    reason = "the edge of the world: the writer of the log and the watcher of signals are threads"
)]

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cairn::backup::client::backup as make_backup;
use cairn::cli::{
    AdminOptions, BackupOptions, CheckOptions, Cli, Command, DrivesAction, DrivesOptions, KeysAction,
    RebuildOptions, ServeOptions,
};
use cairn::config::{Config, ConfigError, Encryption, File, Machine, Size, find_state};
use cairn::credentials::Credentials;
use cairn::drives::client::{Client, operate, rotate_tables, scrub};
use cairn::http::Limits;
use cairn::index::IndexCheck;
use cairn::keys::{self, Given, Replacement, Source};
use cairn::logging::{Level, Logger, write_lines};
use cairn::node::{Node, NodeConfig};
use cairn::rebuild::{Teller, outcome};
use cairn::serve::{Addresses, Fronts, Plan, Stopper};
use cairn_engine::config::OPEN_FILES_MAX;
use cairn_engine::rebuild::Progress;
use cairn_engine::sealing::{KEY_BYTES, Keys, RootKey};
use cairn_engine::volume::{VolumeConfig, VolumeStatus, check_directories, rotate_root_key};
use cairn_engine::{EngineConfig, check, dump, rebuild as engine_rebuild};
use cairn_runtime::Runtime;
use cairn_runtime::real;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Items come and go in a few sizes; with the system's allocator a put spent a quarter of its time there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's header, which the bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Milliseconds until free memory goes back to the system: never. It is within the budget, and is wanted again by the
/// next memtable. To fault it in anew stops the shard: with mimalloc's 10 ms a fifth of a put's time, with a minute
/// still 38 huge pages a second at 40,000 requests a second, each of which takes 0.2 ms, and on a virtual machine
/// whose host takes free pages back 3 to 13 ms.
const PURGE_DELAY_MS: std::ffi::c_long = -1;

/// Something went wrong while running.
const FAILED: u8 = 1;
/// The command line, an environment variable or the configuration is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "a setting of the allocator")]
    // SAFETY: sets a number; no other thread runs yet.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS);
    }
    let (result, code) = match Cli::parse().command {
        Command::Serve(options) => match resolve(options) {
            Ok((config, credentials)) => (serve(&config, credentials), FAILED),
            Err(error) => (Err(error.to_string()), USAGE),
        },
        Command::Rebuild(options) => match resolve_rebuild(options) {
            Ok(config) => (rebuild(&config), FAILED),
            Err(error) => (Err(error.to_string()), USAGE),
        },
        Command::Check(options) => (check(options), FAILED),
        Command::Drives(options) => (drives(options), FAILED),
        Command::Backup(options) => (backup(options), FAILED),
        Command::Dump { file, root_key_file } => (dump(file, root_key_file), FAILED),
        Command::Keys {
            action: KeysAction::RotateTables(admin),
        } => (rotate_tables_of(&admin), FAILED),
        Command::Keys {
            action: KeysAction::Rotate(options),
        } => match resolve_rebuild(options.node) {
            Ok(config) => (rotate(&config, options.new_root_key_file.as_deref()), FAILED),
            Err(error) => (Err(error.to_string()), USAGE),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cairn: {error}");
            ExitCode::from(code)
        }
    }
}

fn resolve(options: ServeOptions) -> Result<(Config, Option<Credentials>), ConfigError> {
    let file = options
        .config
        .as_deref()
        .map(File::read)
        .transpose()?
        .unwrap_or_default();
    let config = Config::resolve(options, file, Machine::detect())?;
    // Before anything is written: a new node's root key goes to the state directory first of all.
    check_directories(&config.drives, &config.state, real::resolve)
        .map_err(|error| ConfigError(error.to_string()))?;
    let credentials = config.credentials.as_deref().map(Credentials::read).transpose();
    Ok((
        config,
        credentials.map_err(|error| ConfigError(error.to_string()))?,
    ))
}

fn resolve_rebuild(options: RebuildOptions) -> Result<Config, ConfigError> {
    let file = options.config.as_deref().map(File::read).transpose()?;
    let (mut options, file) = (options, file.unwrap_or_default());
    if options.state.is_none() && file.state.is_none() {
        let drives = match options.drive.as_slice() {
            [] => file.drives.as_deref().unwrap_or_default(),
            drives => drives,
        };
        options.state = existing_state(drives);
    }
    Config::resolve_rebuild(options, file)
}

/// The state directory of a node with these drives, when nobody named one: one that holds a witness.
fn existing_state(drives: &[PathBuf]) -> Option<PathBuf> {
    let absolute = |drive: &PathBuf| std::path::absolute(drive).unwrap_or_else(|_| drive.clone());
    let drives: Vec<PathBuf> = drives.iter().map(absolute).collect();
    // What cannot be looked at is there.
    find_state(&drives, |state| {
        !matches!(state.join("witness").try_exists(), Ok(false))
    })
}

/// Descriptors that a shard takes beside its connections: segment files, log files of two mirrors, and some that are
/// being written or copied.
const DESCRIPTORS_PER_SHARD: u64 = OPEN_FILES_MAX as u64 + 192;
/// The least to be left for connections.
const DESCRIPTORS_FOR_CONNECTIONS: u64 = 128;
/// Of them, what the admin endpoints need, and connections that are being turned away.
const DESCRIPTORS_FOR_ADMIN: u64 = 96;

/// Allows the process as many open files as it may have: the usual soft limit, 1,024, is for those who use `select`. Answers
/// how many connections of each protocol a shard can have, so that there is a descriptor for each, and one to turn others
/// away with.
fn raise_descriptor_limit(shards: usize) -> Result<usize, String> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // What cannot be raised may still be enough.
    let now = setrlimit(Resource::Nofile, raised).map_or(limit.current, |()| raised.current);
    let needed = DESCRIPTORS_PER_SHARD * shards as u64 + DESCRIPTORS_FOR_CONNECTIONS;
    match now {
        Some(now) if now < needed => Err(format!(
            "the process may open {now} files, and {shards} shards need {needed}: raise its limit (ulimit -Hn, \
             LimitNOFILE=)"
        )),
        Some(now) => {
            let connections = now - DESCRIPTORS_PER_SHARD * shards as u64 - DESCRIPTORS_FOR_ADMIN;
            let each = connections / (2 * shards as u64);
            Ok(usize::try_from(each.max(1)).unwrap_or(usize::MAX))
        }
        None => Ok(usize::MAX),
    }
}

/// How long an address may still be held by a node that was killed: the kernel ends its rings first.
const ADDRESS_WAIT_MAX: Duration = Duration::from_secs(2);

fn is_free(address: SocketAddr) -> std::io::Result<()> {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && begun.elapsed() < ADDRESS_WAIT_MAX =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => return bound.map(drop),
        }
    }
}

fn serve(config: &Config, credentials: Option<Credentials>) -> Result<(), String> {
    let connections_max = raise_descriptor_limit(config.shards)?;
    for address in [config.http, config.native, config.admin] {
        // The shards share their port, and would with another node too; this bind does not share.
        is_free(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    }
    let (logger, lines) = Logger::new(config.log_level, config.log_format);
    let writer = std::thread::spawn(move || write_lines(&lines));
    let result = run(config, credentials, connections_max, &logger);
    if let Err(error) = &result {
        logger.log(Level::Error, unix_ms(), "the node failed", &[("error", error)]);
    }
    logger.finish();
    let _ = writer.join();
    result
}

fn run(
    config: &Config,
    credentials: Option<Credentials>,
    connections_max: usize,
    logger: &Logger,
) -> Result<(), String> {
    let keys = keys_to_serve(config, logger)?;
    let node = Node::new(
        NodeConfig {
            drives: config.drives.clone(),
            state: config.state.clone(),
            mirrors: config.mirrors,
            accept_epoch: config.accept_epoch,
            keys,
            memory_bytes: config.memory_bytes,
            engine: EngineConfig {
                compression: config.compression,
                ..EngineConfig::default()
            },
            ..NodeConfig::default()
        },
        config.shards,
    );
    let is_ready = Arc::new(AtomicBool::new(false));
    let (announced, ready_logger, now_ready) = (config.clone(), logger.clone(), Arc::clone(&is_ready));
    let body_budget = config.memory_bytes / 8 / config.shards as u64;
    let (fronts, stopper) = Fronts::new(Plan {
        node,
        shards: config.shards,
        addresses: Addresses {
            http: config.http,
            native: config.native,
            admin: config.admin,
        },
        guard_admin: config.admin_is_guarded(),
        credentials,
        limits: Limits {
            large_bodies_bytes: usize::try_from(body_budget)
                .unwrap_or(usize::MAX)
                .max(Limits::LARGE_MIN),
            connections: connections_max.min(Limits::default().connections),
            ..Limits::default()
        },
        logger: logger.clone(),
        on_ready: Box::new(move |addresses, status| {
            now_ready.store(true, Ordering::Release);
            announce(&announced, addresses, status, &ready_logger);
        }),
    });
    watch_signals(stopper, is_ready, logger.clone())?;
    let failure = Arc::new(Mutex::new(None));
    let failed = Arc::clone(&failure);
    let shards = real::Config {
        shards: config.shards,
        ..real::Config::default()
    };
    let start = move |runtime: real::RealRuntime| {
        let (fronts, failed) = (fronts.clone(), Arc::clone(&failed));
        async move {
            let is_first = runtime.shard().0 == 0;
            if let Err(error) = fronts.run_shard(runtime).await {
                let mut failure = failed.lock().expect("nobody panics with it");
                // All shards fail alike; the first one knows most.
                if is_first || failure.is_none() {
                    *failure = Some(error.to_string());
                }
            }
        }
    };
    real::run(shards, start).map_err(|error| error.to_string())?;
    let failure = failure.lock().expect("nobody panics with it").take();
    match failure {
        Some(error) => Err(error),
        None => {
            logger.log(Level::Info, unix_ms(), "stopped", &[]);
            Ok(())
        }
    }
}

/// The environment variable that holds a root key itself.
const ROOT_KEY: &str = "CAIRN_ROOT_KEY";

fn given(config: &Config) -> Given {
    Given {
        variable: std::env::var(ROOT_KEY).ok(),
        file: config.root_key_file.clone(),
        encrypted: config.encryption.map(|encryption| encryption == Encryption::On),
    }
}

fn random_key() -> Result<RootKey, String> {
    let mut bytes = [0; KEY_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    Ok(RootKey::new(bytes))
}

/// Finds the root key of a node that is to serve; makes one for a node that is new.
fn keys_to_serve(config: &Config, logger: &Logger) -> Result<Keys, String> {
    let found = keys::find(&given(config), Some(&config.state)).map_err(|error| error.to_string())?;
    for warning in &found.warnings {
        logger.log(Level::Warn, unix_ms(), warning, &[]);
    }
    let mut keys = found.keys;
    let is_new = found.source == Source::None
        && keys.encrypted != Some(false)
        && keys::is_first_start(&config.drives, &config.state);
    if is_new {
        let (key, path) = (random_key()?, config.state.join(keys::FILE_NAME));
        keys::write(&path, &key)
            .map_err(|error| format!("the root key cannot be written to {}: {error}", path.display()))?;
        let fields: [(&'static str, &dyn std::fmt::Display); 2] =
            [("file", &path.display()), ("id", &key.id())];
        logger.log(
            Level::Warn,
            unix_ms(),
            "a root key was made: without it nothing of this node can be read. Keep a copy elsewhere, or move it and \
             name it with --root-key-file",
            &fields,
        );
        keys.root.push(key);
    }
    Ok(keys)
}

/// Lets the first SIGTERM or SIGINT drain the node and the second end it at once.
fn watch_signals(stopper: Stopper, is_ready: Arc<AtomicBool>, logger: Logger) -> Result<(), String> {
    let mut signals =
        Signals::new([SIGTERM, SIGINT]).map_err(|error| format!("cannot watch signals: {error}"))?;
    std::thread::spawn(move || {
        let mut draining = false;
        for signal in signals.forever() {
            if draining || !is_ready.load(Ordering::Acquire) {
                // Nothing is lost: what is durable is recovered at the next start. A node that was still
                // starting has done as it was told.
                std::process::exit(if draining { i32::from(FAILED) } else { 0 });
            }
            draining = true;
            let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
            logger.log(Level::Info, unix_ms(), "draining", &[("signal", &name)]);
            stopper.stop();
        }
    });
    Ok(())
}

/// Says where to connect, on the standard output; a line begins with what listens and ends with where.
fn announce(config: &Config, addresses: Addresses, status: &VolumeStatus, logger: &Logger) {
    // What was removed is of interest only while the configuration names it.
    let shown = status
        .drives
        .iter()
        .filter(|drive| !drive.retired || drive.path.is_some());
    let drives = status.drives.iter().filter(|drive| !drive.retired).count();
    let in_sync = status.drives.iter().filter(|drive| drive.in_sync).count();
    let mut text = format!(
        "cairn {} {} on {} shards with {} of memory\n",
        env!("CARGO_PKG_VERSION"),
        if status.created {
            "created a node"
        } else {
            "serves"
        },
        config.shards,
        Size(config.memory_bytes),
    );
    text += &format!("  http     http://{}\n", addresses.http);
    text += &format!("  native   cairn://{}\n", addresses.native);
    text += &format!("  admin    http://{}\n", addresses.admin);
    let keys = if config.credentials.is_some() {
        "required"
    } else {
        "not checked, loopback only"
    };
    text += &format!("  signatures {keys}\n");
    text += &format!(
        "  mirrors  {} copies on {drives} drives, {in_sync} in sync, epoch {}\n",
        status.mirrors, status.in_sync.epoch.0
    );
    let encryption = status.root_key.map_or_else(
        || "off: what is on the drives can be read by whoever has them".to_owned(),
        |root| format!("AES-256-GCM under root key {root}"),
    );
    text += &format!("  encryption {encryption}\n");
    for drive in shown {
        let path = drive.path.as_ref().map_or_else(
            || format!("drive {}", drive.id),
            |path| path.display().to_string(),
        );
        let state = if drive.in_sync {
            "in sync".to_owned()
        } else if drive.retired {
            "removed: take it out of the configuration".to_owned()
        } else {
            format!("OUT OF SYNC: {}", drive.why)
        };
        text += &format!("    {path}: {state}\n");
    }
    text += &format!(
        "  try      aws dynamodb list-tables --endpoint-url http://{}\n",
        addresses.http
    );
    say(&text);
    let fields: [(&'static str, &dyn std::fmt::Display); 4] = [
        ("http", &addresses.http),
        ("native", &addresses.native),
        ("admin", &addresses.admin),
        ("drives_in_sync", &in_sync),
    ];
    logger.log(Level::Info, unix_ms(), "ready", &fields);
    for warning in &status.warnings {
        logger.log(Level::Warn, unix_ms(), warning, &[]);
    }
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn check(options: CheckOptions) -> Result<(), String> {
    let state = options.state.or_else(|| existing_state(&options.drives));
    let without = if state.is_none() {
        " (without the witness: name its directory with --state DIR)"
    } else {
        ""
    };
    let given = Given {
        variable: std::env::var(ROOT_KEY).ok(),
        file: options.root_key_file,
        encrypted: None,
    };
    let keys = keys::find(&given, state.as_deref()).map_err(|error| error.to_string())?;
    let config = VolumeConfig {
        keys: keys.keys,
        mirrors: options.mirrors.unwrap_or(options.drives.len().min(2)),
        drives: options.drives,
        state: state.unwrap_or_default(),
        accept_epoch: None,
    };
    let report = on_one_shard(async move |runtime| {
        let items = check::CheckOptions { items: true };
        let mut progress = |what: &str| eprintln!("checking {what}");
        let mut indexes = IndexCheck::default();
        check::check_with(runtime, &config, items, &mut progress, &mut indexes)
            .await
            .map_err(|error| format!("{error}{without}"))
    })??;
    say(&report.to_string());
    if report.is_clean() {
        Ok(())
    } else {
        Err("the node is damaged".to_owned())
    }
}

fn rebuild(config: &Config) -> Result<(), String> {
    let (volume, _) = stopped_node(config)?;
    let status = on_one_shard(async move |runtime| {
        let mut teller = Teller::default();
        let mut progress = |progress: Progress<'_>| {
            if let Some(line) = teller.line(&progress) {
                say(&format!("{line}\n"));
            }
        };
        engine_rebuild::rebuild(runtime, &volume, &mut progress)
            .await
            .map_err(|error| error.to_string())
    })??;
    say(&format!("{}\n", outcome(&config.drives, &status)?));
    Ok(())
}

/// A stopped node, with its root key and where that came from.
fn stopped_node(config: &Config) -> Result<(VolumeConfig, Source), String> {
    let found = keys::find(&given(config), Some(&config.state)).map_err(|error| error.to_string())?;
    let volume = VolumeConfig {
        drives: config.drives.clone(),
        state: config.state.clone(),
        mirrors: config.mirrors,
        accept_epoch: config.accept_epoch,
        keys: found.keys,
    };
    Ok((volume, found.source))
}

fn rotate(config: &Config, named: Option<&Path>) -> Result<(), String> {
    let (volume, source) = stopped_node(config)?;
    let replacement =
        Replacement::prepare(&source, named, random_key()?).map_err(|error| error.to_string())?;
    let key = replacement.key.clone();
    let rotated = on_one_shard(async move |runtime| rotate_root_key(runtime, &volume, &key).await)?;
    let rotated = rotated.map_err(|error| error.to_string())?;
    let where_to = replacement.complete().map_err(|error| {
        format!("the keys are wrapped with the new root key, but its file cannot be put in place: {error}")
    })?;
    let (old, new) = (rotated.old, rotated.new);
    say(&format!(
        "the node's keys are wrapped with root key {new}, no longer with {old}\n{where_to}\n"
    ));
    if rotated.unwritten > 0 {
        say(&format!(
            "{} copies of the wrapped key could not be written and still open with {old}; a start with their drives \
             writes them\n",
            rotated.unwritten
        ));
    }
    Ok(())
}

fn client_of(admin: &AdminOptions) -> Result<Client, String> {
    Client::new(admin.admin, admin.admin_key.as_deref())
}

fn rotate_tables_of(admin: &AdminOptions) -> Result<(), String> {
    rotate_tables(
        &client_of(admin)?,
        &mut |line| say(&format!("{line}\n")),
        &mut nap,
    )
}

fn drives(options: DrivesOptions) -> Result<(), String> {
    let client = client_of(&options.admin)?;
    let mut tell = |line: &str| say(&format!("{line}\n"));
    match options.action {
        DrivesAction::List { json } => {
            let drives = client.drives()?;
            say(&if json {
                drives.to_json()
            } else {
                drives.to_text(unix_ms())
            });
            Ok(())
        }
        DrivesAction::Scrub => scrub(&client, &mut tell, &mut nap),
        DrivesAction::Add { drive } => operate(&client, "add", &drive, &mut tell, &mut nap),
        DrivesAction::Rebuild { drive } => operate(&client, "rebuild", &drive, &mut tell, &mut nap),
        DrivesAction::Remove { drive } => operate(&client, "remove", &drive, &mut tell, &mut nap),
    }
}

fn backup(options: BackupOptions) -> Result<(), String> {
    let client = Client::new(options.admin, options.admin_key.as_deref())?;
    let directory = std::path::absolute(&options.directory)
        .map_err(|error| format!("{}: {error}", options.directory.display()))?;
    make_backup(
        &client,
        &directory,
        &mut |line| say(&format!("{line}\n")),
        &mut nap,
    )
}

/// How often a running node is asked how far it is.
const POLL: std::time::Duration = std::time::Duration::from_millis(200);

fn nap() {
    std::thread::sleep(POLL);
}

fn dump(file: PathBuf, root_key_file: Option<PathBuf>) -> Result<(), String> {
    let given = Given {
        variable: std::env::var(ROOT_KEY).ok(),
        file: root_key_file,
        encrypted: None,
    };
    let state = existing_state(&[file.parent().map(Path::to_owned).unwrap_or_default()]);
    let found = keys::find(&given, state.as_deref()).map_err(|error| error.to_string())?;
    let path = file.clone();
    let (text, damage) = on_one_shard(async move |runtime| {
        let mut text = String::new();
        let dumped = dump::dump(runtime, &path, &found.keys.root, &mut text).await;
        dumped
            .map(|damage| (text, damage))
            .map_err(|error| format!("cannot show {}: {error}", path.display()))
    })??;
    say(&text);
    let Some(first) = damage.first() else {
        return Ok(());
    };
    let count = damage.len();
    Err(format!(
        "{}: places that do not verify: {count}, the first: {first}",
        file.display()
    ))
}

/// Whoever reads the standard output may stop when they have seen enough.
fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Runs `work` on a shard and gives what came out.
fn on_one_shard<T: Send + 'static>(
    work: impl AsyncFnOnce(real::RealRuntime) -> T + Send + 'static,
) -> Result<T, String> {
    let work = Arc::new(Mutex::new(Some(work)));
    let result = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&result);
    let config = real::Config {
        shards: 1,
        ..real::Config::default()
    };
    real::run(config, move |runtime| {
        let work = work
            .lock()
            .expect("nobody panics with it")
            .take()
            .expect("there is one shard");
        let slot = Arc::clone(&slot);
        async move {
            let value = work(runtime).await;
            *slot.lock().expect("nobody panics with it") = Some(value);
        }
    })
    .map_err(|error| error.to_string())?;
    result
        .lock()
        .expect("nobody panics with it")
        .take()
        .ok_or_else(|| "the shard ended early".to_owned())
}
