//! An HTTP client of one connection, and what an answer is.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// See [`Client::settle_waits`]: with the time between two, a minute at least.
const SETTLE_WAITS: u32 = 12_000;

pub(crate) struct Client {
    host: String,
    stream: Option<BufReader<TcpStream>>,
    /// Requests that were sent a second time, on a new connection; the server may have carried out the first.
    pub repeated: u64,
    /// Looks at a table that is being changed before it is said not to become ready.
    pub settle_waits: u32,
}

/// Status and body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Client {
    /// A client of `http://HOST:PORT`.
    pub(crate) fn new(address: &str) -> Result<Client, String> {
        let host = address.trim_end_matches('/').strip_prefix("http://");
        let host = host.ok_or_else(|| format!("{address:?} is not of the form http://HOST:PORT"))?;
        Ok(Client {
            host: host.to_owned(),
            stream: None,
            repeated: 0,
            settle_waits: SETTLE_WAITS,
        })
    }

    pub(crate) fn call(&mut self, operation: &str, body: &Value) -> Result<Answer, String> {
        self.call_text(operation, &body.to_string())
    }

    fn call_text(&mut self, operation: &str, body: &str) -> Result<Answer, String> {
        // A connection that was closed meanwhile is opened once more. Whether the server has read the request is not known.
        let first = self.exchange(operation, body);
        first
            .or_else(|_| {
                self.stream = None;
                self.repeated += 1;
                self.exchange(operation, body)
            })
            .map_err(|error| format!("http://{}: {operation}: {error}", self.host))
    }

    fn exchange(&mut self, operation: &str, body: &str) -> std::io::Result<Answer> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.host)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().expect("just opened");
        let of_streams = ["DescribeStream", "GetShardIterator", "GetRecords", "ListStreams"];
        let service = match of_streams.contains(&operation) {
            true => "DynamoDBStreams_20120810",
            false => "DynamoDB_20120810",
        };
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nX-Amz-Target: {service}.{operation}\r\nContent-Type: \
             application/x-amz-json-1.0\r\nAuthorization: AWS4-HMAC-SHA256 Credential=differential/20260101/us-east-1/dynamodb/\
             aws4_request, SignedHeaders=host, Signature=0\r\nX-Amz-Date: 20260101T000000Z\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status in {line:?}")))?;
        let mut length = 0;
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes)?;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { status, body })
    }
}

impl Answer {
    pub(crate) fn is_ok(&self) -> bool {
        self.status == 200
    }

    /// The error's type without its namespace.
    pub(crate) fn error(&self) -> &str {
        let kind = self.body["__type"].as_str().unwrap_or_default();
        kind.rsplit('#').next().unwrap_or_default()
    }

    pub(crate) fn message(&self) -> &str {
        let message = self.body["message"].as_str().or(self.body["Message"].as_str());
        message.unwrap_or_default()
    }

    /// The key from which the next page goes on.
    pub(crate) fn take_last(&mut self) -> Option<Value> {
        let members = self.body.as_object_mut()?;
        members.remove("LastEvaluatedKey").filter(|last| !last.is_null())
    }

    /// The member of a request that asks for the next page, and its value.
    pub(crate) fn take_next(&mut self) -> Option<(&'static str, Value)> {
        let last = self.take_last();
        let token = self.body.as_object_mut()?.remove("NextToken");
        match token.filter(|token| !token.is_null()) {
            Some(token) => Some(("NextToken", token)),
            None => last.map(|last| ("ExclusiveStartKey", last)),
        }
    }

    /// Adds the next page.
    pub(crate) fn append(&mut self, mut next: Answer) {
        for count in ["Count", "ScannedCount"] {
            if self.body[count].is_null() {
                continue;
            }
            let sum = self.body[count].as_u64().unwrap_or(0) + next.body[count].as_u64().unwrap_or(0);
            self.body[count] = sum.into();
        }
        if let (Some(items), Some(more)) = (
            self.body["Items"].as_array_mut(),
            next.body["Items"].as_array_mut(),
        ) {
            items.append(more);
        }
        for name in ["LastEvaluatedKey", "NextToken"] {
            if let Some(last) = next.body.as_object_mut().and_then(|members| members.remove(name)) {
                self.body[name] = last;
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.body.to_string();
        let shown: String = text.chars().take(1500).collect();
        write!(formatter, "{} {shown}", self.status)
    }
}
