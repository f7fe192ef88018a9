//! Reading JSON (RFC 8259) so that nobody can read it differently: a name that comes twice in an object, text that is not
//! Unicode and numbers that would be rounded are refused.

use serde_json::{Map, Number, Value};

use crate::body::{DEPTH, Malformed};

/// Reads a whole text.
///
/// # Errors
/// It is not JSON, two parsers could read it differently, or it lies deeper than [`DEPTH`].
pub fn parse(text: &[u8]) -> Result<Value, Malformed> {
    let text = std::str::from_utf8(text)
        .map_err(|error| Malformed::new(error.valid_up_to() as u64, "the text is not UTF-8"))?;
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.space();
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.wrong("there is something behind the end")),
    }
}

/// A number as it is compared: whole numbers of up to 64 bits exactly, however they are written (`1.0` is `1`), others
/// with up to 17 digits as the nearest of double precision. `None` for what would be rounded further, or has no place
/// there.
pub fn number(text: &str) -> Option<Number> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let trimmed = digits.trim_end_matches('0');
    let significant = trimmed.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0.into());
    }
    // An exponent beyond 32 bits has no place in any case.
    let exponent = exponent.parse::<i32>().ok().map(i64::from)?;
    let zeros = exponent + (digits.len() - trimmed.len()) as i64 - fraction.len() as i64;
    if (0..=19).contains(&zeros) {
        let whole = format!("{}{significant}{}", if negative { "-" } else { "" }, "0".repeat(zeros as usize));
        if let Ok(number) = whole.parse::<u64>() {
            return Some(number.into());
        }
        if let Ok(number) = whole.parse::<i64>() {
            return Some(number.into());
        }
    }
    if significant.len() > 17 {
        return None;
    }
    Number::from_f64(text.parse::<f64>().ok().filter(|number| number.is_normal())?)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong(&self, what: &'static str) -> Malformed {
        Malformed::new(self.at as u64, what)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Goes over a character if it is the next.
    fn takes(&mut self, character: u8) -> bool {
        let takes = self.peek() == Some(character);
        self.at += usize::from(takes);
        takes
    }

    fn value(&mut self, depth: usize) -> Result<Value, Malformed> {
        self.space();
        match self.peek() {
            Some(b'{' | b'[') if depth == DEPTH => Err(self.wrong("it lies too deep")),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) => Err(self.wrong("a value is expected")),
            None => Err(self.wrong("it ends too early")),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Malformed> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.wrong("a value is expected"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn object(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut object = Map::new();
        self.at += 1;
        self.space();
        if self.takes(b'}') {
            return Ok(Value::Object(object));
        }
        loop {
            self.space();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.wrong("a name in quotes is expected"));
            }
            let name = self.string()?;
            self.space();
            if !self.takes(b':') {
                return Err(self.wrong("`:` is expected"));
            }
            let value = self.value(depth + 1)?;
            if object.insert(name, value).is_some() {
                return Err(Malformed::new(start as u64, "a name comes twice in an object"));
            }
            self.space();
            if self.takes(b'}') {
                return Ok(Value::Object(object));
            }
            if !self.takes(b',') {
                return Err(self.wrong("`,` or `}` is expected"));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut items = Vec::new();
        self.at += 1;
        self.space();
        if self.takes(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.takes(b']') {
                return Ok(Value::Array(items));
            }
            if !self.takes(b',') {
                return Err(self.wrong("`,` or `]` is expected"));
            }
        }
    }

    fn number(&mut self) -> Result<Value, Malformed> {
        let start = self.at;
        self.takes(b'-');
        if !self.takes(b'0') {
            self.digits()?;
        }
        if self.takes(b'.') {
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            let _ = self.takes(b'-') || self.takes(b'+');
            self.digits()?;
        }
        match number(&self.text[start..self.at]) {
            Some(number) => Ok(Value::Number(number)),
            None => Err(Malformed::new(start as u64, "a number is too large, or too long to be compared exactly")),
        }
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if start == self.at { Err(self.wrong("a digit is expected")) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<String, Malformed> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(plain) = rest.bytes().position(|b| b == b'"' || b == b'\\' || b < b' ') else {
                self.at = self.text.len();
                return Err(self.wrong("it ends too early"));
            };
            string.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escape()?),
                _ => return Err(self.wrong("a control character in a text")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        self.at += 1;
        let character = match self.peek() {
            Some(b'u') => return self.unicode(),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(plain @ (b'"' | b'\\' | b'/')) => char::from(plain),
            _ => return Err(self.wrong("an escape that is not known")),
        };
        self.at += 1;
        Ok(character)
    }

    fn unicode(&mut self) -> Result<char, Malformed> {
        const LONE: &str = "half of a surrogate pair";
        let first = self.hex()?;
        let code = match first {
            0xd800..0xdc00 => {
                if !self.takes(b'\\') || self.peek() != Some(b'u') {
                    return Err(self.wrong(LONE));
                }
                match self.hex()? {
                    second @ 0xdc00..0xe000 => 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                    _ => return Err(self.wrong(LONE)),
                }
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.wrong(LONE))
    }

    /// The number in `uXXXX`.
    fn hex(&mut self) -> Result<u32, Malformed> {
        let digits = self.text.as_bytes().get(self.at + 1..self.at + 5).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let code = digits.and_then(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let code = code.ok_or_else(|| self.wrong("four hexadecimal digits are expected"))?;
        self.at += 5;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, String> {
        parse(text.as_bytes()).map_err(|malformed| malformed.to_string())
    }

    #[test]
    fn json_is_read() {
        let text = r#" {"a": [1, -2.5e1, true, false, null, "\u00e4\ud83d\ude00\n\/", {}, []], "b": "ü"} "#;
        assert_eq!(read(text), Ok(json!({"a": [1, -25, true, false, null, "ä😀\n/", {}, []], "b": "ü"})));
        assert_eq!(read("7"), Ok(json!(7)));
    }

    #[test]
    fn what_two_could_read_differently_is_refused() {
        for (text, what) in [
            (r#"{"a": 1, "\u0061": 2}"#, "a name comes twice in an object, at byte 9"),
            (r#""\ud800""#, "half of a surrogate pair"),
            (r#""\ud800\u0041""#, "half of a surrogate pair"),
            (r#""\udc00""#, "half of a surrogate pair"),
            ("[1,]", "a value is expected, at byte 3"),
            ("{\"a\" 1}", "`:` is expected, at byte 5"),
            ("{a: 1}", "a name in quotes is expected"),
            ("[1 2]", "`,` or `]` is expected"),
            ("01", "something behind the end"),
            ("1.", "a digit is expected"),
            ("+1", "a value is expected"),
            ("NaN", "a value is expected"),
            ("tru", "a value is expected"),
            ("\"a\u{1}\"", "a control character"),
            ("\"\\x\"", "an escape that is not known"),
            ("\"\\u12g4\"", "four hexadecimal digits"),
            ("\"a", "it ends too early"),
            ("", "it ends too early"),
            ("\u{feff}1", "a value is expected"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
        assert_eq!(parse(b"\"\xff\"").unwrap_err(), Malformed::new(1, "the text is not UTF-8"));
        let deep = |depth: usize| read(&("[".repeat(depth) + &"]".repeat(depth)));
        assert!(deep(DEPTH).is_ok() && deep(DEPTH + 1).unwrap_err().contains("too deep") && deep(100_000).is_err());
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        let exact = |text: &str| number(text).map(|number| number.to_string());
        for (text, is) in [
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9007199254740993.000", "9007199254740993"),
            ("1e3", "1000"),
            ("1200e-2", "12"),
            ("-0.0", "0"),
            ("0e999999999999", "0"),
            ("0.30000000000000004", "0.30000000000000004"),
            ("1.5", "1.5"),
        ] {
            assert_eq!(exact(text).as_deref(), Some(is), "{text}");
        }
        assert!(number("1e300").is_some());
        let long = format!("0.{}", "1".repeat(1000));
        for text in ["1e400", "1e-400", "18446744073709551617", "100.0000000000000000001", "1e99999999999", &long] {
            assert_eq!(exact(text), None, "{text}");
        }
    }
}
