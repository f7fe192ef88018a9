//! GraphQL (October 2021): documents of operations and fragments, what they would cost, and the requests that carry them.
//!
//! The grammar is that of `apollo-parser`, which bounds how deep it goes and how many tokens it reads. What is not a matter of
//! one document alone, such as whether a field exists, the server knows.

mod ask;
#[cfg(test)]
mod tests;
mod weigh;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use apollo_parser::Parser;
use apollo_parser::cst::{self, CstNode, Definition, Selection as Selected, Type as Written, Value};

pub use ask::{Ask, Batch};
pub use weigh::{Limits, Weight};

/// How deep selections, values and types may lie in each other in a document that is read.
const DEEPEST: usize = 100;
/// How many tokens a document may have, spaces and commas included.
const TOKENS: usize = 20_000;

/// A document that was read.
#[derive(Debug)]
pub struct Document {
    operations: Vec<Operation>,
    fragments: HashMap<Box<str>, Fragment>,
    aliases: usize,
    directives: usize,
}

/// What a document has a server do.
#[derive(Debug)]
pub struct Operation {
    /// What it does.
    pub kind: Kind,
    /// Its name.
    pub name: Option<Box<str>>,
    /// The variables that it takes.
    pub variables: Vec<Variable>,
    selections: Vec<Selection>,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It reads.
    Query,
    /// It changes something.
    Mutation,
    /// It listens.
    Subscription,
}

/// A variable that an operation takes.
#[derive(Debug)]
pub struct Variable {
    /// Its name, without `$`.
    pub name: Box<str>,
    /// The name of its type, where that is no list.
    pub scalar: Option<Box<str>>,
    /// Whether it needs a value: it has no default, and cannot be null.
    pub required: bool,
    /// Its default, where that is a number.
    default: Option<u64>,
}

#[derive(Debug)]
struct Fragment {
    selections: Vec<Selection>,
    at: usize,
}

#[derive(Debug)]
enum Selection {
    Field { name: Box<str>, amounts: Vec<(Box<str>, Amount)>, selections: Vec<Selection>, at: usize },
    Spread { name: Box<str>, at: usize },
    Inline(Vec<Selection>),
}

/// The value of an argument, where it may say how many.
#[derive(Debug)]
enum Amount {
    Number(u64),
    Variable(Box<str>),
}

/// What is wrong with a document, or why it is not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// In words, for the client.
    pub what: Cow<'static, str>,
    /// Where in the document, in bytes.
    pub at: Option<usize>,
}

impl Wrong {
    fn new(at: usize, what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), at: Some(at) }
    }

    fn whole(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), at: None }
    }

    /// The line and the column in the document, from 1, as GraphQL's errors have them.
    pub fn location(&self, document: &str) -> Option<(usize, usize)> {
        let mut at = self.at?.min(document.len());
        while !document.is_char_boundary(at) {
            at -= 1;
        }
        let before = &document[..at];
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some((line, column))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// It does not follow the grammar, is deeper than 100 levels or has more than 20,000 tokens, defines types, or gives a
    /// name to two operations or fragments.
    pub fn read(text: &str) -> Result<Self, Wrong> {
        let tree = Parser::new(text).recursion_limit(DEEPEST).token_limit(TOKENS).parse();
        if let Some(error) = tree.errors().min_by_key(|error| error.index()) {
            let what = match error.is_limit() {
                true => format!("the document has more than {TOKENS} tokens, or is deeper than {DEEPEST} levels"),
                false => format!("syntax error: {}", error.message()),
            };
            return Err(Wrong::new(error.index(), what));
        }
        let mut document = Self { operations: Vec::new(), fragments: HashMap::new(), aliases: 0, directives: 0 };
        for definition in tree.document().definitions() {
            document.define(definition)?;
        }
        let names: HashSet<_> = document.operations.iter().map(|operation| operation.name.as_deref()).collect();
        match names.len() {
            0 => Err(Wrong::whole("the document has no operation")),
            count if count < document.operations.len() => {
                Err(Wrong::whole("two operations have the same name, or none"))
            }
            _ => Ok(document),
        }
    }

    /// The operation of this name, or the only one.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn operation(&self, name: Option<&str>) -> Result<&Operation, Wrong> {
        match (name, &self.operations[..]) {
            (None, [operation]) => Ok(operation),
            (None, _) => Err(Wrong::whole("the document has several operations, and none is named")),
            (Some(name), operations) => {
                let found = operations.iter().find(|operation| operation.name.as_deref() == Some(name));
                found.ok_or_else(|| Wrong::whole("the document has no operation of the name that is asked for"))
            }
        }
    }

    fn define(&mut self, definition: Definition) -> Result<(), Wrong> {
        let at = start(&definition);
        match definition {
            Definition::OperationDefinition(operation) => {
                let kind = match operation.operation_type() {
                    Some(kind) if kind.mutation_token().is_some() => Kind::Mutation,
                    Some(kind) if kind.subscription_token().is_some() => Kind::Subscription,
                    _ => Kind::Query,
                };
                let name = operation.name().map(|name| Box::from(name.text().as_str()));
                self.count(operation.directives());
                let mut variables = Vec::new();
                for variable in operation.variable_definitions().into_iter().flat_map(|all| all.variable_definitions())
                {
                    self.count(variable.directives());
                    variables.push(self::variable(&variable)?);
                }
                let selections = self.selections(operation.selection_set())?;
                self.operations.push(Operation { kind, name, variables, selections });
            }
            Definition::FragmentDefinition(fragment) => {
                let name = fragment.fragment_name().and_then(|name| name.name());
                let name: Box<str> = name.ok_or_else(|| incomplete(at))?.text().as_str().into();
                self.count(fragment.directives());
                let selections = self.selections(fragment.selection_set())?;
                if self.fragments.insert(name, Fragment { selections, at }).is_some() {
                    return Err(Wrong::new(at, "two fragments have the same name"));
                }
            }
            _ => return Err(Wrong::new(at, "a request has operations and fragments only")),
        }
        Ok(())
    }

    fn selections(&mut self, set: Option<cst::SelectionSet>) -> Result<Vec<Selection>, Wrong> {
        let Some(set) = set else { return Ok(Vec::new()) };
        set.selections().map(|selected| self.selection(selected)).collect()
    }

    fn selection(&mut self, selected: Selected) -> Result<Selection, Wrong> {
        let at = start(&selected);
        Ok(match selected {
            Selected::Field(field) => {
                self.aliases += usize::from(field.alias().is_some());
                self.count(field.directives());
                let arguments = field.arguments().into_iter().flat_map(|arguments| arguments.arguments());
                let amounts = arguments.filter_map(|argument| {
                    Some((argument.name()?.text().as_str().into(), amount(&argument.value()?)?))
                });
                Selection::Field {
                    name: field.name().ok_or_else(|| incomplete(at))?.text().as_str().into(),
                    amounts: amounts.collect(),
                    selections: self.selections(field.selection_set())?,
                    at,
                }
            }
            Selected::FragmentSpread(spread) => {
                self.count(spread.directives());
                let name = spread.fragment_name().and_then(|name| name.name()).ok_or_else(|| incomplete(at))?;
                Selection::Spread { name: name.text().as_str().into(), at }
            }
            Selected::InlineFragment(inline) => {
                self.count(inline.directives());
                Selection::Inline(self.selections(inline.selection_set())?)
            }
        })
    }

    fn count(&mut self, directives: Option<cst::Directives>) {
        self.directives += directives.map_or(0, |directives| directives.directives().count());
    }
}

fn variable(definition: &cst::VariableDefinition) -> Result<Variable, Wrong> {
    let at = start(definition);
    let name = definition.variable().and_then(|variable| variable.name()).ok_or_else(|| incomplete(at))?;
    let default = definition.default_value();
    let written = definition.ty().ok_or_else(|| incomplete(at))?;
    let (scalar, nullable) = match &written {
        Written::NamedType(named) => (named.name(), true),
        Written::ListType(_) => (None, true),
        Written::NonNullType(inner) => (inner.named_type().and_then(|named| named.name()), false),
    };
    Ok(Variable {
        name: name.text().as_str().into(),
        scalar: scalar.map(|name| name.text().as_str().into()),
        required: !nullable && default.is_none(),
        default: default.and_then(|default| match amount(&default.value()?)? {
            Amount::Number(number) => Some(number),
            Amount::Variable(_) => None,
        }),
    })
}

fn amount(value: &Value) -> Option<Amount> {
    Some(match value {
        Value::Variable(variable) => Amount::Variable(variable.name()?.text().as_str().into()),
        Value::IntValue(_) | Value::FloatValue(_) | Value::StringValue(_) => {
            Amount::Number(number(value.syntax().text().to_string().trim().trim_matches('"'))?)
        }
        _ => return None,
    })
}

/// How many a text says.
fn number(text: &str) -> Option<u64> {
    let number: f64 = text.parse().ok()?;
    (number > 0.0).then_some(number.ceil() as u64)
}

fn start(node: &impl CstNode) -> usize {
    node.syntax().text_range().start().into()
}

fn incomplete(at: usize) -> Wrong {
    Wrong::new(at, "something is missing here")
}
