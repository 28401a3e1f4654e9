//! The real binary as a child process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub(crate) struct Node {
    child: Child,
    /// Address of the native listener.
    pub(crate) native: String,
}

impl Node {
    /// Starts a node on the directories below `home` and waits until it says where it listens.
    pub(crate) fn start(home: &Path) -> Node {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
        command.args(["serve", "--shards", "2", "--memory", "128MiB"]);
        for listener in ["--http", "--native", "--admin"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        for (flag, name) in [
            ("--drive", "drive-a"),
            ("--drive", "drive-b"),
            ("--state", "state"),
        ] {
            command.arg(flag).arg(home.join(name));
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let native = lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| native_address(&line));
        // The rest is read, or the node would stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let native = native.expect("the node says where it listens before it ends");
        Node { child, native }
    }

    /// Kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; gives the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn native_address(line: &str) -> Option<String> {
    let lower = line.to_ascii_lowercase();
    let after = &line[lower.find("native")?..];
    let start = after.find("127.0.0.1:")?;
    let address = &after[start..];
    let end = address["127.0.0.1:".len()..].find(|c: char| !c.is_ascii_digit());
    Some(address[..end.map_or(address.len(), |end| end + "127.0.0.1:".len())].to_owned())
}

/// What `cairn check` says of the drives of a node that is stopped; it must succeed.
pub(crate) fn check(home: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.arg("check").arg("--state").arg(home.join("state"));
    let output = command
        .args([home.join("drive-a"), home.join("drive-b")])
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}
