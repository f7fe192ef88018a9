//! What a document would cost, without asking anybody: each fragment is looked at once, so that time is linear in the size
//! of the document, whatever it spreads where.

use std::collections::HashMap;

use super::{Amount, Document, Operation, Selection, Wrong};

/// What is let through.
#[derive(Debug, Default)]
pub struct Limits {
    /// Fields within each other.
    pub max_depth: Option<u32>,
    /// What the operation may cost.
    pub max_cost: Option<u64>,
    /// What a field of a name costs, where that is not 1.
    pub costs: HashMap<Box<str>, u64>,
    /// The arguments that say how many of a field there will be.
    pub multipliers: Box<[Box<str>]>,
    /// Fields with another name, in all of the document.
    pub max_aliases: usize,
    /// Directives, in all of the document.
    pub max_directives: usize,
    /// Whether the schema may be asked for.
    pub introspection: bool,
}

/// How heavy a document is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Fields within each other.
    pub depth: u32,
    /// What it costs.
    pub cost: u64,
    /// Selections within each other, with fragments where they are spread.
    levels: usize,
}

/// How many selections and fragments may be within each other, when fragments are put where they are spread.
const LEVELS: usize = 200;

impl Document {
    /// Weighs one of the document's operations, with the values of variables that are numbers.
    ///
    /// # Errors
    /// It goes beyond a limit, or its fragments are spread in a circle or nowhere defined.
    pub fn weigh(
        &self,
        operation: &Operation,
        limits: &Limits,
        variables: &HashMap<Box<str>, u64>,
    ) -> Result<Weight, Wrong> {
        for (what, count, most) in
            [("aliases", self.aliases, limits.max_aliases), ("directives", self.directives, limits.max_directives)]
        {
            if count > most {
                return Err(Wrong::whole(format!("the document has {count} {what}, {most} are allowed")));
            }
        }
        let defaults = operation.variables.iter().filter_map(|variable| Some((&*variable.name, variable.default?)));
        let given = variables.iter().map(|(name, number)| (&**name, *number));
        let variables = defaults.chain(given).collect();
        let mut scales = Scales { document: self, limits, variables, fragments: HashMap::new() };
        let weight = scales.selections(&operation.selections, 0)?;
        // Those that are spread nowhere, too: the server may look at them.
        for (name, fragment) in &self.fragments {
            scales.fragment(name, fragment.at, 0)?;
        }
        if let Some(most) = limits.max_depth.filter(|most| weight.depth > *most) {
            let what = format!("the document is {} fields deep, {most} are allowed", weight.depth);
            return Err(Wrong::whole(what));
        }
        if let Some(most) = limits.max_cost.filter(|most| weight.cost > *most) {
            return Err(Wrong::whole(format!("the document costs {}, {most} is allowed", weight.cost)));
        }
        Ok(weight)
    }
}

struct Scales<'d> {
    document: &'d Document,
    limits: &'d Limits,
    variables: HashMap<&'d str, u64>,
    /// `None` while the fragment is being looked at.
    fragments: HashMap<&'d str, Option<Weight>>,
}

impl<'d> Scales<'d> {
    fn selections(&mut self, selections: &'d [Selection], level: usize) -> Result<Weight, Wrong> {
        if level > LEVELS {
            return Err(too_deep());
        }
        let mut all = Weight::default();
        for selection in selections {
            let weight = match selection {
                Selection::Inline(selections) => self.selections(selections, level + 1)?,
                Selection::Spread { name, at } => self.fragment(name, *at, level + 1)?,
                Selection::Field { name, amounts, selections, at } => {
                    if matches!(&**name, "__schema" | "__type") && !self.limits.introspection {
                        return Err(Wrong::new(*at, "the schema cannot be asked for here"));
                    }
                    let inner = self.selections(selections, level + 1)?;
                    let usual = u64::from(&**name != "__typename");
                    let own = self.limits.costs.get(name).copied().unwrap_or(usual);
                    let times = self.times(amounts);
                    let cost = own.saturating_add(inner.cost).saturating_mul(times);
                    Weight { depth: inner.depth + 1, cost, ..inner }
                }
            };
            all.depth = all.depth.max(weight.depth);
            all.cost = all.cost.saturating_add(weight.cost);
            all.levels = all.levels.max(weight.levels);
        }
        all.levels += 1;
        // What was looked at before is not gone into again, and may be deep all the same.
        if all.levels > LEVELS { Err(too_deep()) } else { Ok(all) }
    }

    fn fragment(&mut self, name: &'d str, at: usize, level: usize) -> Result<Weight, Wrong> {
        match self.fragments.get(name) {
            Some(Some(weight)) => return Ok(*weight),
            Some(None) => return Err(Wrong::new(at, "a fragment holds itself")),
            None => {}
        }
        let document = self.document;
        let Some(fragment) = document.fragments.get(name) else {
            return Err(Wrong::new(at, "there is no such fragment"));
        };
        self.fragments.insert(name, None);
        let weight = self.selections(&fragment.selections, level).map_err(|wrong| match wrong.at {
            None => Wrong { at: Some(fragment.at), ..wrong },
            Some(_) => wrong,
        })?;
        self.fragments.insert(name, Some(weight));
        Ok(weight)
    }

    /// How many of a field there will be, as far as its arguments say.
    fn times(&self, amounts: &[(Box<str>, Amount)]) -> u64 {
        let counts = amounts.iter().filter(|(name, _)| self.limits.multipliers.contains(name));
        let counts = counts.filter_map(|(_, amount)| match amount {
            Amount::Number(number) => Some(*number),
            Amount::Variable(name) => self.variables.get(&**name).copied(),
        });
        counts.max().unwrap_or(1)
    }
}

fn too_deep() -> Wrong {
    Wrong::whole(format!("selections and fragments lie more than {LEVELS} deep in each other"))
}
