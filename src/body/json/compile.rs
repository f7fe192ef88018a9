//! The paths of all verbs as one machine: each state knows what to do with every key and every element, so that a key is
//! looked up once, whatever the number of paths.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::Mistake;
use super::check::Plan;
use super::path::{Path, Step};

/// What to do with a document.
#[derive(Debug)]
pub(super) struct Program {
    nodes: Vec<Node>,
    actions: Vec<Action>,
    /// What is done with the document itself.
    pub root: ActionId,
}

/// Names an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ActionId(u32);

/// Names a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct NodeId(u32);

/// What to do in an object or an array.
#[derive(Debug)]
pub(super) struct Node {
    /// In the order of length and bytes.
    keys: Vec<(Box<[u8]>, ActionId)>,
    /// The lengths of the keys, a bit for each; those from 63 share one.
    lengths: u64,
    /// Bytes of the longest key.
    pub longest: usize,
    /// What is done with other keys.
    pub other: ActionId,
    /// In ascending order.
    elements: Vec<(u64, ActionId)>,
    /// What is done with other elements.
    element: ActionId,
    /// Whether anything is done in arrays.
    pub arrays: bool,
    /// How many keys are to be remembered of an object.
    pub slots: usize,
    /// What comes last in an object that does not have it.
    pub missing: Vec<Missing>,
}

/// A member that is made where there is none.
#[derive(Debug)]
pub(super) struct Missing {
    pub slot: usize,
    /// With quotes and colon.
    pub key: Box<[u8]>,
    pub made: Made,
}

/// What is done with a member or an element.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Action {
    pub drop: bool,
    /// What to do inside; everything is copied where there is nothing to do.
    pub inside: Option<NodeId>,
    /// The new key, with quotes.
    pub key: Option<Box<[u8]>>,
    /// Where it is remembered that the object has this key, and the mark of what gave it.
    pub slot: Option<(usize, u8)>,
    /// What stands in its place, whatever it is.
    pub replaced: Option<Made>,
    /// What stands in its place if it is neither an object nor an array.
    pub scalar: Option<Made>,
}

/// A value that is put somewhere.
pub(super) type Made = Box<[Piece]>;

/// A part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Piece {
    Text(Box<[u8]>),
    /// The value of that `set`.
    Value(usize),
}

/// A key that is there under its own name.
const NATURAL: u8 = 1;
/// A key that is there by a `rename`.
const RENAMED: u8 = 2;

/// `*` in many paths can make a state for each subset of them.
const MOST_NODES: usize = 4096;

impl Program {
    pub fn compile(plan: &Plan) -> Result<Self, Mistake> {
        let mut builder = Builder { plan, nodes: Vec::new(), actions: Actions::default(), known: HashMap::new() };
        let counts = [plan.pick.as_ref().map_or(0, Vec::len), plan.remove.len(), plan.rename.len(), plan.set.len()];
        let paths = |(verb, count)| (0..count).map(move |path| Live { verb, path });
        let live: Vec<Live> = Verb::ALL.into_iter().zip(counts).flat_map(paths).collect();
        let verb = live.first().map_or("remove", |live| live.verb.name());
        let inside = builder.inside(At { depth: 0, picked: plan.pick.is_none(), live });
        let inside = inside.map_err(|TooMany| Mistake {
            verb,
            entry: None,
            message: format!("the paths with `*` have more than {MOST_NODES} combinations"),
            help: "use fewer paths that have `*` before other steps".to_owned(),
        })?;
        let scalar = plan.pick.as_ref().map(|_| null());
        let root = builder.actions.add(Action { inside, scalar, ..Action::default() });
        Ok(Self { nodes: builder.nodes, actions: builder.actions.all, root })
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub fn action(&self, id: ActionId) -> &Action {
        &self.actions[id.0 as usize]
    }
}

impl Node {
    /// What is done with a member; the key without escapes.
    #[inline]
    pub fn key(&self, key: &[u8]) -> ActionId {
        if self.lengths & length_bit(key.len()) == 0 {
            return self.other;
        }
        let order =
            |(known, _): &(Box<[u8]>, ActionId)| known.len().cmp(&key.len()).then_with(|| known.as_ref().cmp(key));
        self.keys.binary_search_by(order).map_or(self.other, |found| self.keys[found].1)
    }

    /// What is done with an element.
    #[inline]
    pub fn element(&self, index: u64) -> ActionId {
        let found = self.elements.binary_search_by_key(&index, |(index, _)| *index);
        found.map_or(self.element, |found| self.elements[found].1)
    }
}

fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Verb {
    Pick,
    Remove,
    Rename,
    Set,
}

impl Verb {
    const ALL: [Self; 4] = [Self::Pick, Self::Remove, Self::Rename, Self::Set];

    fn name(self) -> &'static str {
        match self {
            Self::Pick => "pick",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::Set => "set",
        }
    }
}

/// A path whose steps so far all fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Live {
    verb: Verb,
    path: usize,
}

/// Where one can be in a document, as far as the paths tell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct At {
    depth: usize,
    /// Whether this or what it lies in is picked.
    picked: bool,
    /// In the order of the configuration.
    live: Vec<Live>,
}

/// One step down a document.
#[derive(Clone, Copy)]
enum Place<'p> {
    Key(&'p str),
    OtherKey,
    Index(u64),
    OtherIndex,
}

impl Place<'_> {
    fn fits(self, step: &Step) -> bool {
        match self {
            _ if *step == Step::Any => true,
            Self::Key(key) => step.name() == Some(key),
            Self::Index(index) => step.index() == Some(index),
            Self::OtherKey | Self::OtherIndex => false,
        }
    }
}

struct TooMany;

struct Builder<'p> {
    plan: &'p Plan,
    nodes: Vec<Node>,
    actions: Actions,
    known: HashMap<At, NodeId>,
}

/// The actions, each of them once.
#[derive(Default)]
struct Actions {
    all: Vec<Action>,
    known: HashMap<Action, ActionId>,
}

impl Actions {
    fn add(&mut self, action: Action) -> ActionId {
        let next = ActionId(self.all.len() as u32);
        *self.known.entry(action).or_insert_with_key(|action| {
            self.all.push(action.clone());
            next
        })
    }
}

impl<'p> Builder<'p> {
    fn path(&self, live: Live) -> &'p Path {
        match live.verb {
            Verb::Pick => &self.plan.pick.as_ref().expect("it has live paths")[live.path],
            Verb::Remove => &self.plan.remove[live.path],
            Verb::Rename => &self.plan.rename[live.path].0,
            Verb::Set => &self.plan.set[live.path],
        }
    }

    /// The node for a place; `None` if everything is copied there.
    fn inside(&mut self, at: At) -> Result<Option<NodeId>, TooMany> {
        if at.picked && at.live.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.known.get(&at) {
            return Ok(Some(*known));
        }
        let node = self.build(&at)?;
        if self.nodes.len() == MOST_NODES {
            return Err(TooMany);
        }
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        self.known.insert(at, id);
        Ok(Some(id))
    }

    fn build(&mut self, at: &At) -> Result<Node, TooMany> {
        let steps = || at.live.iter().map(|live| &self.path(*live).0[at.depth]);
        let renames = at.live.iter().filter(|live| live.verb == Verb::Rename);
        let targets: Vec<&str> = renames
            .filter(|live| self.path(**live).len() == at.depth + 1)
            .map(|live| self.plan.rename[live.path].1.as_str())
            .collect();
        let mut makers: Vec<&str> = Vec::new();
        for step in at.live.iter().filter_map(|live| self.makes(*live, at.depth)).map(|steps| &steps[0]) {
            makers.extend(step.name().filter(|name| !makers.contains(name)));
        }
        let names: BTreeSet<&str> = steps().filter_map(Step::name).chain(targets.iter().copied()).collect();
        let indices: BTreeSet<u64> = steps().filter_map(Step::index).collect();
        let mut slots: BTreeMap<&str, usize> = BTreeMap::new();
        for name in makers.iter().chain(&targets) {
            let next = slots.len();
            slots.entry(name).or_insert(next);
        }
        let missing = makers
            .iter()
            .map(|name| Missing {
                slot: slots[name],
                key: format!("{}:", Value::from(*name)).into_bytes().into(),
                made: self.made(at, name).expect("it is a maker"),
            })
            .collect();

        let mut keys: Vec<(Box<[u8]>, ActionId)> = Vec::with_capacity(names.len());
        for name in names {
            let mut action = self.decide(at, Place::Key(name))?;
            if !action.drop {
                let renamed = self.renamed(at, name);
                let mark = if renamed.is_some() { RENAMED } else { NATURAL };
                action.slot = slots.get(renamed.unwrap_or(name)).map(|slot| (*slot, mark));
            }
            keys.push((Box::from(name.as_bytes()), self.actions.add(action)));
        }
        keys.sort_by(|(one, _), (two, _)| one.len().cmp(&two.len()).then_with(|| one.cmp(two)));
        let mut elements = Vec::with_capacity(indices.len());
        for index in indices {
            let action = self.decide(at, Place::Index(index))?;
            elements.push((index, self.actions.add(action)));
        }
        let other = self.decide(at, Place::OtherKey)?;
        let element = self.decide(at, Place::OtherIndex)?;
        let arrays = element != Action::default() || !elements.is_empty();
        Ok(Node {
            lengths: keys.iter().fold(0, |bits, (key, _)| bits | length_bit(key.len())),
            longest: keys.last().map_or(0, |(key, _)| key.len()),
            keys,
            other: self.actions.add(other),
            elements,
            element: self.actions.add(element),
            arrays,
            slots: slots.len(),
            missing,
        })
    }

    /// What is done with what is one step further.
    fn decide(&mut self, at: &At, place: Place<'_>) -> Result<Action, TooMany> {
        let depth = at.depth;
        let (mut picked, mut reached) = (at.picked, at.picked);
        let mut live = Vec::new();
        for next in at.live.iter().copied().filter(|live| live.verb != Verb::Set) {
            let path = self.path(next);
            if !place.fits(&path.0[depth]) {
                continue;
            }
            reached |= next.verb == Verb::Pick;
            match next.verb {
                _ if path.len() > depth + 1 => live.push(next),
                Verb::Remove => return Ok(Action { drop: true, ..Action::default() }),
                Verb::Pick => picked = true,
                Verb::Rename | Verb::Set => {}
            }
        }
        if !reached {
            return Ok(Action { drop: true, ..Action::default() });
        }
        if picked {
            live.retain(|live| live.verb != Verb::Pick);
        }

        let renamed = match place {
            Place::Key(name) => self.renamed(at, name),
            _ => None,
        };
        let place = renamed.map_or(place, Place::Key);
        let mut replaced: Option<Made> = None;
        for next in at.live.iter().copied().filter(|live| live.verb == Verb::Set) {
            let path = self.path(next);
            match place.fits(&path.0[depth]) {
                true if path.len() == depth + 1 => replaced = Some(Box::new([Piece::Value(next.path)])),
                true => live.push(next),
                false => {}
            }
        }
        let made = match place {
            Place::Key(name) => self.made(at, name),
            _ => None,
        };
        Ok(Action {
            drop: false,
            inside: self.inside(At { depth: depth + 1, picked, live })?,
            key: renamed.map(|name| Value::from(name).to_string().into_bytes().into()),
            slot: None,
            replaced,
            scalar: made.or_else(|| (!picked).then(null)),
        })
    }

    fn renamed(&self, at: &At, name: &str) -> Option<&'p str> {
        let renames = at.live.iter().filter(|live| live.verb == Verb::Rename).map(|live| &self.plan.rename[live.path]);
        let mut here = renames.filter(|(path, _)| path.len() == at.depth + 1);
        here.find(|(path, _)| path.0[at.depth].name() == Some(name)).map(|(_, to)| to.as_str())
    }

    /// The rest of a path of `set`, if it makes what is missing there.
    fn makes(&self, live: Live, depth: usize) -> Option<&'p [Step]> {
        let rest = &self.path(live).0[depth..];
        (live.verb == Verb::Set && rest.iter().all(|step| matches!(step, Step::Key(_)))).then_some(rest)
    }

    /// What is made where a member is missing.
    fn made(&self, at: &At, name: &str) -> Option<Made> {
        let makers = at.live.iter().filter_map(|live| Some((live.path, self.makes(*live, at.depth)?)));
        let rest: Vec<_> =
            makers.filter(|(_, rest)| rest[0].name() == Some(name)).map(|(set, rest)| (set, &rest[1..])).collect();
        let mut pieces = Vec::new();
        make(&rest, &mut pieces);
        (!rest.is_empty()).then(|| pieces.into())
    }
}

/// Appends the value that has these in it.
fn make(sets: &[(usize, &[Step])], pieces: &mut Vec<Piece>) {
    let mut names: Vec<&str> = Vec::new();
    for (set, rest) in sets {
        match rest.first().and_then(Step::name) {
            Some(name) => names.extend((!names.contains(&name)).then_some(name)),
            None => return pieces.push(Piece::Value(*set)),
        }
    }
    let text = |text: String| Piece::Text(text.into_bytes().into());
    for (i, name) in names.iter().enumerate() {
        pieces.push(text(format!("{}{}:", if i == 0 { '{' } else { ',' }, Value::from(*name))));
        let inside = sets.iter().filter(|(_, rest)| rest[0].name() == Some(name));
        make(&inside.map(|(set, rest)| (*set, &rest[1..])).collect::<Vec<_>>(), pieces);
    }
    pieces.push(text("}".to_owned()));
}

fn null() -> Made {
    Box::new([Piece::Text(Box::from(&b"null"[..]))])
}
