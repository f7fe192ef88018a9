//! From a program's text to its table of terms.
//!
//! Two things are done to the syntax tree on the way. Every definition that takes closures gets one more parameter,
//! `$__depth`, and every call of it passes one more than the depth of where it is called: closures that lie in each
//! other without end would end the stack when they are freed. And nodes are counted, as there must be a second table of
//! at least as many terms, each of which ends the run.

use jaq_core::compile::{Compiler, Filter, Undefined};
use jaq_core::load::lex::{Lexer, StrPart, Token};
use jaq_core::load::parse::{BinaryOp, Def, Parser, Pattern, Term};
use jaq_core::load::{Arena, File, Loader, span};
use jaq_core::path::Part;
use jaq_core::{Bind, Lut, Native};

use super::{Jq, natives};

/// The definitions in jq itself; later ones replace earlier ones.
const DEFS: &str = include_str!("defs.jq");
/// What the program is called among the definitions.
const MAIN: &str = "__main";
/// Which of the interpreter's own definitions are functions of ours. A definition would go before them.
const REPLACED: [&str; 4] = ["true", "false", "delpaths", "join"];
/// The longest program, in bytes.
const LONGEST: usize = 64 << 10;
/// How deep brackets may lie in each other.
const NESTED: usize = 200;
/// The stack that a program is compiled on, in bytes: what reads it goes as deep as it is long.
const STACK: usize = 256 << 20;

/// A program's terms, and as many that end the run.
pub struct Tables {
    pub filter: Filter<Native<Jq>>,
    pub stop: Lut<Jq>,
}

/// Compiles a program. `variables` are names with their `$`.
pub fn compile(text: &str, variables: &[String]) -> Result<Tables, String> {
    if text.len() > LONGEST {
        return Err(format!("the program has more than {LONGEST} bytes"));
    }
    check_brackets(text)?;
    std::thread::scope(|scope| {
        let compiling = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || tables(text, variables));
        match compiling.map(|thread| thread.join()) {
            Ok(Ok(tables)) => tables,
            Ok(Err(_)) => Err("the program cannot be compiled".to_owned()),
            Err(error) => Err(format!("the program cannot be compiled: {error}")),
        }
    })
}

/// Refuses brackets that lie too deep in each other; those in strings and comments count, too.
fn check_brackets(text: &str) -> Result<(), String> {
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth > NESTED {
            return Err(format!("{}: brackets lie more than {NESTED} deep in each other", place(text, at)));
        }
    }
    Ok(())
}

/// The line and column of a byte.
fn place(text: &str, at: usize) -> String {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    format!("line {line}, column {column}")
}

fn tables(text: &str, variables: &[String]) -> Result<Tables, String> {
    let (filter, terms) = build(text, variables, natives::all())?;
    Ok(Tables { filter, stop: stop(terms)? })
}

/// The program with these functions, and the most terms that it has.
fn build<F>(
    text: &str,
    variables: &[String],
    functions: Vec<(&'static str, Box<[Bind]>, F)>,
) -> Result<(Filter<F>, usize), String> {
    let main = parse(text)?;
    let arena = Arena::default();
    let mut walk = Walk { arena: &arena, text, scope: Vec::new(), depths: 0, wrong: Vec::new() };
    let main = walk.term(main);
    if let Some(wrong) = walk.wrong.into_iter().next() {
        return Err(wrong);
    }
    let own = jaq_core::load::parse(DEFS, |parser| parser.defs()).ok_or("the standard definitions cannot be read")?;
    let core = jaq_core::defs().filter(|def| !REPLACED.contains(&def.name));
    let standard: Vec<Def<&str>> = core.chain(own).collect();
    let mut names: Vec<(&str, usize)> = standard.iter().map(|def| (def.name, def.args.len())).collect();
    names.extend(functions.iter().map(|(name, arguments, _)| (*name, arguments.len())));
    let terms = 2 * standard.iter().map(|def| 1 + count(&def.body)).sum::<usize>() + 2 * count(&main) + 64;

    let main = Def { name: MAIN, args: Vec::new(), body: main };
    let file = File { code: MAIN, path: () };
    let modules = Loader::new(standard.into_iter().chain([main])).load(&arena, file);
    let modules = modules.map_err(|_| "the program cannot be read")?;
    let filter = Compiler::default()
        .with_funs(functions)
        .with_global_vars(variables.iter().map(String::as_str))
        .compile(modules)
        .map_err(|errors| {
            let mut unknown = errors.into_iter().flat_map(|(_, errors)| errors);
            unknown.next().map_or_else(String::new, |(name, kind)| undefined(text, name, kind, &names, variables))
        })?;
    Ok((filter, terms))
}

/// A table of at least as many terms, each of which ends the run; as many functions as there are, which do too.
fn stop(terms: usize) -> Result<Lut<Jq>, String> {
    const STOP: &str = "__stop";
    let arena = Arena::default();
    let stops = (0..terms).map(|_| Def { name: MAIN, args: Vec::new(), body: Term::Call(STOP, Vec::new()) });
    let modules =
        Loader::new(stops).load(&arena, File { code: MAIN, path: () }).map_err(|_| "no table to stop with")?;
    let functions = (0..=natives::all().len()).map(|_| (STOP, Box::default(), natives::stop()));
    let filter: Filter<Native<Jq>> =
        Compiler::default().with_funs(functions).compile(modules).map_err(|_| "no table to stop with")?;
    Ok(filter.lut)
}

fn parse(text: &str) -> Result<Term<&str>, String> {
    let at = |part: &str| place(text, span(text, part).start);
    let tokens = Lexer::new(text).lex().map_err(|errors| match errors.into_iter().next() {
        Some((expected, "")) => {
            format!("{}: expected {} where the program ends", place(text, text.len()), expected.as_str())
        }
        Some((expected, found)) => {
            let short: String = found.chars().take(20).collect();
            format!("{}: expected {}, but found {short:?}", at(found), expected.as_str())
        }
        None => "the program cannot be read".to_owned(),
    })?;
    Parser::new(&tokens).parse(|parser| parser.term()).map_err(|errors| match errors.into_iter().next() {
        Some((expected, Some(Token(found, _)))) => {
            let short: String = found.chars().take(20).collect();
            format!("{}: expected {}, but found {short:?}", at(found), expected.as_str())
        }
        Some((expected, None)) => format!("expected {} where the program ends", expected.as_str()),
        None => "the program cannot be read".to_owned(),
    })
}

fn undefined(text: &str, name: &str, kind: Undefined, names: &[(&str, usize)], variables: &[String]) -> String {
    let inside = (text.as_ptr() as usize..=text.as_ptr() as usize + text.len()).contains(&(name.as_ptr() as usize));
    let at = if inside { format!("{}: ", place(text, span(text, name).start)) } else { String::new() };
    let near = |known: &mut dyn Iterator<Item = &str>| {
        let known = known
            .filter(|known| !known.starts_with('_'))
            .map(|known| (strsim::damerau_levenshtein(known, name), known));
        let (distance, near) = known.min()?;
        (distance <= 2).then(|| format!(", did you mean {near}?"))
    };
    match kind {
        Undefined::Filter(arity) => {
            let mut arities: Vec<_> =
                names.iter().filter(|(known, _)| *known == name).map(|(_, arity)| *arity).collect();
            arities.sort_unstable();
            arities.dedup();
            if !arities.is_empty() {
                let arities: Vec<_> = arities.iter().map(usize::to_string).collect();
                return format!("{at}the function {name} takes {} arguments, not {arity}", arities.join(" or "));
            }
            const ABSENT: [&str; 15] = [
                "input",
                "inputs",
                "env",
                "debug",
                "stderr",
                "halt",
                "halt_error",
                "now",
                "input_filename",
                "input_line_number",
                "localtime",
                "strflocaltime",
                "get_search_list",
                "modulemeta",
                "builtins",
            ];
            if ABSENT.contains(&name) {
                return format!("{at}the function {name} is not there in the gateway");
            }
            let near = near(&mut names.iter().map(|(known, _)| *known));
            format!("{at}no function is called {name}{}", near.unwrap_or_default())
        }
        Undefined::Var => {
            let near = near(&mut variables.iter().map(String::as_str));
            format!("{at}no variable is called {name}{}", near.unwrap_or_default())
        }
        Undefined::Label => format!("{at}no label is called {name}"),
        _ => format!("{at}there are no modules: {name}"),
    }
}

/// Goes through a program.
struct Walk<'a> {
    arena: &'a Arena,
    text: &'a str,
    /// Functions that are defined by the program where the walk is: their name, arity, and whether they take a depth.
    scope: Vec<(&'a str, usize, bool)>,
    /// How many definitions with a depth are around.
    depths: usize,
    wrong: Vec<String>,
}

const DEPTH: &str = "$__depth";

impl<'a> Walk<'a> {
    fn boxed(&mut self, term: Term<&'a str>) -> Box<Term<&'a str>> {
        Box::new(self.term(term))
    }

    fn all(&mut self, terms: Vec<Term<&'a str>>) -> Vec<Term<&'a str>> {
        terms.into_iter().map(|term| self.term(term)).collect()
    }

    fn name(&mut self, name: &'a str) {
        if name.trim_start_matches(['$', '@']).starts_with("__") {
            let at = place(self.text, span(self.text, name).start);
            self.wrong.push(format!("{at}: names that begin with two underscores are the gateway's own: {name}"));
        }
    }

    fn term(&mut self, term: Term<&'a str>) -> Term<&'a str> {
        match term {
            Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) => term,
            Term::Var(name) => {
                self.name(name);
                term
            }
            Term::Str(format, parts) => {
                let parts = parts.into_iter().map(|part| match part {
                    StrPart::Term(term) => StrPart::Term(self.term(term)),
                    part => part,
                });
                Term::Str(format, parts.collect())
            }
            Term::Arr(term) => Term::Arr(term.map(|term| self.boxed(*term))),
            Term::Obj(entries) => Term::Obj(
                entries.into_iter().map(|(key, value)| (self.term(key), value.map(|value| self.term(value)))).collect(),
            ),
            Term::Neg(term) => Term::Neg(self.boxed(*term)),
            Term::BinOp(left, BinaryOp::Pipe(Some(pattern)), right) => {
                let (left, pattern) = (self.boxed(*left), self.pattern(pattern));
                Term::BinOp(left, BinaryOp::Pipe(Some(pattern)), self.boxed(*right))
            }
            Term::BinOp(left, op, right) => Term::BinOp(self.boxed(*left), op, self.boxed(*right)),
            Term::Label(name, term) => Term::Label(name, self.boxed(*term)),
            Term::Fold(name, term, pattern, arguments) => {
                let (term, pattern) = (self.boxed(*term), self.pattern(pattern));
                Term::Fold(name, term, pattern, self.all(arguments))
            }
            Term::TryCatch(tried, caught) => {
                Term::TryCatch(self.boxed(*tried), caught.map(|caught| self.boxed(*caught)))
            }
            Term::IfThenElse(cases, other) => Term::IfThenElse(
                cases.into_iter().map(|(condition, then)| (self.term(condition), self.term(then))).collect(),
                other.map(|other| self.boxed(*other)),
            ),
            Term::Def(defs, term) => {
                let before = self.scope.len();
                let defs = defs.into_iter().map(|def| self.definition(def)).collect();
                let term = self.boxed(*term);
                self.scope.truncate(before);
                Term::Def(defs, term)
            }
            Term::Call(name, arguments) => self.call(name, arguments),
            Term::Path(term, path) => {
                let term = self.boxed(*term);
                let parts = path.0.into_iter().map(|(part, opt)| {
                    let part = match part {
                        Part::Index(index) => Part::Index(self.term(index)),
                        Part::Range(from, to) => {
                            Part::Range(from.map(|from| self.term(from)), to.map(|to| self.term(to)))
                        }
                    };
                    (part, opt)
                });
                let parts = parts.collect();
                Term::Path(term, jaq_core::path::Path(parts))
            }
        }
    }

    fn pattern(&mut self, pattern: Pattern<&'a str>) -> Pattern<&'a str> {
        match pattern {
            Pattern::Var(name) => {
                self.name(name);
                pattern
            }
            Pattern::Arr(parts) => Pattern::Arr(parts.into_iter().map(|part| self.pattern(part)).collect()),
            Pattern::Obj(entries) => {
                Pattern::Obj(entries.into_iter().map(|(key, value)| (self.term(key), self.pattern(value))).collect())
            }
        }
    }

    /// What a definition with a depth is called: its own name may be there with one parameter more.
    fn deep(&self, name: &str) -> &'a str {
        self.arena.alloc(format!("__{name}"))
    }

    fn definition(&mut self, def: Def<&'a str>) -> Def<&'a str> {
        let Def { name, mut args, body } = def;
        self.name(name);
        args.iter().for_each(|argument| self.name(argument));
        let closures: Vec<&str> = args.iter().copied().filter(|argument| !argument.starts_with('$')).collect();
        let deep = !closures.is_empty();
        let arity = args.len();
        self.scope.push((name, arity, deep));
        let before = self.scope.len();
        self.scope.extend(closures.iter().map(|closure| (*closure, 0, false)));
        self.depths += usize::from(deep);
        let body = self.term(body);
        self.depths -= usize::from(deep);
        self.scope.truncate(before);
        if deep {
            args.push(DEPTH);
        }
        Def { name: if deep { self.deep(name) } else { name }, args, body }
    }

    fn call(&mut self, name: &'a str, arguments: Vec<Term<&'a str>>) -> Term<&'a str> {
        self.name(name);
        let mut arguments = self.all(arguments);
        let mut known = self.scope.iter().rev();
        let found = known.find(|(known, arity, _)| *known == name && *arity == arguments.len());
        if !found.is_some_and(|(_, _, deep)| *deep) {
            return Term::Call(name, arguments);
        }
        let depth = if self.depths > 0 { Term::Var(DEPTH) } else { Term::Num("0") };
        arguments.push(Term::Call("__deeper", vec![depth]));
        Term::Call(self.deep(name), arguments)
    }
}

/// The most terms that a syntax tree can become in the table.
fn count(term: &Term<&str>) -> usize {
    let all = |terms: &[Term<&str>]| terms.iter().map(count).sum::<usize>();
    2 + match term {
        Term::Id | Term::Recurse | Term::Num(_) | Term::Var(_) | Term::Break(_) | Term::Arr(None) => 0,
        Term::Str(_, parts) => {
            let of = |part: &StrPart<&str, Term<&str>>| match part {
                StrPart::Term(term) => count(term),
                _ => 0,
            };
            1 + parts.iter().map(|part| 3 + of(part)).sum::<usize>()
        }
        Term::Arr(Some(term)) | Term::Neg(term) | Term::Label(_, term) => count(term),
        Term::Obj(entries) => entries.iter().map(|(key, value)| 6 + count(key) + value.as_ref().map_or(0, count)).sum(),
        Term::BinOp(left, op, right) => {
            let pattern = if let BinaryOp::Pipe(Some(pattern)) = op { count_pattern(pattern) } else { 0 };
            count(left) + pattern + count(right)
        }
        Term::Fold(_, term, pattern, arguments) => count(term) + count_pattern(pattern) + all(arguments),
        Term::TryCatch(tried, caught) => count(tried) + caught.as_deref().map_or(1, count),
        Term::IfThenElse(cases, other) => {
            let cases: usize = cases.iter().map(|(condition, then)| 2 + count(condition) + count(then)).sum();
            cases + other.as_deref().map_or(1, count)
        }
        Term::Def(defs, term) => defs.iter().map(|def| 1 + count(&def.body)).sum::<usize>() + count(term),
        Term::Call(_, arguments) => all(arguments),
        Term::Path(term, path) => {
            let parts = path.0.iter().map(|(part, _)| match part {
                Part::Index(index) => count(index),
                Part::Range(from, to) => from.as_ref().map_or(0, count) + to.as_ref().map_or(0, count),
            });
            count(term) + parts.sum::<usize>()
        }
    }
}

fn count_pattern(pattern: &Pattern<&str>) -> usize {
    match pattern {
        Pattern::Var(_) => 1,
        Pattern::Arr(parts) => parts.iter().map(|part| 2 + count_pattern(part)).sum(),
        Pattern::Obj(entries) => entries.iter().map(|(key, value)| 2 + count(key) + count_pattern(value)).sum(),
    }
}

/// How many terms a program has, and how many the table has that ends it.
#[cfg(test)]
pub fn terms(text: &str) -> (usize, usize) {
    let functions = natives::all().into_iter().map(|(name, arguments, _)| (name, arguments, ())).collect();
    let (filter, most) = build(text, &[], functions).expect("this is a program");
    let table = format!("{:?}", filter.lut);
    let ids = table.split("TermId(").skip(1).filter_map(|rest| rest.split(')').next()?.parse::<usize>().ok());
    (ids.max().map_or(0, |last| last + 1), most)
}
