//! The values that programs work on.
//!
//! Arrays and objects know their weight and their depth, as if nothing in them were shared: a value that would be too
//! much to walk through never comes to be. Everything that makes, copies or compares values takes steps for it.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};
use std::rc::Rc;

use indexmap::IndexMap;
use jaq_core::box_iter::{BoxIter, box_once};
use jaq_core::ops::Math;
use jaq_core::path::Opt;
use jaq_core::val::Range;
use jaq_core::{Exn, ValT};

use super::number::Num;
use super::{Bound, json, meter};
use crate::body::DEPTH;
use crate::body::json_text::is_number;

pub type Error = jaq_core::Error<V>;
pub type ValR<T = V> = Result<T, Error>;
pub type ValX<'a, T = V> = Result<T, Exn<'a, V>>;
pub type Entries = IndexMap<Rc<String>, V, foldhash::quality::RandomState>;

/// A JSON value.
#[derive(Debug)]
pub enum V {
    Null,
    Bool(bool),
    Num(Num),
    Str(Rc<String>),
    Arr(Rc<Arr>),
    Obj(Rc<Obj>),
}

/// An array.
#[derive(Debug, Clone, Default)]
pub struct Arr {
    pub items: Vec<V>,
    /// In bytes, of all that is in it.
    pub weight: u64,
    /// How deep the deepest in it lies, at most.
    depth: usize,
}

/// An object, with its keys in order.
#[derive(Debug, Clone, Default)]
pub struct Obj {
    pub entries: Entries,
    pub weight: u64,
    depth: usize,
}

/// What a value weighs by itself, in bytes.
const NODE: u64 = 16;
/// What an entry of an object weighs beside its key and its value, in bytes.
const ENTRY: u64 = 64;

impl Arr {
    fn of(items: Vec<V>) -> Self {
        let mut array = Self { items, weight: 0, depth: 0 };
        array.weigh();
        array
    }

    fn weigh(&mut self) {
        self.weight = self.items.iter().map(V::weight).sum();
        self.depth = self.items.iter().map(V::depth).max().unwrap_or(0);
    }

    pub fn push(&mut self, item: V) {
        self.weight += item.weight();
        self.depth = self.depth.max(item.depth());
        self.items.push(item);
    }

    /// Puts an item in the place of what was taken from there, which had this weight and depth.
    fn put(&mut self, at: usize, item: V, (weight, depth): (u64, usize)) {
        self.weight = self.weight - weight + item.weight();
        let deep = item.depth();
        self.items[at] = item;
        if deep >= self.depth {
            self.depth = deep;
        } else if depth == self.depth {
            meter::bytes(self.items.len() as u64 * NODE);
            self.weigh();
        }
    }
}

impl Obj {
    pub fn insert(&mut self, key: Rc<String>, value: V) {
        let weight = ENTRY + key.len() as u64;
        self.weight += weight + value.weight();
        self.depth = self.depth.max(value.depth());
        if let Some(old) = self.entries.insert(key, value) {
            self.weight -= weight + old.weight();
            if old.depth() == self.depth {
                self.measure();
            }
        }
    }

    /// Puts a value in the place of what was taken from there, which had this weight and depth.
    fn put(&mut self, key: &String, value: V, (weight, depth): (u64, usize)) {
        let Some(slot) = self.entries.get_mut(key) else { return };
        self.weight = self.weight - weight + value.weight();
        let deep = value.depth();
        *slot = value;
        if deep >= self.depth {
            self.depth = deep;
        } else if depth == self.depth {
            self.measure();
        }
    }

    fn measure(&mut self) {
        meter::bytes(self.entries.len() as u64 * ENTRY);
        self.depth = self.entries.values().map(V::depth).max().unwrap_or(0);
    }

    /// Removes an entry whose value, which may have been taken, had this weight.
    fn remove(&mut self, key: &String, weight: u64) {
        if let Some((key, _)) = self.entries.shift_remove_entry(key) {
            self.weight -= ENTRY + key.len() as u64 + weight;
            self.measure();
        }
    }
}

impl From<Arr> for V {
    fn from(array: Arr) -> Self {
        Self::Arr(array.into())
    }
}

impl From<Obj> for V {
    fn from(object: Obj) -> Self {
        Self::Obj(object.into())
    }
}

impl Clone for V {
    fn clone(&self) -> Self {
        meter::spend(1);
        match self {
            Self::Null => Self::Null,
            Self::Bool(bool) => Self::Bool(*bool),
            Self::Num(num) => Self::Num(num.clone()),
            Self::Str(text) => Self::Str(text.clone()),
            Self::Arr(array) => Self::Arr(array.clone()),
            Self::Obj(object) => Self::Obj(object.clone()),
        }
    }
}

impl V {
    /// A string, if one of this length may be.
    pub fn text(text: impl Into<String>) -> ValR {
        let text = text.into();
        meter::bytes(text.len() as u64);
        Self::Str(text.into()).bounded()
    }

    /// An array, if it may be.
    pub fn array(items: Vec<V>) -> ValR {
        meter::bytes(items.len() as u64 * NODE);
        Self::from(Arr::of(items)).bounded()
    }

    pub fn int(int: usize) -> Self {
        Self::Num(Num::Int(int as i64))
    }

    /// The weight in bytes, as if nothing in it were shared.
    pub fn weight(&self) -> u64 {
        NODE + match self {
            Self::Null | Self::Bool(_) | Self::Num(Num::Int(_) | Num::Float(_)) => 0,
            Self::Num(Num::Text(text)) => text.text.len() as u64,
            Self::Str(text) => text.len() as u64,
            Self::Arr(array) => NODE + array.weight,
            Self::Obj(object) => ENTRY + object.weight,
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Arr(array) => array.depth + 1,
            Self::Obj(object) => object.depth + 1,
            _ => 0,
        }
    }

    /// The value, if it is within the bounds.
    pub fn bounded(self) -> ValR {
        if self.depth() > DEPTH {
            meter::exceed(Bound::Depth);
        }
        if meter::fits(self.weight()) && meter::over().is_none() { Ok(self) } else { Err(out_of_bounds()) }
    }

    /// Takes the steps for looking through all of it.
    pub fn look(&self) -> bool {
        meter::bytes(self.weight())
    }

    /// In JSON.
    pub fn to_json(&self) -> ValR<String> {
        self.look();
        let mut out = String::new();
        json::write(self, usize::MAX, &mut out);
        meter::bytes(out.len() as u64);
        if meter::over().is_none() { Ok(out) } else { Err(out_of_bounds()) }
    }

    pub fn as_str(&self) -> ValR<&Rc<String>> {
        match self {
            Self::Str(text) => Ok(text),
            other => Err(Error::typ(other.clone(), "string")),
        }
    }

    pub fn as_array(&self) -> ValR<&Rc<Arr>> {
        match self {
            Self::Arr(array) => Ok(array),
            other => Err(Error::typ(other.clone(), "array")),
        }
    }

    pub fn as_num(&self) -> ValR<&Num> {
        match self {
            Self::Num(num) => Ok(num),
            other => Err(Error::typ(other.clone(), "number")),
        }
    }

    /// The order of all values, which sorting goes by.
    pub fn order(&self, other: &Self) -> Ordering {
        let rank = |value: &Self| match value {
            Self::Null => 0,
            Self::Bool(false) => 1,
            Self::Bool(true) => 2,
            Self::Num(_) => 3,
            Self::Str(_) => 4,
            Self::Arr(_) => 5,
            Self::Obj(_) => 6,
        };
        match (self, other) {
            (Self::Num(one), Self::Num(two)) => one.order(two),
            (Self::Str(one), Self::Str(two)) => one.cmp(two),
            (Self::Arr(one), Self::Arr(two)) => order_all(one.items.iter(), two.items.iter()),
            (Self::Obj(one), Self::Obj(two)) => {
                let sorted = |object: &'_ Rc<Obj>| {
                    let mut keys: Vec<_> = object.entries.keys().cloned().collect();
                    keys.sort();
                    keys
                };
                let keys = sorted(one);
                keys.cmp(&sorted(two)).then_with(|| {
                    order_all(
                        keys.iter().filter_map(|key| one.entries.get(key)),
                        keys.iter().filter_map(|key| two.entries.get(key)),
                    )
                })
            }
            (one, two) => rank(one).cmp(&rank(two)),
        }
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(two)) => one == two,
            (Self::Num(one), Self::Num(two)) => !one.float().is_nan() && one.order(two).is_eq(),
            (Self::Str(one), Self::Str(two)) => one == two,
            (Self::Arr(one), Self::Arr(two)) => {
                one.items.len() == two.items.len() && one.items.iter().zip(&two.items).all(|(one, two)| one.same(two))
            }
            (Self::Obj(one), Self::Obj(two)) => {
                one.entries.len() == two.entries.len()
                    && one.entries.iter().all(|(key, one)| two.entries.get(key).is_some_and(|two| one.same(two)))
            }
            _ => false,
        }
    }

    /// What is at an index, or none.
    pub fn get(&self, index: &Self) -> ValR<Option<Self>> {
        Ok(match (self, index) {
            (Self::Null, Self::Str(_) | Self::Num(_) | Self::Null) => None,
            (Self::Obj(object), Self::Str(key)) => {
                meter::bytes(key.len() as u64);
                object.entries.get(key).cloned()
            }
            (Self::Arr(array), Self::Num(num)) => {
                place(num, array.items.len()).and_then(|at| array.items.get(at)).cloned()
            }
            (Self::Arr(_), Self::Arr(_)) => Some(self.indices(index)?),
            (Self::Null | Self::Arr(_) | Self::Str(_), Self::Obj(range)) => {
                let bound = |name: &str| range.entries.get(&name.to_owned());
                Some(self.clone().range(bound("start")..bound("end"))?)
            }
            _ => return Err(Error::index(self.clone(), index.clone())),
        })
    }

    /// Where another value is in this one.
    pub fn indices(&self, other: &Self) -> ValR {
        let mut found = Vec::new();
        match (self, other) {
            (Self::Null, _) => return Ok(Self::Null),
            (Self::Str(_), Self::Str(part)) if part.is_empty() => return Ok(Self::Null),
            (Self::Arr(_), Self::Arr(part)) if part.items.is_empty() => return Ok(Self::Null),
            (Self::Str(text), Self::Str(part)) => {
                self.look();
                let (mut from, mut chars) = (0, 0);
                while let Some(at) = text[from..].find(part.as_str())
                    && meter::bytes((at + part.len()) as u64)
                {
                    chars += text[from..from + at].chars().count();
                    found.push(Self::int(chars));
                    from += at + text[from + at..].chars().next().map_or(1, char::len_utf8);
                    chars += 1;
                }
            }
            (Self::Arr(array), Self::Arr(part)) => {
                for (at, window) in array.items.windows(part.items.len()).enumerate() {
                    if window.iter().zip(&part.items).all(|(one, two)| one == two) {
                        found.push(Self::int(at));
                    }
                }
            }
            (Self::Arr(array), item) => {
                found.extend((0..array.items.len()).filter(|at| array.items[*at] == *item).map(Self::int));
            }
            (value, part) => return Err(Error::index(value.clone(), part.clone())),
        }
        Self::array(found)
    }

    /// Without what is at an index, if there is something.
    pub fn without(self, index: &Self) -> ValR {
        match (self, index) {
            (Self::Null, _) => Ok(Self::Null),
            (Self::Obj(mut object), Self::Str(key)) => {
                if let Some(weight) = object.entries.get(key).map(Self::weight) {
                    Self::change_object(&mut object).remove(key, weight);
                }
                Ok(Self::Obj(object))
            }
            (Self::Arr(array), Self::Num(num)) => match place(num, array.items.len()) {
                Some(at) if at < array.items.len() => {
                    let mut items = Rc::unwrap_or_clone(array).items;
                    items.remove(at);
                    Self::array(items)
                }
                _ => Ok(Self::Arr(array)),
            },
            (Self::Arr(array), Self::Obj(range)) => {
                let bound = |name: &str| range.entries.get(&name.to_owned());
                let (from, to) = span(&(bound("start")..bound("end")), array.items.len())?;
                let mut items = Rc::unwrap_or_clone(array).items;
                items.drain(from..to);
                Self::array(items)
            }
            (value, index) => Err(Error::index(value, index.clone())),
        }
    }

    /// The array in it, to change: a copy if it is shared.
    fn change_array(array: &mut Rc<Arr>) -> &mut Arr {
        if Rc::get_mut(array).is_none() {
            meter::bytes(array.items.len() as u64 * NODE);
        }
        Rc::make_mut(array)
    }

    fn change_object(object: &mut Rc<Obj>) -> &mut Obj {
        if Rc::get_mut(object).is_none() {
            meter::bytes(object.entries.len() as u64 * ENTRY);
        }
        Rc::make_mut(object)
    }
}

/// The run ends for its bounds; nobody gets to read this.
pub fn out_of_bounds() -> Error {
    Error::new(V::Null)
}

fn order_all<'v>(mut one: impl Iterator<Item = &'v V>, mut two: impl Iterator<Item = &'v V>) -> Ordering {
    loop {
        let order = match (one.next(), two.next()) {
            (Some(one), Some(two)) => one.order(two),
            (one, two) => return one.is_some().cmp(&two.is_some()),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// The place that an index means; counted from the end if it is negative. None before the beginning.
fn place(index: &Num, length: usize) -> Option<usize> {
    let index = index.floor();
    if index < 0 { length.checked_sub(index.unsigned_abs() as usize) } else { Some(index as usize) }
}

/// From where to where a range goes in what has this length.
fn span(range: &Range<&V>, length: usize) -> ValR<(usize, usize)> {
    let bound = |index: Option<&V>, default: usize, round: fn(&Num) -> i64| match index {
        None | Some(V::Null) => Ok(default),
        Some(V::Num(num)) => Ok(place(&Num::Int(round(num)), length).unwrap_or(0).min(length)),
        Some(other) => Err(Error::typ(other.clone(), "number")),
    };
    let from = bound(range.start, 0, Num::floor)?;
    let to = bound(range.end, length, Num::ceil)?;
    Ok((from, to.max(from)))
}

/// Where a range of characters is in a text, in bytes.
fn span_of_chars(range: &Range<&V>, text: &str) -> ValR<(usize, usize)> {
    meter::bytes(text.len() as u64);
    let (from, to) = span(range, text.chars().count())?;
    let mut starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let start = starts.nth(from).unwrap_or(text.len());
    let end = if to == from { start } else { starts.nth(to - from - 1).unwrap_or(text.len()) };
    Ok((start, end))
}

impl ValT for V {
    fn from_num(text: &str) -> ValR {
        Ok(Self::Num(if is_number(text) { Num::read(text) } else { Num::of(text.parse().unwrap_or(f64::NAN)) }))
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(entries: I) -> ValR {
        let mut object = Obj::default();
        for (key, value) in entries {
            match key {
                Self::Str(key) => object.insert(key, value),
                key => return Err(Error::typ(key, "key of an object, which is a string")),
            }
        }
        meter::spend(2);
        Self::from(object).bounded()
    }

    fn key_values(self) -> BoxIter<'static, ValR<(Self, Self)>> {
        match self {
            Self::Arr(array) => {
                Box::new((0..array.items.len()).map(move |at| Ok((Self::int(at), array.items[at].clone()))))
            }
            Self::Obj(object) => Box::new((0..object.entries.len()).filter_map(move |at| {
                let (key, value) = object.entries.get_index(at)?;
                Some(Ok((Self::Str(key.clone()), value.clone())))
            })),
            other => box_once(Err(Error::typ(other, "array or object"))),
        }
    }

    fn values(self) -> Box<dyn Iterator<Item = ValR>> {
        match self {
            Self::Arr(array) => Box::new((0..array.items.len()).map(move |at| Ok(array.items[at].clone()))),
            Self::Obj(object) => Box::new(
                (0..object.entries.len()).filter_map(move |at| Some(Ok(object.entries.get_index(at)?.1.clone()))),
            ),
            other => box_once(Err(Error::typ(other, "array or object"))),
        }
    }

    fn index(self, index: &Self) -> ValR {
        if matches!(self, Self::Null) {
            meter::path_part();
        }
        Ok(self.get(index)?.unwrap_or(Self::Null))
    }

    fn range(self, range: Range<&Self>) -> ValR {
        meter::path_part();
        match self {
            Self::Null => Ok(Self::Null),
            Self::Str(text) => {
                let (start, end) = span_of_chars(&range, &text)?;
                Self::text(&text[start..end])
            }
            Self::Arr(array) => {
                let (from, to) = span(&range, array.items.len())?;
                Self::array(array.items[from..to].to_vec())
            }
            other => Err(Error::typ(other, "array or string")),
        }
    }

    fn map_values<'a, I: Iterator<Item = ValX<'a>>>(self, opt: Opt, f: impl Fn(Self) -> I) -> ValX<'a> {
        match self {
            Self::Arr(array) => {
                let mut items = Vec::new();
                for item in Rc::unwrap_or_clone(array).items {
                    for item in f(item) {
                        items.push(item?);
                        if !meter::step() {
                            return Err(out_of_bounds().into());
                        }
                    }
                }
                Ok(Self::array(items)?)
            }
            Self::Obj(object) => {
                let mut mapped = Obj::default();
                for (key, value) in Rc::unwrap_or_clone(object).entries {
                    if let Some(value) = f(value).next() {
                        mapped.insert(key, value?);
                    }
                    if !meter::step() {
                        return Err(out_of_bounds().into());
                    }
                }
                Ok(Self::from(mapped).bounded()?)
            }
            other => opt.fail(other, |value| Error::typ(value, "array or object").into()),
        }
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a>>>(self, index: &Self, opt: Opt, f: impl Fn(Self) -> I) -> ValX<'a> {
        match (self, index) {
            (Self::Null, Self::Str(_)) => Self::from(Obj::default()).map_index(index, opt, f),
            (Self::Null, Self::Num(_)) => Self::from(Arr::default()).map_index(index, opt, f),
            (Self::Obj(mut object), Self::Str(key)) => {
                let changed = Self::change_object(&mut object);
                match changed.entries.get_mut(key) {
                    Some(slot) => {
                        let old = std::mem::replace(slot, Self::Null);
                        let before = (old.weight(), old.depth());
                        match f(old).next().transpose()? {
                            Some(new) => changed.put(key, new, before),
                            None => changed.remove(key, before.0),
                        }
                    }
                    None => {
                        if let Some(new) = f(Self::Null).next().transpose()? {
                            changed.insert(key.clone(), new);
                        }
                    }
                }
                Ok(Self::Obj(object).bounded()?)
            }
            (Self::Arr(mut array), Self::Num(num)) => {
                let Some(at) = place(num, array.items.len()) else {
                    return opt.fail(Self::Arr(array), |_| {
                        Error::str(format_args!("index {index} is before the beginning of the array")).into()
                    });
                };
                let changed = Self::change_array(&mut array);
                if at >= changed.items.len() {
                    let weight = (at as u64).saturating_mul(NODE);
                    if !meter::fits(weight) || !meter::bytes(weight - changed.items.len() as u64 * NODE) {
                        return Err(out_of_bounds().into());
                    }
                }
                let old = changed.items.get_mut(at).map_or(Self::Null, |slot| std::mem::replace(slot, Self::Null));
                let before = (old.weight(), old.depth());
                match f(old).next().transpose()? {
                    Some(new) => {
                        while changed.items.len() <= at {
                            changed.push(Self::Null);
                        }
                        changed.put(at, new, before);
                    }
                    None if at < changed.items.len() => {
                        meter::bytes(changed.items.len() as u64 * NODE);
                        changed.items.remove(at);
                        changed.weigh();
                    }
                    None => {}
                }
                Ok(Self::Arr(array).bounded()?)
            }
            (value, Self::Obj(range)) => {
                let bound = |name: &str| range.entries.get(&name.to_owned());
                value.map_range(bound("start")..bound("end"), opt, f)
            }
            (value, index) => opt.fail(value, |value| Error::index(value, index.clone()).into()),
        }
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a>>>(
        self,
        range: Range<&Self>,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a> {
        let array = match self {
            Self::Null => Rc::new(Arr::default()),
            Self::Arr(array) => array,
            other => return opt.fail(other, |value| Error::typ(value, "array").into()),
        };
        let (from, to) = span(&range, array.items.len())?;
        let part = Self::array(array.items[from..to].to_vec())?;
        let new = match f(part).next().transpose()? {
            Some(Self::Arr(new)) => new,
            Some(other) => return Err(Error::typ(other, "array").into()),
            None => Rc::default(),
        };
        meter::bytes(array.items.len() as u64 * NODE);
        Ok(Self::array([&array.items[..from], &new.items, &array.items[to..]].concat())?)
    }

    fn as_bool(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }

    fn into_string(self) -> Self {
        match self {
            Self::Str(text) => Self::Str(text),
            other => other.to_json().and_then(Self::text).unwrap_or(Self::Null),
        }
    }
}

impl Add for V {
    type Output = ValR;
    fn add(self, other: Self) -> ValR {
        match (self, other) {
            (Self::Null, value) | (value, Self::Null) => Ok(value),
            (Self::Num(one), Self::Num(two)) => Ok(Self::Num(one.add(&two))),
            (Self::Str(mut one), Self::Str(two)) => {
                if !meter::fits((one.len() + two.len()) as u64) {
                    return Err(out_of_bounds());
                }
                let copied = if Rc::get_mut(&mut one).is_none() { one.len() } else { 0 };
                meter::bytes((copied + two.len()) as u64);
                Rc::make_mut(&mut one).push_str(&two);
                Self::Str(one).bounded()
            }
            (Self::Arr(mut one), Self::Arr(two)) => {
                if !meter::fits(one.weight + two.weight) || !meter::bytes(two.items.len() as u64 * NODE) {
                    return Err(out_of_bounds());
                }
                let changed = Self::change_array(&mut one);
                two.items.iter().for_each(|item| changed.push(item.clone()));
                Self::Arr(one).bounded()
            }
            (Self::Obj(mut one), Self::Obj(two)) => {
                meter::bytes(two.entries.len() as u64 * ENTRY);
                let changed = Self::change_object(&mut one);
                two.entries.iter().for_each(|(key, value)| changed.insert(key.clone(), value.clone()));
                Self::Obj(one).bounded()
            }
            (one, two) => Err(Error::math(one, Math::Add, two)),
        }
    }
}

impl Sub for V {
    type Output = ValR;
    fn sub(self, other: Self) -> ValR {
        match (self, other) {
            (Self::Num(one), Self::Num(two)) => Ok(Self::Num(one.sub(&two))),
            (Self::Arr(one), Self::Arr(two)) => {
                let kept = one.items.iter().filter(|item| !two.items.iter().any(|other| *item == other));
                Self::array(kept.cloned().collect())
            }
            (one, two) => Err(Error::math(one, Math::Sub, two)),
        }
    }
}

impl Mul for V {
    type Output = ValR;
    fn mul(self, other: Self) -> ValR {
        match (self, other) {
            (Self::Num(one), Self::Num(two)) => Ok(Self::Num(one.mul(&two))),
            (Self::Str(text), Self::Num(times)) | (Self::Num(times), Self::Str(text)) => {
                let times = times.float();
                if times.is_nan() || times <= 0.0 {
                    return Ok(Self::Null);
                }
                let times = times.max(1.0) as usize;
                let length = text.len().saturating_mul(times) as u64;
                if !meter::fits(length) || !meter::bytes(length) {
                    return Err(out_of_bounds());
                }
                Self::text(text.repeat(times))
            }
            (Self::Obj(mut one), Self::Obj(two)) => {
                merge(&mut one, &two)?;
                Self::Obj(one).bounded()
            }
            (one, two) => Err(Error::math(one, Math::Mul, two)),
        }
    }
}

/// Merges objects into objects of the same keys, as deep as they go.
fn merge(one: &mut Rc<Obj>, two: &Obj) -> ValR<()> {
    meter::bytes(two.entries.len() as u64 * ENTRY);
    let one = V::change_object(one);
    for (key, value) in &two.entries {
        let merged = match (one.entries.get(key), value) {
            (Some(V::Obj(inner)), V::Obj(value)) => {
                let mut inner = inner.clone();
                merge(&mut inner, value)?;
                V::Obj(inner).bounded()?
            }
            _ => value.clone(),
        };
        one.insert(key.clone(), merged);
    }
    Ok(())
}

impl Div for V {
    type Output = ValR;
    fn div(self, other: Self) -> ValR {
        match (self, other) {
            (Self::Num(one), Self::Num(two)) => match one.div(&two) {
                Some(num) => Ok(Self::Num(num)),
                None => Err(Error::str("division by zero")),
            },
            (Self::Str(text), Self::Str(separator)) => split(&text, &separator),
            (one, two) => Err(Error::math(one, Math::Div, two)),
        }
    }
}

/// A text in parts.
fn split(text: &str, separator: &str) -> ValR {
    meter::bytes(text.len() as u64);
    let mut parts = Vec::new();
    let mut take = |part: &str| {
        parts.push(V::text(part)?);
        Ok(())
    };
    if separator.is_empty() {
        text.char_indices().try_for_each(|(at, char)| take(&text[at..at + char.len_utf8()]))?;
    } else if !text.is_empty() {
        text.split(separator).try_for_each(take)?;
    }
    V::array(parts)
}

impl Rem for V {
    type Output = ValR;
    fn rem(self, other: Self) -> ValR {
        match (self, other) {
            (Self::Num(one), Self::Num(two)) => match one.rem(&two) {
                Some(num) => Ok(Self::Num(num)),
                None => Err(Error::str("remainder of a division by zero")),
            },
            (one, two) => Err(Error::math(one, Math::Rem, two)),
        }
    }
}

impl Neg for V {
    type Output = ValR;
    fn neg(self) -> ValR {
        Ok(Self::Num(self.as_num()?.neg()))
    }
}

impl PartialEq for V {
    fn eq(&self, other: &Self) -> bool {
        meter::bytes(self.weight().min(other.weight())) && self.same(other)
    }
}

impl PartialOrd for V {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        // Objects are compared by their keys first, all of them.
        meter::bytes(self.weight().saturating_add(other.weight()));
        match self {
            Self::Num(num) if num.float().is_nan() && matches!(other, Self::Num(_)) => Some(Ordering::Less),
            _ => Some(self.order(other)),
        }
    }
}

impl From<bool> for V {
    fn from(bool: bool) -> Self {
        Self::Bool(bool)
    }
}

impl From<isize> for V {
    fn from(int: isize) -> Self {
        Self::Num(Num::Int(int as i64))
    }
}

impl From<String> for V {
    fn from(text: String) -> Self {
        Self::text(text).unwrap_or(Self::Null)
    }
}

impl From<Range<V>> for V {
    fn from(range: Range<V>) -> Self {
        let mut object = Obj::default();
        object.insert(Rc::new("start".to_owned()), range.start.unwrap_or(Self::Null));
        object.insert(Rc::new("end".to_owned()), range.end.unwrap_or(Self::Null));
        Self::from(object)
    }
}

impl FromIterator<V> for V {
    fn from_iter<I: IntoIterator<Item = V>>(items: I) -> Self {
        let mut array = Arr::default();
        for item in items {
            array.push(item);
            if !meter::spend(1) || !meter::fits(array.weight) {
                return Self::Null;
            }
        }
        Self::from(array).bounded().unwrap_or(Self::Null)
    }
}

/// For messages: only the beginning.
impl fmt::Display for V {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 64;
        let text = match self {
            Self::Str(text) => (**text).clone(),
            Self::Arr(array) => format!("an array of {}", array.items.len()),
            Self::Obj(object) => format!("an object of {}", object.entries.len()),
            other => other.to_json().unwrap_or_default(),
        };
        match text.char_indices().nth(MOST) {
            Some((end, _)) => write!(f, "{}…", &text[..end]),
            None => f.write_str(&text),
        }
    }
}
