//! Reading JSON (RFC 8259) so that nobody can read it differently: a name that comes twice in an object, text that is not
//! Unicode and numbers that would be rounded are refused.

use serde_json::{Map, Number, Value};

use crate::body::Malformed;
use crate::body::json_text::{Text, Token};

/// Reads a whole text.
///
/// # Errors
/// It is not JSON, two parsers could read it differently, or it lies deeper than [`DEPTH`](crate::body::DEPTH).
pub fn parse(text: &[u8]) -> Result<Value, Malformed> {
    let mut text = Text::new(text)?;
    let value = value(&mut text)?;
    text.end()?;
    Ok(value)
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
    Number::from_f64(text.parse::<f64>().ok().filter(|number| *number != 0.0)?)
}

fn value(text: &mut Text<'_>) -> Result<Value, Malformed> {
    let mut first = true;
    Ok(match text.value()? {
        Token::Null => Value::Null,
        Token::Bool(is) => Value::Bool(is),
        Token::String(string) => Value::String(string.into_owned()),
        Token::Number(digits) => {
            let too_long = || text.wrong_there("a number is too large, or too long to be compared exactly");
            Value::Number(number(digits).ok_or_else(too_long)?)
        }
        Token::Array => {
            let mut array = Vec::new();
            while text.element(&mut first)? {
                array.push(value(text)?);
            }
            Value::Array(array)
        }
        Token::Object => {
            let mut object = Map::new();
            while let Some(name) = text.key(&mut first)? {
                if object.contains_key(&*name) {
                    return Err(text.wrong_there("a name comes twice in an object"));
                }
                object.insert(name.into_owned(), value(text)?);
            }
            Value::Object(object)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::DEPTH;
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
            ("1.", "this is no number of JSON"),
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
        assert!(
            deep(DEPTH).is_ok() && deep(DEPTH + 1).unwrap_err().contains("deeper than 128") && deep(100_000).is_err()
        );
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
            ("5e-324", "5e-324"),
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
