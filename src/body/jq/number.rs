//! Numbers: integers of 64 bits, floating point, and those that have the text they came with.

use std::cmp::Ordering;
use std::rc::Rc;

/// A number.
#[derive(Debug, Clone)]
pub enum Num {
    Int(i64),
    Float(f64),
    /// As it was written: it stays so until something is calculated with it.
    Text(Rc<Text>),
}

/// A number as it was written, in JSON's grammar.
#[derive(Debug)]
pub struct Text {
    pub text: Box<str>,
    float: f64,
}

impl Num {
    /// A number in JSON's grammar.
    pub fn read(text: &str) -> Self {
        match text.parse() {
            Ok(int) if text != "-0" => Self::Int(int),
            _ => Self::Text(Rc::new(Text { text: text.into(), float: text.parse().unwrap_or(f64::NAN) })),
        }
    }

    pub fn float(&self) -> f64 {
        match self {
            Self::Int(int) => *int as f64,
            Self::Float(float) => *float,
            Self::Text(text) => text.float,
        }
    }

    /// The integer at or below.
    pub fn floor(&self) -> i64 {
        match self {
            Self::Int(int) => *int,
            other => other.float().floor() as i64,
        }
    }

    /// The integer at or above.
    pub fn ceil(&self) -> i64 {
        match self {
            Self::Int(int) => *int,
            other => other.float().ceil() as i64,
        }
    }

    /// An integer if it is one that floating point has exactly.
    pub fn of(float: f64) -> Self {
        const EXACT: f64 = (1u64 << 53) as f64;
        if float.fract() == 0.0 && float.abs() <= EXACT && !(float == 0.0 && float.is_sign_negative()) {
            Self::Int(float as i64)
        } else {
            Self::Float(float)
        }
    }

    fn both(&self, other: &Self, ints: impl Fn(i64, i64) -> Option<i64>, floats: impl Fn(f64, f64) -> f64) -> Self {
        if let (Self::Int(one), Self::Int(two)) = (self, other)
            && let Some(int) = ints(*one, *two)
        {
            return Self::Int(int);
        }
        Self::Float(floats(self.float(), other.float()))
    }

    pub fn add(&self, other: &Self) -> Self {
        self.both(other, i64::checked_add, |one, two| one + two)
    }

    pub fn sub(&self, other: &Self) -> Self {
        self.both(other, i64::checked_sub, |one, two| one - two)
    }

    pub fn mul(&self, other: &Self) -> Self {
        self.both(other, i64::checked_mul, |one, two| one * two)
    }

    /// None by zero.
    pub fn div(&self, other: &Self) -> Option<Self> {
        let exact = |one: i64, two: i64| (one.checked_rem(two) == Some(0)).then(|| one.checked_div(two)).flatten();
        (other.float() != 0.0).then(|| self.both(other, exact, |one, two| one / two))
    }

    /// Of the integers towards zero. None by zero.
    pub fn rem(&self, other: &Self) -> Option<Self> {
        let int = |num: &Self| match num {
            Self::Int(int) => *int,
            other => other.float() as i64,
        };
        if self.float().is_nan() || other.float().is_nan() {
            return Some(Self::Float(f64::NAN));
        }
        let by = int(other);
        (by != 0).then(|| Self::Int(int(self).checked_rem(by).unwrap_or(0)))
    }

    pub fn neg(&self) -> Self {
        match self {
            Self::Int(int) => int.checked_neg().map_or(Self::Float(-(*int as f64)), Self::Int),
            other => Self::Float(-other.float()),
        }
    }

    /// By what they are worth. Not a number comes before all others, and equals itself here.
    pub fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(one), Self::Int(two)) => one.cmp(two),
            (Self::Int(int), other) => int_order(*int, other.float()),
            (other, Self::Int(int)) => int_order(*int, other.float()).reverse(),
            (one, two) => {
                let (one, two) = (one.float(), two.float());
                one.partial_cmp(&two).unwrap_or_else(|| two.is_nan().cmp(&one.is_nan()))
            }
        }
    }

    /// Appends it in JSON's grammar. Not a number is null, and the infinite are the largest there are.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Int(int) => out.push_str(itoa::Buffer::new().format(*int)),
            Self::Text(text) => out.push_str(&text.text),
            Self::Float(float) if float.is_nan() => out.push_str("null"),
            Self::Float(float) => {
                let float = float.clamp(f64::MIN, f64::MAX);
                if float == 0.0 && float.is_sign_negative() {
                    out.push_str("-0");
                } else if float.fract() == 0.0 && float.abs() < 1e17 {
                    out.push_str(itoa::Buffer::new().format(float as i64));
                } else if let Some(number) = serde_json::Number::from_f64(float) {
                    out.push_str(&number.to_string());
                }
            }
        }
    }
}

fn int_order(int: i64, float: f64) -> Ordering {
    if float.is_nan() || float < i64::MIN as f64 {
        Ordering::Greater
    } else if float >= i64::MAX as f64 {
        Ordering::Less
    } else {
        let whole = float.trunc();
        int.cmp(&(whole as i64)).then_with(|| whole.partial_cmp(&float).unwrap_or(Ordering::Equal))
    }
}
