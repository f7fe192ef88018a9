//! How long an exchange may wait for its upstream.
//!
//! An HTTP/1 connection has one exchange at a time, so the time by which that must have gone on is set at the
//! connection, which fails when it is over. Streams of HTTP/2 share a connection: on the short way the exchange
//! watches the time itself, on Pingora's it goes to the upstream's session as the longest silence.

use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode, Version};
use pingora_http::{RequestHeader, ResponseHeader};

use super::Ctx;
use crate::deadline::Deadline;
use crate::facts::Facts;

/// The times of one exchange.
#[derive(Default)]
pub(super) struct Patience {
    /// When everything must be over.
    total: Option<Instant>,
    /// The longest silence from now on; none while the request is being sent.
    silence: Option<Duration>,
    keeper: Keeper,
    /// The server is waited for elsewhere: here it has all the time that it is given there.
    elsewhere: bool,
    /// The deadline, where the exchange keeps it.
    own: Deadline,
}

/// Who looks at the time.
#[derive(Default, PartialEq, Clone, Copy)]
enum Keeper {
    #[default]
    Connection,
    Exchange,
    Session,
}

/// An attempt begins.
pub(super) fn begin(ctx: &mut Ctx, request: &RequestHeader) {
    let Some(timeouts) = ctx.timeouts() else { return };
    let Some(facts) = &mut ctx.facts else { return };
    let patience = &mut ctx.patience;
    if patience.keeper != Keeper::Exchange && request.version == Version::HTTP_2 {
        patience.keeper = Keeper::Session;
    }
    let total = timeouts.total.filter(|_| !facts.streaming);
    let asked = grpc_timeout(request).filter(|_| facts.is_call());
    patience.total = total.into_iter().chain(asked).min().map(|total| facts.started + total);
    patience.silence = None;
    patience.bound(facts, None);
    facts.deadline = patience.total;
}

/// The longest silence that the upstream's session is to bear itself.
pub(super) fn longest_silence(ctx: &Ctx) -> Option<Duration> {
    let (Some(facts), Some(timeouts)) = (&ctx.facts, ctx.timeouts()) else { return None };
    if ctx.patience.keeper != Keeper::Session {
        return None;
    }
    let silence = match facts.streaming {
        true => facts.connection.listener.timeouts.stream_idle,
        false => timeouts.first_byte.max(timeouts.idle),
    };
    let left = ctx.patience.total.map(|total| total.saturating_duration_since(Instant::now()));
    Some(left.map_or(silence, |left| silence.min(left)).max(Duration::from_millis(1)))
}

/// The server is asked at another end, where the time that it takes is looked at.
pub(super) fn elsewhere(ctx: &mut Ctx) {
    ctx.patience.elsewhere = true;
}

/// The server is waited for while the request is being sent: it must take what is there for it.
pub(super) fn server(ctx: &Ctx) {
    if let (Some(facts), Some(timeouts)) = (&ctx.facts, ctx.timeouts()) {
        ctx.patience.bound(facts, Some(timeouts.first_byte).filter(|_| !ctx.patience.elsewhere));
    }
}

/// The client is waited for: for its body, or until it takes what is there for it.
pub(super) fn client(ctx: &Ctx) {
    if let Some(facts) = &ctx.facts {
        ctx.patience.bound(facts, Some(facts.connection.listener.timeouts.body));
    }
}

/// The request is sent: its answer is awaited.
pub(super) fn sent(ctx: &mut Ctx) {
    let Some(first_byte) = ctx.timeouts().map(|timeouts| timeouts.first_byte) else { return };
    ctx.patience.silence = Some(first_byte).filter(|_| !ctx.patience.elsewhere);
    went_on(ctx);
}

/// The head of the answer is here, and says what to expect of the rest.
pub(super) fn answered(ctx: &mut Ctx, head: &ResponseHeader) {
    let (Some(timeouts), Some(facts), false) = (ctx.timeouts(), &ctx.facts, ctx.patience.elsewhere) else { return };
    let events = |value: &HeaderValue| value.as_bytes().starts_with(b"text/event-stream");
    let upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let calls = facts.grpc || facts.call.as_ref().is_some_and(|call| call.is_stream());
    let stream = upgraded || calls || head.headers.get(CONTENT_TYPE).is_some_and(events);
    ctx.patience.silence = Some(match stream {
        true => facts.connection.listener.timeouts.stream_idle,
        false => timeouts.idle,
    });
    if stream && !facts.is_call() {
        ctx.patience.total = None;
    }
    went_on(ctx);
}

/// Something was sent or came.
pub(super) fn went_on(ctx: &Ctx) {
    if let Some(facts) = &ctx.facts {
        ctx.patience.bound(facts, ctx.patience.silence);
    }
}

/// The exchange is over.
pub(super) fn end(ctx: &Ctx) {
    if let Some(facts) = &ctx.facts
        && ctx.patience.keeper == Keeper::Connection
    {
        facts.connection.deadline.set(None);
    }
}

impl Patience {
    /// Whether the exchange has taken all its time.
    pub(super) fn is_over(&self) -> bool {
        self.total.is_some_and(|total| total <= Instant::now())
    }

    /// The patience of an exchange that looks at the time itself.
    pub(super) fn own() -> Self {
        Self { keeper: Keeper::Exchange, ..Self::default() }
    }

    /// By when the exchange must have gone on.
    pub(super) fn deadline<'d>(&'d self, facts: &'d Facts) -> &'d Deadline {
        match self.keeper {
            Keeper::Connection => &facts.connection.deadline,
            Keeper::Exchange | Keeper::Session => &self.own,
        }
    }

    /// The deadline of an exchange that looks at the time itself.
    pub(super) fn kept_by_exchange(&self) -> &Deadline {
        &self.own
    }

    fn bound(&self, facts: &Facts, silence: Option<Duration>) {
        let silence = silence.map(|silence| Instant::now() + silence);
        self.deadline(facts).set(silence.into_iter().chain(self.total).min());
    }
}

/// How long a gRPC client waits ("gRPC over HTTP2", `Timeout`): at most eight digits and a unit.
fn grpc_timeout(request: &RequestHeader) -> Option<Duration> {
    let text = request.headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = (digits.len() <= 8).then(|| digits.parse::<u32>().ok())??;
    match unit {
        "H" => Some(Duration::from_secs(u64::from(number) * 3600)),
        "M" => Some(Duration::from_secs(u64::from(number) * 60)),
        "S" => Some(Duration::from_secs(number.into())),
        "m" => Some(Duration::from_millis(number.into())),
        "u" => Some(Duration::from_micros(number.into())),
        "n" => Some(Duration::from_nanos(number.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_has_digits_and_a_unit() {
        let timeout = |text: &str| {
            let mut request = RequestHeader::build("POST", b"/", None).unwrap();
            request.insert_header("grpc-timeout", text).unwrap();
            grpc_timeout(&request)
        };
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!((timeout("123456789S"), timeout("5"), timeout("S"), timeout("-5S")), (None, None, None, None));
    }
}
