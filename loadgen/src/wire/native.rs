//! The native protocol.

use std::io;

use cairn_item::{ItemView, ValueView, archive};
use cairn_protocol::VERSION;
use cairn_protocol::frame::{self, Kind};
use cairn_protocol::handshake::{Challenge, Hello, Proof, Refused, Transcript, Welcome, proofs_match};
use cairn_protocol::message::{Failure, Key, KeyPart, Operation as Asked, Request, response};
use cairn_runtime::{Connection, Runtime};

use super::{Answer, Outcome, Settings, invalid, json, read};
use crate::workload::{Operation, Reading, Shape, Writing, generation_of, push_key};

/// One connection: the request id is the slot plus one.
pub(crate) struct Native {
    table: u64,
    epoch: u64,
    consistent: bool,
    shape: Shape,
    before: u64,
    scratch: Vec<u8>,
    table_name: String,
}

impl Native {
    pub(crate) async fn open<R: Runtime>(
        runtime: &R,
        connection: &R::Connection,
        settings: &Settings,
    ) -> io::Result<Native> {
        let common = &settings.common;
        let mut nonce = [0; 32];
        runtime.random_secret(&mut nonce);
        let access_key = common.access_key.as_deref().unwrap_or_default();
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            features: 0,
            nonce,
            access_key,
        };
        let mut received = Vec::new();
        let body = exchange(
            connection,
            &mut received,
            Kind::Hello,
            |into| hello.encode(into),
            Kind::Challenge,
        )
        .await?;
        let challenge = Challenge::decode(&body).map_err(|error| invalid(error.to_string()))?;
        let transcript = Transcript {
            client_nonce: &nonce,
            node_nonce: &challenge.nonce,
            access_key,
        };
        let secret = common.secret_key.as_deref().map(str::as_bytes);
        let proof = secret.map(|secret| transcript.client_proof(secret));
        let proof = Proof(proof.as_ref().map_or(&[], |proof| proof));
        let body = exchange(
            connection,
            &mut received,
            Kind::Proof,
            |into| proof.encode(into),
            Kind::Welcome,
        )
        .await?;
        let welcome = Welcome::decode(&body).map_err(|error| invalid(error.to_string()))?;
        // Keys lie about in the environment, and a node that asks nobody for a key cannot prove that it knows one. What it
        // gets from us is no secret.
        if let Some(secret) = secret
            && challenge.proof_required
            && !proofs_match(&transcript.node_proof(secret), &welcome.proof)
        {
            return Err(invalid("the node does not know the secret"));
        }
        if challenge.window < common.in_flight {
            return Err(invalid(format!(
                "the node works on {} requests of a connection at once, --in-flight asks for {}",
                challenge.window, common.in_flight
            )));
        }
        let mut native = Native {
            table: 0,
            epoch: 0,
            consistent: settings.consistent,
            shape: settings.shape.clone(),
            before: settings.before,
            scratch: Vec::new(),
            table_name: common.table.clone(),
        };
        if let Some(table) = welcome
            .tables
            .iter()
            .find(|table| table.name == native.table_name)
        {
            (native.table, native.epoch) = (table.id, table.epoch);
        } else if !welcome.complete {
            native.open_table(connection).await?;
        }
        Ok(native)
    }

    /// Learns the table's id; leaves it unknown when there is no such table yet.
    pub(crate) async fn open_table<C: Connection>(&mut self, connection: &C) -> io::Result<()> {
        let name = self.table_name.clone();
        if let Ok(body) = self.ask(connection, Asked::OpenTable { name: &name }).await? {
            let table = response::decode_table(&body).map_err(|error| invalid(error.to_string()))?;
            (self.table, self.epoch) = (table.id, table.epoch);
        }
        Ok(())
    }

    pub(crate) fn encode(&mut self, into: &mut Vec<u8>, slot: usize, operation: Operation) {
        let mut key_text = std::mem::take(&mut self.scratch);
        key_text.clear();
        let (item, mut body);
        let asked = match operation {
            Operation::Get {
                key,
                how: Reading::Get,
            } => {
                push_key(&mut key_text, key);
                let text = std::str::from_utf8(&key_text).expect("keys are ASCII");
                Asked::Get {
                    consistent: self.consistent,
                    key: Key {
                        partition: KeyPart::S(text),
                        sort: None,
                    },
                }
            }
            Operation::Put {
                key,
                generation,
                how: Writing::Put,
            } => {
                item = archive(&self.shape.item(key, generation));
                Asked::Put {
                    return_old: false,
                    item: &item,
                }
            }
            // What has no form of its own on this protocol travels as JSON.
            _ => {
                body = Vec::new();
                let settings = (self.table_name.as_str(), &self.shape, self.consistent);
                let name = json::write_body(&mut body, settings, operation);
                let name = name
                    .strip_prefix(json::PREFIX)
                    .expect("every operation is DynamoDB's");
                Asked::Json { name, body: &body }
            }
        };
        let request = Request {
            budget_us: 0,
            table: self.table,
            epoch: self.epoch,
            trace: [0; 16],
            operation: asked,
        };
        frame::encode(into, Kind::Request, slot as u64 + 1, |into| request.encode(into));
        self.scratch = key_text;
    }

    pub(crate) fn decode(
        &mut self,
        received: &[u8],
        operation: impl Fn(usize) -> Option<Operation>,
    ) -> io::Result<Option<Answer>> {
        let decoded = frame::decode(received).map_err(|error| invalid(error.to_string()))?;
        let Some((frame, taken)) = decoded else {
            return Ok(None);
        };
        let slot = usize::try_from(frame.request_id)
            .ok()
            .and_then(|id| id.checked_sub(1))
            .ok_or_else(|| invalid("an answer without a request id"))?;
        let asked = operation(slot).ok_or_else(|| invalid("an answer that nothing asked for"))?;
        let (outcome, generation) = match frame.kind {
            Kind::Failure => {
                let failure = Failure::decode(frame.body).map_err(|error| invalid(error.to_string()))?;
                (json::failed(Some(asked), failure.name), None)
            }
            Kind::Response => match asked {
                Operation::Get {
                    key,
                    how: Reading::Get,
                } => {
                    let item = response::decode_item(frame.body);
                    match item.map_err(|error| invalid(error.to_string()))? {
                        (_, None) => (Outcome::Missing, None),
                        (_, Some(item)) => read(self.check(key, item)),
                    }
                }
                Operation::Get { key, how } => {
                    let body = response::decode_json(frame.body);
                    let body = body.map_err(|error| invalid(error.to_string()))?;
                    let asked = (key, how);
                    read(json::check_read(
                        &self.shape,
                        &mut self.scratch,
                        asked,
                        self.before,
                        body,
                    ))
                }
                Operation::Put { .. } => (Outcome::Good, None),
            },
            other => return Err(invalid(format!("{other:?} came where an answer was due"))),
        };
        Ok(Some(Answer {
            slot,
            outcome,
            generation,
            taken,
        }))
    }

    /// The generation of an archived item, which must be one of `key`.
    fn check(&mut self, key: u64, archived: &[u8]) -> Result<u64, Outcome> {
        let Ok(item) = ItemView::validate(archived) else {
            return Err(Outcome::Wrong);
        };
        let text = |name: &str| match item.get(name) {
            Some(ValueView::S(text)) => Some(text),
            _ => None,
        };
        self.scratch.clear();
        push_key(&mut self.scratch, key);
        if text("p").map(str::as_bytes) != Some(self.scratch.as_slice()) {
            return Err(Outcome::Wrong);
        }
        let generation = match item.get("g") {
            Some(ValueView::N(number)) => generation_of(&number.to_string()),
            _ => None,
        };
        let Some(generation) = generation else {
            return Err(Outcome::Wrong);
        };
        let payload = |index: usize| {
            let name = [b'f', b'0' + index as u8];
            text(std::str::from_utf8(&name).expect("ASCII")).map(str::as_bytes)
        };
        if self
            .shape
            .payloads_match(key, generation, &mut self.scratch, payload)
        {
            Ok(generation)
        } else {
            Err(Outcome::Wrong)
        }
    }

    pub(crate) async fn call<C: Connection>(
        &mut self,
        connection: &C,
        name: &str,
        body: &str,
    ) -> io::Result<Result<Vec<u8>, String>> {
        let answer = self
            .ask(
                connection,
                Asked::Json {
                    name,
                    body: body.as_bytes(),
                },
            )
            .await?;
        match answer {
            Ok(body) => {
                let body = response::decode_json(&body).map_err(|error| invalid(error.to_string()))?;
                Ok(Ok(body.to_vec()))
            }
            Err(name) => Ok(Err(name)),
        }
    }

    async fn ask<C: Connection>(
        &mut self,
        connection: &C,
        operation: Asked<'_>,
    ) -> io::Result<Result<Vec<u8>, String>> {
        let request = Request {
            budget_us: 0,
            table: 0,
            epoch: 0,
            trace: [0; 16],
            operation,
        };
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, Kind::Request, 1, |into| request.encode(into));
        connection.send(bytes).await?;
        let mut received = Vec::new();
        let (kind, body) = next_frame(connection, &mut received).await?;
        match kind {
            Kind::Response => Ok(Ok(body)),
            Kind::Failure => {
                let failure = Failure::decode(&body).map_err(|error| invalid(error.to_string()))?;
                Ok(Err(failure.name))
            }
            other => Err(invalid(format!("{other:?} came where an answer was due"))),
        }
    }
}

async fn exchange<C: Connection>(
    connection: &C,
    received: &mut Vec<u8>,
    kind: Kind,
    write: impl FnOnce(&mut Vec<u8>),
    expected: Kind,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    frame::encode(&mut bytes, kind, 0, write);
    connection.send(bytes).await?;
    let (kind, body) = next_frame(connection, received).await?;
    if kind == expected {
        return Ok(body);
    }
    if kind == Kind::Refused {
        let refused = Refused::decode(&body).map_err(|error| invalid(error.to_string()))?;
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{}: {refused}", refused.name),
        ));
    }
    Err(invalid(format!("{kind:?} came where {expected:?} was due")))
}

async fn next_frame<C: Connection>(connection: &C, received: &mut Vec<u8>) -> io::Result<(Kind, Vec<u8>)> {
    loop {
        let decoded = frame::decode(received).map_err(|error| invalid(error.to_string()))?;
        if let Some((frame, taken)) = decoded {
            let (kind, body) = (frame.kind, frame.body.to_vec());
            received.drain(..taken);
            return Ok((kind, body));
        }
        if connection.receive(received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
