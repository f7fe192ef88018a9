//! JSON (RFC 8259), read strictly and value by value from a text that is held whole: what needs it as a tree, as tokens or
//! as a message builds that itself. Numbers keep their digits, and nothing is built up here.

use std::borrow::Cow;

use super::{DEPTH, Malformed};

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
    /// Where what was read last begins and ends.
    last: (usize, usize),
    depth: usize,
}

type Read<T> = Result<T, Malformed>;

impl<'a> Text<'a> {
    /// # Errors
    /// It is not UTF-8.
    pub fn new(text: &'a [u8]) -> Read<Self> {
        match std::str::from_utf8(text) {
            Ok(text) => Ok(Self { text, at: 0, last: (0, 0), depth: 0 }),
            Err(error) => Err(Malformed::new(error.valid_up_to() as u64, "the text is not UTF-8")),
        }
    }

    /// All of it.
    pub fn whole(&self) -> &'a str {
        self.text
    }

    /// Where the value, key or closing bracket that was read last begins and ends, in bytes.
    pub fn last(&self) -> (usize, usize) {
        self.last
    }

    /// This is wrong, behind what was read last.
    pub fn wrong(&self, what: impl Into<Cow<'static, str>>) -> Malformed {
        Malformed::new(self.at as u64, what)
    }

    /// This is wrong with what was read last.
    pub fn wrong_there(&self, what: impl Into<Cow<'static, str>>) -> Malformed {
        Malformed::new(self.last.0 as u64, what)
    }

    /// There is one value, and nothing more.
    ///
    /// # Errors
    /// There is more.
    pub fn end(&mut self) -> Read<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.wrong("there is something behind the end")),
        }
    }

    /// Whether `null` comes next.
    pub fn is_null(&mut self) -> bool {
        self.peek() == Some(b'n')
    }

    /// The beginning of the next value.
    ///
    /// # Errors
    /// None comes next, or it lies deeper than [`DEPTH`].
    pub fn value(&mut self) -> Read<Token<'a>> {
        let next = self.peek();
        let began = self.at;
        let token = match next {
            Some(b'n') => self.word("null", Token::Null),
            Some(b't') => self.word("true", Token::Bool(true)),
            Some(b'f') => self.word("false", Token::Bool(false)),
            Some(b'"') => Ok(Token::String(self.string()?)),
            Some(b'[') => self.open(Token::Array),
            Some(b'{') => self.open(Token::Object),
            Some(b'-' | b'0'..=b'9') => {
                let rest = &self.text[self.at..];
                let length = number(rest.as_bytes()).ok_or_else(|| self.wrong("this is no number of JSON"))?;
                self.at += length;
                Ok(Token::Number(&rest[..length]))
            }
            _ => Err(self.expected("a value is expected")),
        }?;
        self.last = (began, self.at);
        Ok(token)
    }

    /// Whether an array, that was opened, has one more element, which comes next.
    ///
    /// # Errors
    /// Something else comes next.
    pub fn element(&mut self, first: &mut bool) -> Read<bool> {
        self.more(b']', first, "`,` or `]` is expected")
    }

    /// The next key of an object that was opened; its value comes next.
    ///
    /// # Errors
    /// Something else comes next.
    pub fn key(&mut self, first: &mut bool) -> Read<Option<Cow<'a, str>>> {
        if !self.more(b'}', first, "`,` or `}` is expected")? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(self.expected("a name in quotes is expected"));
        }
        let began = self.at;
        let key = self.string()?;
        self.last = (began, self.at);
        if self.peek() != Some(b':') {
            return Err(self.expected("`:` is expected"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Goes behind the next value.
    ///
    /// # Errors
    /// None comes next.
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

    /// What comes next is not what was expected.
    fn expected(&self, what: &'static str) -> Malformed {
        self.wrong(if self.at == self.text.len() { "it ends too early" } else { what })
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Read<Token<'a>> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.wrong("a value is expected"));
        }
        self.at += word.len();
        Ok(token)
    }

    fn open(&mut self, token: Token<'a>) -> Read<Token<'a>> {
        if self.depth == DEPTH {
            return Err(self.wrong(format!("it lies deeper than {DEPTH} levels")));
        }
        self.depth += 1;
        self.at += 1;
        Ok(token)
    }

    fn more(&mut self, close: u8, first: &mut bool, expected: &'static str) -> Read<bool> {
        let first = std::mem::replace(first, false);
        match self.peek() {
            Some(byte) if byte == close => {
                self.depth -= 1;
                self.at += 1;
                self.last = (self.at - 1, self.at);
                Ok(false)
            }
            Some(_) if first => Ok(true),
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.expected(expected)),
        }
    }

    fn string(&mut self) -> Read<Cow<'a, str>> {
        self.at += 1;
        let mut built = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
            let (plain, rest) = rest.split_at(plain);
            self.at += plain.len();
            match rest.as_bytes().first() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(if built.is_empty() { Cow::Borrowed(plain) } else { Cow::Owned(built + plain) });
                }
                Some(b'\\') => {
                    built.push_str(plain);
                    built.push(self.escape()?);
                }
                _ => return Err(self.expected("a control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Read<char> {
        let plain = match self.text.as_bytes().get(self.at + 1) {
            Some(plain @ (b'"' | b'\\' | b'/')) => char::from(*plain),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.wrong("an escape that is not known")),
        };
        self.at += 2;
        Ok(plain)
    }

    fn unicode(&mut self) -> Read<char> {
        let unit = |at: usize| {
            let digits = self.text.as_bytes().get(at..at + 6)?.strip_prefix(b"\\u")?;
            digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
        };
        let (code, length) = match unit(self.at) {
            None => return Err(self.wrong("four hexadecimal digits are expected")),
            Some(high @ 0xd800..0xdc00) => match unit(self.at + 6) {
                Some(low @ 0xdc00..0xe000) => (0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12),
                _ => return Err(self.wrong("half of a surrogate pair")),
            },
            Some(code) => (code, 6),
        };
        let character = char::from_u32(code).ok_or_else(|| self.wrong("half of a surrogate pair"))?;
        self.at += length;
        Ok(character)
    }
}

/// Whether a text is a number of JSON.
pub(super) fn is_number(text: &str) -> bool {
    number(text.as_bytes()) == Some(text.len())
}

/// How long the number is with which a text begins (RFC 8259, section 6).
fn number(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| text[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    at += match text.get(at) {
        Some(b'0') => 1,
        _ => Some(digits(at)).filter(|count| *count > 0)?,
    };
    if text.get(at) == Some(&b'.') {
        at += 1 + Some(digits(at + 1)).filter(|count| *count > 0)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at += Some(digits(at)).filter(|count| *count > 0)?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Read<()> {
        let mut text = Text::new(text.as_bytes())?;
        text.skip()?;
        text.end()
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
