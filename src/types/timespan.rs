use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time with its unit in the text: `"250ms"`, `"60s"`, `"10m"`, `"1h 30m"`.
///
/// A bare number is refused, as is `"0"`: what a key means by zero is for the key to say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timespan(pub Duration);

super::deserialize_from_str!(Timespan, "a duration with its unit, such as \"60s\" or \"250ms\"");

impl Timespan {
    /// A whole number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A whole number of milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }
}

impl FromStr for Timespan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            return Err(format!(
                "`{text}` has no unit: write \"{text}s\" for seconds or \"{text}ms\" for milliseconds"
            ));
        }
        humantime::parse_duration(text).map(Self).map_err(|error| {
            format!("`{text}` is not a duration ({error}): write a number and a unit (ms, s, m, h), such as \"60s\"")
        })
    }
}

impl fmt::Display for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl fmt::Debug for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Timespan> for Duration {
    fn from(timespan: Timespan) -> Self {
        timespan.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_required() {
        assert_eq!("60s".parse(), Ok(Timespan::from_secs(60)));
        assert_eq!("250ms".parse(), Ok(Timespan::from_millis(250)));
        assert_eq!("1h 30m".parse(), Ok(Timespan::from_secs(5400)));
        for wrong in ["", "60", "0", "s", "-1s", "1 fortnight"] {
            assert!(wrong.parse::<Timespan>().is_err(), "{wrong}");
        }
        assert!("60".parse::<Timespan>().unwrap_err().contains("\"60s\""));
    }
}
