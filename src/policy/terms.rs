//! What policies say of every exchange of their route, once they are compiled.

use super::mirror::Mirror;
use super::retry::Retry;
use super::timeout::Timeout;
use crate::body::grpc::web::Coding;
use crate::facts::Facts;

/// What holds for every exchange of a route.
#[derive(Default)]
pub struct Terms {
    /// Bytes that the body of a request may have.
    pub max_body: Option<u64>,
    /// Whether the path that an upstream is sent is one of the route's own.
    pub sets_path: bool,
    /// Whether the body of every request is held whole, and looked at before the upstream is asked.
    pub holds_body: bool,
    /// Whether the bodies of all answers are read, and so asked for without a content coding and whole.
    pub reads_answers: bool,
    /// Whether requests that are no gRPC become calls.
    pub grpc_json: bool,
    /// Whether requests in gRPC-Web become gRPC.
    pub grpc_web: bool,
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

impl Terms {
    /// Whether the body of this request is held whole, and looked at before the upstream is asked.
    pub fn holds_body(&self, facts: &Facts) -> bool {
        self.holds_body || (self.grpc_json && !facts.grpc) || (self.grpc_web && facts.grpc_web == Some(Coding::Text))
    }

    /// Whether the body of the answer to this request is read, and so asked for without a content coding and whole.
    pub fn reads_answers(&self, facts: &Facts) -> bool {
        self.reads_answers || (self.grpc_json && !facts.grpc) || (self.grpc_web && facts.grpc_web.is_some())
    }
}
