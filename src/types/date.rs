//! A point in time, as a day or to the second.

use std::fmt;
use std::str::FromStr;

use jiff::civil;
use jiff::tz::TimeZone;

/// Seconds since 1970. A day is its beginning in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub i64);

impl Date {
    /// In the format of HTTP (RFC 9110, section 5.6.7).
    pub fn http(self) -> String {
        self.timestamp().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(self.0).unwrap_or_default()
    }
}

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let day = text.parse::<civil::Date>().ok().filter(|_| text.len() == "2026-06-01".len());
        let time = match day {
            Some(day) => day.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp()),
            None => text.parse().ok(),
        };
        // HTTP writes years with four digits, and nothing of it is older than the epoch.
        time.map(|time| Self(time.as_second())).filter(|date| date.0 >= 0).ok_or_else(|| {
            format!("`{text}` is not a date: write \"2026-06-01\", or \"2026-06-01T12:00:00Z\" with its offset")
        })
    }
}

impl fmt::Display for Date {
    /// As RFC 3339 has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.timestamp().fmt(f)
    }
}

super::deserialize_from_str!(Date, "a date, such as \"2026-06-01\" or \"2026-06-01T12:00:00Z\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_its_beginning_in_utc() {
        let date = |text: &str| text.parse::<Date>();
        assert_eq!(date("1970-01-02"), Ok(Date(86_400)));
        assert_eq!(date("2018-12-31T23:59:59Z").unwrap().http(), "Mon, 31 Dec 2018 23:59:59 GMT");
        assert_eq!(date("2026-06-01T02:00:00+02:00"), date("2026-06-01"));
        for wrong in ["", "2026", "2026-06-31", "2026-06-01T12:00:00", "1969-12-31", "1 June"] {
            assert!(date(wrong).is_err(), "{wrong}");
        }
    }
}
