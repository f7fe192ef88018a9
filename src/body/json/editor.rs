//! The scanner of RFC 8259 that runs the edits.

use std::sync::Arc;

use memchr::memchr;
use smallvec::SmallVec;

use super::Edits;
use super::compile::{ActionId, NodeId, Piece};
use crate::body::{DEPTH, Filter, Malformed};

/// Edits a JSON document that passes by.
///
/// Of the objects and arrays that it is in, the outer ones are watched: paths lead into them, and each has a frame. Below
/// them everything is copied or left out, and only followed.
#[derive(Debug)]
pub struct Editor {
    edits: Arc<Edits>,
    values: Vec<Vec<u8>>,
    /// Bytes of the parts before.
    before: u64,
    state: State,
    /// How many objects and arrays it is in.
    depth: usize,
    /// What those are, the innermost in the lowest bit: 1 is an object.
    objects: u128,
    frames: Vec<Frame>,
    /// The marks of the keys that are remembered, of all frames.
    marks: Vec<u8>,
    /// Whether what is read goes on as it is.
    copies: bool,
    /// What is done with the value that comes, unless it is left out.
    action: ActionId,
    /// What the string is that it is in.
    text: Text,
    /// The key has an escape.
    escaped: bool,
    /// The beginning of a held key, which came with the parts before.
    key: Vec<u8>,
    /// White space and comma since the last value of a watched object or array.
    gap: Vec<u8>,
    broken: Option<Malformed>,
}

/// A watched object or array.
#[derive(Debug)]
struct Frame {
    node: NodeId,
    /// Whether something of it was kept.
    kept: bool,
    /// Elements so far.
    index: u64,
    /// Where its marks begin.
    marks: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The document, or the value of a member.
    Value,
    FirstElement,
    Element,
    FirstKey,
    Key,
    Colon,
    /// After a value that is in something.
    Comma,
    /// After the document.
    End,
    /// In a string.
    Text,
    Escape,
    Hex {
        left: u8,
    },
    /// In a character of several bytes: the next is one of those.
    Character {
        left: u8,
        low: u8,
        high: u8,
    },
    Number(Number),
    /// In `true`, `false` or `null`, before that byte of it.
    Word(Word, u8),
}

/// What of a number was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digit,
    Point,
    Decimal,
    E,
    Sign,
    Exponent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    True,
    False,
    Null,
}

/// What a string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Value,
    /// A key of which it is known what to do.
    Key,
    /// A key that is held back until it is known.
    HeldKey,
}

/// How many bytes of white space between two tokens are kept in what is watched.
const LONGEST_GAP: usize = 256;
/// Bytes in which a byte of a key can be written: `\u0061`.
const LONGEST_ESCAPE: usize = 6;

/// What is wrong with the document.
type Wrong = &'static str;

const TOO_EARLY: &str = "the JSON document ends too early";

impl Editor {
    pub(super) fn new(edits: Arc<Edits>, values: Vec<Vec<u8>>) -> Self {
        Self {
            action: edits.program.root,
            edits,
            values,
            before: 0,
            state: State::Value,
            depth: 0,
            objects: 0,
            frames: Vec::new(),
            marks: Vec::new(),
            copies: true,
            text: Text::Value,
            escaped: false,
            key: Vec::new(),
            gap: Vec::new(),
            broken: None,
        }
    }

    /// Reads a part. If something is wrong, it is at the next byte.
    fn run(&mut self, edits: &Edits, run: &mut Run<'_>) -> Result<(), Wrong> {
        let part = run.part;
        let mut state = self.state;
        loop {
            if let State::Text = state {
                run.at = plain(part, run.at);
            }
            let Some(byte) = part.get(run.at).copied() else { break };
            state = match state {
                State::Text => match byte {
                    b'"' => {
                        run.at += 1;
                        match self.text {
                            Text::Value => self.value_ends(run),
                            Text::Key => State::Colon,
                            Text::HeldKey => {
                                self.key_ends(edits, run);
                                State::Colon
                            }
                        }
                    }
                    b'\\' => {
                        self.escaped = true;
                        run.at += 1;
                        State::Escape
                    }
                    ..0x20 => return Err("a control character in a JSON string has no escape"),
                    _ => {
                        run.at = characters(part, run.at);
                        match part.get(run.at) {
                            Some(lead) if !lead.is_ascii() => {
                                let Some(state) = character(*lead) else { return Err(NOT_UTF8) };
                                run.at += 1;
                                state
                            }
                            _ => state,
                        }
                    }
                },
                State::Value | State::FirstElement | State::Element => match byte {
                    b' ' | b'\t' | b'\n' | b'\r' => {
                        let start = run.space();
                        if state != State::Value {
                            self.widen(&part[start..run.at]);
                        }
                        state
                    }
                    b']' if state == State::FirstElement => self.close(edits, byte, run),
                    _ => {
                        if state != State::Value && self.is_watched() {
                            self.element(edits, run);
                        }
                        self.value(edits, byte, run)?
                    }
                },
                State::FirstKey | State::Key => match byte {
                    b'"' => {
                        run.at += 1;
                        self.text = Text::Key;
                        if self.is_watched() {
                            self.text = Text::HeldKey;
                            self.escaped = false;
                            run.from = run.at;
                        }
                        State::Text
                    }
                    b' ' | b'\t' | b'\n' | b'\r' => {
                        let start = run.space();
                        self.widen(&part[start..run.at]);
                        state
                    }
                    b'}' if state == State::FirstKey => self.close(edits, byte, run),
                    _ if state == State::FirstKey => return Err("a JSON key or `}` was expected"),
                    _ => return Err("a JSON key was expected"),
                },
                State::Colon => match byte {
                    b':' => {
                        run.at += 1;
                        State::Value
                    }
                    b' ' | b'\t' | b'\n' | b'\r' => {
                        run.space();
                        state
                    }
                    _ => return Err("`:` was expected after a JSON key"),
                },
                State::Comma => match byte {
                    b',' => {
                        run.at += 1;
                        if self.is_watched() {
                            self.gap.push(b',');
                        }
                        if self.is_object() { State::Key } else { State::Element }
                    }
                    b'}' if self.is_object() => self.close(edits, byte, run),
                    b']' if !self.is_object() => self.close(edits, byte, run),
                    b' ' | b'\t' | b'\n' | b'\r' => {
                        let start = run.space();
                        self.widen(&part[start..run.at]);
                        state
                    }
                    _ if self.is_object() => return Err("`,` or `}` was expected in a JSON object"),
                    _ => return Err("`,` or `]` was expected in a JSON array"),
                },
                State::Number(number) => match number.next(byte) {
                    Some(next) => {
                        run.at += 1;
                        let mut number = next;
                        while let Some(next) = part.get(run.at).and_then(|byte| number.next(*byte)) {
                            number = next;
                            run.at += 1;
                        }
                        State::Number(number)
                    }
                    None if number.is_whole() => self.value_ends(run),
                    None => return Err("a digit was expected in a JSON number"),
                },
                State::Word(word, at) => {
                    let text = word.text();
                    if text.get(usize::from(at)) != Some(&byte) {
                        return Err("`true`, `false` or `null` was expected");
                    }
                    run.at += 1;
                    let at = at + 1;
                    if usize::from(at) == text.len() { self.value_ends(run) } else { State::Word(word, at) }
                }
                State::Escape => {
                    run.at += 1;
                    match byte {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text,
                        b'u' => State::Hex { left: 4 },
                        _ => {
                            run.at -= 1;
                            return Err("this is not an escape of a JSON string");
                        }
                    }
                }
                State::Hex { left } => {
                    if !byte.is_ascii_hexdigit() {
                        return Err("a hexadecimal digit was expected");
                    }
                    run.at += 1;
                    if left == 1 { State::Text } else { State::Hex { left: left - 1 } }
                }
                State::Character { left, low, high } => {
                    if !(low..=high).contains(&byte) {
                        return Err(NOT_UTF8);
                    }
                    run.at += 1;
                    if left == 1 { State::Text } else { State::Character { left: left - 1, low: 0x80, high: 0xbf } }
                }
                State::End => match byte {
                    b' ' | b'\t' | b'\n' | b'\r' => {
                        run.space();
                        state
                    }
                    _ => return Err("something follows the JSON document"),
                },
            };
        }
        self.state = state;
        self.before += part.len() as u64;
        if self.is_key_held() {
            self.hold_key(edits, run);
        } else if self.copies {
            run.flush();
        }
        Ok(())
    }

    /// Whether it is directly in a watched object or array, or in none.
    #[inline]
    fn is_watched(&self) -> bool {
        self.depth == self.frames.len()
    }

    #[inline]
    fn is_object(&self) -> bool {
        self.objects & 1 == 1
    }

    fn is_key_held(&self) -> bool {
        self.text == Text::HeldKey
            && matches!(self.state, State::Text | State::Escape | State::Hex { .. } | State::Character { .. })
    }

    /// A value begins with this byte.
    #[inline]
    fn value(&mut self, edits: &Edits, byte: u8, run: &mut Run<'_>) -> Result<State, Wrong> {
        let mut node = None;
        if self.is_watched() && self.copies {
            let action = edits.program.action(self.action);
            let is_scalar = byte != b'{' && byte != b'[';
            let made = action.replaced.as_ref().or(action.scalar.as_ref().filter(|_| is_scalar));
            if let Some(made) = made {
                run.flush();
                self.put(edits, made, run.out);
                self.copies = false;
            } else {
                node = action.inside;
            }
        }
        let state = match byte {
            b'"' => {
                self.text = Text::Value;
                State::Text
            }
            b'{' | b'[' => return self.open(edits, byte, node, run),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Digit),
            b't' => State::Word(Word::True, 1),
            b'f' => State::Word(Word::False, 1),
            b'n' => State::Word(Word::Null, 1),
            0xef if self.before == 0 && run.at == 0 => {
                return Err("the JSON document begins with a byte order mark");
            }
            _ => return Err("a JSON value was expected"),
        };
        run.at += 1;
        Ok(state)
    }

    fn open(&mut self, edits: &Edits, byte: u8, node: Option<NodeId>, run: &mut Run<'_>) -> Result<State, Wrong> {
        if self.depth == DEPTH {
            return Err("the JSON document is nested too deeply");
        }
        run.at += 1;
        self.depth += 1;
        let is_object = byte == b'{';
        self.objects = self.objects << 1 | u128::from(is_object);
        if let Some(node) = node
            && let watched = edits.program.node(node)
            && (is_object || watched.arrays)
        {
            run.flush();
            self.copies = false;
            let marks = self.marks.len();
            self.frames.push(Frame { node, kept: false, index: 0, marks });
            self.marks.resize(marks + if is_object { watched.slots } else { 0 }, 0);
        }
        Ok(if is_object { State::FirstKey } else { State::FirstElement })
    }

    #[inline]
    fn close(&mut self, edits: &Edits, byte: u8, run: &mut Run<'_>) -> State {
        if self.is_watched()
            && let Some(mut frame) = self.frames.pop()
        {
            if byte == b'}' {
                for missing in &edits.program.node(frame.node).missing {
                    if self.marks[frame.marks + missing.slot] == 0 {
                        if frame.kept {
                            run.out.push(b',');
                        }
                        frame.kept = true;
                        run.out.extend_from_slice(&missing.key);
                        self.put(edits, &missing.made, run.out);
                    }
                }
            }
            run.out.extend_from_slice(&self.gap);
            self.gap.clear();
            run.out.push(byte);
            self.marks.truncate(frame.marks);
        }
        run.at += 1;
        self.depth -= 1;
        self.objects >>= 1;
        self.value_ends(run)
    }

    #[inline]
    fn value_ends(&mut self, run: &mut Run<'_>) -> State {
        if self.is_watched() {
            if self.copies {
                run.flush();
            }
            self.copies = self.depth == 0;
            run.from = run.at;
        }
        if self.depth == 0 { State::End } else { State::Comma }
    }

    /// Decides about an element of a watched array.
    fn element(&mut self, edits: &Edits, run: &mut Run<'_>) {
        let Some(frame) = self.frames.last_mut() else { return };
        self.action = edits.program.node(frame.node).element(frame.index);
        frame.index += 1;
        self.begin(!edits.program.action(self.action).drop, run);
    }

    /// Decides about a member of a watched object. `run` is behind its key.
    fn key_ends(&mut self, edits: &Edits, run: &mut Run<'_>) {
        let Some(frame) = self.frames.last() else { return };
        let part = run.part;
        let end = run.at - 1;
        let mut held = std::mem::take(&mut self.key);
        let raw = if held.is_empty() {
            &part[run.from..end]
        } else {
            held.extend_from_slice(&part[run.from..end]);
            &held
        };
        let node = edits.program.node(frame.node);
        let id = if !self.escaped {
            node.key(raw)
        } else if raw.len() > node.longest * LONGEST_ESCAPE {
            node.other
        } else {
            node.key(&unescape(raw))
        };
        if let Some(key) = self.member(edits, id, run) {
            match key {
                Some(key) => run.out.extend_from_slice(key),
                None => {
                    run.out.push(b'"');
                    run.out.extend_from_slice(raw);
                    run.out.push(b'"');
                }
            }
        }
        run.from = run.at;
        held.clear();
        self.key = held;
    }

    /// Holds what there is of a key, unless it is too long for any that is looked for.
    fn hold_key(&mut self, edits: &Edits, run: &mut Run<'_>) {
        let Some(frame) = self.frames.last() else { return };
        let node = edits.program.node(frame.node);
        let more = &run.part[run.from..];
        if self.key.len() + more.len() <= node.longest * LONGEST_ESCAPE {
            return self.key.extend_from_slice(more);
        }
        if self.member(edits, node.other, run).is_some() {
            run.out.push(b'"');
            run.out.extend_from_slice(&self.key);
            run.out.extend_from_slice(more);
        }
        self.text = Text::Key;
        self.key.clear();
    }

    /// Begins a member; gives its new key, if it is kept and if it has one.
    #[inline]
    fn member<'e>(&mut self, edits: &'e Edits, id: ActionId, run: &mut Run<'_>) -> Option<Option<&'e [u8]>> {
        self.action = id;
        let action = edits.program.action(id);
        let mut keeps = !action.drop;
        if let (Some((slot, mark)), Some(frame)) = (action.slot, self.frames.last()) {
            let marked = &mut self.marks[frame.marks + slot];
            // Another key has got this name already.
            keeps &= *marked == 0 || *marked == mark;
            if keeps {
                *marked = mark;
            }
        }
        self.begin(keeps, run);
        keeps.then_some(action.key.as_deref())
    }

    /// Begins a member or an element, with the comma and the white space before it.
    #[inline]
    fn begin(&mut self, keeps: bool, run: &mut Run<'_>) {
        self.copies = keeps;
        run.from = run.at;
        if let Some(frame) = self.frames.last_mut()
            && keeps
        {
            let skipped = if frame.kept { 0 } else { memchr(b',', &self.gap).map_or(0, |comma| comma + 1) };
            frame.kept = true;
            run.out.extend_from_slice(&self.gap[skipped..]);
        }
        self.gap.clear();
    }

    /// White space before a member, an element or an end.
    #[inline]
    fn widen(&mut self, space: &[u8]) {
        if self.is_watched() {
            let most = LONGEST_GAP.saturating_sub(self.gap.len()).min(space.len());
            self.gap.extend_from_slice(&space[..most]);
        }
    }

    fn put(&self, edits: &Edits, made: &[Piece], out: &mut Vec<u8>) {
        for piece in made {
            out.extend_from_slice(match piece {
                Piece::Text(text) => text,
                Piece::Value(set) => self.values.get(*set).unwrap_or(&edits.values[*set]),
            });
        }
    }
}

impl Filter for Editor {
    fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let edits = self.edits.clone();
        let mut run = Run { part, at: 0, from: 0, out };
        self.run(&edits, &mut run).map_err(|what| {
            let broken = Malformed::new(self.before + run.at as u64, what);
            self.broken = Some(broken.clone());
            broken
        })
    }

    fn end(&mut self, _: &mut Vec<u8>) -> Result<(), Malformed> {
        match (&self.broken, self.state) {
            (Some(broken), _) => Err(broken.clone()),
            (None, State::End) => Ok(()),
            (None, State::Number(number)) if self.depth == 0 && number.is_whole() => Ok(()),
            (None, _) => Err(Malformed::new(self.before, TOO_EARLY)),
        }
    }
}

/// The work on one part.
struct Run<'r> {
    part: &'r [u8],
    /// The next byte.
    at: usize,
    /// Where what is to be copied begins, or the key that is held.
    from: usize,
    out: &'r mut Vec<u8>,
}

impl Run<'_> {
    /// Copies what was read.
    #[inline]
    fn flush(&mut self) {
        self.out.extend_from_slice(&self.part[self.from..self.at]);
        self.from = self.at;
    }

    /// Skips white space; gives where it began.
    #[inline]
    fn space(&mut self) -> usize {
        let start = self.at;
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.part.get(self.at) {
            self.at += 1;
        }
        start
    }
}

impl Number {
    #[inline]
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Digit, b'0'..=b'9') => Self::Digit,
            (Self::Point | Self::Decimal, b'0'..=b'9') => Self::Decimal,
            (Self::E | Self::Sign | Self::Exponent, b'0'..=b'9') => Self::Exponent,
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') => Self::Digit,
            (Self::Zero | Self::Digit, b'.') => Self::Point,
            (Self::Zero | Self::Digit | Self::Decimal, b'e' | b'E') => Self::E,
            (Self::E, b'+' | b'-') => Self::Sign,
            _ => return None,
        })
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Digit | Self::Decimal | Self::Exponent)
    }
}

impl Word {
    fn text(self) -> &'static [u8] {
        match self {
            Self::True => b"true",
            Self::False => b"false",
            Self::Null => b"null",
        }
    }
}

const NOT_UTF8: &str = "a JSON string is not UTF-8";

/// Where the next byte is that is not an ASCII character which stands for itself in a string: eight bytes at once, which
/// for the short strings that most are is faster than any search that has to be set up.
#[inline]
fn plain(part: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    while let Some(word) = part.get(at..).and_then(|rest| rest.first_chunk()) {
        let word = u64::from_le_bytes(*word);
        // In the bytes above the first that is found, more may be found than there is.
        let quote = zero(word ^ (ONES * b'"' as u64)) | zero(word ^ (ONES * b'\\' as u64));
        let found = (quote | (word.wrapping_sub(ONES * 0x20) & !word) | word) & HIGH;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while part.get(at).is_some_and(|byte| matches!(byte, 0x20..0x80) && !matches!(byte, b'"' | b'\\')) {
        at += 1;
    }
    at
}

/// Where characters end that are not ASCII and are whole.
#[inline]
fn characters(part: &[u8], at: usize) -> usize {
    let run = &part[at..];
    let run = &run[..run.iter().position(u8::is_ascii).unwrap_or(run.len())];
    at + match std::str::from_utf8(run) {
        Ok(_) => run.len(),
        Err(error) => error.valid_up_to(),
    }
}

/// What must follow the first byte of a character of several.
fn character(lead: u8) -> Option<State> {
    let (left, low, high) = match lead {
        0xc2..=0xdf => (1, 0x80, 0xbf),
        0xe0 => (2, 0xa0, 0xbf),
        0xed => (2, 0x80, 0x9f),
        0xe1..=0xef => (2, 0x80, 0xbf),
        0xf0 => (3, 0x90, 0xbf),
        0xf1..=0xf3 => (3, 0x80, 0xbf),
        0xf4 => (3, 0x80, 0x8f),
        _ => return None,
    };
    Some(State::Character { left, low, high })
}

/// What a key stands for. Its escapes are sound. A single surrogate becomes what is no UTF-8, and no key of a path.
fn unescape(raw: &[u8]) -> SmallVec<[u8; 64]> {
    let mut key = SmallVec::new();
    let mut rest = raw;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            key.push(*byte);
            continue;
        }
        let Some((kind, after)) = rest.split_first() else { break };
        rest = after;
        match kind {
            b'b' => key.push(0x08),
            b'f' => key.push(0x0c),
            b'n' => key.push(b'\n'),
            b'r' => key.push(b'\r'),
            b't' => key.push(b'\t'),
            b'u' => {
                let mut code = hex(rest);
                rest = rest.get(4..).unwrap_or_default();
                if let (0xd800..0xdc00, Some(low)) = (code, rest.strip_prefix(br"\u"))
                    && let second @ 0xdc00..0xe000 = hex(low)
                {
                    code = 0x10000 + ((code - 0xd800) << 10) + (second - 0xdc00);
                    rest = low.get(4..).unwrap_or_default();
                }
                match char::from_u32(code) {
                    Some(character) => key.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => key.push(0xff),
                }
            }
            other => key.push(*other),
        }
    }
    key
}

fn hex(digits: &[u8]) -> u32 {
    digits.iter().take(4).fold(0, |code, digit| code << 4 | char::from(*digit).to_digit(16).unwrap_or(0))
}
