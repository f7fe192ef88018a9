//! Regular expressions, of the `regex` crate: no pattern takes more than linear time for a match, but each match may
//! look at all of the text again, so each takes steps for that.

use std::cell::RefCell;
use std::rc::Rc;

use regex::{Regex, RegexBuilder};

use super::meter;
use super::natives::found;
use super::number::Num;
use super::value::{Error, V, ValR, out_of_bounds};

/// How long a pattern may be, in bytes.
const LONGEST: usize = 1024;
/// How large a pattern may become, in bytes, and how many times more it takes to look at text with it.
const SIZES: [(usize, u64); 3] = [(8 << 10, 1), (64 << 10, 4), (256 << 10, 16)];
/// How many patterns a thread keeps.
const KEPT: usize = 16;
/// What it takes to compile one of the first size, in steps.
const COMPILE: u64 = 1000;

type Compiled = Rc<(String, String, Regex, u64)>;

thread_local! {
    static PATTERNS: RefCell<Vec<Compiled>> = const { RefCell::new(Vec::new()) };
}

/// An array of the matches of a pattern: each is an array of the whole and the groups. With `between`, the strings
/// before, between and after the matches, too.
pub fn matches(value: &V, pattern: &V, flags: &V, between: bool) -> ValR {
    let text = value.as_str()?;
    let flags = match flags {
        V::Null => Rc::default(),
        flags => flags.as_str()?.clone(),
    };
    let pattern = compiled(pattern.as_str()?, &flags)?;
    let (regex, cost) = (&pattern.2, pattern.3);
    let mut all = Vec::new();
    let (mut at, mut last, mut chars) = (0, 0, (0, 0));
    let char_at = |byte: usize, chars: &mut (usize, usize)| {
        // Groups may begin before what was counted last.
        if byte < chars.0 {
            *chars = (0, 0);
        }
        meter::bytes((byte - chars.0) as u64);
        *chars = (byte, chars.1 + text[chars.0..byte].chars().count());
        chars.1
    };
    while at <= text.len() {
        if !meter::spend(1 + (text.len() - at) as u64 * cost / 32) {
            return Err(out_of_bounds());
        }
        let Some(groups) = regex.captures_at(text, at) else { break };
        let Some(whole) = groups.get(0) else { break };
        meter::spend(whole.len() as u64 * cost / 4);
        at = match whole.is_empty() {
            true => whole.end() + text[whole.end()..].chars().next().map_or(1, char::len_utf8),
            false => whole.end(),
        };
        if whole.is_empty() && flags.contains('n') {
            continue;
        }
        let mut parts = Vec::new();
        for (group, name) in groups.iter().zip(regex.capture_names()) {
            let name = name.map_or(Ok(V::Null), V::text)?;
            parts.push(match group {
                Some(group) => found([
                    ("offset", V::int(char_at(group.start(), &mut chars))),
                    ("length", V::int(group.as_str().chars().count())),
                    ("string", V::text(group.as_str())?),
                    ("name", name),
                ]),
                None => found([
                    ("offset", V::Num(Num::Int(-1))),
                    ("length", V::int(0)),
                    ("string", V::Null),
                    ("name", name),
                ]),
            });
            meter::spend(16);
        }
        if between {
            all.push(V::text(&text[last..whole.start()])?);
        }
        last = whole.end();
        all.push(V::array(parts)?);
        if !flags.contains('g') {
            break;
        }
    }
    if between {
        all.push(V::text(&text[last..])?);
    }
    V::array(all)
}

fn compiled(pattern: &str, flags: &str) -> ValR<Compiled> {
    if pattern.len() > LONGEST {
        return Err(Error::str(format_args!("a regular expression of more than {LONGEST} bytes")));
    }
    if let Some(flag) = flags.chars().find(|flag| !"gnimsxp".contains(*flag)) {
        return Err(Error::str(format_args!("{flag} is not a flag of regular expressions")));
    }
    let kept = PATTERNS.with_borrow_mut(|patterns| {
        let at = patterns.iter().position(|kept| kept.0 == pattern && kept.1 == flags)?;
        let kept = patterns.remove(at);
        patterns.push(kept.clone());
        Some(kept)
    });
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let mut refused = None;
    for (size, cost) in SIZES {
        if !meter::spend(COMPILE * cost + pattern.len() as u64) {
            return Err(out_of_bounds());
        }
        let has = |flag| flags.contains(flag);
        let built = RegexBuilder::new(pattern)
            .case_insensitive(has('i'))
            .multi_line(has('m') || has('p'))
            .dot_matches_new_line(has('s') || has('p'))
            .ignore_whitespace(has('x'))
            .size_limit(size)
            .nest_limit(50)
            .build();
        match built {
            Ok(regex) => {
                let regex: Compiled = Rc::new((pattern.to_owned(), flags.to_owned(), regex, cost));
                PATTERNS.with_borrow_mut(|patterns| {
                    if patterns.len() == KEPT {
                        patterns.remove(0);
                    }
                    patterns.push(regex.clone());
                });
                return Ok(regex);
            }
            Err(error @ regex::Error::CompiledTooBig(_)) => refused = Some(error),
            Err(error) => return Err(Error::str(format_args!("not a regular expression: {error}"))),
        }
    }
    Err(Error::str(format_args!(
        "not a regular expression: {}",
        refused.map(|error| error.to_string()).unwrap_or_default()
    )))
}
