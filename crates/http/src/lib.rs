//! HTTP/1.1 on top of the router: servers, clients, and the four stacks between them.
//!
//! [`HttpRouter::build`] makes a router from its configuration, with one [`HttpServer`] for each of its `servers`; each
//! worker thread then serves those on its own runtime. A request goes down `stack/server.rs`, `stack/path.rs`,
//! `stack/bound.rs` and `stack/client.rs`, and its response comes back up; each of these files lists its layers in order.

mod binding;
mod body;
mod classifiers;
mod client;
mod codec;
pub mod config;
mod ctx;
mod duration;
mod filters;
mod headers;
mod identifiers;
mod io;
mod propagators;
mod respond;
mod router;
mod scopes;
mod server;
mod settings;
mod spans;
mod stack;
mod stats;
mod view;

pub use body::Body;
pub use classifiers::{CLASSIFIERS, Classifier, ClassifierConfig};
pub use codec::{Headers, RequestHead, Response, Target};
pub use ctx::{Ctx, Deadline};
pub use filters::access_log::AccessLog;
pub use identifiers::{FirstOf, IDENTIFIERS, Identification, Identifier, IdentifierConfig};
pub use propagators::{PROPAGATORS, Propagator, PropagatorConfig};
pub use router::{HttpRouter, RouterContext, RouterError, RouterPlugins};
pub use server::HttpServer;
pub use view::{ClientView, EndpointState, EndpointView};
