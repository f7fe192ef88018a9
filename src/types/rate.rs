use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// So many in so much time: `"100/s"`, `"10/min"`, `"5000/h"`, `"20000/d"`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how much time.
    pub per: Duration,
}

super::deserialize_from_str!(Rate, "a rate, such as \"100/s\" or \"5000/h\"");

/// A rate with a burst, as limits count by it and tell of it.
#[derive(Debug)]
pub struct Pace {
    /// From one to the next, in nanoseconds.
    pub interval: u64,
    /// How far ahead of the rate one may come, in nanoseconds: all of the burst but that one.
    pub tolerance: u64,
    /// The rate as it is written: `500/s`.
    pub rate: Box<str>,
    /// The rate as the parameters of `RateLimit-Policy`: `;q=500;w=1`.
    pub quota: Box<str>,
}

const UNITS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3600), ("d", 86400)];

impl Rate {
    /// From one to the next, rounded up, so that rounding never lets more through.
    pub fn interval(self) -> Duration {
        let nanos = self.per.as_nanos().div_ceil(u128::from(self.count.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Pace {
    /// So many in so much time, up to `burst` of them at once.
    pub fn new(rate: Rate, burst: u32) -> Self {
        let interval = u64::try_from(rate.interval().as_nanos()).unwrap_or(u64::MAX / 4);
        Self {
            interval,
            tolerance: interval.saturating_mul(u64::from(burst.max(1) - 1)),
            rate: rate.to_string().into(),
            quota: format!(";q={};w={}", rate.count, rate.per.as_secs()).into(),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = "write a number and a unit of time (s, min, h, d), such as \"100/s\"";
        let wrong = || format!("`{text}` is not a rate: {hint}");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let (count, unit) = (count.trim(), unit.trim());
        let Some((_, seconds)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let meant = match unit {
                "sec" | "second" => "s",
                "m" | "minute" => "min",
                "hour" => "h",
                "day" => "d",
                _ => return Err(wrong()),
            };
            return Err(format!("`{unit}` is not a unit of a rate: did you mean \"{count}/{meant}\"?"));
        };
        let count: u32 = count.parse().map_err(|_| wrong())?;
        let rate = Self { count, per: Duration::from_secs(*seconds) };
        match count {
            0 => Err(format!("`{text}` would let nothing through")),
            _ if rate.interval() < Duration::from_micros(1) => {
                Err(format!("`{text}` is more than a million a second, which is no limit"))
            }
            _ => Ok(rate),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, seconds)| *seconds == self.per.as_secs()).map_or("?", |(name, _)| name);
        write!(f, "{}/{unit}", self.count)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit_of_time() {
        for (text, count, seconds) in
            [("100/s", 100, 1), ("10/min", 10, 60), ("5000 / h", 5000, 3600), ("1/d", 1, 86400)]
        {
            assert_eq!(text.parse(), Ok(Rate { count, per: Duration::from_secs(seconds) }), "{text}");
        }
        assert_eq!("10/min".parse::<Rate>().unwrap().to_string(), "10/min");
        for wrong in ["", "100", "100/", "/s", "1.5/s", "-1/s", "0/s", "5000000/s", "1/fortnight"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        assert!("7/m".parse::<Rate>().unwrap_err().contains("\"7/min\""));
    }

    #[test]
    fn an_interval_is_never_too_short() {
        for count in [1, 3, 7, 999_983] {
            let rate = Rate { count, per: Duration::from_secs(1) };
            assert!(rate.interval() * count >= rate.per, "{count}");
        }
    }
}
