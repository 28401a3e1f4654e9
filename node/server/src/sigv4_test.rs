//! The vectors are requests as they travel: those of AWS's published suite that are valid HTTP, in both of its
//! forms, and requests signed by botocore with the headers that the AWS SDKs send.

use std::mem::MaybeUninit;

use expect_test::{Expect, expect};

use super::*;
use crate::http::decode::{Decoder, HEADERS_MAX, Progress};

const VECTORS: &str = include_str!("sigv4_vectors.txt");
const KEYS: &str = "[[key]]\naccess_key_id = 'AKIDEXAMPLE'\nsecret_access_key = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'\n";

/// Name, request bytes and the time at which it was signed.
fn vectors() -> Vec<(&'static str, Vec<u8>, u64)> {
    let blocks = VECTORS.split("# ").filter(|block| !block.is_empty());
    blocks
        .map(|block| {
            let (name, request) = block.split_once('\n').unwrap();
            let (head, body) = request.split_once("\n\n").unwrap();
            let mut bytes = head.replace('\n', "\r\n").into_bytes();
            let body = body.trim_end();
            if !body.is_empty() && !head.to_ascii_lowercase().contains("\ncontent-length:") {
                bytes.extend_from_slice(format!("\r\nContent-Length: {}", body.len()).as_bytes());
            }
            bytes.extend_from_slice(b"\r\n\r\n");
            bytes.extend_from_slice(body.as_bytes());
            let date = if name.starts_with("aws") {
                "20150830T123600Z"
            } else {
                "20260131T235959Z"
            };
            (
                name,
                bytes,
                Utc::parse_basic(date.as_bytes()).unwrap().unix_ms().unwrap(),
            )
        })
        .collect()
}

fn authority_for(name: &str) -> Authority {
    let service = if name.starts_with("aws") {
        "service"
    } else {
        "dynamodb"
    };
    Authority::new(Credentials::parse(KEYS).unwrap(), service)
}

fn verify(authority: &Authority, request: &[u8], unix_ms: u64) -> Result<(), ApiError> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    match Decoder::default().decode(request, &mut room) {
        Ok(Progress::Complete(request)) => {
            let judged = authority.verify(&request.head, Some(request.body), unix_ms);
            // Without the body, what comes before the signature is judged alike.
            match (authority.verify(&request.head, None, unix_ms), &judged) {
                (Ok(()), _) => {}
                (early, late) => assert_eq!(&early, late),
            }
            judged
        }
        other => panic!("{other:?}: {}", String::from_utf8_lossy(request)),
    }
}

fn replace(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    text.replacen(from, to, 1).into_bytes()
}

fn vector(name: &str) -> (Vec<u8>, u64) {
    let (_, bytes, at) = vectors().into_iter().find(|(found, ..)| *found == name).unwrap();
    (bytes, at)
}

#[test]
fn vectors_verify() {
    let vectors = vectors();
    assert!(vectors.len() > 60);
    for (name, bytes, at) in vectors {
        let authority = authority_for(name);
        // Tokens are looked at when the signature has been found right.
        let has_token = String::from_utf8_lossy(&bytes).contains("Security-Token");
        // The second time with the signing key that the first one left.
        for round in 0..2 {
            match verify(&authority, &bytes, at) {
                Err(error) if has_token => assert_eq!(error, unrecognized()),
                Err(error) => panic!("{name}, round {round}: {error}"),
                Ok(()) => assert!(!has_token, "{name}"),
            }
        }
        assert_eq!(authority.keys.borrow().len(), 1);
    }
}

#[test]
fn nothing_signed_can_be_changed() {
    for (name, bytes, at) in vectors() {
        let authority = authority_for(name);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let signature = text.find("Signature=").unwrap() + "Signature=".len();
        let mut places = vec![signature, signature + 63, text.find("ost:").unwrap() + 5];
        if let Some(target) = text.to_ascii_lowercase().find("x-amz-target: ") {
            places.push(target + "x-amz-target: DynamoDB_20120810.".len());
        }
        if !text.ends_with("\r\n\r\n") {
            places.push(bytes.len() - 1);
        }
        for place in places {
            let mut changed = bytes.clone();
            // One digit, letter or mark becomes another.
            changed[place] ^= 1;
            let error = verify(&authority, &changed, at).unwrap_err();
            assert_eq!(error.name(), "InvalidSignatureException", "{name}: {error}");
        }
        let other = Authority::new(
            Credentials::parse("[[key]]\naccess_key_id = 'AKIDEXAMPLE'\nsecret_access_key = 'other'")
                .unwrap(),
            authority.service,
        );
        assert_eq!(
            verify(&other, &bytes, at).unwrap_err().name(),
            "InvalidSignatureException"
        );
        assert!(
            other.keys.borrow().is_empty(),
            "a key that verified nothing is not kept"
        );
    }
}

fn check(request: &[u8], unix_ms: u64, expected: Expect) {
    let answer = match verify(&authority_for("botocore"), request, unix_ms) {
        Ok(()) => "verified".to_owned(),
        Err(error) => {
            assert_eq!(error.status, 400);
            format!("{}: {}", error.kind.rsplit_once('#').unwrap().1, error.message)
        }
    };
    expected.assert_eq(&answer);
}

#[test]
fn clocks() {
    let (bytes, at) = vector("botocore botocore us-east-1");
    const MINUTE: u64 = 60_000;
    check(&bytes, at + 15 * MINUTE, expect!["verified"]);
    check(&bytes, at - 15 * MINUTE, expect!["verified"]);
    check(
        &bytes,
        at + 15 * MINUTE + 1000,
        expect![
            "InvalidSignatureException: Signature expired: 20260131T235959Z is now earlier than 20260201T000000Z (20260201T001500Z - 15 min.)"
        ],
    );
    check(
        &bytes,
        at - 15 * MINUTE - 1000,
        expect![
            "InvalidSignatureException: Signature not yet current: 20260131T235959Z is still later than 20260131T235958Z (20260131T234458Z + 15 min.)"
        ],
    );
    let (presigned, at) = vector("botocore presigned");
    check(&presigned, at + MINUTE, expect!["verified"]);
    check(
        &presigned,
        at + MINUTE + 1,
        expect![
            "InvalidSignatureException: Signature expired: 20260131T235959Z is now earlier than 20260131T235959Z (20260201T000059Z - 1 min.)"
        ],
    );
    check(
        &replace(&presigned, "Expires=60", "Expires=604801"),
        at,
        expect![
            "IncompleteSignatureException: 'X-Amz-Expires' must be a number of seconds from 1 to 604800."
        ],
    );
}

#[test]
fn what_is_wrong_is_said_as_dynamodb_does() {
    let (bytes, at) = vector("botocore path /");
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260131/us-east-1/dynamodb/aws4_request, SignedHeaders=host;x-amz-date;x-amz-target, Signature=";
    let text = String::from_utf8(bytes.clone()).unwrap();
    let start = text.find(authorization).unwrap();
    let whole = &text[start..start + authorization.len() + 64];
    let with = |authorization: &str| replace(&bytes, whole, authorization);

    check(
        &with(""),
        at,
        expect!["MissingAuthenticationTokenException: Request is missing Authentication Token"],
    );
    check(
        &with("AWS4"),
        at,
        expect!["MissingAuthenticationTokenException: Request is missing Authentication Token"],
    );
    check(
        &with("Bearer abc"),
        at,
        expect!["MissingAuthenticationTokenException: Request is missing Authentication Token"],
    );
    check(
        &replace(&with("AWS4-"), "X-Amz-Date", "X-Other"),
        at,
        expect![
            "IncompleteSignatureException: Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-"
        ],
    );
    check(
        &with("AWS4- Signature=b,Credential=a"),
        at,
        expect![
            "IncompleteSignatureException: Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4- Signature=b,Credential=a"
        ],
    );
    check(
        &with("AWS4-HMAC-SHA256 Signature=b, Credential, SignedHeaders=c"),
        at,
        expect![
            "IncompleteSignatureException: 'Credential' not a valid key=value pair (missing equal-sign) in Authorization header: 'AWS4-HMAC-SHA256 Signature=b, Credential, SignedHeaders=c'."
        ],
    );
    check(
        &replace(&bytes, "/ HTTP", "/?X-Amz-Algorithm HTTP"),
        at,
        expect![
            "InvalidSignatureException: Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
        ],
    );
    check(
        &replace(
            &replace(&bytes, "Authorization", "X-Other"),
            "/ HTTP",
            "/?X-Amz-Algorithm=a&X-Amz-Credential=b&X-Amz-Signature=c&X-Amz-Date=d HTTP",
        ),
        at,
        expect![
            "IncompleteSignatureException: AWS query-string parameters must include 'X-Amz-SignedHeaders'. Re-examine the query-string parameters."
        ],
    );
    check(
        &replace(&bytes, "20260131T235959Z", "201"),
        at,
        expect![
            "IncompleteSignatureException: Date must be in ISO-8601 'basic format'. Got '201'. See http://en.wikipedia.org/wiki/ISO_8601"
        ],
    );
    check(
        &replace(&bytes, "=host;", "="),
        at,
        expect!["InvalidSignatureException: 'Host' must be a 'SignedHeader' in the AWS Authorization."],
    );
    check(
        &replace(&bytes, ";x-amz-date", ""),
        at,
        expect!["InvalidSignatureException: 'X-Amz-Date' must be a 'SignedHeader' in the AWS Authorization."],
    );
    check(
        &replace(&bytes, ";x-amz-target", ""),
        at,
        expect![
            "InvalidSignatureException: 'X-Amz-Target' must be a 'SignedHeader' in the AWS Authorization."
        ],
    );
    check(
        &replace(&bytes, "SHA256 ", "SHA25 "),
        at,
        expect![
            "IncompleteSignatureException: Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA25' (only AWS4-HMAC-SHA256 for now). "
        ],
    );
    check(
        &replace(&bytes, "/aws4_request", ""),
        at,
        expect![
            "IncompleteSignatureException: Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'AKIDEXAMPLE/20260131/us-east-1/dynamodb'"
        ],
    );
    check(
        &replace(
            &bytes,
            "/20260131/us-east-1/dynamodb/aws4_request",
            "/20260130//s3/aws4",
        ),
        at,
        expect![
            "InvalidSignatureException: Credential should be scoped to a valid region, not ''. Credential should be scoped to correct service: 'dynamodb'. Credential should be scoped with a valid terminator: 'aws4_request', not 'aws4'. Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20260130' != '20260131', from '20260131T235959Z'."
        ],
    );
    check(
        &replace(&bytes, "AKIDEXAMPLE", "AKIDOTHER"),
        at,
        expect!["UnrecognizedClientException: The security token included in the request is invalid."],
    );
    check(
        &replace(&bytes, "X-Amz-Date", "X-Amz-Security-Token: t\r\nX-Amz-Date"),
        at,
        expect!["UnrecognizedClientException: The security token included in the request is invalid."],
    );
    check(
        &replace(&bytes, "orders", "0rders"),
        at,
        expect![[r#"
        InvalidSignatureException: The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.

        The Canonical String for this request should have been
        'POST
        /

        host:127.0.0.1:8000
        x-amz-date:20260131T235959Z
        x-amz-target:DynamoDB_20120810.GetItem

        host;x-amz-date;x-amz-target
        5176d815e6c40984db1af7befb12d06aab3c5adbca1c2d74313e0830ceec9580'

        The String-to-Sign should have been
        'AWS4-HMAC-SHA256
        20260131T235959Z
        20260131/us-east-1/dynamodb/aws4_request
        9855dfa3fa2a7d3bd321f4fa87fa515c3d93a2a2e9a4770fdb2860dbd1055819'
    "#]],
    );
}

#[test]
fn hex_and_percent() {
    for text in ["", "abc", "%41%62c", "%", "%4", "%zz", "a%2Fb"] {
        let mut encoded = Vec::new();
        percent_encode(&mut encoded, &percent_decode(text.as_bytes()));
        let mut again = Vec::new();
        percent_encode(&mut again, &percent_decode(&encoded));
        assert_eq!(encoded, again);
    }
    assert_eq!(&*percent_decode(b"%41%62c%4"), b"Abc%4");
    assert_eq!(parse_hex(&[b'g'; 64]), None);
    assert_eq!(parse_hex(&[b'a'; 63]), None);
    assert_eq!(
        parse_hex(&"0aF".repeat(22).as_bytes()[..64]).map(|bytes| bytes[0]),
        Some(0x0a)
    );
}
