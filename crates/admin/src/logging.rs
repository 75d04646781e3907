//! `/logging.json`: shows and changes the levels of the loggers.
//!
//! What loggers there are, and what a level does, is the binary's affair. Setting an unknown logger or level is answered with
//! 200, as Linkerd 1 does; the log says that nothing came of it. A page of another origin can't set any (Linkerd 1 let it).

use std::sync::Arc;

use http::{Method, StatusCode};
use tracing::{info, warn};

use crate::index::json_string;
use crate::{Handler, Request, Response};

/// The loggers of the process.
pub trait LogLevels: Send + Sync {
    /// Each logger with its level, in any order.
    fn list(&self) -> Vec<(String, String)>;

    /// Sets a logger's level; an error says why it can't be.
    fn set(&self, logger: &str, level: &str) -> Result<(), String>;
}

pub(crate) fn handler(levels: Arc<dyn LogLevels>) -> Handler {
    Handler::of("/logging.json", move |request| serve(request, &*levels))
}

fn serve(request: &Request, levels: &dyn LogLevels) -> Response {
    match request.method {
        Method::GET | Method::HEAD => Response::json(list(levels)),
        Method::POST if !request.is_of_this_origin() => Response::empty(StatusCode::FORBIDDEN),
        Method::POST => match (request.param("logger"), request.param("level")) {
            (Some(logger), Some(level)) => {
                match levels.set(&logger, &level) {
                    Ok(()) => info!(%logger, %level, "log level set on the admin port"),
                    Err(error) => warn!(%logger, %level, %error, "log level not set"),
                }
                Response::empty(StatusCode::OK)
            }
            _ => Response::empty(StatusCode::BAD_REQUEST),
        },
        _ => Response::method_not_allowed("GET, HEAD, POST"),
    }
}

/// `[{"logger":"root","level":"INFO"},…]`, the root first and the others by name.
fn list(levels: &dyn LogLevels) -> String {
    let mut all = levels.list();
    all.sort_by(|(a, _), (b, _)| (a != "root", a).cmp(&(b != "root", b)));
    let entries: Vec<String> = all
        .iter()
        .map(|(logger, level)| format!("{{\"logger\":{},\"level\":{}}}", json_string(logger), json_string(level)))
        .collect();
    format!("[{}]", entries.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::request;
    use crate::response::Body;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    struct Levels(Mutex<BTreeMap<String, String>>);

    impl LogLevels for Levels {
        fn list(&self) -> Vec<(String, String)> {
            self.0.lock().unwrap().clone().into_iter().collect()
        }

        fn set(&self, logger: &str, level: &str) -> Result<(), String> {
            match self.0.lock().unwrap().get_mut(logger) {
                Some(current) => *current = level.to_owned(),
                None => return Err("no such logger".to_owned()),
            }
            Ok(())
        }
    }

    fn ask(levels: &Levels, method: Method, uri: &str) -> (u16, String) {
        let response = serve(&request(method, uri), levels);
        let Body::Full(body) = response.body else { panic!("a page") };
        (response.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn levels_are_listed_and_set() {
        let pairs = [("l5d_admin", "INFO"), ("root", "INFO"), ("a\"b", "WARNING")];
        let levels = Levels(Mutex::new(pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).into()));
        assert_eq!(
            ask(&levels, Method::GET, "/logging.json").1,
            r#"[{"logger":"root","level":"INFO"},{"logger":"a\"b","level":"WARNING"},{"logger":"l5d_admin","level":"INFO"}]"#
        );
        let post = |uri| ask(&levels, Method::POST, uri);
        assert_eq!(post("/logging.json?logger=root&level=DEBUG"), (200, String::new()));
        assert_eq!(levels.0.lock().unwrap()["root"], "DEBUG");
        assert_eq!(post("/logging.json?logger=nope&level=DEBUG"), (200, String::new()));
        assert_eq!(post("/logging.json?logger=root"), (400, String::new()));
        assert_eq!(post("/logging.json?level=INFO"), (400, String::new()));
        assert_eq!(ask(&levels, Method::PUT, "/logging.json?logger=root&level=INFO").0, 405);
        let mut foreign = request(Method::POST, "/logging.json?logger=root&level=INFO");
        foreign.headers.insert("origin", "http://elsewhere".parse().unwrap());
        assert_eq!(serve(&foreign, &levels).status, 403);
        assert_eq!(levels.0.lock().unwrap()["root"], "DEBUG");
    }
}
