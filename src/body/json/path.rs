//! Paths into a document: `items.*.id`, `a."x.y".b`.

use std::fmt;

use crate::body::DEPTH;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// `*`: every member of an object, every element of an array.
    Any,
    /// A number without quotes: that element of an array, or the member of that name.
    Number(String),
    /// The member of that name.
    Key(String),
}

/// A path, of one step or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(pub Vec<Step>);

/// Why a text is not a path, and what helps.
pub(super) type Wrong = (String, &'static str);

const SYNTAX: &str = "a path is like `items.*.id`, and has quotes around keys with other signs: `a.\"x.y\".b`";

impl Step {
    /// The name of the member that it stands for.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Any => None,
            Self::Number(name) | Self::Key(name) => Some(name),
        }
    }

    /// The element that it stands for.
    pub fn index(&self) -> Option<u64> {
        match self {
            Self::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match self {
            Self::Any => true,
            Self::Number(_) => self.name() == other.name(),
            Self::Key(_) => self == other,
        }
    }

    fn meets(&self, other: &Self) -> bool {
        match (self.name(), other.name()) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        }
    }
}

impl Path {
    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            let (step, after) = if rest.starts_with('"') { quoted(text, rest)? } else { bare(text, rest)? };
            steps.push(step);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => break,
                None => return Err((format!("in `{text}` no dot follows the quotes"), SYNTAX)),
            }
        }
        if steps.len() > DEPTH {
            return Err((format!("the path has more than {DEPTH} steps"), "no document that is read is so deep"));
        }
        Ok(Self(steps))
    }

    /// How many steps it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all that the other stands for lies in what this one stands for, or is it.
    pub fn covers(&self, other: &Self) -> bool {
        self.len() <= other.len() && self.0.iter().zip(&other.0).all(|(one, two)| one.covers(two))
    }

    /// Whether one may stand for something that lies in what the other stands for, or is it.
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(one, two)| one.meets(two))
    }

    /// What stands next to it under another name.
    pub fn sibling(&self, name: &str) -> Self {
        let mut steps = self.0.clone();
        *steps.last_mut().expect("a path has a step") = Step::Key(name.to_owned());
        Self(steps)
    }
}

fn quoted<'t>(text: &str, rest: &'t str) -> Result<(Step, &'t str), Wrong> {
    let mut escaped = false;
    let end = rest[1..].bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    let Some(end) = end else { return Err((format!("in `{text}` the quotes do not end"), SYNTAX)) };
    let (inside, after) = rest.split_at(end + 2);
    match serde_json::from_str(inside) {
        Ok(key) => Ok((Step::Key(key), after)),
        Err(_) => Err((format!("{inside} is not a key"), "what is in quotes is written as in JSON")),
    }
}

fn bare<'t>(text: &str, rest: &'t str) -> Result<(Step, &'t str), Wrong> {
    let (step, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
    if step.is_empty() {
        let what = if text.is_empty() { "the path is empty".to_owned() } else { format!("`{text}` has an empty step") };
        return Err((what, SYNTAX));
    }
    if step == "*" {
        return Ok((Step::Any, after));
    }
    if step.contains(['*', '[', ']', '"', '\\']) || step.contains(char::is_control) {
        return Err((
            format!("in `{text}` the step `{step}` is neither a key nor `*`"),
            "`*` stands alone, an element is `items.0`, and a key with such signs has quotes: `a.\"x*\".b`",
        ));
    }
    let canonical = step == "0" || !step.starts_with('0');
    if canonical && step.bytes().all(|byte| byte.is_ascii_digit()) && step.parse::<u64>().is_ok() {
        return Ok((Step::Number(step.to_owned()), after));
    }
    Ok((Step::Key(step.to_owned()), after))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            let dot = if i == 0 { "" } else { "." };
            match step {
                Step::Any => write!(f, "{dot}*")?,
                Step::Number(digits) => write!(f, "{dot}{digits}")?,
                Step::Key(key) => match bare(key, key) {
                    Ok((Step::Key(_), "")) => write!(f, "{dot}{key}")?,
                    _ => write!(f, "{dot}{}", serde_json::Value::from(key.as_str()))?,
                },
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_written() {
        for text in ["a", "a.b", "items.*.id", "*", "0.1", "01", r#"a."x.y".b"#, r#""*""#, r#""0""#, r#""""#, r#""\"""#]
        {
            assert_eq!(Path::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Path::parse(r#"a."b""#).unwrap().to_string(), "a.b");
        assert_eq!(Path::parse("7").unwrap().0, [Step::Number("7".into())]);
        assert_eq!(Path::parse("07").unwrap().0, [Step::Key("07".into())]);
        assert_eq!(Path::parse(r#""x.y""#).unwrap().0, [Step::Key("x.y".into())]);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["", ".", "a.", ".a", "a..b", "a*", "items[0]", "[*]", r#""a"#, r#""a"b"#, r#"a"b""#, r#""\x""#] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        assert!(Path::parse(&vec!["a"; DEPTH + 1].join(".")).is_err());
    }

    #[test]
    fn paths_cover_and_meet() {
        let path = |text| Path::parse(text).unwrap();
        assert!(path("a").covers(&path("a.b")) && path("a.*").covers(&path("a.0.b")));
        assert!(!path("a.b").covers(&path("a")) && !path("a.b").covers(&path("a.*")));
        assert!(path("a.b").meets(&path("*")) && path("*.b").meets(&path("a.*.c")));
        assert!(!path("a.b").meets(&path("a.c.d")));
        assert!(path("a.0").covers(&path("a.\"0\"")) && !path("a.\"0\"").covers(&path("a.0")));
    }
}
