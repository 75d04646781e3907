//! Finding the page of a path.

use std::collections::BTreeMap;

use crate::Handler;

/// The pages of a server.
#[derive(Debug)]
pub(crate) struct Pages {
    exact: BTreeMap<String, Handler>,
    /// Those that end in `/`, the longest first.
    prefixes: Vec<Handler>,
}

impl Pages {
    /// Of two handlers with the same path the later one is used.
    pub(crate) fn new(handlers: Vec<Handler>) -> Self {
        let by_path: BTreeMap<_, _> = handlers.into_iter().map(|handler| (handler.path.clone(), handler)).collect();
        let (prefixes, exact): (BTreeMap<_, _>, BTreeMap<_, _>) =
            by_path.into_iter().partition(|(path, _)| path.ends_with('/'));
        let mut prefixes: Vec<Handler> = prefixes.into_values().collect();
        prefixes.sort_by_key(|handler| std::cmp::Reverse(handler.path.len()));
        Self { exact, prefixes }
    }

    /// The page of a path. A whole path is longer than any prefix of it.
    pub(crate) fn find(&self, path: &str) -> Option<&Handler> {
        self.exact.get(path).or_else(|| self.prefixes.iter().find(|handler| path.starts_with(&handler.path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Response;

    fn handler(path: &str) -> Handler {
        Handler::of(path, |_| Response::not_found())
    }

    #[test]
    fn the_longest_pattern_wins_and_a_trailing_slash_is_a_prefix() {
        let paths = ["/files/", "/files/css/", "/files/css/x", "/admin/ping", "/a"];
        let pages = Pages::new(paths.map(handler).into());
        let found = |path| pages.find(path).map(|handler| handler.path.as_str());
        assert_eq!(found("/files/js/a"), Some("/files/"));
        assert_eq!(found("/files/css/a"), Some("/files/css/"));
        assert_eq!(found("/files/css/x"), Some("/files/css/x"));
        assert_eq!(found("/files/css/xy"), Some("/files/css/"));
        assert_eq!(found("/files/"), Some("/files/"));
        assert_eq!(found("/files"), None);
        assert_eq!(found("/admin/ping"), Some("/admin/ping"));
        assert_eq!(found("/admin/ping/"), None);
        assert_eq!(found("/ab"), None);
        assert_eq!(found("/"), None);
        assert_eq!(found(""), None);
        let pages = Pages::new(["/", "/a"].map(handler).into());
        assert_eq!(pages.find("/a").unwrap().path, "/a");
        assert_eq!(pages.find("/ab").unwrap().path, "/");
    }

    #[test]
    fn of_two_pages_with_one_path_the_later_one_is_used() {
        for path in ["/a", "/a/"] {
            let pages = Pages::new(vec![handler(path), handler(path).in_nav("second")]);
            assert_eq!(pages.find(path).unwrap().nav.as_ref().unwrap().name, "second");
        }
    }
}
