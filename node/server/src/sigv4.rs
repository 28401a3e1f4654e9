//! Signature version 4: whether a request was signed with the secret that its access key stands for.
//!
//! 1. The parameters are taken from the `Authorization` header or, for a presigned request, from the query.
//! 2. They are checked in DynamoDB's order, with its words: completeness, date, signed headers, algorithm, scope,
//!    access key, signature, session token.
//! 3. The canonical request and the string to sign are rebuilt in one scratch buffer; the signature is compared in
//!    constant time. The signing key of a (key, date, region, service) is derived once and kept.
//!
//! `Host`, `X-Amz-Date` and `X-Amz-Target` must be signed: they decide where, when and what. The body always is.
//! The region may be any, as clients have to be configured with one and a node is in none.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use aws_lc_rs::{constant_time, digest, hmac};
use memchr::memchr;

use crate::api::ApiError;
use crate::calendar::Utc;
use crate::credentials::Credentials;
use crate::http::decode::Head;

const ALGORITHM: &[u8] = b"AWS4-HMAC-SHA256";
const TERMINATOR: &[u8] = b"aws4_request";
/// How far a client's clock may be off.
const SKEW_MS: u64 = 15 * 60 * 1000;
/// Longest life of a presigned request in seconds.
const EXPIRES_S_MAX: u64 = 7 * 24 * 60 * 60;
/// Signing keys kept; one is needed per access key, region and day.
const KEYS_KEPT_MAX: usize = 1024;

const INCOMPLETE: &str = "com.amazon.coral.service#IncompleteSignatureException";
const INVALID: &str = "com.amazon.coral.service#InvalidSignatureException";
const MISSING: &str = "com.amazon.coral.service#MissingAuthenticationTokenException";
const UNRECOGNIZED: &str = "com.amazon.coral.service#UnrecognizedClientException";

fn incomplete(message: impl Into<String>) -> ApiError {
    ApiError::new(INCOMPLETE, message)
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(INVALID, message)
}

/// Checks signatures on one shard.
pub struct Authority {
    credentials: Credentials,
    service: &'static str,
    /// Signing keys by credential scope, access key included. Only those that verified a request are kept, so
    /// that strangers cannot push them out.
    keys: RefCell<BTreeMap<Box<[u8]>, hmac::Key>>,
    scratch: RefCell<Vec<u8>>,
    /// The last date that was read and what it said: all requests of a second have the same.
    last_date: Cell<([u8; 16], u64)>,
}

/// What a request says about its signature.
struct Claim<'a> {
    algorithm: Cow<'a, [u8]>,
    credential: Cow<'a, [u8]>,
    signed_headers: Cow<'a, [u8]>,
    signature: Cow<'a, [u8]>,
    date: Cow<'a, [u8]>,
    /// The header that the date came from must be signed; None for a presigned request, whose query is.
    date_header: Option<&'static str>,
    /// Seconds that a presigned request is valid for.
    expires: Option<Cow<'a, [u8]>>,
    has_token: bool,
}

impl Authority {
    /// An authority over requests to `service`, which for us is `dynamodb`.
    #[must_use]
    pub fn new(credentials: Credentials, service: &'static str) -> Authority {
        Authority {
            credentials,
            service,
            keys: RefCell::new(BTreeMap::new()),
            scratch: RefCell::new(Vec::with_capacity(2048)),
            last_date: Cell::new(([0; 16], 0)),
        }
    }

    /// Whether the request is signed by one of the credentials, at about `unix_ms`. Without the body, which is
    /// signed as well, everything is checked that comes before the signature.
    ///
    /// # Errors
    /// DynamoDB's error for what is wrong.
    pub fn verify(&self, head: &Head<'_, '_>, body: Option<&[u8]>, unix_ms: u64) -> Result<(), ApiError> {
        let query = head.target.split_once('?').map_or("", |(_, query)| query);
        let claim = match (head.authorization, query.contains("X-Amz-Algorithm")) {
            (Some(_), true) => {
                return Err(invalid(
                    "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
                ));
            }
            (Some(authorization), false) if authorization.starts_with(b"AWS4-") => {
                claim_of_header(head, authorization)?
            }
            (None, true) => claim_of_query(query)?,
            _ => return Err(ApiError::new(MISSING, "Request is missing Authentication Token")),
        };
        check_date(&claim, self.date_ms(&claim.date), unix_ms)?;
        check_signed_headers(&claim, head)?;
        if *claim.algorithm != *ALGORITHM {
            let algorithm = String::from_utf8_lossy(&claim.algorithm);
            return Err(incomplete(format!(
                "Unsupported AWS 'algorithm': '{algorithm}' (only AWS4-HMAC-SHA256 for now). "
            )));
        }
        let id = self.check_scope(&claim)?;
        let Some(secret) = self.credentials.secret(id) else {
            return Err(unrecognized());
        };
        let Some(body) = body else { return Ok(()) };
        self.check_signature(head, body, &claim, secret.expose().as_bytes(), id.len())?;
        if claim.has_token {
            // Session tokens are for temporary credentials, which nobody can have got from this node.
            return Err(unrecognized());
        }
        Ok(())
    }

    /// What a date says; None for what is none.
    fn date_ms(&self, date: &[u8]) -> Option<u64> {
        let (last, last_ms) = self.last_date.get();
        if *date == last {
            return Some(last_ms);
        }
        let date_ms = Utc::parse_basic(date)?.unix_ms()?;
        self.last_date.set((date.try_into().ok()?, date_ms));
        Some(date_ms)
    }

    /// The access key id, when the rest of the credential is as it must be.
    fn check_scope<'c>(&self, claim: &'c Claim<'_>) -> Result<&'c str, ApiError> {
        let text = std::str::from_utf8(&claim.credential).unwrap_or_default();
        let mut parts = text.split('/');
        let (Some(id), Some(date), Some(region), Some(service), Some(terminator), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, \
                 got '{text}'"
            )));
        };
        let signed_at = std::str::from_utf8(&claim.date).unwrap_or_default();
        let day = &signed_at[..8.min(signed_at.len())];
        if !region.is_empty() && service == self.service && terminator.as_bytes() == TERMINATOR && date == day
        {
            return Ok(id);
        }
        let mut message = String::new();
        if region.is_empty() {
            message.push_str("Credential should be scoped to a valid region, not ''. ");
        }
        if service != self.service {
            message += &format!(
                "Credential should be scoped to correct service: '{}'. ",
                self.service
            );
        }
        if terminator.as_bytes() != TERMINATOR {
            message += &format!(
                "Credential should be scoped with a valid terminator: 'aws4_request', not '{terminator}'. "
            );
        }
        if date != day {
            message += &format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: \
                 '{date}' != '{day}', from '{signed_at}'."
            );
        }
        Err(invalid(message.trim_end()))
    }

    fn check_signature(
        &self,
        head: &Head<'_, '_>,
        body: &[u8],
        claim: &Claim<'_>,
        secret: &[u8],
        id_bytes: usize,
    ) -> Result<(), ApiError> {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        write_canonical_request(&mut scratch, head, body, &claim.signed_headers);
        let canonical_bytes = scratch.len();
        let hash = digest::digest(&digest::SHA256, &scratch);
        scratch.extend_from_slice(ALGORITHM);
        scratch.push(b'\n');
        scratch.extend_from_slice(&claim.date);
        scratch.push(b'\n');
        scratch.extend_from_slice(&claim.credential[id_bytes + 1..]);
        scratch.push(b'\n');
        write_hex(&mut scratch, &hash);
        let (canonical, to_sign) = scratch.split_at(canonical_bytes);

        let mut keys = self.keys.borrow_mut();
        let known = keys.get(&*claim.credential);
        let derived = known
            .is_none()
            .then(|| derive_key(secret, &claim.credential[id_bytes + 1..]));
        let key = known.or(derived.as_ref()).expect("one of them is there");
        let tag = hmac::sign(key, to_sign);
        let matches = parse_hex(&claim.signature)
            .is_some_and(|given| constant_time::verify_slices_are_equal(&given, tag.as_ref()).is_ok());
        if !matches {
            let (canonical, to_sign) = (
                String::from_utf8_lossy(canonical),
                String::from_utf8_lossy(to_sign),
            );
            let message = format!(
                "The request signature we calculated does not match the signature you provided. Check your AWS \
                 Secret Access Key and signing method. Consult the service documentation for details.\n\nThe \
                 Canonical String for this request should have been\n'{canonical}'\n\nThe String-to-Sign should \
                 have been\n'{to_sign}'\n"
            );
            scratch.clear();
            return Err(invalid(message));
        }
        if let Some(derived) = derived {
            if keys.len() == KEYS_KEPT_MAX {
                keys.clear();
            }
            keys.insert(Box::from(&*claim.credential), derived);
        }
        Ok(())
    }
}

fn unrecognized() -> ApiError {
    ApiError::new(
        UNRECOGNIZED,
        "The security token included in the request is invalid.",
    )
}

/// The signing key of `date/region/service/aws4_request`.
fn derive_key(secret: &[u8], scope: &[u8]) -> hmac::Key {
    let mut key = b"AWS4".to_vec();
    key.extend_from_slice(secret);
    for part in scope.split(|&byte| byte == b'/') {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part)
            .as_ref()
            .to_vec();
    }
    hmac::Key::new(hmac::HMAC_SHA256, &key)
}

fn claim_of_header<'a>(head: &Head<'_, 'a>, authorization: &'a [u8]) -> Result<Claim<'a>, ApiError> {
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    let mut parts = authorization
        .split(|&byte| byte == b',' || byte == b' ')
        .filter(|part| !part.is_empty());
    let algorithm = parts.next().unwrap_or_default();
    for part in parts {
        let Some(equals) = memchr(b'=', part) else {
            return Err(incomplete(format!(
                "'{}' not a valid key=value pair (missing equal-sign) in Authorization header: '{}'.",
                String::from_utf8_lossy(part),
                String::from_utf8_lossy(authorization),
            )));
        };
        let value = &part[equals + 1..];
        match &part[..equals] {
            b"Credential" => credential = Some(value),
            b"SignedHeaders" => signed_headers = Some(value),
            b"Signature" => signature = Some(value),
            _ => {}
        }
    }
    let (date, date_header) = match head.header("x-amz-date") {
        Some(date) => (Some(date), "x-amz-date"),
        None => (head.header("date"), "date"),
    };
    let given = |value: Option<&'a [u8]>| value.filter(|value| !value.is_empty());
    let claimed = (given(credential), given(signature), given(signed_headers), date);
    let (Some(credential), Some(signature), Some(signed_headers), Some(date)) = claimed else {
        let mut message = String::new();
        for (name, value) in [
            ("Credential", claimed.0),
            ("Signature", claimed.1),
            ("SignedHeaders", claimed.2),
        ] {
            if value.is_none() {
                message += &format!("Authorization header requires '{name}' parameter. ");
            }
        }
        if date.is_none() {
            message.push_str(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ",
            );
        }
        message += &format!("Authorization={}", String::from_utf8_lossy(authorization));
        return Err(incomplete(message));
    };
    Ok(Claim {
        algorithm: algorithm.into(),
        credential: credential.into(),
        signed_headers: signed_headers.into(),
        signature: signature.into(),
        date: date.into(),
        date_header: Some(date_header),
        expires: None,
        has_token: head.header("x-amz-security-token").is_some(),
    })
}

fn claim_of_query(query: &str) -> Result<Claim<'_>, ApiError> {
    let find = |name: &str| {
        let value = query_parameters(query)
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value);
        value
            .filter(|value| !value.is_empty())
            .map(|value| percent_decode(value.as_bytes()))
    };
    let names = [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Signature",
        "X-Amz-SignedHeaders",
        "X-Amz-Date",
    ];
    let [
        Some(algorithm),
        Some(credential),
        Some(signature),
        Some(signed_headers),
        Some(date),
    ] = names.map(find)
    else {
        let mut message = String::new();
        for name in names.into_iter().filter(|name| find(name).is_none()) {
            message += &format!("AWS query-string parameters must include '{name}'. ");
        }
        message.push_str("Re-examine the query-string parameters.");
        return Err(incomplete(message));
    };
    Ok(Claim {
        algorithm,
        credential,
        signed_headers,
        signature,
        date,
        date_header: None,
        expires: Some(find("X-Amz-Expires").unwrap_or_default()),
        has_token: find("X-Amz-Security-Token").is_some(),
    })
}

fn check_date(claim: &Claim<'_>, date_ms: Option<u64>, now_ms: u64) -> Result<(), ApiError> {
    let Some(date_ms) = date_ms else {
        let date = String::from_utf8_lossy(&claim.date);
        return Err(incomplete(format!(
            "Date must be in ISO-8601 'basic format'. Got '{date}'. See http://en.wikipedia.org/wiki/ISO_8601"
        )));
    };
    let basic = |unix_ms| Utc::from_unix_ms(unix_ms).basic();
    if date_ms > now_ms + SKEW_MS {
        return Err(invalid(format!(
            "Signature not yet current: {} is still later than {} ({} + 15 min.)",
            basic(date_ms),
            basic(now_ms + SKEW_MS),
            basic(now_ms),
        )));
    }
    let life_ms = match &claim.expires {
        None => SKEW_MS,
        Some(seconds) => {
            let seconds = std::str::from_utf8(seconds)
                .ok()
                .and_then(|text| text.parse::<u64>().ok());
            let Some(seconds @ 1..=EXPIRES_S_MAX) = seconds else {
                return Err(incomplete(format!(
                    "'X-Amz-Expires' must be a number of seconds from 1 to {EXPIRES_S_MAX}."
                )));
            };
            seconds * 1000
        }
    };
    if date_ms + life_ms < now_ms {
        let earliest = now_ms.saturating_sub(life_ms);
        return Err(invalid(format!(
            "Signature expired: {} is now earlier than {} ({} - {} min.)",
            basic(date_ms),
            basic(earliest),
            basic(now_ms),
            life_ms / 60_000,
        )));
    }
    Ok(())
}

/// What decides where, when and what must be signed.
fn check_signed_headers(claim: &Claim<'_>, head: &Head<'_, '_>) -> Result<(), ApiError> {
    let signed = |name: &str| {
        claim
            .signed_headers
            .split(|&byte| byte == b';')
            .any(|found| found.eq_ignore_ascii_case(name.as_bytes()))
    };
    let missing = |name: &str| {
        Err(invalid(format!(
            "'{name}' must be a 'SignedHeader' in the AWS Authorization."
        )))
    };
    if !signed("host") {
        return missing("Host");
    }
    match claim.date_header {
        Some("x-amz-date") if !signed("x-amz-date") => return missing("X-Amz-Date"),
        Some("date") if !signed("date") => return missing("Date"),
        _ => {}
    }
    // A presigned request to an API with a target header carries it in the query or signs it as well.
    if head.operation.is_some() && !signed("x-amz-target") {
        return missing("X-Amz-Target");
    }
    Ok(())
}

fn write_canonical_request(out: &mut Vec<u8>, head: &Head<'_, '_>, body: &[u8], signed_headers: &[u8]) {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b'\n');
    match head.target {
        "/" => out.extend_from_slice(b"/\n\n"),
        target => {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            write_canonical_path(out, path);
            out.push(b'\n');
            write_canonical_query(out, query);
            out.push(b'\n');
        }
    }
    for name in signed_headers.split(|&byte| byte == b';') {
        out.extend(name.iter().map(u8::to_ascii_lowercase));
        let mut separator = b':';
        for header in head.headers {
            if header.name.as_bytes().eq_ignore_ascii_case(name) {
                out.push(separator);
                write_header_value(out, header.value);
                separator = b',';
            }
        }
        if separator == b':' {
            out.push(b':');
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend(signed_headers.iter().map(u8::to_ascii_lowercase));
    out.push(b'\n');
    write_hex(out, &digest::digest(&digest::SHA256, body));
}

/// Trimmed, and runs of spaces made one.
fn write_header_value(out: &mut Vec<u8>, value: &[u8]) {
    let mut rest = value.trim_ascii();
    while let Some(space) = memchr(b' ', rest) {
        out.extend_from_slice(&rest[..=space]);
        rest = rest[space + 1..].trim_ascii_start();
    }
    out.extend_from_slice(rest);
}

/// Without `.`, `..` and empty segments, and encoded once more, as all services but S3 want it.
fn write_canonical_path(out: &mut Vec<u8>, path: &str) {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    for segment in &segments {
        out.push(b'/');
        percent_encode(out, segment.as_bytes());
    }
    if segments.is_empty() || path.ends_with('/') {
        out.push(b'/');
    }
}

/// Sorted by name, then value, in the encoding of RFC 3986; the signature itself is left out.
fn write_canonical_query(out: &mut Vec<u8>, query: &str) {
    let encode = |text: &str| {
        let mut encoded = Vec::new();
        percent_encode(&mut encoded, &percent_decode(text.as_bytes()));
        encoded
    };
    let mut parameters: Vec<_> = query_parameters(query)
        .filter(|(name, _)| *name != "X-Amz-Signature")
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    parameters.sort();
    for (index, (name, value)) in parameters.iter().enumerate() {
        if index > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
    }
}

fn query_parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
}

pub(crate) fn percent_decode(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'%', text).is_none() {
        return text.into();
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let digits = tail
            .get(..2)
            .and_then(|pair| Some((nibble(pair[0])?, nibble(pair[1])?)));
        match (first, digits) {
            (b'%', Some((high, low))) => {
                decoded.push(high << 4 | low);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded.into()
}

pub(crate) fn percent_encode(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]);
        }
    }
}

fn write_hex(out: &mut Vec<u8>, hash: &digest::Digest) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (pair, &byte) in text.chunks_exact_mut(2).zip(hash.as_ref()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out.extend_from_slice(&text);
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn parse_hex(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
#[path = "sigv4_test.rs"]
mod tests;
