//! Developer commands: `cargo xtask verify | lint | test | fix | sim`.
//!
//! `verify` is what CI runs: `lint`, then `test`. Nothing here needs an installation by hand: what a step needs
//! beyond Rust and a C compiler it fetches from the package registries into `target/`, and where that is
//! impossible it says what was left out (under `CI` leaving something out is a failure).
#![allow(
    clippy::disallowed_methods,
    reason = "a developer command is the edge of the world"
)]

mod python;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  verify          lint, then test: what CI runs
  lint            formatting, clippy, dependency policy (cargo-deny)
  test            every test: Rust, simulator, and end to end with boto3 and the AWS CLI
  fix             format and apply clippy's suggestions
  sim [ARGS]      the whole-node simulation at length: --seeds N, --minutes M, --start SEED
  advisories      known vulnerabilities in dependencies (needs a network that CI lacks)
";

/// cargo-deny's version, fetched under CI when it is not installed.
const DENY_VERSION: &str = "0.20.2";

type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("verify") => lint().and_then(|()| test()),
        Some("lint") => lint(),
        Some("test") => test(),
        Some("fix") => fix(),
        Some("sim") => simulate(&arguments[1..]),
        Some("advisories") => run(cargo().args(["deny", "check", "advisories"])),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn lint() -> Outcome {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    let Some(deny) = cargo_deny()? else {
        return left_out(
            "the dependency policy",
            "cargo-deny is not installed (`cargo install cargo-deny`)",
        );
    };
    // Advisories are a command of their own: their database lives outside the package registries.
    run(Command::new(deny)
        .args(["--log-level", "error", "check", "licenses", "bans", "sources"])
        .current_dir(root()))
}

fn test() -> Outcome {
    run(cargo().args(["test", "--workspace", "--locked", "--no-fail-fast"]))?;
    // Each micro-bench once, so that none rots.
    let benches = [
        "-p",
        "cairn-item",
        "--bench",
        "codec",
        "-p",
        "cairn-engine",
        "--bench",
        "tree",
    ];
    run(cargo().args(["test", "--locked"]).args(benches))?;
    // The end-to-end tests drive the binaries that people run, so these are built here by name.
    run(cargo().args(["build", "--locked", "-p", "cairn", "-p", "cairn-loadgen"]))?;
    match python::environment(&root().join("target"))? {
        python::Environment::Ready(python) => run(Command::new(python)
            .args(["-m", "pytest", "-ra", "-q", "node/server/tests/e2e"])
            .env("CAIRN_BINARIES", root().join("target/debug"))
            .current_dir(root())),
        python::Environment::Missing(why) => {
            left_out("the end-to-end tests with boto3 and the AWS CLI", &why)
        }
    }
}

fn fix() -> Outcome {
    run(cargo().args(["fmt", "--all"]))?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
    ]))
}

fn simulate(arguments: &[String]) -> Outcome {
    // As the tests are built, with every assertion and with what only a debug build counts, but fast.
    run(cargo()
        .args(["run", "--config", "profile.dev.opt-level=2"])
        // The workspace's own level for this crate, in which the engines are compiled, would win over the profile's.
        .args(["--config", "profile.dev.package.cairn-fuzz.opt-level=2"])
        .args(["-p", "cairn-fuzz", "--bin", "sim", "--"])
        .args(arguments))
}

fn left_out(what: &str, why: &str) -> Outcome {
    if env::var_os("CI").is_some() {
        return Err(format!(
            "{what} could not run, and under CI everything must: {why}"
        ));
    }
    eprintln!("xtask: LEFT OUT: {what}: {why}");
    Ok(())
}

/// Finds cargo-deny, or fetches it under CI.
fn cargo_deny() -> Result<Option<PathBuf>, String> {
    let fetched = root().join("target/tools/bin/cargo-deny");
    if Command::new("cargo-deny")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return Ok(Some(PathBuf::from("cargo-deny")));
    }
    if !fetched.exists() {
        if env::var_os("CI").is_none() {
            return Ok(None);
        }
        let tools = root().join("target/tools");
        run(cargo()
            .args([
                "install",
                "cargo-deny",
                "--locked",
                "--version",
                DENY_VERSION,
                "--root",
            ])
            .arg(tools))?;
    }
    Ok(Some(fetched))
}

fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a room of the workspace")
}

/// Runs a command with its output passed through.
fn run(command: &mut Command) -> Outcome {
    eprintln!("xtask: {command:?}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} ended with {status}")),
        Err(error) => Err(format!("{command:?} could not start: {error}")),
    }
}
