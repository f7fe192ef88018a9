//! JSON's text (RFC 8259): read strictly, with the order of keys and the text of numbers, and written compactly.

use super::number::Num;
use super::value::{Arr, Obj, V};
use super::{Bound, meter};
use crate::body::Malformed;
use crate::body::json_text::{Text, Token};

/// Reads a text that is one value. None if it does not fit into the bounds.
pub fn read(text: &[u8]) -> Result<Option<V>, Malformed> {
    let mut text = Text::new(text)?;
    let value = value(&mut text)?;
    if meter::over().is_some() {
        return Ok(None);
    }
    text.end()?;
    Ok(Some(value))
}

/// Once it is out of bounds, anything is returned: nobody reads it.
fn value(text: &mut Text<'_>) -> Result<V, Malformed> {
    let mut first = true;
    Ok(match text.value()? {
        Token::Null => V::Null,
        Token::Bool(is) => V::Bool(is),
        Token::Number(digits) => V::Num(Num::read(digits)),
        Token::String(string) => V::text(string.into_owned()).unwrap_or(V::Null),
        Token::Array => {
            let mut array = Arr::default();
            while text.element(&mut first)? {
                array.push(value(text)?);
                if !meter::fits(array.weight) {
                    return Ok(V::Null);
                }
            }
            meter::bytes(array.items.len() as u64 * 16);
            V::from(array)
        }
        Token::Object => {
            let mut object = Obj::default();
            while let Some(key) = text.key(&mut first)? {
                object.insert(key.into_owned().into(), value(text)?);
                if !meter::fits(object.weight) || !meter::spend(2) {
                    return Ok(V::Null);
                }
            }
            V::from(object)
        }
    })
}

/// Appends a value, as long as it takes no more than `most` bytes.
pub fn write(value: &V, most: usize, out: &mut String) {
    if out.len() > most {
        return meter::exceed(Bound::Output);
    }
    match value {
        V::Null => out.push_str("null"),
        V::Bool(true) => out.push_str("true"),
        V::Bool(false) => out.push_str("false"),
        V::Num(num) => num.write(out),
        V::Str(text) => string(text, out),
        V::Arr(array) => {
            out.push('[');
            for (i, item) in array.items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, most, out);
                if out.len() > most {
                    return meter::exceed(Bound::Output);
                }
            }
            out.push(']');
        }
        V::Obj(object) => {
            out.push('{');
            for (i, (key, item)) in object.entries.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                string(key, out);
                out.push(':');
                write(item, most, out);
                if out.len() > most {
                    return meter::exceed(Bound::Output);
                }
            }
            out.push('}');
        }
    }
    if out.len() > most {
        meter::exceed(Bound::Output);
    }
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    let mut done = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x8 => "\\b",
            0xc => "\\f",
            0..0x20 | 0x7f => "",
            _ => continue,
        };
        out.push_str(&text[done..at]);
        out.push_str(escape);
        if escape.is_empty() {
            out.push_str(&format!("\\u{byte:04x}"));
        }
        done = at + 1;
    }
    out.push_str(&text[done..]);
    out.push('"');
}
