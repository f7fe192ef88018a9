//! Programs in jq: compiled once, with the configuration, and run on bodies that anybody may send.
//!
//! ```text
//! {id, name, total: (.items | map(.price) | add)}
//! ```
//!
//! The language is that of the `jaq` interpreter, which has neither a limit of time nor one of memory. Both are brought
//! in from outside:
//!
//! - For every term that it runs, the interpreter asks for its table of terms. It is counted there. When the steps are
//!   used up, or the stack is, it gets another table, in which every term ends the run in a way that no `try` catches.
//! - The values are our own. They know their size as if nothing in them were shared, and take steps for what is
//!   made, copied and compared. A value beyond the bounds never comes to be.
//! - Functions that are not written in jq take steps for what they look through.
//!
//! Nothing a program does reaches outside: there are no files, modules, variables of the environment, clocks or logs.
//!
//! # Caveats
//! Steps are no time: a million take some tens of milliseconds. Until a run ends, nothing else runs on its thread.

mod compile;
mod json;
mod meter;
mod natives;
mod number;
mod regexes;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::rc::Rc;

use jaq_core::data::HasLut;
use jaq_core::{Ctx, DataT, Lut, Vars};

use super::Malformed;
use value::{Obj, V};

/// A program that is ready to run.
pub struct Program {
    tables: compile::Tables,
    variables: usize,
}

/// How much a run may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Steps: about one for each operation, and for every 64 bytes that are read, made or compared. A million by default.
    pub steps: u64,
    /// The length of the output in bytes. 8 MiB by default.
    pub output: usize,
    /// The size of any one value in bytes, in memory and as if nothing in it were shared. 16 MiB by default.
    pub value: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { steps: 1_000_000, output: 8 << 20, value: 16 << 20 }
    }
}

/// What a run ran out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// [`Bounds::steps`].
    Steps,
    /// [`Bounds::output`].
    Output,
    /// [`Bounds::value`].
    Value,
    /// A value would be nested deeper than [`super::DEPTH`].
    Depth,
    /// Calls, closures or paths lie too deep in each other.
    Stack,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Steps => "the program takes too many steps",
            Self::Output => "the output is too long",
            Self::Value => "a value is too large",
            Self::Depth => "a value is nested too deep",
            Self::Stack => "the program's calls go too deep",
        })
    }
}

/// Why there is no output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The input is not JSON.
    Malformed(Malformed),
    /// The program failed, or did not give exactly one output. The message may have data in it: it is for the operator.
    Failed(String),
    /// The program ran out of its bounds.
    OutOf(Bound),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Failed(message) => f.write_str(message),
            Self::OutOf(bound) => bound.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl Program {
    /// Compiles a program. `variables` are names, without their `$`, of what each run gets a value for.
    ///
    /// # Errors
    /// What is wrong with the program, and where.
    pub fn compile(text: &str, variables: &[&str]) -> Result<Self, String> {
        let names: Vec<String> = variables.iter().map(|name| format!("${name}")).collect();
        Ok(Self { tables: compile::compile(text, &names)?, variables: variables.len() })
    }

    /// Runs the program on a JSON text, and gives its one output as a compact one. `variables` are the values of the
    /// variables that it was compiled with, in their order: strings, or null.
    ///
    /// # Errors
    /// The input is not JSON, the program fails, gives no output or more than one, or runs out of its bounds.
    pub fn run(&self, input: &[u8], variables: &[Option<&str>], bounds: &Bounds) -> Result<Vec<u8>, Error> {
        self.run_on(variables, bounds, || json::read(input).map_err(Error::Malformed))
    }

    /// Runs the program on an object of JSON texts, as [`Program::run`] does.
    ///
    /// # Errors
    /// As there. What is wrong with a text begins with its name, and counts bytes from the text's beginning.
    pub fn run_parts(
        &self,
        parts: &[(&str, &[u8])],
        variables: &[Option<&str>],
        bounds: &Bounds,
    ) -> Result<Vec<u8>, Error> {
        self.run_on(variables, bounds, || {
            let mut object = Obj::default();
            for (name, text) in parts {
                let value = json::read(text).map_err(|Malformed { at, what }| {
                    Error::Malformed(Malformed::new(at, format!("{name}: {what}")))
                })?;
                let Some(value) = value else { return Ok(None) };
                object.insert(Rc::new((*name).to_owned()), value);
            }
            Ok(Some(V::from(object)))
        })
    }

    fn run_on(
        &self,
        variables: &[Option<&str>],
        bounds: &Bounds,
        input: impl FnOnce() -> Result<Option<V>, Error>,
    ) -> Result<Vec<u8>, Error> {
        assert_eq!(variables.len(), self.variables, "a value for each variable");
        meter::start(bounds);
        let done = self.run_metered(variables, bounds, input);
        match meter::over() {
            Some(bound) => Err(Error::OutOf(bound)),
            None => done,
        }
    }

    fn run_metered(
        &self,
        variables: &[Option<&str>],
        bounds: &Bounds,
        input: impl FnOnce() -> Result<Option<V>, Error>,
    ) -> Result<Vec<u8>, Error> {
        let out_of = || Error::OutOf(meter::over().unwrap_or(Bound::Steps));
        let input = input()?.and_then(|input| input.bounded().ok()).ok_or_else(out_of)?;
        let variables = variables.iter().map(|value| value.map_or(V::Null, |text| V::from(text.to_owned())));
        let context = Ctx::<Jq>::new(Run(&self.tables), Vars::new(variables));
        let mut outputs = self.tables.filter.id.run((context, input)).map(|output| {
            output.map_err(|thrown| match thrown.get_err() {
                Ok(error) => Error::Failed(error.to_string()),
                Err(_) => out_of(),
            })
        });
        let output = outputs.next().ok_or_else(|| Error::Failed("the program gives no output".to_owned()))??;
        if outputs.next().transpose()?.is_some() {
            return Err(Error::Failed("the program gives more than one output".to_owned()));
        }
        let mut text = String::new();
        json::write(&output, bounds.output, &mut text);
        Ok(text.into_bytes())
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

/// What the interpreter works with.
struct Jq;

impl DataT for Jq {
    type V<'a> = V;
    type Data<'a> = Run<'a>;
}

/// The tables of the program that runs.
struct Run<'a>(&'a compile::Tables);

impl Clone for Run<'_> {
    fn clone(&self) -> Self {
        meter::spend(1);
        Self(self.0)
    }
}

impl<'a> HasLut<'a, Jq> for Run<'a> {
    fn lut(&self) -> &'a Lut<Jq> {
        if meter::step() { &self.0.filter.lut } else { &self.0.stop }
    }
}
