//! What policies say of every exchange of their route, once they are compiled.

use super::mirror::Mirror;
use super::retry::Retry;
use super::timeout::Timeout;

/// What holds for every exchange of a route.
#[derive(Default)]
pub struct Terms {
    /// Bytes that the body of a request may have.
    pub max_body: Option<u64>,
    /// Whether the body of a request is held whole, and looked at before the upstream is asked.
    pub holds_body: bool,
    /// Whether the bodies of answers are read, and so asked for without a content coding and whole.
    pub reads_answers: bool,
    /// Whether clients speak SOAP, and so want errors as Faults.
    pub speaks_soap: bool,
    /// Bytes of an answer that are held at most, where it is read.
    pub most_answer: Option<u64>,
    /// How long things may take, in the place of what the upstream says.
    pub timeout: Timeout,
    /// What is tried again, in the place of what the upstream says.
    pub retry: Retry,
    /// Who gets copies of requests.
    pub mirror: Option<Mirror>,
}
