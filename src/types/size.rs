use std::fmt;
use std::str::FromStr;

/// A number of bytes with its unit in the text: `"512B"`, `"64KiB"`, `"1MiB"`, `"2GiB"`, `"10kB"`, `"5MB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

super::deserialize_from_str!(Size, "a size with its unit, such as \"64KiB\" or \"1MiB\"");

const UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

impl Size {
    /// A whole number of kibibytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// The size as a length in memory; a size beyond the address space is the largest length.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        let hint = "write a whole number and a unit (B, KiB, MiB, GiB, kB, MB, GB), such as \"64KiB\"";
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("`{text}` is not a size: {hint}"));
        };
        let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a size: {hint}"))?;
        number.checked_mul(*factor).map(Self).ok_or_else(|| format!("`{text}` is larger than any memory"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_required_and_checked() {
        assert_eq!("64KiB".parse(), Ok(Size::kib(64)));
        assert_eq!("1 MB".parse(), Ok(Size(1_000_000)));
        for wrong in ["", "64", "KiB", "1.5MiB", "1mib", "99999999999GiB", "-1B"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
        assert_eq!(Size(1 << 20).to_string(), "1MiB");
        assert_eq!(Size(1500).to_string(), "1500B");
    }
}
