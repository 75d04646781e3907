//! What can go wrong with a request between the server and an endpoint.
//!
//! An [`Error`] says what happened ([`Kind`]), in words for the person who reads the response ([`Error::message`]), and
//! answers two questions: whose fault it is, and whether the request may safely be sent again. The names under which a
//! failure is counted are contract: dashboards know Finagle's class names, so [`Kind::chain`] is the one table from
//! kinds to JVM class chains and [`Kind::flags`] from kinds to Finagle's failure flags (`FailureFlags.scala`,
//! `ExceptionStatsHandler.scala`).

use std::{fmt, sync::Arc};

/// What happened to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// No identifier could name the request.
    Unidentified,
    /// A request's `l5d-dtab` or `l5d-ctx-dtab` is not a dtab.
    BadDtab,
    /// More hops than `maxCallDepth` allows.
    CallDepth,
    /// The name is bound to nothing, or to no address.
    NoBrokers,
    /// A bound client has no endpoint at all: the view of the client where [`Kind::NoBrokers`] is the service's.
    NoEndpoints,
    /// Binding the name failed.
    NamingFailed,
    /// Reading a name's addresses failed because a line of its file is malformed.
    MalformedAddress,
    /// Binding took longer than `bindingTimeoutMs`.
    BindingTimeout,
    /// No connection to an endpoint could be made.
    ConnectFailed,
    /// An endpoint was skipped because it failed a moment ago (`failFast`).
    FailedFast,
    /// The pool of an endpoint has as many waiters as it may.
    TooManyWaiters,
    /// The service's `totalTimeoutMs` passed.
    TotalTimeout,
    /// An attempt took longer than `requestAttemptTimeoutMs`, or a server's `timeoutMs` passed.
    IndividualTimeout,
    /// The attempt was given up because a time-out above it fired.
    Interrupted,
    /// The requester went away.
    Cancelled,
    /// The endpoint closed or reset the connection before it answered, or while it did.
    ChannelClosed,
    /// The endpoint's answer is not HTTP, or beyond the limits.
    BadResponse,
    /// The request was never written to the endpoint.
    WriteFailed,
    /// The endpoint refused the request unprocessed (a nack).
    Nacked,
    /// A nacked request was given up.
    NackedForGood,
    /// The server has as many requests in flight as it may (`maxConcurrentRequests`).
    Rejected,
    /// The client throttles itself because its endpoints nack.
    AdmissionDropped,
    /// The message's framing contradicts itself.
    Framing,
    /// The requester broke its body off, or framed it wrongly, while it was being forwarded.
    BrokenRequest,
    /// Anything else.
    Other,
}

impl Kind {
    /// The class chain under which Linkerd 1 counts this failure, outermost first.
    pub fn chain(self) -> &'static [&'static str] {
        match self {
            Self::Unidentified => &["io.buoyant.router.RoutingFactory$UnknownDst"],
            Self::BadDtab => &["java.lang.IllegalArgumentException"],
            Self::CallDepth => &["io.buoyant.router.http.MaxCallDepthFilter$MaxCallDepthExceeded"],
            Self::NoBrokers => &["com.twitter.finagle.naming.buoyant.RichNoBrokersAvailableException"],
            Self::NoEndpoints => &["com.twitter.finagle.NoBrokersAvailableException"],
            Self::NamingFailed => &["java.lang.IllegalArgumentException"],
            Self::MalformedAddress => &["io.buoyant.namer.fs.WatchingNamer$MalformedAddress"],
            Self::BindingTimeout => &["com.twitter.finagle.naming.buoyant.DynBoundTimeoutException"],
            Self::ConnectFailed => &["com.twitter.finagle.naming.buoyant.RichConnectionFailedExceptionWithPath"],
            Self::FailedFast => &[
                "com.twitter.finagle.FailedFastException",
                "com.twitter.finagle.Failure",
                "com.twitter.finagle.ConnectionFailedException",
            ],
            Self::TooManyWaiters => &["com.twitter.finagle.TooManyWaitersException"],
            Self::TotalTimeout => &["com.twitter.finagle.GlobalRequestTimeoutException"],
            Self::IndividualTimeout => &["com.twitter.finagle.IndividualRequestTimeoutException"],
            Self::Interrupted => &["com.twitter.util.TimeoutException"],
            Self::Cancelled => &["com.twitter.finagle.CancelledRequestException"],
            Self::ChannelClosed => &["com.twitter.finagle.ChannelClosedException"],
            Self::BadResponse => &["com.twitter.finagle.UnknownChannelException", "java.lang.IllegalArgumentException"],
            Self::WriteFailed => &["com.twitter.finagle.ChannelWriteException"],
            Self::Nacked | Self::NackedForGood => &["com.twitter.finagle.Failure"],
            Self::Rejected => &["com.twitter.finagle.Failure", "java.util.concurrent.RejectedExecutionException"],
            Self::AdmissionDropped => &["com.twitter.finagle.Failure"],
            Self::BrokenRequest => &["com.twitter.finagle.CancelledRequestException"],
            Self::Framing => &["com.twitter.finagle.http.filter.HttpFramingFilter$FramingException"],
            Self::Other => &["java.lang.Exception"],
        }
    }

    /// The Finagle failure flags under which it is counted as well, in Finagle's order. Empty for plain exceptions.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::ConnectFailed | Self::WriteFailed => &["restartable"],
            Self::Nacked | Self::Rejected => &["restartable", "rejected"],
            Self::NackedForGood | Self::AdmissionDropped => &["rejected", "nonretryable"],
            _ => &[],
        }
    }
}

/// Why one request did not get an answer from an endpoint.
///
/// `Display` prints [`Error::message`].
#[derive(Clone, Debug)]
pub struct Error {
    /// What happened.
    pub kind: Kind,
    /// The whole text for the requester: response body and `l5d-err`.
    pub message: String,
    /// The label of the client (or server) in which it happened; `None` where Linkerd names none. Counted as
    /// `sourcedfailures/<label>`.
    pub source: Option<Arc<str>>,
    /// Whether nothing of the request reached an endpoint, so that sending it again is safe.
    pub safe_to_retry: bool,
}

impl Error {
    /// An error of `kind` that names no source and is not safe to retry.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, safe_to_retry: false }
    }

    /// The same error, as having happened in the client or server labelled `source`.
    #[must_use]
    pub fn from_source(mut self, source: &Arc<str>) -> Self {
        self.source = Some(Arc::clone(source));
        self
    }

    /// The same error, marked as safe to send again.
    #[must_use]
    pub fn retry_safely(mut self) -> Self {
        self.safe_to_retry = true;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The modern face counts a failure with flags by its cause once: beneath the one of these two that it has.
    #[test]
    fn what_has_flags_may_be_sent_again_or_not() {
        let flagged = [
            Kind::ConnectFailed,
            Kind::WriteFailed,
            Kind::Nacked,
            Kind::Rejected,
            Kind::NackedForGood,
            Kind::AdmissionDropped,
        ];
        for kind in flagged {
            let either = kind.flags().iter().filter(|flag| matches!(**flag, "restartable" | "nonretryable")).count();
            assert_eq!(either, 1, "{kind:?}");
        }
    }
}
