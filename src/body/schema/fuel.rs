//! JSON that can only be looked at so often: what bounds the time that a check takes, whatever the schema and the body.
//!
//! A schema that branches and refers to itself can ask the same questions of a body exponentially often. Here every look
//! uses up fuel; once that is gone, objects and lists look empty, and the check ends soon. What it found counts for nothing
//! then: see [`Fuel::is_gone`].

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::LazyLock;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, SerdeJson};
use serde_json::{Map, Number, Value};

/// How many more looks there are.
pub(super) struct Fuel(Cell<u32>);

impl Fuel {
    pub(super) fn new(looks: u32) -> Self {
        Self(Cell::new(looks))
    }

    /// Whether it did not suffice.
    pub(super) fn is_gone(&self) -> bool {
        self.0.get() == 0
    }

    fn burn(&self, looks: usize) {
        self.0.set(self.0.get().saturating_sub(u32::try_from(looks).unwrap_or(u32::MAX)));
    }
}

/// The representation of JSON whose nodes are [`Metered`].
pub(super) struct Limited;

/// A value that is looked at.
#[derive(Clone, Copy)]
pub(super) struct Metered<'a> {
    value: &'a Value,
    /// `None` of a name, which is looked at for nothing.
    fuel: Option<&'a Fuel>,
}

impl<'a> Metered<'a> {
    pub(super) fn new(value: &'a Value, fuel: &'a Fuel) -> Self {
        Self { value, fuel: Some(fuel) }
    }

    /// Burns what a look at so many things costs; whether there was enough.
    fn look(&self, things: usize) -> bool {
        let Some(fuel) = self.fuel else { return true };
        fuel.burn(1 + things);
        !fuel.is_gone()
    }
}

static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

impl Json for Limited {
    type Node<'a> = Metered<'a>;
    type PreparedKey = String;
    type StringBuffer = ();
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(Metered<'_>) -> T) -> T {
        SerdeJson::with_string_node(&mut (), string, |value| f(Metered { value, fuel: None }))
    }
}

impl<'a> Node<'a, Limited> for Metered<'a> {
    type Object = Members<'a>;
    type Array = Items<'a>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<Members<'a>> {
        let object = self.value.as_object()?;
        Some(Members { of: *self, object: if self.look(0) { object } else { &EMPTY } })
    }

    fn as_array(&self) -> Option<Items<'a>> {
        let items = self.value.as_array()?;
        Some(Items { of: *self, items: if self.look(0) { items } else { &[] } })
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        let text = self.value.as_str()?;
        self.look(text.len() / 64);
        Some(Cow::Borrowed(text))
    }

    fn as_number(&self) -> Option<&'a Number> {
        self.value.as_number()
    }

    fn as_boolean(&self) -> Option<bool> {
        self.value.as_bool()
    }

    fn is_null(&self) -> bool {
        self.value.is_null()
    }

    fn json_type(&self) -> JsonType {
        Node::<SerdeJson>::json_type(&self.value)
    }

    fn equals_value(&self, expected: &Value) -> bool {
        self.look(0);
        Node::<SerdeJson>::equals_value(&self.value, expected)
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Borrowed(self.value)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Node::<SerdeJson>::identity(&self.value)
    }
}

/// The members of an object.
pub(super) struct Members<'a> {
    of: Metered<'a>,
    object: &'a Map<String, Value>,
}

impl<'a> Object<'a, Limited> for Members<'a> {
    type Node = Metered<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        self.object.len()
    }

    fn get(&self, key: &String) -> Option<Metered<'a>> {
        self.object.get(key).map(|value| Metered { value, ..self.of })
    }

    fn members(&self) -> MembersIter<'a> {
        self.of.look(self.object.len());
        MembersIter { of: self.of, members: self.object.iter() }
    }
}

/// Goes over the members of an object.
pub(super) struct MembersIter<'a> {
    of: Metered<'a>,
    members: serde_json::map::Iter<'a>,
}

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, Metered<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.members.next().map(|(name, value)| (name.as_str(), Metered { value, ..self.of }))
    }
}

/// The items of a list.
pub(super) struct Items<'a> {
    of: Metered<'a>,
    items: &'a [Value],
}

impl<'a> Array<'a, Limited> for Items<'a> {
    type Node = Metered<'a>;
    type ElementsIter = ItemsIter<'a>;

    fn len(&self) -> usize {
        self.items.len()
    }

    fn elements(&self) -> ItemsIter<'a> {
        self.of.look(self.items.len());
        ItemsIter { of: self.of, items: self.items.iter() }
    }

    fn is_unique(&self) -> bool {
        self.of.look(self.items.len());
        jsonschema::json::unique::is_unique(self.items)
    }
}

/// Goes over the items of a list.
pub(super) struct ItemsIter<'a> {
    of: Metered<'a>,
    items: std::slice::Iter<'a, Value>,
}

impl<'a> Iterator for ItemsIter<'a> {
    type Item = Metered<'a>;

    fn next(&mut self) -> Option<Metered<'a>> {
        self.items.next().map(|value| Metered { value, ..self.of })
    }
}
