//! TRACE as a question to the proxies on the way: who routes this name, how, and where to (http-behaviour §13.5).
//!
//! `Max-Forwards` says how many proxies may still pass it on; the one that may not answers itself, once it has a
//! connection. `l5d-add-context` asks every proxy on the way for a block about itself behind the body. Only people send
//! such requests, so nothing here is quick.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use l5d_naming::{DelegateNode, DelegateTree, Dtab, Interpreter, Path};
use tokio::time::Instant;

use crate::{
    body::Body,
    codec::{Headers, RequestHead, Response},
    headers::{self, CONTENT_LENGTH, MAX_FORWARDS, TRANSFER_ENCODING},
};

/// How long the explanation of a name may take.
const LIMIT: Duration = Duration::from_secs(2);

/// What a TRACE asks.
#[derive(Debug)]
pub(crate) struct Question {
    forwards: Forwards,
    context: bool,
    asked: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Forwards {
    /// Nothing is said of it.
    Any,
    /// So many proxies may pass it on, this one among them.
    Left(i32),
    /// This one may not.
    None,
    /// It is no number.
    Unreadable,
}

impl Question {
    /// The question of a request, if it is one.
    pub(crate) fn of(head: &RequestHead) -> Option<Self> {
        if head.method != Method::TRACE {
            return None;
        }
        let forwards =
            match head.headers.get(MAX_FORWARDS).map(|value| std::str::from_utf8(value).ok()?.parse::<i32>().ok()) {
                None => Forwards::Any,
                Some(Some(0)) => Forwards::None,
                Some(Some(left)) if left > 0 => Forwards::Left(left),
                Some(_) => Forwards::Unreadable,
            };
        let wanted = |value: &[u8]| value.eq_ignore_ascii_case(b"true") || value == b"1";
        let context = head.headers.get(headers::ADD_CONTEXT).is_some_and(wanted);
        Some(Self { forwards, context, asked: Instant::now() })
    }

    /// The answer of this proxy, where the question is not to be passed on.
    pub(crate) fn answer(&self) -> Option<Response> {
        let (status, text) = match self.forwards {
            Forwards::Any | Forwards::Left(_) => return None,
            Forwards::None => (StatusCode::OK, ""),
            Forwards::Unreadable => (StatusCode::BAD_REQUEST, "Invalid value for Max-Forwards header"),
        };
        let mut response = Response::new(status, Body::full(Bytes::from_static(text.as_bytes())));
        response.headers.add(CONTENT_LENGTH, text.len().to_string());
        Some(response)
    }

    /// Takes one off the number of proxies that may still pass it on.
    pub(crate) fn count_down(&self, headers: &mut Headers) {
        if let Forwards::Left(left) = self.forwards {
            headers.set(MAX_FORWARDS, (left - 1).to_string());
        }
    }

    /// Whether the response is to have this proxy's block.
    pub(crate) fn wants_context(&self) -> bool {
        self.context && self.forwards != Forwards::Unreadable
    }
}

/// What was chosen for the request.
pub(crate) struct Chosen<'a> {
    pub(crate) service: &'a Path,
    pub(crate) local_dtab: &'a Dtab,
    pub(crate) client: &'a Path,
    pub(crate) addresses: &'a [Arc<str>],
    pub(crate) selected: &'a str,
}

/// What a router tells of itself.
pub(crate) struct DiagnosticTrace {
    pub(crate) router: Arc<str>,
    pub(crate) interpreter: Arc<dyn Interpreter>,
    pub(crate) base_dtab: Arc<Dtab>,
}

impl DiagnosticTrace {
    /// Puts this router's block behind the body of the response.
    pub(crate) async fn append(&self, question: &Question, chosen: &Chosen<'_>, response: &mut Response) {
        let mut text = match response.body.as_full() {
            Some(bytes) => bytes.to_vec(),
            None => discarded(response).into_bytes(),
        };
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.push(b'\n');
        text.extend_from_slice(self.block(question, chosen).await.as_bytes());
        response.headers.remove(TRANSFER_ENCODING);
        response.headers.set(CONTENT_LENGTH, text.len().to_string());
        response.body = Body::full(Bytes::from(text));
    }

    async fn block(&self, question: &Question, chosen: &Chosen<'_>) -> String {
        let steps = self.steps(chosen).await;
        format!(
            "--- Router: {} ---\nrequest duration: {} ms\nservice name: {}\nclient name: {}\naddresses: [{}]\n\
             selected address: {}\ndtab resolution:\n{steps}",
            self.router,
            question.asked.elapsed().as_millis(),
            chosen.service,
            chosen.client,
            chosen.addresses.join(", "),
            chosen.selected,
        )
    }

    /// How the service's name became the client's, a line each.
    async fn steps(&self, chosen: &Chosen<'_>) -> String {
        let dtab = self.base_dtab.concat(chosen.local_dtab);
        let Some(delegator) = self.interpreter.delegator() else { return "  (unknown)\n".to_owned() };
        match tokio::time::timeout(LIMIT, delegator.delegate(&dtab, chosen.service)).await {
            Ok(Ok(tree)) => {
                let mut steps = Vec::new();
                if !find(&tree, chosen.client, &mut steps) {
                    return format!("  {} (bound to {} no more)\n", chosen.service, chosen.client);
                }
                steps.iter().fold(String::new(), |mut text, step| {
                    let _ = writeln!(text, "  {step}");
                    text
                })
            }
            Ok(Err(why)) => format!("  ({why})\n"),
            Err(_) => format!("  (not known within {} s)\n", LIMIT.as_secs()),
        }
    }
}

/// What stands for a body that is not held: it is dropped, which ends its exchange.
fn discarded(response: &Response) -> String {
    let mut text = String::new();
    for (name, value) in response.headers.iter() {
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value));
    }
    let status = response.status;
    let _ = write!(
        text,
        "\nHTTP {} - {}\nDiagnostic trace encountered chunked response. Response content discarded.",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    );
    text
}

/// The steps to the first leaf that is this client; false if there is none.
fn find(tree: &DelegateTree, client: &Path, steps: &mut Vec<String>) -> bool {
    steps.push(match &tree.dentry {
        None => tree.path.to_string(),
        Some(dentry) => format!("{} ({dentry})", tree.path),
    });
    let found = match &tree.node {
        DelegateNode::Leaf(bound) => bound.id == *client,
        DelegateNode::Delegate(inner) | DelegateNode::Transformation { tree: inner, .. } => find(inner, client, steps),
        DelegateNode::Alt(trees) => trees.iter().any(|tree| find(tree, client, steps)),
        DelegateNode::Union(trees) => trees.iter().any(|(_, tree)| find(tree, client, steps)),
        DelegateNode::Neg | DelegateNode::Fail | DelegateNode::Empty | DelegateNode::Exception(_) => false,
    };
    if !found {
        steps.pop();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, headers: &[(&str, &str)]) -> Option<Question> {
        Question::of(&RequestHead::of(method, "/", headers))
    }

    #[test]
    fn only_a_trace_is_a_question() {
        assert!(asked("GET", &[("max-forwards", "0")]).is_none());
        assert!(asked("TRACE", &[]).is_some_and(|question| question.answer().is_none() && !question.wants_context()));
    }

    #[test]
    fn max_forwards_says_who_answers() {
        for (value, answer) in [("0", Some(200)), ("1", None), ("x", Some(400)), ("", Some(400)), ("-1", Some(400))] {
            let question = asked("TRACE", &[("max-forwards", value)]).unwrap();
            assert_eq!(question.answer().map(|response| response.status.as_u16()), answer, "{value:?}");
        }
        let mut headers = Headers::new();
        asked("TRACE", &[("max-forwards", "5")]).unwrap().count_down(&mut headers);
        assert_eq!(headers.text(MAX_FORWARDS), Some("4"));
    }

    #[test]
    fn context_is_wanted_by_true_or_1() {
        for (value, wanted) in [("true", true), ("1", true), ("True", true), ("yes", false), ("", false), ("0", false)]
        {
            assert_eq!(asked("TRACE", &[("l5d-add-context", value)]).unwrap().wants_context(), wanted, "{value:?}");
        }
    }

    #[test]
    fn the_way_to_the_client_is_found_among_others() {
        use l5d_naming::{Addr, BoundLeaf};
        let path = |text: &str| Path::read(text).unwrap();
        let leaf = |id: &str| {
            let bound = BoundLeaf { addr: Addr::Neg, id: path(id), path: Path::empty() };
            DelegateTree::new(path(id), None, DelegateNode::Leaf(bound))
        };
        let neg = DelegateTree::new(path("/n"), None, DelegateNode::Neg);
        let union =
            DelegateTree::new(path("/u"), None, DelegateNode::Union(vec![(1.0, leaf("/a")), (1.0, leaf("/b"))]));
        let tree = DelegateTree::new(path("/svc/x"), None, DelegateNode::Alt(vec![neg, union]));
        let mut steps = Vec::new();
        assert!(find(&tree, &path("/b"), &mut steps));
        assert_eq!(steps, ["/svc/x", "/u", "/b"]);
        steps.clear();
        assert!(!find(&tree, &path("/c"), &mut steps) && steps.is_empty());
    }
}
