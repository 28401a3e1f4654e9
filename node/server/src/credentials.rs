//! Who may use the node: the credentials file.
//!
//! ```toml
//! [[key]]
//! access_key_id = "AKIAIOSFODNN7EXAMPLE"
//! secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
//! ```
//!
//! The same secret signs HTTP requests (SigV4) and answers the challenge of the native handshake. The file is
//! read once, at start. Secrets never appear in messages, logs or debug output.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

/// Longest access key id in bytes, as AWS has it.
const ID_BYTES_MAX: usize = 128;

/// A secret access key. Debug output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// The access keys of a node. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    secrets: Arc<BTreeMap<String, Secret>>,
}

/// Why a credentials file is not accepted, in words for an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("credentials file {file}: {what}")]
pub struct CredentialsError {
    file: String,
    what: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    #[serde(default)]
    key: Vec<KeyForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyForm {
    access_key_id: String,
    secret_access_key: String,
}

impl Credentials {
    /// Reads a credentials file.
    ///
    /// # Errors
    /// When it cannot be read or is not in the form described above.
    pub fn read(path: &Path) -> Result<Credentials, CredentialsError> {
        let fail = |what: String| CredentialsError {
            file: path.display().to_string(),
            what,
        };
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        Credentials::parse(&text).map_err(fail)
    }

    /// The access keys in the text of a credentials file.
    ///
    /// # Errors
    /// What is wrong with it, without quoting the text, which holds secrets.
    pub fn parse(text: &str) -> Result<Credentials, String> {
        // A TOML error's Display quotes the line; its message does not.
        let form: FileForm = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })?;
        let mut secrets = BTreeMap::new();
        for KeyForm {
            access_key_id: id,
            secret_access_key: secret,
        } in form.key
        {
            let valid = (1..=ID_BYTES_MAX).contains(&id.len())
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
            if !valid {
                return Err(format!(
                    "the access key id {id:?} is not 1 to {ID_BYTES_MAX} letters, digits, '_', '-' and '.'"
                ));
            }
            if secret.is_empty() {
                return Err(format!("the secret of access key {id} is empty"));
            }
            if secrets.insert(id.clone(), Secret(secret)).is_some() {
                return Err(format!("access key {id} is given twice"));
            }
        }
        if secrets.is_empty() {
            return Err("there is no [[key]]; nobody could use the node".to_owned());
        }
        Ok(Credentials {
            secrets: Arc::new(secrets),
        })
    }

    /// The secret of an access key.
    #[must_use]
    pub fn secret(&self, id: &str) -> Option<&Secret> {
        self.secrets.get(id)
    }

    /// Number of access keys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.secrets.len()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&match Credentials::parse(text) {
            Ok(credentials) => format!("{credentials:?}"),
            Err(error) => error,
        });
    }

    #[test]
    fn files() {
        check(
            "[[key]]\naccess_key_id = 'AKIA1'\nsecret_access_key = 's1'\n[[key]]\naccess_key_id = 'AKIA2'\nsecret_access_key = 's2'",
            expect![[r#"Credentials { secrets: {"AKIA1": Secret(..), "AKIA2": Secret(..)} }"#]],
        );
        check("", expect!["there is no [[key]]; nobody could use the node"]);
        check(
            "[[key]]\naccess_key_id = 'a'\nsecret_access_key = 's'\nsecret = 's'",
            expect!["line 4: unknown field `secret`, expected `access_key_id` or `secret_access_key`"],
        );
        check(
            "[[key]]\naccess_key_id = 'a'\nsecret_access_key = 's'\n[[key]]\naccess_key_id = 'a'\nsecret_access_key = 't'",
            expect!["access key a is given twice"],
        );
        check(
            "[[key]]\naccess_key_id = 'a'\nsecret_access_key = ''",
            expect!["the secret of access key a is empty"],
        );
        check(
            "[[key]]\naccess_key_id = 'a b'\nsecret_access_key = 's'",
            expect![[r#"the access key id "a b" is not 1 to 128 letters, digits, '_', '-' and '.'"#]],
        );
        check(
            "[[key]]\naccess_key_id = 'a'\nsecret_access_key = hunter2",
            expect!["line 3: string values must be quoted, expected literal string"],
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Credentials::read(Path::new("/nonexistent/keys.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("credentials file /nonexistent/keys.toml: No such file"),
            "{error}"
        );
    }
}
