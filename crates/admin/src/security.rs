//! `admin.security`: which pages are served at all.
//!
//! Each path belongs to one of three categories that can be switched off. A path on the black list is refused whatever its
//! category; one on the white list is served although its category is off. The lists hold regular expressions for the whole
//! path. The path is the one that handlers are matched against, so no spelling of a path has another category than its page.

use regex::Regex;

/// `admin.security` as configured. The default, all categories on and no lists, refuses nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityConfig {
    /// `uiEnabled`: what people look at, and `/admin/metrics.json`.
    pub ui_enabled: bool,
    /// `controlEnabled`: what changes the process.
    pub control_enabled: bool,
    /// `diagnosticsEnabled`: everything else, the pages of the telemeters among it.
    pub diagnostics_enabled: bool,
    /// `pathWhitelist`: served even if their category is off.
    pub path_whitelist: Vec<String>,
    /// `pathBlacklist`: never served.
    pub path_blacklist: Vec<String>,
}

impl Default for SecurityConfig {
    fn default() -> Self {
        Self {
            ui_enabled: true,
            control_enabled: true,
            diagnostics_enabled: true,
            path_whitelist: Vec::new(),
            path_blacklist: Vec::new(),
        }
    }
}

/// A list entry that is no regular expression.
#[derive(Debug)]
pub struct BadPattern {
    /// The entry.
    pub pattern: String,
    /// What is wrong with it.
    pub why: String,
}

impl std::fmt::Display for BadPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\" is not a regular expression: {}", self.pattern, self.why)
    }
}

impl std::error::Error for BadPattern {}

/// Decides which paths are served.
#[derive(Clone, Debug)]
pub struct Security {
    config: SecurityConfig,
    white: Vec<Regex>,
    black: Vec<Regex>,
}

impl Security {
    /// Compiles the lists.
    pub fn new(config: SecurityConfig) -> Result<Self, BadPattern> {
        let compile =
            |patterns: &[String]| patterns.iter().map(|pattern| whole(pattern)).collect::<Result<Vec<_>, _>>();
        let (white, black) = (compile(&config.path_whitelist)?, compile(&config.path_blacklist)?);
        Ok(Self { config, white, black })
    }

    /// Whether this path is served.
    pub fn allows(&self, path: &str) -> bool {
        let on = |list: &[Regex]| list.iter().any(|pattern| pattern.is_match(path));
        let enabled = match Category::of(path) {
            Category::Ui => self.config.ui_enabled,
            Category::Control => self.config.control_enabled,
            Category::Diagnostics => self.config.diagnostics_enabled,
        };
        !on(&self.black) && (enabled || on(&self.white))
    }
}

/// A pattern that must match from the beginning to the end.
fn whole(pattern: &str) -> Result<Regex, BadPattern> {
    // Alone first, so that the message shows what the user wrote, and `a)(b` can't pass by closing our group.
    let compiled = Regex::new(pattern).and_then(|_| Regex::new(&format!("^(?:{pattern})$")));
    compiled.map_err(|error| {
        let text = error.to_string();
        let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        BadPattern { pattern: pattern.to_owned(), why }
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Category {
    Ui,
    Control,
    Diagnostics,
}

impl Category {
    /// The table of Linkerd 1.
    fn of(path: &str) -> Self {
        match path {
            "/"
            | "/config.json"
            | "/metrics.json"
            | "/admin/metrics.json"
            | "/admin/metrics"
            | "/delegator"
            | "/delegator.json"
            | "/logging"
            | "/help" => Self::Ui,
            // What Linkerd 1 did not have.
            "/services"
            | "/service"
            | "/client"
            | "/server"
            | "/traffic"
            | "/config"
            | "/favicon.ico"
            | "/clients.json"
            | "/admin/history.json"
            | "/admin/scopes.json"
            | "/admin/scope.json"
            | "/admin/names.json"
            | "/admin/grafana.json" => Self::Ui,
            "/admin/shutdown" | "/logging.json" => Self::Control,
            _ if path.starts_with("/files/") || path.starts_with("/admin/files/") => Self::Ui,
            _ => Self::Diagnostics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(change: impl FnOnce(&mut SecurityConfig)) -> Security {
        let mut config = SecurityConfig::default();
        change(&mut config);
        Security::new(config).unwrap()
    }

    #[test]
    fn by_default_everything_is_served() {
        let security = security(|_| {});
        for path in ["/", "/admin/shutdown", "/admin/metrics/prometheus", "/nope", ""] {
            assert!(security.allows(path), "{path}");
        }
    }

    #[test]
    fn each_category_has_its_switch() {
        let ui = security(|config| config.ui_enabled = false);
        let control = security(|config| config.control_enabled = false);
        let diagnostics = security(|config| config.diagnostics_enabled = false);
        for (path, category) in [
            ("/", Category::Ui),
            ("/files/css/dashboard.css", Category::Ui),
            ("/admin/files/x", Category::Ui),
            ("/admin/metrics.json", Category::Ui),
            ("/delegator.json", Category::Ui),
            ("/admin/history.json", Category::Ui),
            ("/service", Category::Ui),
            ("/admin/shutdown", Category::Control),
            ("/logging.json", Category::Control),
            ("/admin/metrics/prometheus", Category::Diagnostics),
            ("/admin/metrics/influxdb", Category::Diagnostics),
            ("/admin/ping", Category::Diagnostics),
            ("/requests", Category::Diagnostics),
            ("/files", Category::Diagnostics),
        ] {
            assert_eq!(ui.allows(path), category != Category::Ui, "{path}");
            assert_eq!(control.allows(path), category != Category::Control, "{path}");
            assert_eq!(diagnostics.allows(path), category != Category::Diagnostics, "{path}");
        }
    }

    #[test]
    fn lists_are_for_whole_paths_and_black_beats_white() {
        let security = security(|config| {
            config.diagnostics_enabled = false;
            config.path_whitelist = vec!["/admin/p.*".to_owned(), "^/requests$|/x".to_owned()];
            config.path_blacklist = vec!["/admin/ping2?".to_owned(), "/help".to_owned()];
        });
        assert!(security.allows("/admin/pprof/heap"));
        assert!(security.allows("/requests"));
        assert!(security.allows("/x"));
        assert!(!security.allows("/requests/more"));
        assert!(!security.allows("/z/x"));
        assert!(!security.allows("/admin/ping"));
        assert!(!security.allows("/help"));
        assert!(security.allows("/help/me/admin/ping") == security.allows("/other"));
    }

    #[test]
    fn a_bad_pattern_is_shown_as_written() {
        for pattern in ["*", "a)(b", "["] {
            let config = SecurityConfig { path_whitelist: vec![pattern.to_owned()], ..SecurityConfig::default() };
            let text = Security::new(config).unwrap_err().to_string();
            assert!(text.starts_with(&format!("\"{pattern}\" is not a regular expression: ")), "{text}");
            assert!(!text.contains('\n') && text.len() > 40, "{text}");
        }
    }
}
