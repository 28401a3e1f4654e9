//! What a request to the DynamoDB API is, and what it answers when it is none.
//!
//! Checked in this order: method, content type, target, encoding, signature; then the operation sees the body. A request from
//! a web page (it carries `Origin`) is served only where signatures are checked: without credentials any page that
//! the operator's browser shows could otherwise use a node on loopback.

use std::future::Future;
use std::rc::Rc;

use cairn_item::json::write_string;
use cairn_runtime::Runtime;

use super::decode::{Head, Malformed, Request};
use super::encode::{self, After, Content};
use super::gzip::{self, Budget, GZIP_BYTES_MIN, Refused};
use super::server::{Application, Exchange};
use crate::api::error::ACCESS_DENIED;
use crate::api::{self, ApiError, Service};
use crate::logging::{Level, Logger};
use crate::metrics::{Metrics, Operation, Protocol};
use crate::sigv4::Authority;

/// What precedes the operation's name in `X-Amz-Target`.
const TARGET: &[u8] = b"DynamoDB_20120810.";
/// The same of the operations on streams.
const STREAMS_TARGET: &[u8] = b"DynamoDBStreams_20120810.";
const UNKNOWN_OPERATION: &str = "com.amazon.coral.service#UnknownOperationException";
const ENTITY_TOO_LARGE: &str = "com.amazon.coral.service#RequestEntityTooLargeException";
const UNAVAILABLE: &str = "com.amazon.coral.availability#ServiceUnavailableException";
const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin: *\r\n";
const GZIP: &str = "Content-Encoding: gzip\r\n";
const GZIP_ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin: *\r\nContent-Encoding: gzip\r\n";
const HEALTHY: &[u8] = b"healthy: dynamodb.cairn.local ";

/// The operations behind the API.
pub trait Handler: 'static {
    /// Executes `operation` on the request `body` and appends the response body to `out`, which is left as it was
    /// when an error is returned.
    fn call(
        &self,
        operation: &str,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> impl Future<Output = Result<(), ApiError>>;
}

impl<R: Runtime> Handler for Service<R> {
    async fn call(&self, operation: &str, body: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
        let _room = self.answers().room_for(operation).await;
        Service::call(self, operation, body, out).await
    }
}

/// The DynamoDB API as an application of the HTTP server.
pub struct Dynamodb<R, H> {
    runtime: R,
    handler: H,
    /// None: nobody's signature is checked.
    authority: Option<Authority>,
    metrics: Rc<Metrics>,
    logger: Logger,
    /// For request bodies that are expanded.
    budget: Budget,
}

/// What the head of a request decides.
enum Decision<'a> {
    Call {
        operation: &'a str,
        form: Form,
        /// The body is compressed.
        compressed: bool,
    },
    /// DescribeEndpoints, by a client that reached this node as `host`.
    Endpoints {
        host: &'a [u8],
        form: Form,
    },
    Fail {
        error: ApiError,
        form: Form,
    },
    Done,
}

/// How an answer looks, whatever it says.
#[derive(Clone, Copy)]
struct Form {
    content: Content,
    /// Header lines.
    headers: &'static str,
    /// It may be compressed.
    gzip: bool,
}

impl Form {
    const PLAIN: Form = Form {
        content: Content::AmzJson,
        headers: "",
        gzip: false,
    };

    /// The same, compressed.
    fn compressed(self) -> Form {
        let headers = if self.headers.is_empty() {
            GZIP
        } else {
            GZIP_ALLOW_ORIGIN
        };
        Form {
            headers,
            gzip: false,
            ..self
        }
    }
}

impl<R: Runtime, H: Handler> Dynamodb<R, H> {
    /// The API over `handler`. Compressed requests take at most `expanded_bytes_max` at the same time.
    pub fn new(
        runtime: R,
        handler: H,
        authority: Option<Authority>,
        metrics: Rc<Metrics>,
        logger: Logger,
        expanded_bytes_max: usize,
    ) -> Dynamodb<R, H> {
        Dynamodb {
            runtime,
            handler,
            authority,
            metrics,
            logger,
            budget: Budget::new(expanded_bytes_max),
        }
    }

    /// Judges a request with its body, or by its head alone while the body is still to come.
    fn decide<'a>(
        &self,
        head: &Head<'_, 'a>,
        body: Option<&[u8]>,
        exchange: Exchange,
        out: &mut Vec<u8>,
    ) -> Decision<'a> {
        if (head.origin.is_some() || head.method != "POST")
            && let Some(decision) = self.decide_unusual(head, exchange, out)
        {
            return decision;
        }
        let content = match head.content_type {
            Some(b"application/x-amz-json-1.0") => Content::AmzJson,
            Some(other) => {
                let end = memchr::memchr(b';', other).unwrap_or(other.len());
                match other[..end].trim_ascii() {
                    b"application/x-amz-json-1.0" => Content::AmzJson,
                    b"application/json" => Content::Json,
                    _ => return unknown(exchange, out),
                }
            }
            None if body.is_some_and(<[u8]>::is_empty) => Content::Json,
            None => return unknown(exchange, out),
        };
        let operation = head.operation.and_then(named);
        // Who gets here with an origin may be answered.
        let headers = if head.origin.is_some() { ALLOW_ORIGIN } else { "" };
        let form = Form {
            content,
            headers,
            gzip: head.accepts_gzip,
        };
        let Some(operation) = operation.filter(|name| !name.is_empty()) else {
            return Decision::Fail {
                error: ApiError::new(UNKNOWN_OPERATION, ""),
                form,
            };
        };
        let compressed = match head.content_encoding {
            None => false,
            Some(encoding) if encoding.eq_ignore_ascii_case(b"identity") => false,
            Some(encoding) if encoding.eq_ignore_ascii_case(b"gzip") => true,
            Some(_) => {
                let error = ApiError::serialization("The Content-Encoding of a request is gzip, or none");
                return Decision::Fail { error, form };
            }
        };
        if let Some(authority) = &self.authority
            && let Err(error) = authority.verify(head, body, self.runtime.unix_ms())
        {
            return Decision::Fail { error, form };
        }
        if operation == "DescribeEndpoints" {
            let host = head.header("host").unwrap_or_default();
            return Decision::Endpoints { host, form };
        }
        Decision::Call {
            operation,
            form,
            compressed,
        }
    }

    /// Has an operation executed and appends its answer.
    async fn call(
        &self,
        operation: &str,
        form: Form,
        body: &[u8],
        exchange: Exchange,
        out: &mut Vec<u8>,
    ) -> Result<(), ApiError> {
        let mut begun = encode::begin(out, 200, form.headers, form.content, exchange.after, &exchange.id);
        if let Err(error) = self.handler.call(operation, body, out).await {
            encode::abandon(out, begun);
            return Err(error);
        }
        if form.gzip
            && out.len() - begun.body() >= GZIP_BYTES_MIN
            && let Ok(compressed) = gzip::compress(&self.runtime, &out[begun.body()..]).await
        {
            encode::abandon(out, begun);
            let headers = form.compressed().headers;
            begun = encode::begin(out, 200, headers, form.content, exchange.after, &exchange.id);
            out.extend_from_slice(&compressed);
        }
        encode::finish(out, begun);
        Ok(())
    }

    /// As [`Dynamodb::call`], with a body that has to be expanded first.
    async fn call_compressed(
        &self,
        operation: &str,
        form: Form,
        body: &[u8],
        exchange: Exchange,
        out: &mut Vec<u8>,
    ) -> Result<(), ApiError> {
        let expanded = match gzip::expand(&self.runtime, &self.budget, body).await {
            Ok(expanded) => expanded,
            Err(Refused::Malformed) => {
                return Err(ApiError::serialization("The body is not compressed as it says"));
            }
            Err(Refused::TooLarge) => return Err(too_large()),
            Err(Refused::Busy) => return Err(overloaded()),
        };
        self.call(operation, form, &expanded.bytes, exchange, out).await
    }

    /// Web pages, health checks and other methods; None when the request is to be served all the same.
    #[cold]
    fn decide_unusual<'a>(
        &self,
        head: &Head<'_, 'a>,
        exchange: Exchange,
        out: &mut Vec<u8>,
    ) -> Option<Decision<'a>> {
        if head.origin.is_some() && self.authority.is_none() {
            let message = "A node without credentials does not serve web pages (the request has an Origin)";
            let mut error = ApiError::new(ACCESS_DENIED, message);
            error.status = 403;
            return Some(Decision::Fail {
                error,
                form: Form::PLAIN,
            });
        }
        match head.method {
            "POST" => return None,
            "GET" | "HEAD" => {
                let headers = identity(exchange, HEALTHY);
                encode::plain(out, (200, "OK"), "text/plain", &headers, exchange.after, HEALTHY);
                if head.method == "HEAD" {
                    out.truncate(out.len() - HEALTHY.len());
                }
            }
            "OPTIONS" if head.origin.is_some() => {
                let mut headers = cors(exchange);
                for (asked, allowed) in [
                    ("Access-Control-Request-Headers", "Access-Control-Allow-Headers"),
                    ("Access-Control-Request-Method", "Access-Control-Allow-Methods"),
                ] {
                    // Header values cannot hold line ends, so this adds no header but the one named.
                    if let Some(Ok(value)) = head.header(asked).map(std::str::from_utf8) {
                        headers += &format!("{allowed}: {value}\r\n");
                    }
                }
                headers.push_str("Access-Control-Max-Age: 172800\r\n");
                encode::plain(out, (200, "OK"), "text/plain", &headers, exchange.after, b"");
            }
            _ => return Some(unknown(exchange, out)),
        }
        Some(Decision::Done)
    }

    /// The address that the client used is the one that reaches this node, whatever stands in between.
    fn write_endpoints(
        &self,
        host: &[u8],
        form: Form,
        body: &[u8],
        exchange: Exchange,
        out: &mut Vec<u8>,
    ) -> Result<(), ApiError> {
        api::no_parameters(body)?;
        let begun = encode::begin(out, 200, form.headers, form.content, exchange.after, &exchange.id);
        out.extend_from_slice(b"{\"Endpoints\":[{\"Address\":");
        write_string(out, &String::from_utf8_lossy(host));
        out.extend_from_slice(b",\"CachePeriodInMinutes\":1440}]}");
        encode::finish(out, begun);
        Ok(())
    }

    fn write_error(&self, error: &ApiError, form: Form, exchange: Exchange, out: &mut Vec<u8>) {
        let begun = encode::begin(
            out,
            error.status,
            form.headers,
            form.content,
            exchange.after,
            &exchange.id,
        );
        error.write_json(out);
        encode::finish(out, begun);
    }

    /// Counts an answer, and logs it where that is wanted.
    fn record(&self, operation: &str, exchange: Exchange, error: Option<&ApiError>) {
        let latency = self.runtime.now().since(exchange.received);
        let counted = Operation::named(operation);
        self.metrics.record(Protocol::Http, counted, latency);
        if let Some(error) = error {
            self.metrics.record_error(Protocol::Http, counted, error.name());
            if error.status >= 500 {
                self.log(Level::Warn, "request failed", operation, exchange, error);
            }
        }
        if self.logger.is_enabled(Level::Debug) {
            match error {
                Some(error) => self.log(Level::Debug, "request", operation, exchange, error),
                None => self.log(Level::Debug, "request", operation, exchange, &"OK"),
            }
        }
    }

    #[cold]
    fn log(
        &self,
        level: Level,
        message: &str,
        operation: &str,
        exchange: Exchange,
        result: &dyn std::fmt::Display,
    ) {
        let latency_us = self.runtime.now().since(exchange.received).as_micros();
        let fields: [(&'static str, &dyn std::fmt::Display); 4] = [
            ("request_id", &exchange.id),
            ("operation", &operation),
            ("latency_us", &latency_us),
            ("result", result),
        ];
        self.logger.log(level, self.runtime.unix_ms(), message, &fields);
    }
}

/// The operation that a target names: those on streams have a service of their own.
fn named(target: &[u8]) -> Option<&str> {
    let (name, of_streams) = match target.strip_prefix(TARGET) {
        Some(name) => (name, false),
        None => (target.strip_prefix(STREAMS_TARGET)?, true),
    };
    let name = std::str::from_utf8(name).ok()?;
    (api::is_of_streams(name) == of_streams).then_some(name)
}

/// The headers of answers that no operation wrote.
fn identity(exchange: Exchange, body: &[u8]) -> String {
    format!(
        "x-amzn-RequestId: {}\r\nx-amz-crc32: {}\r\n",
        exchange.id,
        crc32fast::hash(body)
    )
}

fn cors(exchange: Exchange) -> String {
    format!("{}{ALLOW_ORIGIN}", identity(exchange, b""))
}

fn too_large() -> ApiError {
    let mut error = ApiError::new(ENTITY_TOO_LARGE, Malformed::BodyTooLarge.to_string());
    error.status = 413;
    error
}

fn overloaded() -> ApiError {
    ApiError::new(UNAVAILABLE, "Too many large requests at the same time; try again")
}

/// What is not a request to the API at all.
#[cold]
fn unknown(exchange: Exchange, out: &mut Vec<u8>) -> Decision<'static> {
    let body = b"<UnknownOperationException/>\n";
    encode::plain(
        out,
        (404, "Not Found"),
        "text/xml",
        &identity(exchange, body),
        exchange.after,
        body,
    );
    Decision::Done
}

impl<R: Runtime, H: Handler> Application for Dynamodb<R, H> {
    fn answer<'a>(
        &'a self,
        request: &Request<'_, 'a>,
        exchange: Exchange,
        out: &'a mut Vec<u8>,
    ) -> impl Future<Output = ()> + use<'a, R, H> {
        let body = request.body;
        let decision = self.decide(&request.head, Some(body), exchange, out);
        async move {
            match decision {
                Decision::Call {
                    operation,
                    form,
                    compressed,
                } => {
                    let called = if compressed {
                        Box::pin(self.call_compressed(operation, form, body, exchange, out)).await
                    } else {
                        self.call(operation, form, body, exchange, out).await
                    };
                    match called {
                        Ok(()) => self.record(operation, exchange, None),
                        Err(error) => {
                            self.write_error(&error, form, exchange, out);
                            self.record(operation, exchange, Some(&error));
                        }
                    }
                }
                Decision::Endpoints { host, form } => {
                    let answered = self.write_endpoints(host, form, body, exchange, out);
                    if let Err(error) = &answered {
                        self.write_error(error, form, exchange, out);
                    }
                    self.record("DescribeEndpoints", exchange, answered.err().as_ref());
                }
                Decision::Fail { error, form } => {
                    self.write_error(&error, form, exchange, out);
                    self.record("", exchange, Some(&error));
                }
                Decision::Done => {}
            }
        }
    }

    fn turn_away(&self, head: &Head<'_, '_>, exchange: Exchange, out: &mut Vec<u8>) {
        if let Decision::Fail { error, form } = self.decide(head, None, exchange, out) {
            self.write_error(&error, form, exchange, out);
            self.record("", exchange, Some(&error));
        }
    }

    fn refuse(&self, malformed: Malformed, exchange: Exchange, out: &mut Vec<u8>) {
        if malformed == Malformed::BodyTooLarge {
            self.write_error(&too_large(), Form::PLAIN, exchange, out);
            return;
        }
        let body = format!("{malformed}\n");
        let headers = identity(exchange, body.as_bytes());
        encode::plain(
            out,
            malformed.status(),
            "text/plain",
            &headers,
            After::Close,
            body.as_bytes(),
        );
    }

    fn overloaded(&self, exchange: Exchange, out: &mut Vec<u8>) {
        let error = overloaded();
        self.write_error(&error, Form::PLAIN, exchange, out);
        self.record("", exchange, Some(&error));
    }
}
