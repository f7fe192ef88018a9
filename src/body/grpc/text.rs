//! JSON, read value by value from a text that is held whole. Numbers keep their digits, and nothing is built up.

use std::borrow::Cow;

use super::DEPTH;
use crate::body::Malformed;
use crate::body::tokens::number;

/// The beginning of a value; of an array or an object only its bracket is read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    /// As it is written.
    Number(&'a str),
    String(Cow<'a, str>),
    Array,
    Object,
}

/// A place in a text. A copy of it can look ahead.
#[derive(Debug, Clone)]
pub(super) struct Text<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

type Read<T> = Result<T, Malformed>;

impl<'a> Text<'a> {
    /// # Errors
    /// It is not UTF-8.
    pub fn new(text: &'a [u8]) -> Read<Self> {
        match std::str::from_utf8(text) {
            Ok(text) => Ok(Self { text, at: 0, depth: 0 }),
            Err(error) => Err(Malformed::new(error.valid_up_to() as u64, "the text is not UTF-8")),
        }
    }

    /// This is wrong, here.
    pub fn wrong(&self, what: impl Into<Cow<'static, str>>) -> Malformed {
        Malformed::new(self.at as u64, what)
    }

    /// Whether nothing but white space is left.
    pub fn is_done(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Whether `null` comes next.
    pub fn is_null(&mut self) -> bool {
        self.peek() == Some(b'n')
    }

    /// The beginning of the next value.
    pub fn value(&mut self) -> Read<Token<'a>> {
        match self.peek() {
            Some(b'n') => self.word("null", Token::Null),
            Some(b't') => self.word("true", Token::Bool(true)),
            Some(b'f') => self.word("false", Token::Bool(false)),
            Some(b'"') => Ok(Token::String(self.string()?)),
            Some(b'[') => self.open(Token::Array),
            Some(b'{') => self.open(Token::Object),
            Some(b'-' | b'0'..=b'9') => {
                let rest = &self.text[self.at..];
                let length = number(rest.as_bytes()).ok_or_else(|| self.wrong("a number is malformed"))?;
                self.at += length;
                Ok(Token::Number(&rest[..length]))
            }
            Some(_) => Err(self.wrong("a value was expected")),
            None => Err(self.wrong("the text ends where a value was expected")),
        }
    }

    /// Whether an array, that was opened, has one more element, which comes next.
    pub fn element(&mut self, first: &mut bool) -> Read<bool> {
        if !self.more(b']', first)? {
            return Ok(false);
        }
        Ok(true)
    }

    /// The next key of an object that was opened; its value comes next.
    pub fn key(&mut self, first: &mut bool) -> Read<Option<Cow<'a, str>>> {
        if !self.more(b'}', first)? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(self.wrong("a key was expected"));
        }
        let key = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.wrong("a colon was expected"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Goes behind the next value.
    pub fn skip(&mut self) -> Read<()> {
        let begin = self.depth;
        let mut arrays: Vec<bool> = Vec::new();
        let mut first = true;
        loop {
            match self.value()? {
                Token::Array => (arrays.push(true), first = true).1,
                Token::Object => (arrays.push(false), first = true).1,
                _ => {}
            }
            loop {
                let Some(array) = arrays.last() else {
                    debug_assert_eq!(self.depth, begin);
                    return Ok(());
                };
                let more = if *array { self.element(&mut first)? } else { self.key(&mut first)?.is_some() };
                if more {
                    break;
                }
                arrays.pop();
                first = false;
            }
        }
    }

    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.at += blank;
        rest.get(blank).copied()
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Read<Token<'a>> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.wrong("a value was expected"));
        }
        self.at += word.len();
        Ok(token)
    }

    fn open(&mut self, token: Token<'a>) -> Read<Token<'a>> {
        if self.depth == DEPTH {
            return Err(self.wrong("objects and arrays lie too deep in each other"));
        }
        self.depth += 1;
        self.at += 1;
        Ok(token)
    }

    fn more(&mut self, close: u8, first: &mut bool) -> Read<bool> {
        let first = std::mem::replace(first, false);
        match self.peek() {
            Some(byte) if byte == close => {
                self.depth -= 1;
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                match self.peek() {
                    Some(b']' | b'}') => Err(self.wrong("a comma stands before the end")),
                    _ => Ok(true),
                }
            }
            Some(_) if first => Ok(true),
            Some(_) => Err(self.wrong("a comma was expected")),
            None => Err(self.wrong("the text ends too early")),
        }
    }

    fn string(&mut self) -> Read<Cow<'a, str>> {
        self.at += 1;
        let mut built = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(length) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)) else {
                return Err(self.wrong("a string does not end"));
            };
            let plain = &rest[..length];
            self.at += length;
            match rest.as_bytes()[length] {
                b'"' => {
                    self.at += 1;
                    return Ok(if built.is_empty() { Cow::Borrowed(plain) } else { Cow::Owned(built + plain) });
                }
                b'\\' => {
                    built.push_str(plain);
                    built.push(self.escape()?);
                }
                _ => return Err(self.wrong("a control character stands in a string")),
            }
        }
    }

    fn escape(&mut self) -> Read<char> {
        let wrong = self.wrong("an escape in a string is malformed");
        let Some(letter) = self.text.as_bytes().get(self.at + 1) else { return Err(wrong) };
        let plain = match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.unit().ok_or_else(|| wrong.clone())?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high).ok_or(wrong);
                }
                let low = self.unit().filter(|low| (0xdc00..0xe000).contains(low)).ok_or_else(|| wrong.clone())?;
                return char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)).ok_or(wrong);
            }
            _ => return Err(wrong),
        };
        self.at += 2;
        Ok(plain)
    }

    /// The code unit of `\uXXXX`.
    fn unit(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 6)?.strip_prefix(b"\\u")?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        self.at += 6;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Read<()> {
        let mut text = Text::new(text.as_bytes())?;
        text.skip()?;
        if text.is_done() { Ok(()) } else { Err(text.wrong("more")) }
    }

    #[test]
    fn what_is_json_is_what_serde_takes_for_it() {
        let texts = [
            "null",
            "true",
            "fals",
            "\"a\\u00e9\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\ude00\"",
            "\"\\x\"",
            "\"a",
            "\"\t\"",
            "[]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1,2]",
            "{}",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\" 1}",
            "{\"a\":}",
            "[}",
            "{]",
            "[[{\"a\":[{}]}]]",
            "-",
            "-0",
            "01",
            "1.",
            "1.5e",
            "1e+",
            "1.5e+7",
            "-0.0",
            ".5",
            "+1",
            "1 1",
            "",
            " ",
            " [ 1 , { \"a\" : null } ] ",
            "\"\\u12\"",
            "\"\\u+123\"",
            "nul",
            "[1",
            "{\"a\":1",
            "{\"a\"",
            "NaN",
            "\"\\",
        ];
        for text in texts {
            let theirs = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(whole(text).is_ok(), theirs, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!(whole(&("[".repeat(DEPTH) + &"]".repeat(DEPTH))).is_ok());
        assert!(whole(&("[".repeat(DEPTH + 1) + &"]".repeat(DEPTH + 1))).is_err());
        assert!(whole(&"[".repeat(1_000_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn strings_are_read_as_serde_writes_them(string: String) {
            let text = serde_json::to_string(&string).unwrap();
            let token = Text::new(text.as_bytes()).unwrap().value().unwrap();
            proptest::prop_assert_eq!(token, Token::String(string.into()));
        }

        #[test]
        fn no_text_is_read_differently(text in "[\\[\\]{},:\"a0-9.eE+\\\\u -]{0,24}") {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            let too_large = theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
            proptest::prop_assert!(too_large || whole(&text).is_ok() == theirs.is_ok(), "{}", text);
        }
    }
}
