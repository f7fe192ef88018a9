//! Times as text, for lines and header fields that are written thousands of times in one second.

use std::cell::RefCell;

/// The text of a second, kept until the next one. One for each thread and format.
pub struct Stamp {
    format: &'static str,
    last: RefCell<(u64, String)>,
}

impl Stamp {
    /// In a format of `strftime`, in UTC.
    pub const fn new(format: &'static str) -> Self {
        Self { format, last: RefCell::new((0, String::new())) }
    }

    /// Gives the text of a time in seconds since 1970.
    pub fn with<T>(&self, seconds: u64, show: impl FnOnce(&str) -> T) -> T {
        let (last, text) = &mut *self.last.borrow_mut();
        if *last != seconds || text.is_empty() {
            *last = seconds;
            let time = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(0)).unwrap_or_default();
            *text = time.strftime(self.format).to_string();
        }
        show(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_has_its_text() {
        let stamp = Stamp::new("%a, %d %b %Y %H:%M:%S GMT");
        let show = |seconds| stamp.with(seconds, str::to_owned);
        assert_eq!(show(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!((show(784_111_777), show(784_111_777)), ("Sun, 06 Nov 1994 08:49:37 GMT".into(), show(784_111_777)));
        assert_eq!(show(784_111_778), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
