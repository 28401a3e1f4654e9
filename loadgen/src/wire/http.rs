//! The DynamoDB API over HTTP/1.1.

use std::collections::VecDeque;
use std::io;

use cairn_runtime::{Connection, Runtime};

use super::sign::Signer;
use super::{Answer, Outcome, Settings, error_name, invalid, json, read};
use crate::workload::{Operation, Shape};

/// Headers that an answer may have.
const HEADERS_MAX: usize = 32;

/// One connection: answers come in the order of the requests.
pub(crate) struct Http {
    host: String,
    table: String,
    consistent: bool,
    shape: Shape,
    before: u64,
    signer: Option<Signer>,
    asked: VecDeque<usize>,
    body: Vec<u8>,
    scratch: Vec<u8>,
}

impl Http {
    pub(crate) fn new<R: Runtime>(_runtime: &R, settings: &Settings) -> Http {
        let common = &settings.common;
        let host = format!("{}:{}", common.target.host, common.target.port);
        let signer = match (&common.access_key, &common.secret_key) {
            (Some(access_key), Some(secret)) => Some(Signer::new(
                access_key.clone(),
                secret.clone(),
                common.region.clone(),
                host.clone(),
            )),
            _ => None,
        };
        Http {
            host,
            table: common.table.clone(),
            consistent: settings.consistent,
            shape: settings.shape.clone(),
            before: settings.before,
            signer,
            asked: VecDeque::new(),
            body: Vec::new(),
            scratch: Vec::new(),
        }
    }

    pub(crate) fn encode(&mut self, into: &mut Vec<u8>, slot: usize, operation: Operation, unix_ms: u64) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        let settings = (self.table.as_str(), &self.shape, self.consistent);
        let target = json::write_body(&mut body, settings, operation);
        self.write_request(into, target.as_bytes(), &body, unix_ms);
        self.body = body;
        self.asked.push_back(slot);
    }

    fn write_request(&mut self, into: &mut Vec<u8>, target: &[u8], body: &[u8], unix_ms: u64) {
        into.extend_from_slice(b"POST / HTTP/1.1\r\nHost: ");
        into.extend_from_slice(self.host.as_bytes());
        into.extend_from_slice(b"\r\nContent-Type: application/x-amz-json-1.0\r\nX-Amz-Target: ");
        into.extend_from_slice(target);
        into.extend_from_slice(b"\r\n");
        match &mut self.signer {
            Some(signer) => signer.write_headers(into, target, body, unix_ms),
            // Servers that do not check signatures still want to see one.
            None => into.extend_from_slice(
                b"X-Amz-Date: 20260101T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 Credential=loadgen/20260101/\
                  us-east-1/dynamodb/aws4_request, SignedHeaders=host;x-amz-date;x-amz-target, Signature=0000000000\
                  000000000000000000000000000000000000000000000000000000\r\n",
            ),
        }
        into.extend_from_slice(b"Content-Length: ");
        into.extend_from_slice(body.len().to_string().as_bytes());
        into.extend_from_slice(b"\r\n\r\n");
        into.extend_from_slice(body);
    }

    pub(crate) fn decode(
        &mut self,
        received: &[u8],
        operation: impl Fn(usize) -> Option<Operation>,
    ) -> io::Result<Option<Answer>> {
        let Some(response) = parse(received)? else {
            return Ok(None);
        };
        let slot = self
            .asked
            .pop_front()
            .ok_or_else(|| invalid("an answer that nothing asked for"))?;
        let (outcome, generation) = if response.status == 200 {
            match operation(slot) {
                Some(Operation::Get { key, how }) => read(json::check_read(
                    &self.shape,
                    &mut self.scratch,
                    (key, how),
                    self.before,
                    response.body,
                )),
                _ => (Outcome::Good, None),
            }
        } else {
            (json::failed(operation(slot), failure(&response)), None)
        };
        Ok(Some(Answer {
            slot,
            outcome,
            generation,
            taken: response.taken,
        }))
    }

    pub(crate) async fn call<C: Connection>(
        &mut self,
        connection: &C,
        name: &str,
        body: &str,
        unix_ms: u64,
    ) -> io::Result<Result<Vec<u8>, String>> {
        let mut request = Vec::new();
        let target = format!("DynamoDB_20120810.{name}");
        self.write_request(&mut request, target.as_bytes(), body.as_bytes(), unix_ms);
        connection.send(request).await?;
        let mut received = Vec::new();
        loop {
            if connection.receive(&mut received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(response) = parse(&received)? {
                let good = response.status == 200;
                return Ok(if good {
                    Ok(response.body.to_vec())
                } else {
                    Err(failure(&response))
                });
            }
        }
    }
}

struct Response<'a> {
    status: u16,
    body: &'a [u8],
    taken: usize,
}

/// The name of the error that a response tells of, else its status.
fn failure(response: &Response<'_>) -> String {
    let kind = serde_json::from_slice::<serde_json::Value>(response.body)
        .ok()
        .and_then(|body| body.get("__type")?.as_str().map(error_name));
    kind.unwrap_or_else(|| format!("HTTP {}", response.status))
}

fn parse(received: &[u8]) -> io::Result<Option<Response<'_>>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let head_bytes = match head.parse(received) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(format!("an answer is not HTTP: {error}"))),
    };
    let length_of = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("content-length");
    let length = head.headers.iter().find(length_of).and_then(|header| {
        std::str::from_utf8(header.value)
            .ok()?
            .trim()
            .parse::<usize>()
            .ok()
    });
    let status = head.code.ok_or_else(|| invalid("an answer has no status"))?;
    let chunked = head.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("transfer-encoding") && header.value.eq_ignore_ascii_case(b"chunked")
    });
    if chunked {
        return Err(invalid("the answer is chunked, which loadgen does not read"));
    }
    let length = length.ok_or_else(|| invalid("an answer has no Content-Length"))?;
    let taken = head_bytes + length;
    Ok(received
        .get(head_bytes..taken)
        .map(|body| Response { status, body, taken }))
}
