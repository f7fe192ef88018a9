use std::ops::Range;

/// Where the captures of a path pattern are in the path: byte ranges by position.
///
/// Up to six need no allocation.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Captures(smallvec::SmallVec<[(u32, u32); 6]>);

impl Captures {
    /// Adds the next capture.
    pub fn push(&mut self, range: Range<usize>) {
        // A path is bounded by the limit of the request head.
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.0.push((clamp(range.start), clamp(range.end)));
    }

    /// Takes the last capture back.
    pub fn pop(&mut self) {
        self.0.pop();
    }

    /// The text of a capture, empty where there is none.
    pub fn text<'p>(&self, position: usize, path: &'p str) -> &'p str {
        self.0.get(position).and_then(|(start, end)| path.get(*start as usize..*end as usize)).unwrap_or("")
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
