//! The servers: how each is found, started on core 0, and stopped.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Options;

/// Access key that the signed rows use.
pub(crate) const ACCESS_KEY: &str = "AKIDBENCH";
/// Its secret.
pub(crate) const SECRET_KEY: &str = "benchmark-secret";

/// Longest time that a server may take to listen.
const START_MAX: Duration = Duration::from_secs(60);

/// A server in one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Cairn,
    CairnSigned,
    DynoxideMemory,
    DynoxideFile,
    DynamoDbLocalMemory,
    DynamoDbLocalFile,
    Redis,
    RedisPipelined,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Cairn => "Cairn",
            Kind::CairnSigned => "Cairn, signatures checked",
            Kind::DynoxideMemory => "Dynoxide 3.2, in memory",
            Kind::DynoxideFile => "Dynoxide 3.2, file",
            Kind::DynamoDbLocalMemory => "DynamoDB Local 3.0, in memory",
            Kind::DynamoDbLocalFile => "DynamoDB Local 3.0, file",
            Kind::Redis => "Redis, AOF always",
            Kind::RedisPipelined => "Redis, AOF always, pipeline 16",
        }
    }

    pub(crate) fn durability(self) -> &'static str {
        match self {
            Kind::Cairn | Kind::CairnSigned => "two mirrors, O_DIRECT and O_DSYNC",
            Kind::DynoxideMemory | Kind::DynamoDbLocalMemory => "none",
            Kind::DynoxideFile | Kind::DynamoDbLocalFile => "SQLite file, as the server sets it",
            Kind::Redis | Kind::RedisPipelined => "one file, fsync before the answer",
        }
    }

    pub(crate) fn is_cairn(self) -> bool {
        matches!(self, Kind::Cairn | Kind::CairnSigned)
    }
}

/// Where the programs are; `None` for a peer that cannot be had.
pub(crate) struct Tools {
    pub(crate) cairn: PathBuf,
    pub(crate) loadgen: PathBuf,
    pub(crate) dynoxide: Option<PathBuf>,
    pub(crate) dynamodb_local: Option<PathBuf>,
    pub(crate) redis: Option<PathBuf>,
    pub(crate) redis_benchmark: Option<PathBuf>,
    pub(crate) fio: Option<PathBuf>,
    pub(crate) db_bench: Option<PathBuf>,
}

impl Tools {
    pub(crate) fn find(options: &Options) -> Result<Tools, String> {
        let built = |name: &str| {
            let path = options.binaries.join(name);
            let advice = "build them with `cargo build --release -p cairn -p cairn-loadgen`";
            path.canonicalize()
                .map_err(|error| format!("{}: {error}; {advice}", path.display()))
        };
        let existing = |path: PathBuf| path.canonicalize().ok();
        let java = on_path("java");
        Ok(Tools {
            cairn: built("cairn")?,
            loadgen: built("loadgen")?,
            dynoxide: existing(options.peers.join("bin/dynoxide")),
            dynamodb_local: java.and(existing(options.peers.join("dynamodb-local"))),
            redis: on_path("redis-server"),
            redis_benchmark: on_path("redis-benchmark"),
            fio: on_path("fio"),
            db_bench: on_path("db_bench"),
        })
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
}

/// A running server; stopped, and its data removed, when dropped.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    /// HTTP, or RESP for Redis.
    pub(crate) port: u16,
    /// Cairn's native port.
    pub(crate) native: u16,
    /// Cairn's admin port.
    pub(crate) admin: u16,
    child: Child,
    command: Command,
    data: TempDir,
}

/// How Cairn is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) shards: u32,
    pub(crate) memory_mib: u64,
    /// The core that it is pinned to; `None` for all of them.
    pub(crate) cores: Option<u32>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            shards: 1,
            memory_mib: 1024,
            cores: Some(0),
        }
    }
}

impl Server {
    /// Starts a server and waits until it listens; `None` when its program cannot be had.
    pub(crate) fn start(kind: Kind, options: &Options, tools: &Tools) -> Result<Option<Server>, String> {
        Server::start_as(kind, &Setup::default(), options, tools)
    }

    /// The same, where Cairn is started otherwise.
    pub(crate) fn start_as(
        kind: Kind,
        setup: &Setup,
        options: &Options,
        tools: &Tools,
    ) -> Result<Option<Server>, String> {
        fs::create_dir_all(&options.data).map_err(|error| format!("{}: {error}", options.data.display()))?;
        let data = tempfile::tempdir_in(&options.data).map_err(|error| error.to_string())?;
        let home = data.path().canonicalize().map_err(|error| error.to_string())?;
        let [port, native, admin] = free_ports()?;
        let command = match kind {
            Kind::Cairn | Kind::CairnSigned => Some(cairn(kind, setup, tools, &home, [port, native, admin])?),
            Kind::DynoxideMemory | Kind::DynoxideFile => dynoxide(kind, tools, &home, port),
            Kind::DynamoDbLocalMemory | Kind::DynamoDbLocalFile => dynamodb_local(kind, tools, &home, port),
            Kind::Redis | Kind::RedisPipelined => redis(tools, &home, port),
        };
        let Some(mut command) = command else {
            return Ok(None);
        };
        command.current_dir(&home).stdin(Stdio::null());
        let child = spawn(&mut command, &home)?;
        let mut server = Server {
            kind,
            port,
            native,
            admin,
            child,
            command,
            data,
        };
        server.wait_until_it_listens()?;
        Ok(Some(server))
    }

    /// Ends the process as a crash would.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on its data; does not wait for it.
    pub(crate) fn start_again(&mut self) -> Result<(), String> {
        self.child = spawn(&mut self.command, self.data.path())?;
        Ok(())
    }

    fn wait_until_it_listens(&mut self) -> Result<(), String> {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || start.elapsed() > START_MAX {
                let log = fs::read_to_string(self.data.path().join("server.log")).unwrap_or_default();
                return Err(format!(
                    "{} did not start: {:?}\n{log}",
                    self.kind.name(),
                    self.command
                ));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Seconds of CPU that the process has used.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The second field is the name in parentheses, which may hold spaces.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks: f64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<f64>().ok())
            .sum();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap_or_default();
        line.split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse::<f64>().ok())
            .unwrap_or(f64::NAN)
            / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(command: &mut Command, home: &Path) -> Result<Child, String> {
    let log = fs::File::create(home.join("server.log")).map_err(|error| error.to_string())?;
    let errors = log.try_clone().map_err(|error| error.to_string())?;
    let spawned = command.stdout(log).stderr(errors).spawn();
    spawned.map_err(|error| format!("{command:?}: {error}"))
}

/// Three ports that are free now.
fn free_ports() -> Result<[u16; 3], String> {
    let listen = || TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.to_string());
    let listeners = [listen()?, listen()?, listen()?];
    let port = |listener: &TcpListener| listener.local_addr().map_or(0, |address| address.port());
    Ok([port(&listeners[0]), port(&listeners[1]), port(&listeners[2])])
}

fn on_core_0(program: &Path) -> Command {
    on_core(0, program)
}

fn on_core(core: u32, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

fn cairn(kind: Kind, setup: &Setup, tools: &Tools, home: &Path, ports: [u16; 3]) -> Result<Command, String> {
    let mut command = match setup.cores {
        Some(core) => on_core(core, &tools.cairn),
        None => Command::new(&tools.cairn),
    };
    command.args(["serve", "--shards", &setup.shards.to_string()]);
    command.args(["--memory", &format!("{}MiB", setup.memory_mib)]);
    for (flag, port) in ["--http", "--native", "--admin"].iter().zip(ports) {
        command.arg(flag).arg(format!("127.0.0.1:{port}"));
    }
    for (flag, name) in [
        ("--drive", "drive-a"),
        ("--drive", "drive-b"),
        ("--state", "state"),
    ] {
        command.arg(flag).arg(home.join(name));
    }
    if kind == Kind::CairnSigned {
        let credentials = home.join("credentials.toml");
        let text =
            format!("[[key]]\naccess_key_id = \"{ACCESS_KEY}\"\nsecret_access_key = \"{SECRET_KEY}\"\n");
        fs::write(&credentials, text).map_err(|error| error.to_string())?;
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&credentials, owner_only).map_err(|error| error.to_string())?;
        command.arg("--credentials").arg(credentials);
    }
    Ok(command)
}

fn dynoxide(kind: Kind, tools: &Tools, home: &Path, port: u16) -> Option<Command> {
    let mut command = on_core_0(tools.dynoxide.as_deref()?);
    command.args(["serve", "--host", "127.0.0.1", "--port", &port.to_string()]);
    if kind == Kind::DynoxideFile {
        command.arg("--db-path").arg(home.join("dynoxide.db"));
    }
    Some(command)
}

fn dynamodb_local(kind: Kind, tools: &Tools, home: &Path, port: u16) -> Option<Command> {
    let libraries = tools.dynamodb_local.as_deref()?;
    let mut command = on_core_0(Path::new("java"));
    command
        .arg(format!("-Djava.library.path={}", libraries.display()))
        .arg("-cp")
        .arg(format!("{}/*", libraries.display()))
        .args([
            "software.amazon.dynamodb.services.local.main.ServerRunner",
            "-sharedDb",
            "-disableTelemetry",
        ])
        .args(["-port", &port.to_string()]);
    match kind {
        Kind::DynamoDbLocalFile => command.arg("-dbPath").arg(home),
        _ => command.arg("-inMemory"),
    };
    Some(command)
}

fn redis(tools: &Tools, home: &Path, port: u16) -> Option<Command> {
    let mut command = on_core_0(tools.redis.as_deref()?);
    command
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ])
        .args(["--save", "", "--dir"])
        .arg(home);
    Some(command)
}
