//! Dates of the proleptic Gregorian calendar in UTC, for signatures and logs.
//!
//! Days are counted from 1970-01-01 in years that begin with March, so that a leap day is a year's last.

/// A point of UTC time to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utc {
    /// Such as 2026.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
    /// 0 to 23.
    pub hour: u64,
    /// 0 to 59.
    pub minute: u64,
    /// 0 to 59.
    pub second: u64,
    /// 0 to 999.
    pub millisecond: u64,
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;
/// Days of 400 years.
const ERA_DAYS: u64 = 146_097;

impl Utc {
    /// The calendar's view of milliseconds since the Unix epoch.
    #[must_use]
    pub fn from_unix_ms(unix_ms: u64) -> Utc {
        let days = unix_ms / DAY_MS + EPOCH_DAYS;
        let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (ERA_DAYS - 1)) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let ms = unix_ms % DAY_MS;
        Utc {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            hour: ms / 3_600_000,
            minute: ms / 60_000 % 60,
            second: ms / 1000 % 60,
            millisecond: ms % 1000,
        }
    }

    /// Milliseconds since the Unix epoch; None before it and for what is no date.
    #[must_use]
    pub fn unix_ms(&self) -> Option<u64> {
        let fits = (1..=12).contains(&self.month)
            && (1..=31).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
            && self.second < 60
            && self.year < 10_000;
        if !fits {
            return None;
        }
        let year = if self.month <= 2 {
            self.year.checked_sub(1)?
        } else {
            self.year
        };
        let (era, year_of_era) = (year / 400, year % 400);
        let shifted = if self.month > 2 {
            self.month - 3
        } else {
            self.month + 9
        };
        let day_of_year = (153 * shifted + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = (era * ERA_DAYS + day_of_era).checked_sub(EPOCH_DAYS)?;
        let ms = ((self.hour * 60 + self.minute) * 60 + self.second) * 1000 + self.millisecond;
        let unix_ms = days * DAY_MS + ms;
        // A day that the month does not have comes out as one of the next month.
        (Utc::from_unix_ms(unix_ms) == *self).then_some(unix_ms)
    }

    /// ISO 8601's basic format, such as `20260131T235959Z`.
    #[must_use]
    pub fn basic(&self) -> String {
        let Utc {
            year,
            month,
            day,
            hour,
            minute,
            second,
            ..
        } = self;
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }

    /// The time that `text` says in ISO 8601's basic format.
    #[must_use]
    pub fn parse_basic(text: &[u8]) -> Option<Utc> {
        let [date @ .., b'Z'] = text else { return None };
        if date.len() != 15 || date[8] != b'T' {
            return None;
        }
        let number = |digits: &[u8]| {
            digits.iter().try_fold(0, |number, digit| {
                digit
                    .is_ascii_digit()
                    .then(|| number * 10 + u64::from(digit - b'0'))
            })
        };
        let utc = Utc {
            year: number(&date[0..4])?,
            month: number(&date[4..6])?,
            day: number(&date[6..8])?,
            hour: number(&date[9..11])?,
            minute: number(&date[11..13])?,
            second: number(&date[13..15])?,
            millisecond: 0,
        };
        utc.unix_ms().map(|_| utc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_five_centuries_comes_back() {
        // The oracle counts days one by one.
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..500 * 365 {
            let utc = Utc::from_unix_ms(days * DAY_MS);
            assert_eq!((utc.year, utc.month, utc.day), (year, month, day));
            assert_eq!(utc.unix_ms(), Some(days * DAY_MS));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, last) if last == length => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn basic_format() {
        for (text, unix_ms) in [
            ("19700101T000000Z", Some(0)),
            ("20150830T123600Z", Some(1_440_938_160_000)),
            ("20260229T000000Z", None),
            ("20240229T235959Z", Some(1_709_251_199_000)),
            ("20241301T000000Z", None),
            ("2024010 T000000Z", None),
            ("20240101T000000", None),
            ("20240101t000000Z", None),
            ("", None),
        ] {
            let parsed = Utc::parse_basic(text.as_bytes());
            assert_eq!(parsed.and_then(|utc| utc.unix_ms()), unix_ms, "{text}");
            if let Some(utc) = parsed {
                assert_eq!(utc.basic(), text);
            }
        }
    }
}
