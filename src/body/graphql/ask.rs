//! Requests that carry documents (GraphQL over HTTP), read so that no server could understand them otherwise: members and
//! parameters that come twice, or as another's likeness, are refused.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Wrong, number};
use crate::body::Malformed;
use crate::body::tokens::{Json, Kind, Node};

/// One request.
#[derive(Debug, Default)]
pub struct Ask<'a> {
    /// The document.
    pub query: Option<Cow<'a, str>>,
    /// The name of the operation.
    pub operation: Option<Cow<'a, str>>,
    /// The variables: an object of JSON.
    pub variables: Option<Cow<'a, str>>,
    /// The extensions: an object of JSON.
    pub extensions: Option<Cow<'a, str>>,
}

/// The requests of one body.
pub struct Batch<'a>(Json<'a>);

const MEMBERS: [&str; 4] = ["query", "operationName", "variables", "extensions"];

impl<'a> Batch<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// It is not JSON, or an object has a name twice.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        Json::read(body).map(Self)
    }

    /// The requests, and whether they are a batch.
    ///
    /// # Errors
    /// A request is none.
    pub fn asks(&self) -> Result<(Vec<Ask<'_>>, bool), Wrong> {
        let root = self.0.root();
        match root.kind() {
            Kind::Array => Ok((root.items().map(Ask::of).collect::<Result<_, _>>()?, true)),
            _ => Ok((vec![Ask::of(root)?], false)),
        }
    }
}

impl<'a> Ask<'a> {
    /// The request of a query string; `None` where it has no part of one.
    ///
    /// # Errors
    /// A parameter comes twice, or is not what it is to be.
    pub fn of_query(query: &'a str) -> Result<Option<Self>, Wrong> {
        let mut ask = Self::default();
        let mut any = false;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(place) = ask.place(&name)? else { continue };
            if place.is_some() {
                return Err(Wrong::whole("a parameter comes twice"));
            }
            any = true;
            *place = Some(value).filter(|value| !value.is_empty());
        }
        for object in [&ask.variables, &ask.extensions].into_iter().flatten() {
            let json = Json::read(object.as_bytes()).map_err(|malformed| Wrong::whole(malformed.to_string()))?;
            if json.root().kind() != Kind::Object {
                return Err(Wrong::whole("`variables` and `extensions` are objects"));
            }
        }
        Ok(any.then_some(ask))
    }

    fn of(node: Node<'a>) -> Result<Self, Wrong> {
        if node.kind() != Kind::Object {
            return Err(Wrong::whole("a request is an object"));
        }
        let mut ask = Self::default();
        for (name, value) in node.members() {
            let Some(place) = ask.place(&name)? else { continue };
            let wanted = if matches!(&*name, "query" | "operationName") { Kind::String } else { Kind::Object };
            match value.kind() {
                Kind::Null => {}
                kind if kind == wanted => *place = Some(value.text()),
                _ => return Err(Wrong::whole(format!("`{name}` is not what it is to be"))),
            }
        }
        Ok(ask)
    }

    /// Where what has this name belongs.
    fn place(&mut self, name: &str) -> Result<Option<&mut Option<Cow<'a, str>>>, Wrong> {
        // Some servers take names in whatever case, and some of those fold more than ASCII.
        let alike = MEMBERS.iter().any(|member| member.eq_ignore_ascii_case(name));
        Ok(match name {
            "query" => Some(&mut self.query),
            "operationName" => Some(&mut self.operation),
            "variables" => Some(&mut self.variables),
            "extensions" => Some(&mut self.extensions),
            _ if alike || !name.is_ascii() => {
                return Err(Wrong::whole("a member or parameter may be taken for another"));
            }
            _ => None,
        })
    }

    /// The variables whose values say how many.
    pub fn amounts(&self) -> HashMap<Box<str>, u64> {
        let Some(json) = self.variables.as_ref().and_then(|variables| Json::read(variables.as_bytes()).ok()) else {
            return HashMap::new();
        };
        let numbers = json.root().members().filter_map(|(name, value)| {
            let says = matches!(value.kind(), Kind::Number | Kind::String);
            Some((Box::from(&*name), says.then(|| number(&value.text()))??))
        });
        numbers.collect()
    }

    /// The hash of a document that the server is to know: `extensions.persistedQuery.sha256Hash`.
    pub fn hash(&self) -> Option<String> {
        let json = Json::read(self.extensions.as_ref()?.as_bytes()).ok()?;
        let member = |node: Node<'_>, wanted: &str| {
            let mut members = node.members();
            members.find(|(name, _)| name == wanted).map(|(_, value)| value.text().into_owned())
        };
        let (_, persisted) = json.root().members().find(|(name, _)| name == "persistedQuery")?;
        member(persisted, "sha256Hash")
    }
}
