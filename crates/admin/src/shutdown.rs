//! `/admin/shutdown`: a POST ends the process, as SIGTERM does, unless a page of another origin sends it.

use std::sync::Arc;
use std::time::Duration;

use http::header::ALLOW;
use http::{HeaderValue, Method, StatusCode};
use tracing::info;

use crate::{Handler, Request, Response, parse_duration};

/// Told once per request to shut down; the grace is the one asked for, `None` for the configured one. It must return at
/// once: the answer is sent after it.
pub type Shutdown = Arc<dyn Fn(Option<Duration>) + Send + Sync>;

pub(crate) fn handler(shutdown: Shutdown) -> Handler {
    Handler::of("/admin/shutdown", move |request| serve(request, &shutdown))
}

fn serve(request: &Request, shutdown: &Shutdown) -> Response {
    if request.method != Method::POST {
        return Response::text("")
            .with_status(StatusCode::METHOD_NOT_ALLOWED)
            .with_header(ALLOW, HeaderValue::from_static("POST"));
    }
    if !request.is_of_this_origin() {
        return Response::empty(StatusCode::FORBIDDEN);
    }
    let grace = match request.param("grace") {
        None => None,
        Some(text) => match parse_duration(&text) {
            Some(grace) => Some(grace),
            None => {
                return Response::text(format!("could not parse 'grace' parameter: {text} is not a valid duration"))
                    .with_status(StatusCode::BAD_REQUEST);
            }
        },
    };
    info!(?grace, "shutdown asked for on the admin port");
    shutdown(grace);
    Response::text("quitting\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::request;
    use crate::response::Body;
    use std::sync::Mutex;

    #[test]
    fn only_a_post_with_a_readable_grace_shuts_down() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let shutdown: Shutdown = Arc::new({
            let told = Arc::clone(&told);
            move |grace| told.lock().unwrap().push(grace)
        });
        let ask = |method, uri| {
            let response = serve(&request(method, uri), &shutdown);
            let Body::Full(body) = response.body else { panic!("a page") };
            (response.status.as_u16(), String::from_utf8(body.to_vec()).unwrap(), response.headers)
        };
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
            let (status, body, headers) = ask(method, "/admin/shutdown");
            assert_eq!((status, body.as_str()), (405, ""));
            assert_eq!(headers[ALLOW], "POST");
        }
        let (status, body, _) = ask(Method::POST, "/admin/shutdown?grace=x");
        assert_eq!((status, body.as_str()), (400, "could not parse 'grace' parameter: x is not a valid duration"));
        assert!(told.lock().unwrap().is_empty());

        assert_eq!(ask(Method::POST, "/admin/shutdown").1, "quitting\n");
        assert_eq!(ask(Method::POST, "/admin/shutdown?grace=5.seconds").0, 200);
        assert_eq!(*told.lock().unwrap(), [None, Some(Duration::from_secs(5))]);
    }
}
