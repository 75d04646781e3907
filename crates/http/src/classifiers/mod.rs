//! Response classifiers: which results count as failures, and which of those may be sent again (http-behaviour §10.1).
//!
//! The five kinds differ only in a set of methods, so they are one table of small files' worth: each a constant.
//! Two rules hold for all of them and live in the path stack: `l5d-retryable`, and streamed requests.

use http::Method;
use l5d_config::{Cx, Fields, Kind, Node};
use l5d_router::{
    classify::Class,
    error::{Error, Kind as ErrorKind},
};

use crate::codec::Response;

/// Judges results.
pub trait Classifier: Send + Sync + std::fmt::Debug {
    /// The verdict over one result of a request with this method.
    fn class(&self, method: &Method, result: &Result<&Response, &Error>) -> Class;
}

/// A section that has been read.
pub trait ClassifierConfig: Send + Sync + std::fmt::Debug {
    /// The classifier that it asks for.
    fn build(&self) -> std::sync::Arc<dyn Classifier>;
}

/// Every classifier that `service.responseClassifier` may name.
pub static CLASSIFIERS: &[&Kind<dyn ClassifierConfig>] = &[
    &Kind {
        id: "io.l5d.http.nonRetryable5XX",
        experimental: false,
        summary: "5xx and exceptions are failures, none is retried",
        example: "kind: io.l5d.http.nonRetryable5XX",
        parse: |node, cx| parse(node, cx, Retryable::NONE),
    },
    &Kind {
        id: "io.l5d.http.retryableRead5XX",
        experimental: false,
        summary: "failures of GET, HEAD, OPTIONS and TRACE are retried",
        example: "kind: io.l5d.http.retryableRead5XX",
        parse: |node, cx| parse(node, cx, Retryable::READ),
    },
    &Kind {
        id: "io.l5d.http.retryableIdempotent5XX",
        experimental: false,
        summary: "failures of the reads, PUT and DELETE are retried",
        example: "kind: io.l5d.http.retryableIdempotent5XX",
        parse: |node, cx| parse(node, cx, Retryable::IDEMPOTENT),
    },
    &Kind {
        id: "io.l5d.http.retryableAll5XX",
        experimental: false,
        summary: "failures of every method but CONNECT are retried",
        example: "kind: io.l5d.http.retryableAll5XX",
        parse: |node, cx| parse(node, cx, Retryable::ALL),
    },
    &Kind {
        id: "io.l5d.http.allSuccessful",
        experimental: false,
        summary: "every response is a success",
        example: "kind: io.l5d.http.allSuccessful",
        parse: |node, cx| {
            let mut f = Fields::of(node, cx)?;
            f.skip_kind();
            f.finish(cx);
            Some(Box::new(AllSuccessful))
        },
    },
];

/// The classifier of a service without a `responseClassifier`.
pub(crate) fn default() -> std::sync::Arc<dyn Classifier> {
    std::sync::Arc::new(Retryable::NONE)
}

fn parse(node: &Node, cx: &mut Cx, kind: Retryable) -> Option<Box<dyn ClassifierConfig>> {
    let mut f = Fields::of(node, cx)?;
    f.skip_kind();
    f.finish(cx);
    Some(Box::new(kind))
}

/// 5xx and errors are failures; those of the methods listed may be retried.
#[derive(Clone, Copy, Debug)]
struct Retryable(&'static [Method]);

impl Retryable {
    const NONE: Self = Self(&[]);
    const READ: Self = Self(&[Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE]);
    const IDEMPOTENT: Self =
        Self(&[Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE]);
    const ALL: Self = Self(&[
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
        Method::POST,
        Method::PATCH,
    ]);
}

impl Classifier for Retryable {
    fn class(&self, method: &Method, result: &Result<&Response, &Error>) -> Class {
        let retryable = match result {
            Ok(response) if !response.status.is_server_error() => return Class::Success,
            Ok(_) => true,
            Err(e) => {
                e.safe_to_retry
                    || matches!(
                        e.kind,
                        ErrorKind::IndividualTimeout
                            | ErrorKind::WriteFailed
                            | ErrorKind::ConnectFailed
                            | ErrorKind::ChannelClosed
                            | ErrorKind::Framing
                    )
            }
        };
        Class::Failure { retryable: retryable && self.0.contains(method) }
    }
}

impl ClassifierConfig for Retryable {
    fn build(&self) -> std::sync::Arc<dyn Classifier> {
        std::sync::Arc::new(*self)
    }
}

/// Every response is a success; errors still fail.
#[derive(Clone, Copy, Debug)]
struct AllSuccessful;

impl Classifier for AllSuccessful {
    fn class(&self, _: &Method, result: &Result<&Response, &Error>) -> Class {
        if result.is_ok() { Class::Success } else { Class::FAILURE }
    }
}

impl ClassifierConfig for AllSuccessful {
    fn build(&self) -> std::sync::Arc<dyn Classifier> {
        std::sync::Arc::new(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(kind: &dyn Classifier, method: Method, status: u16) -> Class {
        let response = Response::new(status.try_into().unwrap(), crate::Body::empty());
        kind.class(&method, &Ok(&response))
    }

    #[test]
    fn each_kind_retries_its_methods() {
        for (kind, retried, not) in [
            (Retryable::NONE, vec![], vec![Method::GET, Method::POST]),
            (Retryable::READ, vec![Method::GET, Method::HEAD], vec![Method::PUT, Method::POST]),
            (Retryable::IDEMPOTENT, vec![Method::PUT, Method::DELETE], vec![Method::POST, Method::PATCH]),
            (Retryable::ALL, vec![Method::POST, Method::PATCH], vec![Method::CONNECT]),
        ] {
            for m in retried {
                assert_eq!(class(&kind, m, 503), Class::RETRYABLE);
            }
            for m in not {
                assert_eq!(class(&kind, m.clone(), 500), Class::FAILURE);
                assert_eq!(class(&kind, m, 499), Class::Success);
            }
        }
        assert_eq!(class(&AllSuccessful, Method::GET, 500), Class::Success);
    }
}
