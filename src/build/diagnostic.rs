use std::borrow::Cow;
use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::tree::{Place, Sources};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is accepted, and someone should look.
    Warning,
}

/// One finding, for a person: where, what is wrong, what was expected, what to do.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    place: Option<Place>,
    message: String,
    others: Vec<(Place, String)>,
    help: Option<String>,
}

/// Every finding of one configuration; prints as a report with the text underlined.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    rendered: Vec<(Severity, String)>,
}

impl Diagnostic {
    /// A finding at a place; one without a place concerns the file as a whole or no file.
    pub fn new(severity: Severity, place: Option<Place>, message: String) -> Self {
        Self { severity, place, message, others: Vec::new(), help: None }
    }

    /// Says what to do.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Points at another place that has to do with it.
    pub fn also(&mut self, place: Place, label: impl Into<String>) -> &mut Self {
        self.others.push((place, label.into()));
        self
    }

    fn render(&self, sources: &Sources, hidden: &[Place]) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(self.message.as_str()));
        if let Some(place) = self.place {
            let (line, first_line) = window(sources, place, hidden);
            let mut snippet = Snippet::source(line.text.to_string())
                .line_start(first_line)
                .path(sources.name(place.file))
                .annotation(AnnotationKind::Primary.span(line.span(place)));
            // Another place on the same lines is shown in the same snippet.
            for (other, label) in &self.others {
                if other.file == place.file && line.holds(*other) {
                    snippet = snippet.annotation(AnnotationKind::Context.span(line.span(*other)).label(label.as_str()));
                }
            }
            group = group.element(snippet);
            for (other, label) in &self.others {
                if other.file == place.file && line.holds(*other) {
                    continue;
                }
                let (line, first_line) = window(sources, *other, hidden);
                group = group.element(
                    Snippet::source(line.text.to_string())
                        .line_start(first_line)
                        .path(sources.name(other.file))
                        .annotation(AnnotationKind::Context.span(line.span(*other)).label(label.as_str())),
                );
            }
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        Renderer::plain().render(&[group])
    }
}

impl Diagnostics {
    /// Renders what was found, in the order of the text, with stars for what stands at the `hidden` places.
    pub fn new(sources: &Sources, mut found: Vec<Diagnostic>, hidden: &[Place]) -> Self {
        found.sort_by_key(|d| (d.place.map(|p| (p.file, p.start)), d.severity));
        let mut rendered: Vec<(Severity, String)> = Vec::new();
        for diagnostic in &found {
            let text = diagnostic.render(sources, hidden);
            if !rendered.iter().any(|(_, seen)| *seen == text) {
                rendered.push((diagnostic.severity, text));
            }
        }
        Self { rendered }
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.rendered.iter().filter(|(severity, _)| *severity == Severity::Error).count()
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.rendered.is_empty()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, text) in &self.rendered {
            writeln!(f, "{text}\n")?;
        }
        let errors = self.errors();
        let warnings = self.rendered.len() - errors;
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        match (errors, warnings) {
            (0, 0) => Ok(()),
            (0, w) => writeln!(f, "{}", plural(w, "warning")),
            (e, 0) => writeln!(f, "{}", plural(e, "error")),
            (e, w) => writeln!(f, "{}, {}", plural(e, "error"), plural(w, "warning")),
        }
    }
}

/// The line of a place. A place over several lines (a table) is shown by its first.
struct Line<'s> {
    text: Cow<'s, str>,
    start: usize,
}

impl Line<'_> {
    fn span(&self, place: Place) -> std::ops::Range<usize> {
        let clamp = |n: u32| (n as usize).saturating_sub(self.start).min(self.text.len());
        let (mut start, mut end) = (clamp(place.start), clamp(place.end));
        if end <= start {
            end = (start + 1).min(self.text.len());
        }
        // Whole characters: the parser may point into one.
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        start.min(end)..end
    }

    fn holds(&self, place: Place) -> bool {
        (self.start..=self.start + self.text.len()).contains(&(place.start as usize))
    }
}

fn window<'s>(sources: &'s Sources, place: Place, hidden: &[Place]) -> (Line<'s>, usize) {
    let text = sources.text(place.file);
    let mut at = (place.start as usize).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let end = text[at..].find('\n').map_or(text.len(), |i| at + i);
    let text = Cow::Borrowed(text[start..end].trim_end_matches('\r'));
    let mut line = Line { text, start };
    for secret in hidden.iter().filter(|secret| secret.file == place.file) {
        // A secret over several lines is hidden on each of them.
        let (from, to) = ((secret.start as usize).max(start), (secret.end as usize).min(start + line.text.len()));
        if from < to {
            let stars = "*".repeat(to - from);
            line.text.to_mut().replace_range(from - start..to - start, &stars);
        }
    }
    (line, sources.line_column(Place { start: start as u32, ..place }).0)
}
