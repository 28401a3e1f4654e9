use clap::Parser;
use expect_test::{Expect, expect};

use super::*;
use crate::cli::{Cli, Command};

const MACHINE: Machine = Machine {
    processors: 4,
    memory_bytes: 8 << 30,
};

fn resolve(flags: &str, file: &str) -> Result<Config, String> {
    let line = ["cairn", "serve"].into_iter().chain(flags.split_whitespace());
    let Command::Serve(options) = Cli::try_parse_from(line)
        .map_err(|error| error.to_string())?
        .command
    else {
        panic!("serve is serve");
    };
    let file = toml::from_str(file).map_err(|error| error.to_string())?;
    Config::resolve(options, file, MACHINE).map_err(|error| error.to_string())
}

fn check(flags: &str, file: &str, expected: Expect) {
    expected.assert_eq(&match resolve(flags, file) {
        Ok(config) => {
            let drives: Vec<_> = config
                .drives
                .iter()
                .map(|drive| drive.display().to_string())
                .collect();
            format!(
                "{} x{} {} | {} {} {} | {} shards {} {} | {:?} {:?} | {} {}",
                drives.join(","),
                config.mirrors,
                config.state.display(),
                config.http,
                config.native,
                config.admin,
                config.shards,
                Size(config.memory_bytes),
                config.compression.name(),
                config.credentials,
                config.accept_epoch,
                config.log_level.name(),
                if config.log_format == Format::Json {
                    "json"
                } else {
                    "human"
                },
            )
        }
        Err(error) => error,
    });
}

#[test]
fn a_rebuild_finds_the_drives_that_serve_finds() {
    let file = r#"
        drives = ["/c", "/d", "/e"]
        state = "/s"
        http = "0.0.0.0:8000"
        memory = "1MiB"
    "#;
    let resolve = |flags: &str| {
        let line = ["cairn", "rebuild"].into_iter().chain(flags.split_whitespace());
        let Ok(Cli {
            command: Command::Rebuild(options),
        }) = Cli::try_parse_from(line)
        else {
            panic!("rebuild is rebuild");
        };
        let config = Config::resolve_rebuild(options, toml::from_str(file).unwrap());
        config.map(|config| (config.drives.len(), config.mirrors, config.state))
    };
    assert_eq!(resolve(""), Ok((3, 2, PathBuf::from("/s"))));
    assert_eq!(resolve("--drive /a --state /t"), Ok((1, 1, PathBuf::from("/t"))));
    assert!(resolve("--mirrors 4").is_err());
}

#[test]
fn flags_over_file_over_defaults() {
    check(
        "",
        "",
        expect![
            "./cairn-data/drive-a,./cairn-data/drive-b x2 ./cairn-data/state | 127.0.0.1:8000 127.0.0.1:7600 127.0.0.1:8080 | 4 shards 4GiB lz4 | None None | info human"
        ],
    );
    let file = "drives = ['/a', '/b', '/c']\nmirrors = 3\nstate = '/s'\nhttp = '127.0.0.1:1'\nnative = '[::1]:2'\n\
                admin = '127.0.0.1:3'\nshards = 2\nmemory = '1GiB'\nlog_format = 'json'\nlog_level = 'debug'\ncompression = 'zstd'";
    check(
        "",
        file,
        expect![
            "/a,/b,/c x3 /s | 127.0.0.1:1 [::1]:2 127.0.0.1:3 | 2 shards 1GiB zstd | None None | debug json"
        ],
    );
    check(
        "--drive /x --drive /y --mirrors 1 --state /z --http 127.0.0.1:0 --native 127.0.0.1:0 --admin 127.0.0.1:0 \
         --shards 1 --memory 100MB --log-format human --log-level warn --accept-epoch 7 --compression none",
        file,
        expect![
            "/x,/y x1 /z | 127.0.0.1:0 127.0.0.1:0 127.0.0.1:0 | 1 shards 95.4MiB none | None Some(7) | warn human"
        ],
    );
    check(
        "--drive /only",
        "",
        expect![
            "/only x1 ./cairn-data/state | 127.0.0.1:8000 127.0.0.1:7600 127.0.0.1:8080 | 4 shards 4GiB lz4 | None None | info human"
        ],
    );
    check(
        "--drive /a,/b",
        "mirrors = 1",
        expect![
            "/a,/b x1 ./cairn-data/state | 127.0.0.1:8000 127.0.0.1:7600 127.0.0.1:8080 | 4 shards 4GiB lz4 | None None | info human"
        ],
    );
}

#[test]
fn exposure_needs_credentials_and_a_word() {
    check(
        "--http 0.0.0.0:8000",
        "",
        expect![
            "--http 0.0.0.0:8000 can be reached from other machines, which needs --credentials FILE; without credentials only loopback addresses such as 127.0.0.1 are accepted"
        ],
    );
    check(
        "--http 0.0.0.0:8000 --insecure",
        "",
        expect![
            "--http 0.0.0.0:8000 can be reached from other machines, which needs --credentials FILE; without credentials only loopback addresses such as 127.0.0.1 are accepted"
        ],
    );
    check(
        "--native 10.0.0.1:7600 --credentials k",
        "",
        expect![
            "--native 10.0.0.1:7600 can be reached from other machines and what is sent there is plain text; put TLS in front of a loopback address, or give --insecure on a network that you trust"
        ],
    );
    check(
        "--http [::]:8000 --credentials k --insecure",
        "",
        expect![[
            r#"./cairn-data/drive-a,./cairn-data/drive-b x2 ./cairn-data/state | [::]:8000 127.0.0.1:7600 127.0.0.1:8080 | 4 shards 4GiB lz4 | Some("k") None | info human"#
        ]],
    );
    check(
        "--http 0.0.0.0:8000",
        "credentials = 'k'\ninsecure = true",
        expect![[
            r#"./cairn-data/drive-a,./cairn-data/drive-b x2 ./cairn-data/state | 0.0.0.0:8000 127.0.0.1:7600 127.0.0.1:8080 | 4 shards 4GiB lz4 | Some("k") None | info human"#
        ]],
    );
    check(
        "--admin 0.0.0.0:8080",
        "insecure = true",
        expect![
            "--admin 0.0.0.0:8080 can be reached from other machines, which needs --credentials FILE; without credentials only loopback addresses such as 127.0.0.1 are accepted"
        ],
    );
    assert!(!resolve("", "").unwrap().admin_is_guarded());
    assert!(
        resolve("--admin 0.0.0.0:1 --credentials k --insecure", "")
            .unwrap()
            .admin_is_guarded()
    );
}

#[test]
fn what_cannot_be_meant() {
    check(
        "--drive /a --drive /a",
        "",
        expect!["drive directory /a is given twice"],
    );
    check(
        "--drive /a --state /a",
        "",
        expect!["/a is both a drive and the state directory"],
    );
    check(
        "--mirrors 3",
        "",
        expect!["--mirrors 3 is not between 1 and the number of drives, 2"],
    );
    check(
        "--mirrors 0",
        "",
        expect!["--mirrors 0 is not between 1 and the number of drives, 2"],
    );
    check("--shards 0", "", expect!["--shards 0 is not between 1 and 256"]);
    check(
        "--memory 100MiB",
        "",
        expect![
            "--memory 100MiB is less than 64MiB for each of 4 shards; give more memory or fewer --shards"
        ],
    );
    check(
        "--native 127.0.0.1:8000",
        "",
        expect![
            "--http 127.0.0.1:8000 and --native 127.0.0.1:8000 would listen on the same address and port"
        ],
    );
    check(
        "--admin 0.0.0.0:7600",
        "",
        expect!["--native 127.0.0.1:7600 and --admin 0.0.0.0:7600 would listen on the same address and port"],
    );
    check(
        "--native 127.0.0.2:8000 --admin [::1]:8000",
        "",
        expect![
            "./cairn-data/drive-a,./cairn-data/drive-b x2 ./cairn-data/state | 127.0.0.1:8000 127.0.0.2:8000 [::1]:8000 | 4 shards 4GiB lz4 | None None | info human"
        ],
    );
    check(
        "",
        "drives = []",
        expect!["at least one drive directory is needed (--drive DIR)"],
    );
    check(
        "",
        "drive = ['/a']",
        expect![[r#"
        TOML parse error at line 1, column 1
          |
        1 | drive = ['/a']
          | ^^^^^
        unknown field `drive`, expected one of `drives`, `mirrors`, `state`, `http`, `native`, `admin`, `shards`, `memory`, `compression`, `encryption`, `root_key_file`, `credentials`, `insecure`, `log_format`, `log_level`
    "#]],
    );
    check(
        "",
        "memory = 'much'",
        expect![[r#"
        TOML parse error at line 1, column 10
          |
        1 | memory = 'much'
          |          ^^^^^^
        "much" is not a size such as 512MiB, 4GiB or a number of bytes
    "#]],
    );
    check(
        "",
        "log_level = 'loud'",
        expect![[r#"
        TOML parse error at line 1, column 13
          |
        1 | log_level = 'loud'
          |             ^^^^^^
        "loud" is not one of error, warn, info, debug
    "#]],
    );
    check(
        "",
        "accept_epoch = 3",
        expect![[r#"
        TOML parse error at line 1, column 1
          |
        1 | accept_epoch = 3
          | ^^^^^^^^^^^^
        unknown field `accept_epoch`, expected one of `drives`, `mirrors`, `state`, `http`, `native`, `admin`, `shards`, `memory`, `compression`, `encryption`, `root_key_file`, `credentials`, `insecure`, `log_format`, `log_level`
    "#]],
    );
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("0", Some(0)),
        ("512MiB", Some(512 << 20)),
        ("512 MiB", Some(512 << 20)),
        ("4GB", Some(4_000_000_000)),
        ("1TiB", Some(1 << 40)),
        ("7B", Some(7)),
        ("1kB", Some(1000)),
        ("", None),
        ("MiB", None),
        ("1.5GiB", None),
        ("-1", None),
        ("1mib", None),
        ("99999999TiB", None),
    ] {
        assert_eq!(text.parse::<Size>().ok(), bytes.map(Size), "{text}");
    }
    for bytes in [0, 1, 1023, 1024, 1 << 20, 3 << 30, 1 << 40] {
        assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
    }
}

#[test]
fn a_state_directory_is_found_beside_the_drives() {
    let check = |drives: &[&str], there: &[&str], expected: Option<&str>| {
        let drives: Vec<PathBuf> = drives.iter().map(PathBuf::from).collect();
        let found = find_state(&drives, |path| there.iter().any(|there| path == Path::new(there)));
        assert_eq!(found, expected.map(PathBuf::from), "{drives:?} {there:?}");
    };
    let drives = ["/mnt/a/cairn", "/mnt/b/cairn"];
    check(&drives, &["/mnt/b/state", STATE_DIRECTORY], Some("/mnt/b/state"));
    check(&drives, &[STATE_DIRECTORY], Some(STATE_DIRECTORY));
    check(&drives, &["/mnt/state"], None);
    check(&["/mnt/state", "/mnt/b"], &["/mnt/state"], None);
    check(&["/"], &[], None);
}

#[test]
fn encryption_is_left_to_the_node_unless_somebody_says_so() {
    let said = |flags: &str, file: &str| {
        let config = resolve(flags, file).unwrap();
        (config.encryption, config.root_key_file)
    };
    let (on, off) = (Some(Encryption::On), Some(Encryption::Off));
    assert_eq!(said("", ""), (None, None));
    let file = "encryption = 'off'\nroot_key_file = '/b'";
    assert_eq!(said("", file), (off, Some("/b".into())));
    assert_eq!(
        said("--encryption on --root-key-file /a", file),
        (on, Some("/a".into()))
    );
    assert!(
        resolve("--encryption yes", "")
            .unwrap_err()
            .contains("neither on nor off")
    );
}
