//! The part of Redis' protocol that the gateway speaks (RESP2): commands of bulk strings, and answers that are a status,
//! an error or a list of numbers. Anything else is no answer to what the gateway asks.
//!
//! What a server says is not trusted. An answer is read from a line of at most [`LONGEST`] bytes, and from as many short
//! lines as numbers were asked for: no length that the server names makes the gateway wait for more, or hold more.

use smallvec::SmallVec;

/// Bytes of the first line of an answer. Errors of scripts are long.
pub(crate) const LONGEST: usize = 4096;
/// Bytes of a line with a number: its kind and 20 digits.
pub(crate) const NUMBER: usize = 21;

/// What a script found, a number for each of its keys.
pub type Numbers = SmallVec<[u64; 4]>;

/// What a server says to one command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is done, or `PONG`.
    Done,
    /// It is not, by this code: `NOSCRIPT`, `WRONGPASS`.
    Refused(Box<str>),
    /// What it found.
    Numbers(Numbers),
}

/// What is not an answer to anything that the gateway asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Garbage;

/// Reads one answer of at most so many numbers; gives its length as well, and `None` while it is not whole.
pub(crate) fn parse(bytes: &[u8], most: usize) -> Result<Option<(Answer, usize)>, Garbage> {
    let mut lines = Lines { bytes, at: 0 };
    let Some(first) = lines.next(LONGEST)? else { return Ok(None) };
    let answer = match first.split_first() {
        Some((b'+', _)) => Answer::Done,
        Some((b'-', error)) => Answer::Refused(code(error).into()),
        Some((b'*', count)) => {
            let count = usize::try_from(number(count)?).ok().filter(|count| *count <= most).ok_or(Garbage)?;
            let mut numbers = Numbers::with_capacity(count);
            for _ in 0..count {
                let Some(line) = lines.next(NUMBER)? else { return Ok(None) };
                numbers.push(number(line.strip_prefix(b":").ok_or(Garbage)?)?);
            }
            Answer::Numbers(numbers)
        }
        _ => return Err(Garbage),
    };
    Ok(Some((answer, lines.at)))
}

/// A command as it is sent.
pub(super) fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut out = head(words.len());
    words.iter().for_each(|word| bulk(&mut out, word));
    out
}

/// The beginning of a command of so many words.
pub(super) fn head(words: usize) -> Vec<u8> {
    format!("*{words}\r\n").into_bytes()
}

/// Adds a word of a command.
pub(super) fn bulk(out: &mut Vec<u8>, word: &[u8]) {
    out.push(b'$');
    out.extend_from_slice(itoa::Buffer::new().format(word.len()).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

struct Lines<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Lines<'b> {
    /// The next line without its end; `None` while it is not whole.
    fn next(&mut self, longest: usize) -> Result<Option<&'b [u8]>, Garbage> {
        let rest = &self.bytes[self.at..];
        let within = &rest[..rest.len().min(longest + 2)];
        let Some(end) = memchr::memchr(b'\n', within) else {
            return if within.len() < longest + 2 { Ok(None) } else { Err(Garbage) };
        };
        self.at += end + 1;
        within[..end].strip_suffix(b"\r").map(Some).ok_or(Garbage)
    }
}

fn number(digits: &[u8]) -> Result<u64, Garbage> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or(Garbage)
}

/// The first word of an error, if it is one as Redis has them: the rest is for nobody's log.
fn code(error: &[u8]) -> &str {
    let word = error.split(|b| *b == b' ').next().unwrap_or_default();
    let is_code = (1..=24).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase);
    std::str::from_utf8(word).ok().filter(|_| is_code).unwrap_or("ERR")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(list: &[u64]) -> Answer {
        Answer::Numbers(list.iter().copied().collect())
    }

    #[test]
    fn answers_are_read_and_nothing_else() {
        let whole = |text: &str| parse(text.as_bytes(), 2);
        assert_eq!(whole("+OK\r\n+"), Ok(Some((Answer::Done, 5))));
        assert_eq!(whole("*2\r\n:0\r\n:18446744073709551615\r\n"), Ok(Some((numbers(&[0, u64::MAX]), 31))));
        assert_eq!(whole("*0\r\n"), Ok(Some((numbers(&[]), 4))));
        for (text, code) in [
            ("-WRONGPASS invalid username-password pair\r\n", "WRONGPASS"),
            ("-ERR unknown\r\n", "ERR"),
            ("-\r\n", "ERR"),
            ("-\u{1b}[31m\r\n", "ERR"),
            ("-ABCDEFGHIJKLMNOPQRSTUVWXYZ x\r\n", "ERR"),
        ] {
            assert_eq!(whole(text), Ok(Some((Answer::Refused(code.into()), text.len()))), "{text:?}");
        }
        for text in ["", "+", "+OK\r", "*2\r\n", "*2\r\n:1\r\n", "*1\r\n:1", "*1\r\n:1\r"] {
            assert_eq!(whole(text), Ok(None), "{text:?}");
        }
        for text in [
            "HTTP/1.1 400 Bad Request\r\n",
            "\r\n",
            "+OK\n",
            "*3\r\n",
            "*-1\r\n",
            "*9223372036854775807\r\n",
            "*99999999999999999999999999\r\n",
            "*+1\r\n",
            "*1\r\n*1\r\n",
            "*1\r\n$1\r\n1\r\n",
            "*1\r\n:-1\r\n",
            "*1\r\n:\r\n",
            "*1\r\n:18446744073709551616\r\n",
            "*1\r\n:000000000000000000000000000",
            "$5\r\nhello\r\n",
            "$9223372036854775807\r\n",
            ":1\r\n",
            "%1\r\n",
        ] {
            assert_eq!(whole(text), Err(Garbage), "{text:?}");
        }
    }

    #[test]
    fn no_line_is_waited_for_without_end() {
        let endless = |length: usize| [b"+", &*vec![b'x'; length]].concat();
        assert_eq!(parse(&endless(LONGEST), 1), Ok(None));
        assert_eq!(parse(&endless(LONGEST + 1), 1), Err(Garbage));
    }

    #[test]
    fn a_command_is_a_list_of_words() {
        assert_eq!(command(&[b"AUTH", b"p\r\nq"]), b"*2\r\n$4\r\nAUTH\r\n$4\r\np\r\nq\r\n");
    }

    proptest! {
        /// What is held while an answer is not whole is bounded, whatever the server says.
        #[test]
        fn what_is_waited_for_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..9000), most in 0usize..8) {
            if parse(&bytes, most) == Ok(None) {
                prop_assert!(bytes.len() <= LONGEST + 2 + most * (NUMBER + 2));
            }
        }

        /// A part of an answer is never taken for the whole of it.
        #[test]
        fn a_part_is_not_the_whole(list in prop::collection::vec(any::<u64>(), 0..8)) {
            let text = format!("*{}\r\n{}", list.len(), list.iter().map(|n| format!(":{n}\r\n")).collect::<String>());
            for end in 0..text.len() {
                prop_assert_eq!(parse(&text.as_bytes()[..end], 8), Ok(None));
            }
            prop_assert_eq!(parse(text.as_bytes(), 8), Ok(Some((numbers(&list), text.len()))));
        }
    }
}
