//! Numbers against fixed-point decimals of 400 digits, too slow and too simple to be wrong.

use cairn_item::testing::{self, Random};
use cairn_item::{ItemError, NUMBER_BYTES_MAX, Number};

const CASES: usize = 20_000;

/// Sign and decimal digits from 10^199 down to 10^-200.
#[derive(Clone, PartialEq, Eq, Debug)]
struct FixedPoint {
    negative: bool,
    digits: Vec<u8>,
}

const PLACES: i64 = 200;

impl FixedPoint {
    /// Reads text as `BigDecimal` does; the generator writes nothing else.
    fn parse(text: &str) -> FixedPoint {
        let lower = text.to_lowercase();
        let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
        let exponent: i64 = exponent.parse().expect("an exponent");
        let negative = mantissa.starts_with('-');
        let mantissa = mantissa.trim_start_matches(['-', '+']);
        let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits = vec![0; 2 * PLACES as usize];
        let first = integer.len() as i64 - 1 + exponent;
        for (index, digit) in integer.bytes().chain(fraction.bytes()).enumerate() {
            let place = PLACES - 1 - (first - index as i64);
            if digit != b'0' {
                digits[place as usize] = digit - b'0';
            }
        }
        let zero = digits.iter().all(|digit| *digit == 0);
        FixedPoint {
            negative: negative && !zero,
            digits,
        }
    }

    fn print(&self) -> String {
        let text: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let (integer, fraction) = text.split_at(PLACES as usize);
        let integer = integer.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        let sign = if self.negative { "-" } else { "" };
        let integer = if integer.is_empty() { "0" } else { integer };
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{sign}{integer}{point}{fraction}")
    }

    fn compare(&self, other: &FixedPoint) -> std::cmp::Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.digits.cmp(&other.digits),
            (true, true) => other.digits.cmp(&self.digits),
            (true, false) => std::cmp::Ordering::Less,
            (false, true) => std::cmp::Ordering::Greater,
        }
    }

    fn add(&self, other: &FixedPoint) -> FixedPoint {
        if self.negative == other.negative {
            let mut digits = vec![0; self.digits.len()];
            let mut carry = 0;
            for index in (0..digits.len()).rev() {
                let sum = self.digits[index] + other.digits[index] + carry;
                digits[index] = sum % 10;
                carry = sum / 10;
            }
            return FixedPoint {
                negative: self.negative,
                digits,
            };
        }
        let (large, small) = if self.digits >= other.digits {
            (self, other)
        } else {
            (other, self)
        };
        let mut digits = vec![0; self.digits.len()];
        let mut borrow = 0;
        for index in (0..digits.len()).rev() {
            let take = small.digits[index] + borrow;
            borrow = u8::from(large.digits[index] < take);
            digits[index] = large.digits[index] + 10 * borrow - take;
        }
        let zero = digits.iter().all(|digit| *digit == 0);
        FixedPoint {
            negative: large.negative && !zero,
            digits,
        }
    }

    /// What DynamoDB says to this value.
    fn verdict(&self) -> Result<String, ItemError> {
        let Some(first) = self.digits.iter().position(|digit| *digit != 0) else {
            return Ok("0".to_owned());
        };
        let last = self
            .digits
            .iter()
            .rposition(|digit| *digit != 0)
            .expect("a first digit is there");
        let magnitude = PLACES - 1 - first as i64;
        if magnitude > 125 {
            Err(ItemError::NumberOverflow)
        } else if magnitude < -130 {
            Err(ItemError::NumberUnderflow)
        } else if last - first + 1 > 38 {
            Err(ItemError::NumberPrecision)
        } else {
            Ok(self.print())
        }
    }

    /// Size by pairs of digits around the decimal point, counted on the printed text.
    fn size(&self) -> usize {
        let pairs: Vec<_> = self.digits.chunks(2).map(|pair| pair[0] * 10 + pair[1]).collect();
        let Some(first) = pairs.iter().position(|pair| *pair != 0) else {
            return 1;
        };
        let last = pairs
            .iter()
            .rposition(|pair| *pair != 0)
            .expect("a first pair is there");
        (1 + last - first + 1 + usize::from(self.negative)).min(21)
    }
}

#[test]
fn agrees_with_fixed_point() {
    let mut random = Random::new(1);
    let mut before: Option<(Number, FixedPoint)> = None;
    for _ in 0..CASES {
        let text = testing::number_text(&mut random);
        let oracle = FixedPoint::parse(&text);
        let number: Number = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(number.to_string(), oracle.print(), "{text}");
        assert_eq!(number.size(), oracle.size(), "size of {text}");
        assert_eq!(Number::from_bytes(number.as_bytes()), Some(number), "{text}");
        assert_eq!(number.to_string().parse(), Ok(number), "{text}");
        assert_eq!((-(-number)), number);
        if let Some((other, other_oracle)) = before {
            assert_eq!(
                number.cmp(&other),
                oracle.compare(&other_oracle),
                "{number} and {other}"
            );
            let negated = FixedPoint {
                negative: !other_oracle.negative,
                digits: other_oracle.digits.clone(),
            };
            check_sum(number.checked_add(other), &oracle.add(&other_oracle));
            check_sum(number.checked_sub(other), &oracle.add(&negated));
        }
        before = Some((number, oracle));
    }
}

fn check_sum(sum: Result<Number, ItemError>, oracle: &FixedPoint) {
    assert_eq!(sum.map(|number| number.to_string()), oracle.verdict());
}

#[test]
fn close_numbers_add_exactly() {
    // Independent numbers seldom overlap; these share their exponent.
    let mut random = Random::new(2);
    for _ in 0..CASES {
        let mut text = || {
            let digits: String = (0..1 + random.below(38))
                .map(|_| random.pick(&['0', '5', '9', '1']))
                .collect();
            format!(
                "{}{digits}e{}",
                random.pick(&["", "-"]),
                random.below(4) as i64 - 2
            )
        };
        let (left, right) = (text(), text());
        let sum = left
            .parse::<Number>()
            .expect("in range")
            .checked_add(right.parse().expect("in range"));
        check_sum(sum, &FixedPoint::parse(&left).add(&FixedPoint::parse(&right)));
    }
}

#[test]
fn texts() {
    let long = "1".repeat(38);
    let cases: &[(&str, Result<&str, &str>)] = &[
        ("0", Ok("0")),
        ("-0", Ok("0")),
        ("0e2147483647", Ok("0")),
        (
            "0e2147483648",
            Err("The parameter cannot be converted to a numeric value: 0e2147483648"),
        ),
        ("000", Ok("0")),
        ("+5", Ok("5")),
        ("5.", Ok("5")),
        (".5", Ok("0.5")),
        ("-.50", Ok("-0.5")),
        ("00012.3400", Ok("12.34")),
        ("1e2", Ok("100")),
        ("1E+2", Ok("100")),
        ("12345e-2", Ok("123.45")),
        ("1e-130", Ok(&*format!("0.{}1", "0".repeat(129)))),
        ("1e125", Ok(&*format!("1{}", "0".repeat(125)))),
        (&long, Ok(&long)),
        (&format!("{long}000"), Ok(&*format!("{long}000"))),
        (
            &format!("{long}1"),
            Err("Attempting to store more than 38 significant digits in a Number"),
        ),
        (
            "1e126",
            Err("Number overflow. Attempting to store a number with magnitude larger than supported range"),
        ),
        (
            "-1e2147483647",
            Err("Number overflow. Attempting to store a number with magnitude larger than supported range"),
        ),
        (
            "-1e999999999999999999999",
            Err("The parameter cannot be converted to a numeric value: -1e999999999999999999999"),
        ),
        (
            "1e-131",
            Err("Number underflow. Attempting to store a number with magnitude smaller than supported range"),
        ),
        ("", Err("The parameter cannot be converted to a numeric value")),
        (
            "b",
            Err("The parameter cannot be converted to a numeric value: b"),
        ),
        (
            ".",
            Err("The parameter cannot be converted to a numeric value: ."),
        ),
        (
            "-",
            Err("The parameter cannot be converted to a numeric value: -"),
        ),
        (
            "1e",
            Err("The parameter cannot be converted to a numeric value: 1e"),
        ),
        (
            "1e+",
            Err("The parameter cannot be converted to a numeric value: 1e+"),
        ),
        (
            "e5",
            Err("The parameter cannot be converted to a numeric value: e5"),
        ),
        (
            "1.2.3",
            Err("The parameter cannot be converted to a numeric value: 1.2.3"),
        ),
        (
            " 1",
            Err("The parameter cannot be converted to a numeric value:  1"),
        ),
        (
            "1 ",
            Err("The parameter cannot be converted to a numeric value: 1 "),
        ),
        (
            "--1",
            Err("The parameter cannot be converted to a numeric value: --1"),
        ),
        (
            "0x10",
            Err("The parameter cannot be converted to a numeric value: 0x10"),
        ),
        (
            "NaN",
            Err("The parameter cannot be converted to a numeric value: NaN"),
        ),
        (
            "Infinity",
            Err("The parameter cannot be converted to a numeric value: Infinity"),
        ),
    ];
    for (text, expected) in cases {
        let read = text.parse::<Number>();
        let read = read.as_ref().map(Number::to_string).map_err(ItemError::to_string);
        assert_eq!(
            read.as_deref(),
            expected
                .as_ref()
                .map(|text| *text)
                .map_err(|text| (*text).to_owned())
                .as_deref()
        );
    }
}

/// Sizes that DynamoDB is known to count.
#[test]
fn sizes() {
    let nines = "9".repeat(38);
    let cases = [
        ("0", 1),
        ("1", 2),
        ("10", 2),
        ("99", 2),
        ("100", 2),
        ("101", 3),
        ("-1", 3),
        ("12.3456", 4),
        ("1.2", 3),
        ("0.01", 2),
        ("0.001", 2),
        ("1e-130", 2),
        (&nines, 20),
        (&*format!("-{nines}"), 21),
        (&*format!("0.0{nines}"), 21),
        (&*format!("-0.0{nines}"), 21),
    ];
    for (text, size) in cases {
        assert_eq!(
            text.parse::<Number>().map(|number| number.size()),
            Ok(size),
            "{text}"
        );
    }
}

#[test]
fn integers() {
    for value in [
        0,
        1,
        -1,
        10,
        99,
        100,
        101,
        -100,
        i64::MAX,
        i64::MIN,
        i64::MAX - 7,
        1_000_000_000_000_000_000,
    ] {
        let number = Number::from(value);
        assert_eq!(number.to_string(), value.to_string());
        assert_eq!(number.to_i64(), Some(value));
    }
    let not = [
        "0.5",
        "9223372036854775808",
        "-9223372036854775809",
        "1e19",
        "1e125",
        "1e-130",
    ];
    for text in not {
        assert_eq!(
            text.parse::<Number>().map(|number| number.to_i64()),
            Ok(None),
            "{text}"
        );
    }
}

/// Bytes are accepted exactly when they are what the number they stand for is written as.
#[test]
fn only_canonical_bytes_are_numbers() {
    let mut random = Random::new(3);
    let mut accepted = 0;
    for _ in 0..CASES * 5 {
        let mut bytes = testing::number(&mut random).as_bytes().to_vec();
        for _ in 0..1 + random.below(2) {
            match random.below(3) {
                0 => {
                    let index = random.below(bytes.len());
                    bytes[index] = random.pick(&[0, 1, 2, 11, 100, 101, 102, 103, 0x7F, 0x80, 0xFF]);
                }
                1 => bytes.push(random.pick(&[0, 1, 2, 101, 102])),
                _ => drop(bytes.pop()),
            }
            if bytes.is_empty() {
                break;
            }
        }
        if let Some(number) = Number::from_bytes(&bytes) {
            accepted += 1;
            assert!(bytes.len() <= NUMBER_BYTES_MAX);
            let again: Number = number
                .to_string()
                .parse()
                .expect("a number prints what can be read");
            assert_eq!(again.as_bytes(), bytes, "{number}");
        }
    }
    assert!(accepted > CASES, "the mutations leave enough numbers: {accepted}");
}

/// The examples of docs/format-item.md.
#[test]
fn golden_bytes() {
    let cases: [(&str, &[u8]); 7] = [
        ("0", &[0x80]),
        ("1", &[0xC1, 0x02]),
        ("100", &[0xC2, 0x02]),
        ("12.5", &[0xC1, 0x0D, 0x33]),
        ("-12.5", &[0x3E, 0x59, 0x33, 0x66]),
        ("1700000000", &[0xC5, 0x12]),
        ("1e-130", &[0x80, 0x02]),
    ];
    for (text, bytes) in cases {
        assert_eq!(
            text.parse::<Number>()
                .map(|number| number.as_bytes().to_vec())
                .as_deref(),
            Ok(bytes),
            "{text}"
        );
    }
}
