//! A page of the admin server: where it is, how it shows in the navigation, what it answers.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::Method;
use l5d_telemetry::Page;

use crate::{Request, Response};

/// A future that can be kept and sent.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A page. `path` is matched as it is; ending in `/` it is a prefix. The longest match wins, of two with the same path the one
/// given later.
#[derive(Clone)]
pub struct Handler {
    /// Where the page is.
    pub path: String,
    /// Its entry in the navigation, if it has one.
    pub nav: Option<NavItem>,
    /// For a page of metrics the type that its errors have as well. Scrapers refuse an answer without a type, so that one
    /// would hide what is wrong.
    pub metrics: Option<&'static str>,
    /// For a page of metrics what it is called in `telemetry/faces`, where the server says what its pages cost.
    pub face: Option<&'static str>,
    /// Answers a request. HEAD arrives as such and may be answered as GET: the body is cut off by the server.
    pub serve: Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>,
}

/// An entry of the navigation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NavItem {
    /// What it says.
    pub name: String,
    /// Where it leads.
    pub url: String,
}

impl Handler {
    /// A page that takes its time.
    pub fn new<F, R>(path: impl Into<String>, serve: F) -> Self
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        Self {
            path: path.into(),
            nav: None,
            metrics: None,
            face: None,
            serve: Arc::new(move |request| Box::pin(serve(request))),
        }
    }

    /// A page that answers at once.
    pub fn of(path: impl Into<String>, serve: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::new(path, move |request| std::future::ready(serve(&request)))
    }

    /// A page of metrics: GET and HEAD only, never cached, written while it is sent.
    pub fn metrics(
        path: impl Into<String>,
        content_type: &'static str,
        page: impl Fn(&Request) -> Box<dyn Page> + Send + Sync + 'static,
    ) -> Self {
        Self::metrics_of(path, content_type, move |request| Response::page(content_type, page(request)))
    }

    /// A page of metrics whose answers have more than one type: `content_type` is that of an answer that says nothing.
    pub fn metrics_of(
        path: impl Into<String>,
        content_type: &'static str,
        serve: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let page = Self::of(path, move |request| {
            if request.method != Method::GET && request.method != Method::HEAD {
                return Response::method_not_allowed("GET, HEAD");
            }
            serve(request)
        });
        Self { metrics: Some(content_type), ..page }
    }

    /// The same page, measured under `telemetry/faces` by this name.
    #[must_use]
    pub fn as_face(mut self, face: &'static str) -> Self {
        self.face = Some(face);
        self
    }

    /// The same page with an entry in the navigation.
    #[must_use]
    pub fn in_nav(mut self, name: impl Into<String>) -> Self {
        self.nav = Some(NavItem { name: name.into(), url: self.path.clone() });
        self
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("path", &self.path).field("nav", &self.nav).finish_non_exhaustive()
    }
}
