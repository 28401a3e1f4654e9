//! AWS Signature Version 4 for the one shape of request that loadgen sends: POST / with signed `host`,
//! `x-amz-date` and `x-amz-target`.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};

/// Signs requests; the key of a day is derived once.
pub(crate) struct Signer {
    access_key: String,
    secret: String,
    region: String,
    host: String,
    day: String,
    key: Option<Key>,
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Signer {
    pub(crate) fn new(access_key: String, secret: String, region: String, host: String) -> Signer {
        Signer {
            access_key,
            secret,
            region,
            host,
            day: String::new(),
            key: None,
        }
    }

    /// Appends the `X-Amz-Date` and `Authorization` headers.
    pub(crate) fn write_headers(&mut self, into: &mut Vec<u8>, target: &[u8], body: &[u8], unix_ms: u64) {
        let stamp = timestamp(unix_ms);
        let day = &stamp[..8];
        if self.day != day || self.key.is_none() {
            self.key = Some(derive(&self.secret, day, &self.region));
            day.clone_into(&mut self.day);
        }
        let mut canonical = Vec::with_capacity(256);
        for part in [
            b"POST\n/\n\nhost:",
            self.host.as_bytes(),
            b"\nx-amz-date:",
            stamp.as_bytes(),
            b"\nx-amz-target:",
            target,
            b"\n\nhost;x-amz-date;x-amz-target\n",
        ] {
            canonical.extend_from_slice(part);
        }
        push_hex(&mut canonical, digest(&SHA256, body).as_ref());
        let mut text = Vec::with_capacity(192);
        text.extend_from_slice(b"AWS4-HMAC-SHA256\n");
        text.extend_from_slice(stamp.as_bytes());
        text.push(b'\n');
        text.extend_from_slice(self.scope(day).as_bytes());
        text.push(b'\n');
        push_hex(&mut text, digest(&SHA256, &canonical).as_ref());
        let signature = sign(self.key.as_ref().expect("derived above"), &text);

        into.extend_from_slice(b"X-Amz-Date: ");
        into.extend_from_slice(stamp.as_bytes());
        into.extend_from_slice(b"\r\nAuthorization: AWS4-HMAC-SHA256 Credential=");
        into.extend_from_slice(self.access_key.as_bytes());
        into.push(b'/');
        into.extend_from_slice(self.scope(day).as_bytes());
        into.extend_from_slice(b", SignedHeaders=host;x-amz-date;x-amz-target, Signature=");
        push_hex(into, signature.as_ref());
        into.extend_from_slice(b"\r\n");
    }

    fn scope(&self, day: &str) -> String {
        format!("{day}/{}/dynamodb/aws4_request", self.region)
    }
}

fn derive(secret: &str, day: &str, region: &str) -> Key {
    let mut key = Key::new(HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    for part in [day, region, "dynamodb", "aws4_request"] {
        key = Key::new(HMAC_SHA256, sign(&key, part.as_bytes()).as_ref());
    }
    key
}

fn push_hex(into: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        into.push(HEX[usize::from(byte >> 4)]);
        into.push(HEX[usize::from(byte & 15)]);
    }
}

/// `YYYYMMDDTHHMMSSZ` (days to civil date after Howard Hinnant's algorithm).
fn timestamp(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(timestamp(0), "19700101T000000Z");
        assert_eq!(timestamp(951_782_399_000), "20000228T235959Z");
        assert_eq!(timestamp(951_782_400_000), "20000229T000000Z");
        assert_eq!(timestamp(1_795_000_000_123), "20261118T110640Z");
    }

    #[test]
    fn a_signature_is_the_one_that_botocore_computes() {
        // botocore 1.44: SigV4Auth(Credentials('AKIDEXAMPLE', 'secret'), 'dynamodb', 'us-east-1') over the headers
        // host, x-amz-date and x-amz-target, with the clock at the date below.
        let mut signer = Signer::new(
            "AKIDEXAMPLE".into(),
            "secret".into(),
            "us-east-1".into(),
            "127.0.0.1:8000".into(),
        );
        let mut headers = Vec::new();
        signer.write_headers(
            &mut headers,
            b"DynamoDB_20120810.ListTables",
            b"{}",
            1_795_000_000_000,
        );
        let headers = String::from_utf8(headers).unwrap();
        let expected = include_str!("sign_expected.txt").trim();
        assert!(headers.trim_end().ends_with(expected), "{headers}");
    }
}
