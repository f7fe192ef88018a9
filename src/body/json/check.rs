//! The paths of a configuration, and what is wrong with them.

use super::path::{Path, Step, Wrong};
use super::{EditsConfig, Mistake};

/// The paths of each verb, in the order of the configuration.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Without any list, everything is picked.
    pub pick: Option<Vec<Path>>,
    pub remove: Vec<Path>,
    /// With the new keys.
    pub rename: Vec<(Path, String)>,
    pub set: Vec<Path>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.pick.is_none() && self.remove.is_empty() && self.rename.is_empty() && self.set.is_empty()
    }
}

/// Reads the paths, and finds those that contradict each other or say nothing.
pub(super) fn plan(config: &EditsConfig) -> Result<Plan, Vec<Mistake>> {
    let mut check = Check::default();
    let mut plan = Plan::default();
    if let Some(pick) = &config.pick {
        if pick.is_empty() {
            check.mistake("pick", None, "nothing is picked", "name what is to be kept, or leave `pick` out");
        }
        plan.pick = Some(check.list("pick", pick));
    }
    plan.remove = check.list("remove", &config.remove);
    for (from, to) in &config.rename {
        plan.rename.extend(check.rename(from, to));
    }
    for key in config.set.keys() {
        plan.set.extend(check.parsed("set", key.clone(), Path::parse(key)));
    }
    // The entries of paths are those of the configuration only if all could be read.
    if check.mistakes.is_empty() {
        check.compare(config, &plan);
    }
    if check.mistakes.is_empty() { Ok(plan) } else { Err(check.mistakes) }
}

#[derive(Default)]
struct Check {
    mistakes: Vec<Mistake>,
}

impl Check {
    fn mistake(
        &mut self,
        verb: &'static str,
        entry: Option<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.mistakes.push(Mistake { verb, entry, message: message.into(), help: help.into() });
    }

    fn parsed<T>(&mut self, verb: &'static str, entry: String, parsed: Result<T, Wrong>) -> Option<T> {
        parsed.map_err(|(message, help)| self.mistake(verb, Some(entry), message, help)).ok()
    }

    fn list(&mut self, verb: &'static str, paths: &[String]) -> Vec<Path> {
        let paths = paths.iter().enumerate();
        paths.filter_map(|(i, path)| self.parsed(verb, i.to_string(), Path::parse(path))).collect()
    }

    fn rename(&mut self, from: &str, to: &str) -> Option<(Path, String)> {
        let path = self.parsed("rename", from.to_owned(), Path::parse(from));
        let to = self.parsed("rename", from.to_owned(), new_key(to));
        let (path, to) = (path?, to?);
        let entry = Some(from.to_owned());
        match path.0.last().and_then(Step::name) {
            None => self.mistake("rename", entry, "`*` cannot get one key", "end the path with the key that changes"),
            Some(key) if key == to => {
                self.mistake("rename", entry, format!("`{path}` has the key `{to}` already"), "give it another key");
            }
            Some(_) => return Some((path, to)),
        }
        None
    }

    fn compare(&mut self, config: &EditsConfig, plan: &Plan) {
        let pick = plan.pick.as_deref();
        self.doubled("pick", "picked", pick.unwrap_or_default());
        self.doubled("remove", "removed", &plan.remove);
        let picked = |path: &Path| pick.is_none_or(|pick| pick.iter().any(|pick| pick.meets(path)));
        const NOT_PICKED: &str = "`pick` comes first: name there what this is about";
        for (i, path) in plan.remove.iter().enumerate() {
            let entry = Some(i.to_string());
            if let Some(pick) = pick.unwrap_or_default().iter().find(|pick| path.covers(pick)) {
                let help = "leave one of them out";
                self.mistake("remove", entry, format!("`{pick}` is picked, and removed again"), help);
            } else if !picked(path) {
                self.mistake("remove", entry, format!("`{path}` is not picked, so it is removed already"), NOT_PICKED);
            }
        }
        for (i, ((path, to), entry)) in plan.rename.iter().zip(config.rename.keys()).enumerate() {
            let entry = Some(entry.clone());
            if let Some(removed) = plan.remove.iter().find(|removed| removed.covers(path)) {
                let message = format!("`{path}` cannot get a key, as `{removed}` is removed");
                self.mistake("rename", entry, message, "leave one of them out");
                continue;
            }
            if !picked(path) {
                self.mistake("rename", entry, format!("`{path}` is not picked"), NOT_PICKED);
                continue;
            }
            self.new_sibling(entry, plan, i, path, &path.sibling(to));
        }
        for (i, (path, entry)) in plan.set.iter().zip(config.set.keys()).enumerate() {
            let entry = Some(entry.clone());
            if let Some(other) = plan.set[..i].iter().find(|other| other.meets(path)) {
                let help = "name each place once; set an object where several of its members are meant";
                self.mistake("set", entry, format!("`{other}` and `{path}` may be the same place"), help);
            } else if plan.remove.contains(path) {
                let help = "`set` alone replaces what is there";
                self.mistake("set", entry, format!("`{path}` is removed and set"), help);
            }
        }
    }

    fn doubled(&mut self, verb: &'static str, done: &str, paths: &[Path]) {
        for (i, path) in paths.iter().enumerate() {
            let twice = |(j, other): &(usize, &Path)| other.covers(path) && (*j < i || (*j > i && !path.covers(other)));
            if let Some((_, other)) = paths.iter().enumerate().find(twice) {
                let message = format!("`{path}` is {done} with `{other}` already");
                self.mistake(verb, Some(i.to_string()), message, "leave it out");
            }
        }
    }

    /// Looks for what else the new key of a rename may stand for.
    fn new_sibling(&mut self, entry: Option<String>, plan: &Plan, this: usize, path: &Path, new: &Path) {
        const HELP: &str = "choose another key";
        for (other, key) in &plan.rename[..this] {
            let message = if other.len() != path.len() {
                continue;
            } else if other.meets(path) {
                format!("`{other}` and `{path}` may be the same place")
            } else if other.sibling(key).meets(new) {
                format!("`{other}` and `{path}` may get the same key in one object")
            } else {
                continue;
            };
            return self.mistake("rename", entry, message, HELP);
        }
        let goes = plan.remove.iter().any(|removed| removed.covers(new))
            || plan.rename.iter().any(|(other, _)| other.len() == new.len() && other.covers(new));
        let at = new.len() - 1;
        let names = |other: &&Path| other.meets(new) && other.0.get(at).and_then(Step::name).is_some();
        let old = plan.pick.iter().flatten().chain(&plan.remove).chain(plan.rename.iter().map(|(other, _)| other));
        if let Some(named) = old.into_iter().find(names).filter(|_| !goes) {
            let message = format!("`{path}` becomes `{new}`, which is there already: `{named}` names it");
            return self.mistake("rename", entry, message, "choose another key, or remove what has it");
        }
        if plan.set.contains(new) {
            let message = format!("`{path}` becomes `{new}`, which is set to something else");
            self.mistake("rename", entry, message, format!("remove `{path}`, and set `{new}`"));
        }
    }
}

fn new_key(text: &str) -> Result<String, Wrong> {
    let wrong =
        || (format!("`{text}` is not a key"), "what is renamed stays in its object; a key with a dot has quotes");
    match Path::parse(text)?.0.as_slice() {
        [step] => step.name().map(str::to_owned).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}
