//! The servers that a run starts by itself; stopped, and their data removed, when dropped.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

/// Waits of 20 ms until a server listens.
const START_WAITS: u32 = 3_000;

pub(crate) struct Server {
    pub address: String,
    child: Child,
    _data: TempDir,
}

impl Server {
    pub(crate) fn cairn(binaries: &Path, shards: u32) -> Result<Server, String> {
        let program = binaries.join("cairn");
        let program = program.canonicalize().map_err(|error| {
            format!(
                "{}: {error}; build it with `cargo build --release -p cairn`",
                program.display()
            )
        })?;
        let data = tempfile::tempdir().map_err(|error| error.to_string())?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["serve", "--shards", &shards.to_string(), "--memory", "256MiB"]);
        command.args(["--http", &format!("127.0.0.1:{port}")]);
        command.args(["--native", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        for (flag, name) in [("--drive", "a"), ("--drive", "b"), ("--state", "state")] {
            command.arg(flag).arg(data.path().join(name));
        }
        Server::start(command, port, data)
    }

    pub(crate) fn dynamodb_local(peers: &Path) -> Result<Server, String> {
        let library = peers.join("dynamodb-local");
        let library = library.canonicalize().map_err(|error| {
            format!(
                "{}: {error}; fetch it with bench/peers/install",
                library.display()
            )
        })?;
        let data = tempfile::tempdir().map_err(|error| error.to_string())?;
        let port = free_port()?;
        let mut command = Command::new("java");
        command.arg(format!("-Djava.library.path={}", library.display()));
        command.args(["-cp", &format!("{}/*", library.display())]);
        command.arg("software.amazon.dynamodb.services.local.main.ServerRunner");
        command.args([
            "-inMemory",
            "-sharedDb",
            "-disableTelemetry",
            "-port",
            &port.to_string(),
        ]);
        Server::start(command, port, data)
    }

    fn start(mut command: Command, port: u16, data: TempDir) -> Result<Server, String> {
        let path = data.path().join("server.log");
        let log = fs::File::create(&path).map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        command
            .current_dir(data.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut server = Server {
            address: format!("http://127.0.0.1:{port}"),
            child,
            _data: data,
        };
        for _ in 0..START_WAITS {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(server);
            }
            if server
                .child
                .try_wait()
                .map_err(|error| error.to_string())?
                .is_some()
            {
                break;
            }
            sleep(Duration::from_millis(20));
        }
        let log = fs::read_to_string(path).unwrap_or_default();
        Err(format!("it did not start: {command:?}\n{log}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free now.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    Ok(address.port())
}
