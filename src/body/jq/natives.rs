//! The functions that are not written in jq. Each takes steps for what it looks through and for what it makes.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jaq_core::native::{Fun, bome, v};
use jaq_core::{Bind, Cv, DataT, Exn, Native, RunPtr, ValT, ValXs};

use super::number::Num;
use super::value::{Arr, Error, Obj, V, ValR, ValX, out_of_bounds};
use super::{Bound, Jq, json, meter, regexes};
use crate::body::json_text::is_number;

/// How deep closures may lie in each other.
const CLOSURES: i64 = 500;

type Natives = Vec<Fun<Jq>>;

/// All of them.
pub fn all() -> Natives {
    // What these go through is either of bounded size, or takes a step for each item.
    const CORE: [&str; 7] = ["error_empty", "keys_unsorted", "key_values", "first", "last", "limit", "skip"];
    let mut all: Natives = jaq_core::funs::<Jq>().filter(|(name, ..)| CORE.contains(name)).collect();
    all.push(("__deeper", v(1), Native::new(|cv| deeper(cv))));
    all.extend([control(), values(), numbers(), strings(), formats()].into_iter().flatten());
    all
}

/// The one that ends a run, whatever it is called for.
pub fn stop() -> Native<Jq> {
    Native::new(|_| stopped())
        .with_paths(|_| Box::new(std::iter::once(Err(Exn::halt(0)))))
        .with_update(|_, _| stopped())
}

fn stopped<'a>() -> ValXs<'a, V> {
    Box::new(std::iter::once(Err(Exn::halt(0))))
}

fn deeper<'a>(mut cv: Cv<'a, Jq>) -> ValXs<'a, V> {
    match cv.0.pop_var() {
        V::Num(Num::Int(depth)) if depth < CLOSURES => bome(Ok(V::Num(Num::Int(depth + 1)))),
        _ => {
            meter::exceed(Bound::Stack);
            stopped()
        }
    }
}

fn native(name: &'static str, arguments: Box<[Bind]>, f: RunPtr<Jq>) -> Fun<Jq> {
    (name, arguments, Native::<Jq>::new(f))
}

/// A function of its input.
macro_rules! of_input {
    ($name:expr, $f:expr) => {
        native($name, v(0), |cv| bome($f(cv.1)))
    };
}

/// A function of its input and an argument.
macro_rules! of_two {
    ($name:expr, $f:expr) => {
        native($name, v(1), |mut cv| {
            let argument = cv.0.pop_var();
            bome($f(cv.1, argument))
        })
    };
}

fn filter() -> Box<[Bind]> {
    [Bind::Fun(())].into()
}

fn control() -> Natives {
    vec![
        native("range", v(3), |mut cv| {
            let (by, to, from) = (cv.0.pop_var(), cv.0.pop_var(), cv.0.pop_var());
            match range(&from, &to, &by) {
                Ok(numbers) => numbers,
                Err(error) => bome(Err(error)),
            }
        }),
        native("path", filter(), |mut cv| {
            let (f, context) = cv.0.pop_fun();
            let mut parts = 0;
            let mut paths = meter::in_path(&mut parts, || f.paths((context, (cv.1, Default::default()))));
            let next = move || meter::in_path(&mut parts, || paths.next());
            Box::new(std::iter::from_fn(next).map(|found| {
                let mut path: Vec<V> = found?.1.iter().cloned().collect();
                path.reverse();
                Ok(V::array(path)?)
            }))
        }),
        native("path_value", filter(), |mut cv| {
            let (f, context) = cv.0.pop_fun();
            let mut parts = 0;
            let mut paths = meter::in_path(&mut parts, || f.paths((context, (cv.1, Default::default()))));
            let next = move || meter::in_path(&mut parts, || paths.next());
            Box::new(std::iter::from_fn(next).map(|found| {
                let (value, path) = found?;
                let mut path: Vec<V> = path.iter().cloned().collect();
                path.reverse();
                Ok(V::array(vec![V::array(path)?, value])?)
            }))
        }),
        of_two!("delpaths", delete),
        native("sort_with", filter(), |cv| {
            sorted(cv, |items| V::array(items.into_iter().map(|(_, item)| item).collect()))
        }),
        native("group_with", filter(), |cv| sorted(cv, group)),
        native("min_with", filter(), |cv| {
            sorted(cv, |items| Ok(items.into_iter().next().map_or(V::Null, |(_, item)| item)))
        }),
        native("max_with", filter(), |cv| {
            sorted(cv, |items| Ok(items.into_iter().next_back().map_or(V::Null, |(_, item)| item)))
        }),
    ]
}

/// The numbers from one to before another.
fn range<'a>(from: &V, to: &V, by: &V) -> ValR<ValXs<'a, V>> {
    let (mut at, to, by) = (from.as_num()?.clone(), to.as_num()?.clone(), by.as_num()?.clone());
    let direction = by.order(&Num::Int(0));
    let mut ended = direction.is_eq() || by.float().is_nan();
    Ok(Box::new(std::iter::from_fn(move || {
        if ended || at.order(&to) != direction.reverse() {
            return None;
        }
        if !meter::spend(1) {
            ended = true;
            return Some(Err(Exn::halt(0)));
        }
        let next = at.add(&by);
        Some(Ok(V::Num(std::mem::replace(&mut at, next))))
    })))
}

type Keyed = Vec<(Vec<V>, V)>;

/// What becomes of an array's items, in the order of what a filter gives for them.
fn sorted<'a>(mut cv: Cv<'a, Jq>, make: fn(Keyed) -> ValR) -> ValXs<'a, V> {
    let (f, context) = cv.0.pop_fun();
    let run = || -> ValX<'a> {
        let array = cv.1.as_array()?.clone();
        drop(cv.1);
        let mut keyed = Vec::new();
        for item in &array.items {
            let key: Vec<V> = f.run((context.clone(), item.clone())).collect::<Result<_, _>>()?;
            keyed.push((key, item.clone()));
            if !meter::spend(1) {
                return Err(Exn::halt(0));
            }
        }
        let depth = u64::from(usize::BITS - keyed.len().leading_zeros());
        let weight: u64 = keyed.iter().flat_map(|(key, _)| key).map(V::weight).sum();
        if !meter::bytes(weight.saturating_mul(depth)) {
            return Err(Exn::halt(0));
        }
        keyed.sort_by(|(one, _), (two, _)| order(one, two));
        Ok(make(keyed)?)
    };
    Box::new(std::iter::once(run()))
}

fn order(one: &[V], two: &[V]) -> std::cmp::Ordering {
    let mut orders = one.iter().zip(two).map(|(one, two)| one.order(two));
    orders.find(|order| order.is_ne()).unwrap_or_else(|| one.len().cmp(&two.len()))
}

fn group(items: Keyed) -> ValR {
    let mut groups = Vec::new();
    let mut group: Vec<V> = Vec::new();
    let mut of: Option<Vec<V>> = None;
    for (key, item) in items {
        if of.as_ref().is_some_and(|of| order(of, &key).is_ne()) {
            groups.push(V::array(std::mem::take(&mut group))?);
        }
        of = Some(key);
        group.push(item);
    }
    if !group.is_empty() {
        groups.push(V::array(group)?);
    }
    V::array(groups)
}

/// Deletes from the last path to the first, so that none moves what another means.
fn delete(value: V, paths: V) -> ValR {
    fn without(value: V, path: &[V]) -> ValR {
        match path {
            [] => Ok(V::Null),
            [last] => value.without(last),
            [first, rest @ ..] => {
                if value.get(first)?.is_none_or(|inner| matches!(inner, V::Null)) {
                    return Ok(value);
                }
                let deleted = value.map_index(first, jaq_core::path::Opt::Essential, |inner| {
                    std::iter::once(without(inner, rest).map_err(Exn::from))
                });
                deleted.map_err(|error| error.get_err().unwrap_or_else(|_| out_of_bounds()))
            }
        }
    }
    let mut paths = paths.as_array()?.items.clone();
    let weight: u64 = paths.iter().map(V::weight).sum();
    if !meter::bytes(weight.saturating_mul(u64::from(usize::BITS - paths.len().leading_zeros()))) {
        return Err(out_of_bounds());
    }
    paths.sort_by(|one, two| two.order(one));
    paths.dedup_by(|one, two| one.order(two).is_eq());
    paths.into_iter().try_fold(value, |value, path| {
        let path = path.as_array()?;
        if path.items.len() > crate::body::DEPTH {
            return Err(Error::str("a path that is too long"));
        }
        meter::spend(path.items.len() as u64);
        without(value, &path.items)
    })
}

fn values() -> Natives {
    vec![
        of_input!("null", |_| Ok(V::Null)),
        of_input!("true", |_| Ok(V::Bool(true))),
        of_input!("false", |_| Ok(V::Bool(false))),
        of_input!("type", |value| V::text(kind(&value))),
        of_input!("length", |value: V| {
            Ok(match &value {
                V::Null => V::int(0),
                V::Bool(_) => return Err(Error::typ(value, "something with a length")),
                V::Num(num) if num.float() < 0.0 => V::Num(num.neg()),
                V::Num(num) => V::Num(num.clone()),
                V::Str(text) => {
                    value.look();
                    V::int(text.chars().count())
                }
                V::Arr(array) => V::int(array.items.len()),
                V::Obj(object) => V::int(object.entries.len()),
            })
        }),
        of_two!("has", |value: V, key: V| match (&value, &key) {
            (V::Obj(object), V::Str(key)) => Ok(V::Bool(object.entries.contains_key(key))),
            (V::Arr(array), V::Num(at)) => Ok(V::Bool((0..array.items.len() as i64).contains(&at.floor()))),
            _ => Err(Error::index(value, key)),
        }),
        of_two!("contains", |value: V, part: V| {
            if kind(&value) != kind(&part) {
                return Err(Error::str(format_args!("{value} cannot contain {part}: they are of different types")));
            }
            Ok(V::Bool(contains(&value, &part)))
        }),
        of_two!("indices", |value: V, part: V| value.indices(&part)),
        of_input!("add", |value: V| {
            let items: Vec<V> = value.values().collect::<Result<_, _>>()?;
            items.into_iter().try_fold(V::Null, |sum, item| sum + item)
        }),
        of_input!("reverse", |value: V| match &value {
            V::Null => V::array(Vec::new()),
            V::Str(text) => V::text(text.chars().rev().collect::<String>()),
            other => V::array(other.as_array()?.items.iter().rev().cloned().collect()),
        }),
        of_two!("flatten", |value: V, depth: V| {
            fn flatten(array: &Arr, depth: f64, out: &mut Arr) -> ValR<()> {
                for item in &array.items {
                    match item {
                        V::Arr(inner) if depth > 0.0 => flatten(inner, depth - 1.0, out)?,
                        other => out.push(other.clone()),
                    }
                    if !meter::spend(1) {
                        return Err(out_of_bounds());
                    }
                }
                Ok(())
            }
            let depth = depth.as_num()?.float();
            if depth < 0.0 {
                return Err(Error::str("flatten to a negative depth"));
            }
            let mut out = Arr::default();
            flatten(value.as_array()?, depth, &mut out)?;
            V::from(out).bounded()
        }),
        of_input!("tojson", |value: V| V::text(value.to_json()?)),
        of_input!("fromjson", |value: V| {
            let text = value.as_str()?;
            value.look();
            let read = json::read(text.as_bytes()).map_err(|error| Error::str(format_args!("not JSON: {error}")))?;
            read.ok_or_else(out_of_bounds)?.bounded()
        }),
        of_input!("tonumber", |value: V| {
            value.look();
            match &value {
                V::Str(text) if is_number(text) => Ok(V::Num(Num::read(text))),
                V::Num(_) => Ok(value),
                _ => Err(Error::typ(value, "number")),
            }
        }),
        of_input!("toboolean", |value: V| match &value {
            V::Bool(_) => Ok(value),
            V::Str(text) if **text == "true" => Ok(V::Bool(true)),
            V::Str(text) if **text == "false" => Ok(V::Bool(false)),
            _ => Err(Error::typ(value, "boolean")),
        }),
    ]
}

fn kind(value: &V) -> &'static str {
    match value {
        V::Null => "null",
        V::Bool(_) => "boolean",
        V::Num(_) => "number",
        V::Str(_) => "string",
        V::Arr(_) => "array",
        V::Obj(_) => "object",
    }
}

fn contains(value: &V, part: &V) -> bool {
    if !meter::spend(1) {
        return false;
    }
    match (value, part) {
        (V::Str(text), V::Str(part)) => meter::bytes(text.len() as u64) && text.contains(part.as_str()),
        (V::Arr(items), V::Arr(parts)) => {
            parts.items.iter().all(|part| items.items.iter().any(|item| contains(item, part)))
        }
        (V::Obj(entries), V::Obj(parts)) => {
            parts.entries.iter().all(|(key, part)| entries.entries.get(key).is_some_and(|value| contains(value, part)))
        }
        (value, part) => value == part,
    }
}

/// A function of a floating point number.
macro_rules! of_float {
    ($name:expr, $f:expr) => {
        of_input!($name, |value: V| {
            let f: fn(f64) -> f64 = $f;
            Ok(V::Num(Num::of(f(value.as_num()?.float()))))
        })
    };
}

/// A function to an integer, which integers are already.
macro_rules! to_integer {
    ($name:expr, $f:expr) => {
        of_input!($name, |value: V| {
            let f: fn(f64) -> f64 = $f;
            Ok(match value.as_num()? {
                Num::Int(_) => value,
                other => V::Num(Num::of(f(other.float()))),
            })
        })
    };
}

fn numbers() -> Natives {
    vec![
        to_integer!("floor", f64::floor),
        to_integer!("ceil", f64::ceil),
        to_integer!("round", f64::round),
        to_integer!("trunc", f64::trunc),
        of_float!("fabs", f64::abs),
        of_float!("sqrt", f64::sqrt),
        of_float!("cbrt", f64::cbrt),
        of_float!("exp", f64::exp),
        of_float!("exp2", f64::exp2),
        of_float!("exp10", |x| 10f64.powf(x)),
        of_float!("log", f64::ln),
        of_float!("log2", f64::log2),
        of_float!("log10", f64::log10),
        of_float!("sin", f64::sin),
        of_float!("cos", f64::cos),
        of_float!("tan", f64::tan),
        of_float!("asin", f64::asin),
        of_float!("acos", f64::acos),
        of_float!("atan", f64::atan),
        native("pow", v(2), |mut cv| {
            let (to, base) = (cv.0.pop_var(), cv.0.pop_var());
            bome((|| Ok(V::Num(Num::of(base.as_num()?.float().powf(to.as_num()?.float())))))())
        }),
        of_input!("infinite", |_| Ok(V::Num(Num::Float(f64::INFINITY)))),
        of_input!("nan", |_| Ok(V::Num(Num::Float(f64::NAN)))),
        of_input!("isnan", |value: V| Ok(V::Bool(value.as_num()?.float().is_nan()))),
        of_input!("isinfinite", |value: V| Ok(V::Bool(value.as_num()?.float().is_infinite()))),
        of_input!("isnormal", |value: V| Ok(V::Bool(value.as_num()?.float().is_normal()))),
        of_input!("todateiso8601", |value: V| {
            let at = jiff::Timestamp::from_second(value.as_num()?.floor());
            V::text(at.map_err(|_| Error::str("a time that is too far away"))?.to_string())
        }),
        of_input!("fromdateiso8601", |value: V| {
            let text = value.as_str()?;
            let at: jiff::Timestamp = (text.len() <= 64)
                .then(|| text.parse().ok())
                .flatten()
                .ok_or_else(|| Error::str(format_args!("{value} is not a time as of ISO 8601")))?;
            Ok(V::Num(Num::of(at.as_millisecond() as f64 / 1000.0)))
        }),
    ]
}

fn strings() -> Natives {
    vec![
        of_input!("utf8bytelength", |value: V| Ok(V::int(value.as_str()?.len()))),
        of_input!("explode", |value: V| {
            let text = value.as_str()?;
            V::array(text.chars().map(|char| V::int(char as usize)).collect())
        }),
        of_input!("implode", |value: V| {
            let chars = value.as_array()?.items.iter().map(|item| match item {
                V::Num(num) => u32::try_from(num.floor())
                    .ok()
                    .and_then(char::from_u32)
                    .ok_or_else(|| Error::str(format_args!("{item} is not a character"))),
                other => Err(Error::typ(other.clone(), "number")),
            });
            value.look();
            V::text(chars.collect::<Result<String, _>>()?)
        }),
        of_input!("ascii_downcase", |value: V| V::text(value.as_str()?.to_ascii_lowercase())),
        of_input!("ascii_upcase", |value: V| V::text(value.as_str()?.to_ascii_uppercase())),
        of_input!("trim", |value: V| V::text(value.as_str()?.trim())),
        of_input!("ltrim", |value: V| V::text(value.as_str()?.trim_start())),
        of_input!("rtrim", |value: V| V::text(value.as_str()?.trim_end())),
        of_two!("startswith", |value: V, part: V| Ok(V::Bool(value.as_str()?.starts_with(part.as_str()?.as_str())))),
        of_two!("endswith", |value: V, part: V| Ok(V::Bool(value.as_str()?.ends_with(part.as_str()?.as_str())))),
        of_two!("ltrimstr", |value: V, part: V| match (&value, &part) {
            (V::Str(text), V::Str(part)) => text.strip_prefix(part.as_str()).map_or(Ok(value.clone()), V::text),
            _ => Ok(value),
        }),
        of_two!("rtrimstr", |value: V, part: V| match (&value, &part) {
            (V::Str(text), V::Str(part)) => text.strip_suffix(part.as_str()).map_or(Ok(value.clone()), V::text),
            _ => Ok(value),
        }),
        of_two!("split", |value: V, separator: V| {
            separator.as_str()?;
            value.as_str()?;
            value / separator
        }),
        of_two!("join", |value: V, separator: V| {
            let separator = separator.as_str()?.clone();
            let mut joined = V::text("")?;
            for (i, item) in value.as_array()?.items.iter().enumerate() {
                if i > 0 {
                    joined = (joined + V::Str(separator.clone()))?;
                }
                let item = match item {
                    V::Null => continue,
                    V::Str(_) | V::Num(_) | V::Bool(_) => item.clone().into_string(),
                    other => return Err(Error::typ(other.clone(), "part of a string")),
                };
                joined = (joined + item)?;
            }
            Ok(joined)
        }),
        native("matches", v(2), |mut cv| {
            let (flags, pattern) = (cv.0.pop_var(), cv.0.pop_var());
            bome(regexes::matches(&cv.1, &pattern, &flags, false))
        }),
        native("parts_around", v(2), |mut cv| {
            let (flags, pattern) = (cv.0.pop_var(), cv.0.pop_var());
            bome(regexes::matches(&cv.1, &pattern, &flags, true))
        }),
    ]
}

fn formats() -> Natives {
    vec![
        of_input!("quote_sh", |value: V| match &value {
            V::Str(text) => V::text(format!("'{}'", text.replace('\'', "'\\''"))),
            V::Arr(_) | V::Obj(_) => Err(Error::typ(value, "word of a shell")),
            _ => Ok(value.into_string()),
        }),
        of_input!("quote_csv", |value: V| match &value {
            V::Str(text) => V::text(format!("\"{}\"", text.replace('"', "\"\""))),
            V::Null => V::text(""),
            V::Arr(_) | V::Obj(_) => Err(Error::typ(value, "field of CSV")),
            _ => Ok(value.into_string()),
        }),
        of_input!("quote_tsv", |value: V| match &value {
            V::Str(text) => replaced(text, |char| match char {
                '\\' => Some("\\\\"),
                '\t' => Some("\\t"),
                '\n' => Some("\\n"),
                '\r' => Some("\\r"),
                _ => None,
            }),
            V::Null => V::text(""),
            V::Arr(_) | V::Obj(_) => Err(Error::typ(value, "field of TSV")),
            _ => Ok(value.into_string()),
        }),
        of_input!("quote_html", |value: V| replaced(value.as_str()?, |char| match char {
            '<' => Some("&lt;"),
            '>' => Some("&gt;"),
            '&' => Some("&amp;"),
            '\'' => Some("&#39;"),
            '"' => Some("&quot;"),
            _ => None,
        })),
        of_input!("quote_uri", |value: V| {
            const QUOTED: &percent_encoding::AsciiSet =
                &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
            V::text(percent_encoding::utf8_percent_encode(value.as_str()?, QUOTED).to_string())
        }),
        of_input!("to_base64", |value: V| V::text(STANDARD.encode(value.as_str()?.as_bytes()))),
        of_input!("from_base64", |value: V| {
            let text = value.as_str()?;
            let bytes =
                STANDARD_LAX.decode(text.as_bytes()).map_err(|_| Error::str(format_args!("{value} is not base64")))?;
            V::text(String::from_utf8(bytes).map_err(|_| Error::str("what is in the base64 is not UTF-8"))?)
        }),
    ]
}

/// With or without padding.
const STANDARD_LAX: base64::engine::GeneralPurpose = base64::engine::GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    base64::engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

fn replaced(text: &str, with: impl Fn(char) -> Option<&'static str>) -> ValR {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match with(char) {
            Some(text) => out.push_str(text),
            None => out.push(char),
        }
    }
    V::text(out)
}

/// An object of what a regular expression found.
pub fn found(entries: [(&str, V); 4]) -> V {
    let mut object = Obj::default();
    entries.into_iter().for_each(|(key, value)| object.insert(Rc::new(key.to_owned()), value));
    V::from(object)
}

const _: fn() = || {
    fn send<T: Send + Sync>() {}
    send::<jaq_core::Lut<Jq>>();
    fn data<D: DataT>() {}
    data::<Jq>();
};
