//! HTTP-01 challenges (RFC 8555, section 8.3): what a CA is told at `/.well-known/acme-challenge/TOKEN` while it
//! checks who has a name. As long as no challenge is pending, asking costs one load of a number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The challenges that are pending.
#[derive(Debug, Default)]
pub struct Http01 {
    pending: AtomicUsize,
    answers: Mutex<HashMap<String, String>>,
}

/// A challenge that is answered for as long as this lives.
#[must_use]
pub struct Pending {
    challenges: Arc<Http01>,
    token: String,
}

impl Http01 {
    /// The answer for a path, if a challenge is pending there.
    pub fn answer(&self, path: &str) -> Option<String> {
        if self.pending.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.answers.lock().get(path.strip_prefix("/.well-known/acme-challenge/")?).cloned()
    }

    /// Answers a challenge.
    pub fn offer(self: &Arc<Self>, token: &str, answer: &str) -> Pending {
        let mut answers = self.answers.lock();
        answers.insert(token.to_owned(), answer.to_owned());
        self.pending.store(answers.len(), Ordering::Relaxed);
        Pending { challenges: self.clone(), token: token.to_owned() }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut answers = self.challenges.answers.lock();
        answers.remove(&self.token);
        self.challenges.pending.store(answers.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_while_it_is_pending() {
        let challenges = Arc::new(Http01::default());
        let path = "/.well-known/acme-challenge/abc";
        assert_eq!(challenges.answer(path), None);
        let pending = challenges.offer("abc", "abc.xyz");
        assert_eq!(challenges.answer(path).as_deref(), Some("abc.xyz"));
        assert_eq!(challenges.answer("/.well-known/acme-challenge/"), None);
        assert_eq!(challenges.answer("/abc"), None);
        drop(pending);
        assert_eq!(challenges.answer(path), None);
    }
}
