//! JSON's text (RFC 8259): read strictly, with the order of keys and the text of numbers, and written compactly.

use super::number::Num;
use super::value::{Arr, Obj, V};
use super::{Bound, meter};
use crate::body::tokens::number;
use crate::body::{DEPTH, Malformed};

/// Reads a text that is one value. None if it does not fit into the bounds.
pub fn read(text: &[u8]) -> Result<Option<V>, Malformed> {
    let text = std::str::from_utf8(text)
        .map_err(|error| Malformed::new(error.valid_up_to() as u64, "not UTF-8, as JSON must be"))?;
    let mut reader = Reader { text, at: 0 };
    reader.space();
    let value = reader.value(0)?;
    reader.space();
    if reader.at < text.len() && meter::over().is_none() {
        return Err(reader.wrong("expected the end, as there is one JSON value"));
    }
    Ok(meter::over().is_none().then_some(value))
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn wrong(&self, what: &'static str) -> Malformed {
        Malformed::new(self.at as u64, what)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// After a value, when out of bounds, anything is returned: nobody reads it.
    fn value(&mut self, depth: usize) -> Result<V, Malformed> {
        Ok(match self.peek() {
            Some(b'{' | b'[') if depth == DEPTH => return Err(self.wrong("nested too deep")),
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => V::text(self.string()?).unwrap_or(V::Null),
            Some(b'-' | b'0'..=b'9') => V::Num(self.number()?),
            _ => {
                for (word, value) in [("null", V::Null), ("true", V::Bool(true)), ("false", V::Bool(false))] {
                    if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                return Err(self.wrong("expected a JSON value"));
            }
        })
    }

    fn object(&mut self, depth: usize) -> Result<V, Malformed> {
        let mut object = Obj::default();
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(V::from(object));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.wrong("expected a key in quotes"));
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.wrong("expected a colon"));
            }
            self.at += 1;
            self.space();
            let value = self.value(depth + 1)?;
            object.insert(key.into(), value);
            if !meter::fits(object.weight) || !meter::spend(2) {
                return Ok(V::Null);
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.wrong("expected a comma or the end of the object")),
            }
            self.space();
        }
        self.at += 1;
        Ok(V::from(object))
    }

    fn array(&mut self, depth: usize) -> Result<V, Malformed> {
        let mut array = Arr::default();
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(V::from(array));
        }
        loop {
            let value = self.value(depth + 1)?;
            array.push(value);
            if !meter::fits(array.weight) {
                return Ok(V::Null);
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.wrong("expected a comma or the end of the array")),
            }
            self.space();
        }
        self.at += 1;
        meter::bytes(array.items.len() as u64 * 16);
        Ok(V::from(array))
    }

    fn number(&mut self) -> Result<Num, Malformed> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = number(rest).ok_or_else(|| self.wrong("expected a number in JSON's grammar"))?;
        self.at += length;
        Ok(Num::read(&self.text[self.at - length..self.at]))
    }

    fn string(&mut self) -> Result<String, Malformed> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let plain = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
            string.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain;
            match self.peek() {
                None => return Err(self.wrong("the text ends within a string")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escape()?),
                Some(_) => return Err(self.wrong("a control character within a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        let found = match self.text.as_bytes().get(self.at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.wrong("not an escape of JSON")),
        };
        self.at += 2;
        Ok(found)
    }

    fn unicode(&mut self) -> Result<char, Malformed> {
        let unit = |at: usize| {
            let digits = self.text.as_bytes().get(at..at + 6)?;
            let digits = digits.strip_prefix(b"\\u")?;
            digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
        };
        let (code, length) = match unit(self.at) {
            None => return Err(self.wrong("expected four hexadecimal digits")),
            Some(high @ 0xd800..0xdc00) => match unit(self.at + 6) {
                Some(low @ 0xdc00..0xe000) => (0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12),
                _ => return Err(self.wrong("half of a surrogate pair")),
            },
            Some(code) => (code, 6),
        };
        let found = char::from_u32(code).ok_or_else(|| self.wrong("half of a surrogate pair"))?;
        self.at += length;
        Ok(found)
    }
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
