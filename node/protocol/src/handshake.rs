//! The handshake: versions and features are settled, both sides prove the secret, the client learns the map.
//!
//! 1. Client sends [`Hello`] with a random nonce and, when it has one, its access key's id.
//! 2. Node answers [`Challenge`] with a random nonce, its limits, and whether a proof is required.
//! 3. Client sends [`Proof`]: HMAC-SHA-256 under the secret over a label, both nonces and the access key's id.
//!    Without a secret the proof is empty, and only a node without credentials accepts it.
//! 4. Node answers [`Welcome`] with its own proof (another label, so that neither can be replayed as the other) and
//!    the partition map, or [`Refused`] and closes.
//!
//! The secret never travels. Frames after the handshake are not signed: on an untrusted network use a secure tunnel.

use aws_lc_rs::{constant_time, hmac};

use crate::VERSION;
use crate::message::Table;
use crate::wire::{Reader, WireError, put_short_bytes, put_text};

/// First bytes of [`Hello`]: tells a native client from anything else that found the port.
pub const MAGIC: [u8; 8] = *b"CAIRNNP\n";

/// Bytes of a nonce and of a proof.
pub const PROOF_BYTES: usize = 32;

/// Tables described in [`Welcome`]; further ones are asked for by name with `OpenTable`.
pub const WELCOME_TABLES_MAX: usize = 256;

/// Label of the client's proof.
const CLIENT_LABEL: &[u8] = b"cairn native protocol 1: client";
/// Label of the node's proof.
const NODE_LABEL: &[u8] = b"cairn native protocol 1: node";

/// The client's opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Lowest protocol version the client speaks.
    pub version_min: u16,
    /// Highest protocol version the client speaks.
    pub version_max: u16,
    /// Optional features the client asks for; none are defined in version 1, so 0.
    pub features: u64,
    /// Random.
    pub nonce: [u8; PROOF_BYTES],
    /// Access key's id, empty without credentials.
    pub access_key: &'a str,
}

impl<'a> Hello<'a> {
    /// Appends the message.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&MAGIC);
        into.extend_from_slice(&self.version_min.to_le_bytes());
        into.extend_from_slice(&self.version_max.to_le_bytes());
        into.extend_from_slice(&self.features.to_le_bytes());
        into.extend_from_slice(&self.nonce);
        put_text(into, self.access_key);
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`WireError`]; a wrong magic is an unknown value of the field `magic`.
    pub fn decode(body: &'a [u8]) -> Result<Hello<'a>, WireError> {
        let mut reader = Reader::new(body);
        let magic = reader.array::<8>("magic")?;
        if magic != MAGIC {
            return Err(WireError::Unknown {
                field: "magic",
                value: u64::from_le_bytes(magic),
            });
        }
        let hello = Hello {
            version_min: reader.u16("version_min")?,
            version_max: reader.u16("version_max")?,
            features: reader.u64("features")?,
            nonce: reader.array("nonce")?,
            access_key: reader.text("access_key")?,
        };
        reader.end()?;
        Ok(hello)
    }

    /// The version both sides speak, when there is one.
    #[must_use]
    pub fn version(&self) -> Option<u16> {
        (self.version_min..=self.version_max)
            .contains(&VERSION)
            .then_some(VERSION)
    }
}

/// The node's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Version that both will speak.
    pub version: u16,
    /// Features granted, a subset of those asked for.
    pub features: u64,
    /// Random.
    pub nonce: [u8; PROOF_BYTES],
    /// The node has credentials: an empty proof will be refused.
    pub proof_required: bool,
    /// Largest frame body the node accepts, bytes.
    pub body_bytes_max: u32,
    /// Requests the node works on at once for this connection; it stops reading while as many are unanswered.
    pub window: u32,
}

impl Challenge {
    /// Appends the message.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.version.to_le_bytes());
        into.extend_from_slice(&self.features.to_le_bytes());
        into.extend_from_slice(&self.nonce);
        into.push(u8::from(self.proof_required));
        into.extend_from_slice(&self.body_bytes_max.to_le_bytes());
        into.extend_from_slice(&self.window.to_le_bytes());
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(body: &[u8]) -> Result<Challenge, WireError> {
        let mut reader = Reader::new(body);
        let challenge = Challenge {
            version: reader.u16("version")?,
            features: reader.u64("features")?,
            nonce: reader.array("nonce")?,
            proof_required: reader.flag("proof_required")?,
            body_bytes_max: reader.u32("body_bytes_max")?,
            window: reader.u32("window")?,
        };
        reader.end()?;
        Ok(challenge)
    }
}

/// The client's proof: [`PROOF_BYTES`] bytes, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof<'a>(pub &'a [u8]);

impl<'a> Proof<'a> {
    /// Appends the message.
    pub fn encode(&self, into: &mut Vec<u8>) {
        put_short_bytes(into, self.0);
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(body: &'a [u8]) -> Result<Proof<'a>, WireError> {
        let mut reader = Reader::new(body);
        let proof = reader.short_bytes("proof")?;
        reader.end()?;
        if !proof.is_empty() && proof.len() != PROOF_BYTES {
            return Err(WireError::TooLarge {
                field: "proof",
                got: proof.len(),
                limit: PROOF_BYTES,
            });
        }
        Ok(Proof(proof))
    }
}

/// The end of a handshake that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The node's own proof; all zero without credentials.
    pub proof: [u8; PROOF_BYTES],
    /// The node's id.
    pub node: [u8; 16],
    /// Version of the catalog that `tables` was taken from.
    pub catalog_version: u64,
    /// `tables` holds every table; otherwise ask with `OpenTable`.
    pub complete: bool,
    /// The partition map.
    pub tables: Vec<Table>,
}

impl Welcome {
    /// Appends the message.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.proof);
        into.extend_from_slice(&self.node);
        into.extend_from_slice(&self.catalog_version.to_le_bytes());
        into.push(u8::from(self.complete));
        let count = u16::try_from(self.tables.len()).expect("bounded by WELCOME_TABLES_MAX");
        into.extend_from_slice(&count.to_le_bytes());
        for table in &self.tables {
            table.encode(into);
        }
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(body: &[u8]) -> Result<Welcome, WireError> {
        let mut reader = Reader::new(body);
        let proof = reader.array("proof")?;
        let node = reader.array("node")?;
        let catalog_version = reader.u64("catalog_version")?;
        let complete = reader.flag("complete")?;
        let count = usize::from(reader.u16("tables")?);
        if count > WELCOME_TABLES_MAX {
            return Err(WireError::TooLarge {
                field: "tables",
                got: count,
                limit: WELCOME_TABLES_MAX,
            });
        }
        let tables = (0..count)
            .map(|_| Table::decode(&mut reader))
            .collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Welcome {
            proof,
            node,
            catalog_version,
            complete,
            tables,
        })
    }
}

/// The end of a handshake, or of a connection, that did not go well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the node refused the connection: {message}")]
pub struct Refused {
    /// DynamoDB's name of the error, such as `UnrecognizedClientException`.
    pub name: String,
    /// What was wrong and what to do.
    pub message: String,
}

impl Refused {
    /// Appends the message.
    pub fn encode(&self, into: &mut Vec<u8>) {
        put_text(into, &self.name);
        put_text(into, &self.message);
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(body: &[u8]) -> Result<Refused, WireError> {
        let mut reader = Reader::new(body);
        let refused = Refused {
            name: reader.text("name")?.to_owned(),
            message: reader.text("message")?.to_owned(),
        };
        reader.end()?;
        Ok(refused)
    }
}

/// The transcript that both proofs are made over.
#[derive(Debug, Clone, Copy)]
pub struct Transcript<'a> {
    /// The client's nonce.
    pub client_nonce: &'a [u8; PROOF_BYTES],
    /// The node's nonce.
    pub node_nonce: &'a [u8; PROOF_BYTES],
    /// The access key's id.
    pub access_key: &'a str,
}

impl Transcript<'_> {
    /// What the client sends in [`Proof`].
    #[must_use]
    pub fn client_proof(&self, secret: &[u8]) -> [u8; PROOF_BYTES] {
        self.prove(secret, CLIENT_LABEL)
    }

    /// What the node sends in [`Welcome`].
    #[must_use]
    pub fn node_proof(&self, secret: &[u8]) -> [u8; PROOF_BYTES] {
        self.prove(secret, NODE_LABEL)
    }

    fn prove(&self, secret: &[u8], label: &[u8]) -> [u8; PROOF_BYTES] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let mut context = hmac::Context::with_key(&key);
        for part in [
            label,
            self.client_nonce,
            self.node_nonce,
            self.access_key.as_bytes(),
        ] {
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Compares two proofs in constant time.
#[must_use]
pub fn proofs_match(expected: &[u8; PROOF_BYTES], given: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(expected, given).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSCRIPT: Transcript<'static> = Transcript {
        client_nonce: &[1; 32],
        node_nonce: &[2; 32],
        access_key: "AKIDEXAMPLE",
    };

    #[test]
    fn proofs_depend_on_every_part() {
        let proof = TRANSCRIPT.client_proof(b"secret");
        assert!(proofs_match(&proof, &TRANSCRIPT.client_proof(b"secret")));
        let others = [
            TRANSCRIPT.client_proof(b"Secret"),
            TRANSCRIPT.node_proof(b"secret"),
            Transcript {
                client_nonce: &[3; 32],
                ..TRANSCRIPT
            }
            .client_proof(b"secret"),
            Transcript {
                node_nonce: &[3; 32],
                ..TRANSCRIPT
            }
            .client_proof(b"secret"),
            Transcript {
                access_key: "AKIDEXAMPLF",
                ..TRANSCRIPT
            }
            .client_proof(b"secret"),
        ];
        for other in others {
            assert!(!proofs_match(&proof, &other));
        }
        assert!(!proofs_match(&proof, b""));
    }

    #[test]
    fn messages_survive_the_round_trip_and_no_prefix_does() {
        let hello = Hello {
            version_min: 1,
            version_max: 3,
            features: 9,
            nonce: [7; 32],
            access_key: "AKID",
        };
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        assert_eq!(Hello::decode(&bytes), Ok(hello.clone()));
        assert_eq!(hello.version(), Some(1));
        assert_eq!(
            Hello {
                version_min: 2,
                ..hello
            }
            .version(),
            None
        );
        assert!((0..bytes.len()).all(|end| Hello::decode(&bytes[..end]).is_err()));

        let challenge = Challenge {
            version: 1,
            features: 0,
            nonce: [5; 32],
            proof_required: true,
            body_bytes_max: 1 << 24,
            window: 128,
        };
        bytes.clear();
        challenge.encode(&mut bytes);
        assert_eq!(Challenge::decode(&bytes), Ok(challenge));

        let welcome = Welcome {
            proof: [1; 32],
            node: [2; 16],
            catalog_version: 3,
            complete: true,
            tables: vec![crate::message::tests::table()],
        };
        bytes.clear();
        welcome.encode(&mut bytes);
        assert!((0..bytes.len()).all(|end| Welcome::decode(&bytes[..end]).is_err()));
        assert_eq!(Welcome::decode(&bytes), Ok(welcome));
    }
}
