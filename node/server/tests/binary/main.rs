//! The real binary, started as an operator would and spoken to over TCP.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test; its helpers are not marked as such"
)]

mod backup;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn");

/// A running node and what it said at its start.
struct Node {
    child: Child,
    addresses: BTreeMap<String, String>,
}

fn command(home: &Path) -> Command {
    let mut command = Command::new(CAIRN);
    command
        .args(["serve", "--shards", "2", "--memory", "128MiB"])
        .current_dir(home)
        .stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAIRN_")) {
        command.env_remove(name);
    }
    command
}

/// On free ports.
fn anywhere(command: &mut Command) -> &mut Command {
    command.args([
        "--http",
        "127.0.0.1:0",
        "--native",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ])
}

fn start(command: &mut Command) -> Node {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut addresses = BTreeMap::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let mut words = line.split_whitespace();
        if let (Some(name), Some(url), None) = (words.next(), words.next(), words.next())
            && let Some((_, address)) = url.split_once("://")
        {
            addresses.insert(name.to_owned(), address.to_owned());
        }
        if addresses.len() == 3 {
            break;
        }
    }
    assert_eq!(addresses.len(), 3, "the node says where it listens");
    Node { child, addresses }
}

impl Node {
    fn ask(&self, listener: &str, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.addresses[listener]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, listener: &str, path: &str) -> String {
        self.ask(
            listener,
            &format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"),
        )
    }

    fn call(&self, operation: &str, body: &str) -> String {
        let answer = self.ask(
            "http",
            &format!(
                "POST / HTTP/1.1\r\nHost: node\r\nConnection: close\r\nX-Amz-Target: DynamoDB_20120810.{operation}\r\n\
                 Content-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        );
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn stop(mut self, signal: &str) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serves_stops_and_serves_again() {
    let home = tempfile::tempdir().unwrap();
    let node = start(anywhere(&mut command(home.path())));
    assert!(node.get("http", "/").ends_with("healthy: dynamodb.cairn.local "));
    assert!(node.get("admin", "/livez").starts_with("HTTP/1.1 200 OK"));
    assert!(node.get("admin", "/readyz").starts_with("HTTP/1.1 200 OK"));
    assert!(node.get("admin", "/other").starts_with("HTTP/1.1 404 "));
    let table = "{\"TableName\":\"orders\",\"KeySchema\":[{\"AttributeName\":\"id\",\"KeyType\":\"HASH\"}],\
                 \"AttributeDefinitions\":[{\"AttributeName\":\"id\",\"AttributeType\":\"S\"}],\
                 \"BillingMode\":\"PAY_PER_REQUEST\"}";
    let created = node.call("CreateTable", table);
    assert!(created.contains("\"TableName\":\"orders\""), "{created}");
    for id in 0..20 {
        let item = format!(
            "{{\"TableName\":\"orders\",\"Item\":{{\"id\":{{\"S\":\"{id}\"}},\"n\":{{\"N\":\"{id}\"}}}}}}"
        );
        assert_eq!(node.call("PutItem", &item), "{}");
    }
    let metrics = node.get("admin", "/metrics");
    let puts = "cairn_request_duration_seconds_count{protocol=\"http\",operation=\"PutItem\"} 20";
    assert!(metrics.lines().any(|line| line == puts), "{metrics}");
    assert!(
        metrics.lines().any(|line| line == "cairn_drives_in_sync 2"),
        "{metrics}"
    );
    assert!(metrics.lines().any(|line| line == "cairn_shards 2"), "{metrics}");

    // What an operator asks of the running node.
    let admin = ["--admin", &node.addresses["admin"]];
    let listed = tool(home.path(), &["drives", "list", admin[0], admin[1]]);
    assert_eq!(listed.matches(": in sync").count(), 2, "{listed}");
    let scrubbed = tool(home.path(), &["drives", "scrub", admin[0], admin[1]]);
    assert!(
        scrubbed.contains("has been verified on every mirror"),
        "{scrubbed}"
    );
    let listed = tool(home.path(), &["drives", "list", admin[0], admin[1]]);
    assert!(listed.contains("scrub: everything older than 2"), "{listed}");
    let json = tool(home.path(), &["drives", "list", "--json", admin[0], admin[1]]);
    assert!(json.contains("\"state\":\"in sync\""), "{json}");
    let rekeyed = tool(home.path(), &["keys", "rotate-tables", admin[0], admin[1]]);
    assert!(rekeyed.contains("sealed with the tables' new keys"), "{rekeyed}");
    let page = node.ask(
        "admin",
        "POST /drives/scrub HTTP/1.1\r\nHost: a\r\nOrigin: http://evil\r\nConnection: close\r\n\r\n",
    );
    assert!(page.starts_with("HTTP/1.1 403 "), "{page}");

    // Another node on the same directories or the same port is refused.
    let second = anywhere(&mut command(home.path())).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another process"));
    let other_home = tempfile::tempdir().unwrap();
    let taken = command(other_home.path())
        .args(["--http", &node.addresses["http"]])
        .output()
        .unwrap();
    assert_eq!(taken.status.code(), Some(1));
    let said = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert!(
        said.contains(&format!("cannot listen on {}", node.addresses["http"])),
        "{said}"
    );

    assert_eq!(node.stop("-TERM"), Some(0));
    let data = home.path().join("cairn-data");
    let checked = tool(
        home.path(),
        &["check", "cairn-data/drive-a", "cairn-data/drive-b"],
    );
    assert!(checked.contains("everything verifies"), "{checked}");
    check_from_elsewhere(&data);
    let mut files = 0;
    for directory in ["drive-a", "drive-b", "state"] {
        for entry in std::fs::read_dir(data.join(directory))
            .unwrap()
            .map(Result::unwrap)
        {
            // The lock and the key are none of the engine's files.
            if entry.metadata().unwrap().len() > 0 && entry.file_name() != "root.key" {
                let text = tool(home.path(), &["dump", entry.path().to_str().unwrap()]);
                assert!(!text.is_empty());
                files += 1;
            }
        }
    }
    assert!(files >= 5, "{files} files");
    // What is not the engine's is said to be so: by its name, by its length.
    std::fs::write(home.path().join("notes.txt"), "nothing of Cairn's").unwrap();
    std::fs::create_dir(home.path().join("other")).unwrap();
    std::fs::write(home.path().join("other/superblock"), "too short").unwrap();
    for (file, said) in [
        (
            "notes.txt",
            "cannot show notes.txt: the engine writes no file of this name",
        ),
        (
            "other/superblock",
            "other/superblock: places that do not verify: 4",
        ),
    ] {
        let mut dump = Command::new(CAIRN);
        let output = dump
            .args(["dump", file])
            .current_dir(home.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(said), "{file}: {text}");
    }
    let again = start(anywhere(&mut command(home.path())));
    let item = again.call(
        "GetItem",
        "{\"TableName\":\"orders\",\"Key\":{\"id\":{\"S\":\"7\"}}}",
    );
    assert_eq!(item, "{\"Item\":{\"id\":{\"S\":\"7\"},\"n\":{\"N\":\"7\"}}}");
    assert_eq!(again.stop("-INT"), Some(0));
}

/// The witness is found beside the drives; one that is not there is no damage, and none is made.
fn check_from_elsewhere(data: &Path) {
    let elsewhere = tempfile::tempdir().unwrap();
    let drives = [data.join("drive-a"), data.join("drive-b")];
    let [first, second] = [0, 1].map(|index| drives[index].to_str().unwrap());
    let note = "note: the witness was not looked at";
    let checked = tool(elsewhere.path(), &["check", first, second]);
    assert!(
        checked.contains("everything verifies") && !checked.contains(note),
        "{checked}"
    );

    let (state, hidden) = (data.join("state"), data.join("hidden"));
    std::fs::rename(&state, &hidden).unwrap();
    let key = hidden.join("root.key");
    let key = ["--root-key-file", key.to_str().unwrap()];
    let checked = tool(elsewhere.path(), &["check", key[0], key[1], first, second]);
    assert!(
        checked.contains("everything verifies") && checked.contains(note),
        "{checked}"
    );
    assert!(!state.exists());
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);

    // Half of the copies is too little to go by, and the message says what would help.
    let refused = failing_tool(elsewhere.path(), &["check", "--mirrors", "1", first]);
    assert!(refused.contains("--state DIR"), "{refused}");
    let named = failing_tool(
        elsewhere.path(),
        &[
            "check",
            key[0],
            key[1],
            "--state",
            state.to_str().unwrap(),
            first,
            second,
        ],
    );
    assert!(named.contains("the node is damaged"), "{named}");
    assert!(!state.exists());
    std::fs::rename(&hidden, &state).unwrap();
    std::fs::write(state.join("witness"), vec![0; 256 * 1024]).unwrap();
    let unreadable = failing_tool(elsewhere.path(), &["check", first, second]);
    assert!(unreadable.contains("the node is damaged"), "{unreadable}");
    let again = failing_tool(elsewhere.path(), &["check", first, second]);
    assert!(
        again.contains("the node is damaged"),
        "nothing was repaired: {again}"
    );
}

/// Runs another command of the binary, which fails; gives what it said on the standard error.
fn failing_tool(home: &Path, arguments: &[&str]) -> String {
    let output = Command::new(CAIRN)
        .args(arguments)
        .current_dir(home)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs another command of the binary, which succeeds.
fn tool(home: &Path, arguments: &[&str]) -> String {
    let output = Command::new(CAIRN)
        .args(arguments)
        .current_dir(home)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every file below a directory, and what it holds.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files.extend(content(&entry.path()));
        } else {
            files.insert(entry.path(), std::fs::read(entry.path()).unwrap());
        }
    }
    files
}

const MARKER: &str = "a-marker-that-nobody-may-find";

/// Lets a new node store the marker as the name of a table, of an attribute, as a key and as a value.
fn mark(serve: &mut Command) {
    let node = start(anywhere(serve));
    let table = format!(
        "{{\"TableName\":\"{MARKER}\",\"KeySchema\":[{{\"AttributeName\":\"id\",\"KeyType\":\"HASH\"}}],\
         \"AttributeDefinitions\":[{{\"AttributeName\":\"id\",\"AttributeType\":\"S\"}}],\
         \"BillingMode\":\"PAY_PER_REQUEST\"}}"
    );
    assert!(node.call("CreateTable", &table).contains(MARKER));
    for id in 0..20 {
        let item = format!(
            "{{\"TableName\":\"{MARKER}\",\"Item\":{{\"id\":{{\"S\":\"{MARKER}-{id}\"}},\
             \"{MARKER}\":{{\"S\":\"{MARKER}\"}}}}}}"
        );
        assert_eq!(node.call("PutItem", &item), "{}");
    }
    assert_eq!(node.stop("-TERM"), Some(0));
}

/// Whether the node starts and has what [`mark`] stored.
fn has_marks(serve: &mut Command) {
    let node = start(anywhere(serve));
    let key = format!("{{\"TableName\":\"{MARKER}\",\"Key\":{{\"id\":{{\"S\":\"{MARKER}-7\"}}}}}}");
    let item = node.call("GetItem", &key);
    assert!(item.contains(&format!("\"S\":\"{MARKER}\"")), "{item}");
    assert_eq!(node.stop("-TERM"), Some(0));
}

fn is_marked(files: &BTreeMap<PathBuf, Vec<u8>>) -> bool {
    let marked = |bytes: &Vec<u8>| {
        bytes
            .windows(MARKER.len())
            .any(|window| window == MARKER.as_bytes())
    };
    files.values().any(marked)
}

/// A start that fails, and says why.
fn refusal(serve: &mut Command) -> String {
    let output = anywhere(serve).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_stored_is_encrypted_and_opens_with_its_key_only() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("cairn-data");
    mark(&mut command(home.path()));
    let before = content(&data);
    assert!(before.len() > 5 && !is_marked(&before));
    let key_file = data.join("state/root.key");
    let mode = std::fs::metadata(&key_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let dumped: String = before
        .keys()
        .filter(|path| path.to_str().unwrap().contains("/log-0"))
        .map(|path| tool(home.path(), &["dump", path.to_str().unwrap()]))
        .collect();
    assert!(dumped.contains(MARKER));

    // A wrong key, none, and the wish for a node that is not encrypted.
    let wrong = home.path().join("wrong.key");
    std::fs::write(&wrong, "ab".repeat(32)).unwrap();
    let said = refusal(command(home.path()).arg("--root-key-file").arg(&wrong));
    assert!(said.contains("the node is encrypted under root key"), "{said}");
    let said = refusal(command(home.path()).args(["--encryption", "off"]));
    assert!(
        said.contains("the node is encrypted, and --encryption off"),
        "{said}"
    );
    let moved = home.path().join("moved.key");
    std::fs::rename(&key_file, &moved).unwrap();
    let said = refusal(&mut command(home.path()));
    assert!(said.contains("no root key was given"), "{said}");
    std::fs::rename(&moved, &key_file).unwrap();
    assert!(content(&data) == before, "a refused start changes nothing");
    std::fs::rename(&key_file, &moved).unwrap();
    has_marks(command(home.path()).env("CAIRN_ROOT_KEY", std::fs::read_to_string(&moved).unwrap()));
    has_marks(command(home.path()).arg("--root-key-file").arg(&moved));
    let checked = Command::new(CAIRN)
        .args(["check", "cairn-data/drive-a", "cairn-data/drive-b"])
        .current_dir(home.path())
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(1));
    std::fs::rename(&moved, &key_file).unwrap();

    // Another key in its place; the old one opens nothing any more.
    let rotated = tool(home.path(), &["keys", "rotate"]);
    assert!(rotated.contains("the old one is kept in"), "{rotated}");
    has_marks(&mut command(home.path()));
    let old = content(&data.join("state"))
        .into_keys()
        .find(|path| path.to_str().unwrap().contains("root.key."));
    let said = refusal(command(home.path()).arg("--root-key-file").arg(old.unwrap()));
    assert!(said.contains("the node is encrypted under root key"), "{said}");
    let elsewhere = home.path().join("elsewhere.key");
    let named = ["--new-root-key-file", elsewhere.to_str().unwrap()];
    let rotated = tool(home.path(), &["keys", "rotate", named[0], named[1]]);
    assert!(rotated.contains("elsewhere.key"), "{rotated}");
    has_marks(command(home.path()).arg("--root-key-file").arg(&elsewhere));
    let checked = ["check", "--root-key-file", elsewhere.to_str().unwrap()];
    let drives = ["cairn-data/drive-a", "cairn-data/drive-b"];
    let checked = tool(home.path(), &[checked.as_slice(), &drives].concat());
    assert!(checked.contains("everything verifies"), "{checked}");
}

#[test]
fn a_node_that_is_not_encrypted_stays_so() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("cairn-data");
    mark(command(home.path()).args(["--encryption", "off"]));
    let before = content(&data);
    assert!(is_marked(&before), "what is looked for is found where it is");
    assert!(!data.join("state/root.key").exists());
    let said = refusal(command(home.path()).args(["--encryption", "on"]));
    assert!(said.contains("the node is not encrypted"), "{said}");
    let said = refusal(command(home.path()).env("CAIRN_ROOT_KEY", "ab".repeat(32)));
    assert!(said.contains("the node is not encrypted"), "{said}");
    assert!(content(&data) == before);
    has_marks(&mut command(home.path()));
    assert!(!data.join("state/root.key").exists());
    let node = start(anywhere(&mut command(home.path())));
    let refused = failing_tool(
        home.path(),
        &["keys", "rotate-tables", "--admin", &node.addresses["admin"]],
    );
    assert!(refused.contains("the node is not encrypted"), "{refused}");
    assert_eq!(node.stop("-TERM"), Some(0));
    let refused = failing_tool(home.path(), &["keys", "rotate", "--new-root-key-file", "new.key"]);
    assert!(refused.contains("the node is not encrypted"), "{refused}");
}

#[test]
fn options_come_from_flags_then_variables_then_the_file() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(
        home.path().join("cairn.toml"),
        "drives = ['file-a', 'file-b']\nstate = 'file-state'\nhttp = '127.0.0.1:0'\nlog_format = 'json'\n",
    )
    .unwrap();
    let mut configured = command(home.path());
    configured.args([
        "--config",
        "cairn.toml",
        "--native",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    configured
        .env("CAIRN_STATE", "variable-state")
        .env("CAIRN_ADMIN", "127.0.0.1:1");
    let node = start(&mut configured);
    for name in ["file-a", "file-b", "variable-state"] {
        assert!(home.path().join(name).is_dir(), "{name}");
    }
    assert!(!home.path().join("file-state").exists());
    assert_eq!(node.stop("-TERM"), Some(0));
}

#[test]
fn credentials_are_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let keys = home.path().join("keys.toml");
    std::fs::write(
        &keys,
        "[[key]]\naccess_key_id = 'AKID'\nsecret_access_key = 'secret'\n",
    )
    .unwrap();
    let node = start(anywhere(command(home.path()).arg("--credentials").arg(&keys)));
    assert!(
        node.call("ListTables", "{}")
            .contains("MissingAuthenticationTokenException")
    );
    assert!(node.get("http", "/").contains("healthy"));
    assert_eq!(node.stop("-TERM"), Some(0));
}

#[test]
fn the_limit_of_open_files_is_raised_or_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let limited = |limit: &str| {
        let mut limited = Command::new("sh");
        limited
            .args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\""), CAIRN])
            .args(["serve", "--shards", "1", "--memory", "64MiB"])
            .current_dir(home.path())
            .stdin(Stdio::null());
        anywhere(&mut limited);
        limited
    };
    let output = limited("-n 600").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("may open 600 files"), "{said}");
    let node = start(&mut limited("-Sn 256"));
    assert_eq!(node.stop("-TERM"), Some(0));
}

#[test]
fn wrong_use_is_said_and_exits_with_two() {
    let home = tempfile::tempdir().unwrap();
    let wrong_key = home.path().join("wrong.toml");
    std::fs::write(&wrong_key, "htpp = '127.0.0.1:1'\n").unwrap();
    for (arguments, expected) in [
        (vec!["--bogus"], "--bogus"),
        (vec!["--memory", "lots"], "512MiB"),
        (vec!["--http", "0.0.0.0:0"], "--credentials"),
        (vec!["--mirrors", "3"], "--mirrors 3"),
        (vec!["--credentials", "/nonexistent"], "/nonexistent"),
        (vec!["--config", wrong_key.to_str().unwrap()], "htpp"),
    ] {
        let output = Command::new(CAIRN)
            .arg("serve")
            .args(&arguments)
            .current_dir(home.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let version = Command::new(CAIRN).arg("--version").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        format!("cairn {}\n", env!("CARGO_PKG_VERSION"))
    );
}
