//! The Python environment of the end-to-end tests: a virtual environment under `target/` with boto3 and the
//! AWS CLI from the package registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run;

/// Fixed so that a release of a client cannot change a test run.
const REQUIREMENTS: [&str; 3] = ["pytest==9.2.0", "boto3==1.44.5", "awscli==1.46.3"];

/// What [`environment`] found.
pub(crate) enum Environment {
    /// The interpreter of the environment.
    Ready(PathBuf),
    /// Why there is none.
    Missing(String),
}

/// Makes the environment under `target`, or finds the one made before.
pub(crate) fn environment(target: &Path) -> Result<Environment, String> {
    let home = target.join("e2e-python");
    let python = home.join("bin/python");
    let stamp = home.join("requirements.txt");
    let requirements = REQUIREMENTS.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == requirements) {
        return Ok(Environment::Ready(python));
    }
    let usable = Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .output();
    match usable {
        Ok(output) if output.status.success() => {}
        Ok(_) => {
            return Ok(Environment::Missing(
                "python3 has no venv module (Debian: python3-venv)".into(),
            ));
        }
        Err(error) => {
            return Ok(Environment::Missing(format!(
                "python3 could not be started: {error}"
            )));
        }
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet"])
        .args(REQUIREMENTS))?;
    fs::write(&stamp, requirements).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(Environment::Ready(python))
}
