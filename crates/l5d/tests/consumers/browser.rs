//! A real Chromium, driven over WebDriver by Debian's chromedriver, with a little of the DevTools protocol where WebDriver has
//! no word: dark mode, screen sizes, JavaScript switched off.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use l5d_testkit::{Downstream, Process, free_port, get, wait_for};
use serde_json::{Value, json};

use crate::programs::installed;

const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one window. Ends with this guard.
pub(crate) struct Browser {
    addr: SocketAddr,
    session: String,
    /// Its profile, beside the driver's output.
    _driver: Process,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) dark: bool,
}

impl Look {
    pub(crate) const WIDE: Self = Self { width: 1400, dark: false };

    /// `light`, `dark`, `phone-light` …
    fn name(self) -> String {
        let size = if self.width < 700 { "phone-" } else { "" };
        format!("{size}{}", if self.dark { "dark" } else { "light" })
    }
}

impl Browser {
    pub(crate) fn start() -> Self {
        let chromium = installed("chromium", "chromium");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = installed("chromedriver", "chromium");
        command.arg(format!("--port={}", addr.port()));
        let mut driver = Process::start("chromedriver", &mut command).expect("chromedriver starts");
        driver.wait_ready(PATIENCE, || get(addr, "localhost", "/status").is_ok_and(|reply| reply.status == 200));
        let profile = driver.dir().join("profile");
        let mut this = Self { addr, session: String::new(), _driver: driver };
        // No sandbox: tests run as root, in containers. Nothing is looked for outside: the name of no host is resolved.
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1".to_owned(),
            "--window-size=1400,1000".to_owned(),
            format!("--user-data-dir={}", profile.display()),
        ];
        let answer = this.call(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "browserName": "chrome",
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
                "goog:chromeOptions": {"binary": chromium.get_program().to_string_lossy(), "args": arguments},
            }}}),
        );
        this.session = format!("/session/{}", answer["sessionId"].as_str().expect("a session has an id"));
        this
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "POST" { body.to_string().into_bytes() } else { Vec::new() };
        let mut driver = Downstream::connect(self.addr).expect("the driver listens");
        let headers = [("host", "localhost"), ("content-type", "application/json"), ("connection", "close")];
        let reply = driver.request(method, path, &headers, &body).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        assert_eq!(reply.status, 200, "{method} {path}: {answer}");
        answer["value"].clone()
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("{}{path}", self.session), body)
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// Loads a page, and waits until it has been filled.
    pub(crate) fn open(&self, url: &str) {
        self.load(url);
        wait_for(&format!("{url} to be filled"), PATIENCE, || {
            (self.run("return document.body.dataset.ready") == "yes").then_some(())
        });
    }

    /// Loads a page, and waits for nothing more.
    pub(crate) fn load(&self, url: &str) {
        self.command("/url", &json!({"url": url}));
    }

    /// Runs a function's body, and returns what it returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text of the first element that a CSS selector finds; empty when there is none.
    pub(crate) fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({})?.innerText ?? ''", json!(selector));
        self.run(&script).as_str().unwrap_or_default().trim().to_owned()
    }

    /// The texts of all elements that it finds.
    pub(crate) fn texts(&self, selector: &str) -> Vec<String> {
        let script =
            format!("return [...document.querySelectorAll({})].map((e) => e.innerText.trim())", json!(selector));
        serde_json::from_value(self.run(&script)).expect("texts are strings")
    }

    /// Waits until a text of the page satisfies.
    pub(crate) fn wait_text(&self, selector: &str, wanted: impl Fn(&str) -> bool) -> String {
        wait_for(&format!("{selector} to say something else than {:?}", self.text(selector)), PATIENCE, || {
            let text = self.text(selector);
            wanted(&text).then_some(text)
        })
    }

    /// Scrolls the first element that a CSS selector finds onto the screen.
    pub(crate) fn scroll_to(&self, selector: &str) {
        let script = format!("document.querySelector({})?.scrollIntoView()", json!(selector));
        self.run(&script);
    }

    pub(crate) fn click(&self, selector: &str) {
        let script = format!("document.querySelector({}).click()", json!(selector));
        self.run(&script);
    }

    /// Types into a field with real keys.
    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        let found = self.command("/element", &json!({"using": "css selector", "value": selector}));
        let id =
            found.as_object().and_then(|o| o.values().next()).and_then(Value::as_str).expect("an element has an id");
        self.command(&format!("/element/{id}/clear"), &json!({}));
        self.command(&format!("/element/{id}/value"), &json!({"text": text}));
    }

    pub(crate) fn look(&self, look: Look, height: u32) {
        let phone = look.width < 700;
        let size = json!({"width": look.width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let scheme = if look.dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &media);
    }

    pub(crate) fn without_javascript(&self, off: bool) {
        self.devtools("Emulation.setScriptExecutionDisabled", &json!({"value": off}));
    }

    /// The document as it is now, also where no script may run.
    pub(crate) fn html(&self) -> String {
        let root = self.devtools("DOM.getDocument", &json!({"depth": 0}));
        let node = json!({"nodeId": root["root"]["nodeId"]});
        self.devtools("DOM.getOuterHTML", &node)["outerHTML"].as_str().unwrap_or_default().to_owned()
    }

    /// Keeps a picture of the whole page as test output, and says where.
    pub(crate) fn screenshot(&self, name: &str, look: Look) -> PathBuf {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let file = folder.join(format!("{name}-{}.png", look.name()));
        let height = self.run("return document.documentElement.scrollHeight").as_u64().unwrap_or(1000);
        // As large as the page, so that everything is on the screen and drawn.
        self.look(look, u32::try_from(height.clamp(600, 4000)).expect("clamped"));
        let frames = "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))";
        self.run(frames);
        let picture = self.devtools("Page.captureScreenshot", &json!({"format": "png"}));
        let png = base64(picture["data"].as_str().expect("a picture is text"));
        assert!(png.starts_with(b"\x89PNG"), "{name} is no picture");
        std::fs::write(&file, png).expect("a file can be written");
        file
    }

    /// What the console was told since it was last asked that is worse than information.
    pub(crate) fn console(&self) -> Vec<String> {
        let entries = self.command("/se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().cloned().unwrap_or_default();
        let bad = entries.iter().filter(|entry| !matches!(entry["level"].as_str(), Some("INFO" | "DEBUG" | "FINE")));
        bad.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What went over the network since it was last asked: each event of the DevTools' network domain.
    pub(crate) fn network(&self) -> Vec<Value> {
        let entries = self.command("/se/log", &json!({"type": "performance"}));
        let events = entries.as_array().cloned().unwrap_or_default().into_iter().filter_map(|entry| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = message["message"].clone();
            message["method"].as_str()?.starts_with("Network.").then_some(message)
        });
        events.collect()
    }

    /// The addresses that were asked for since.
    pub(crate) fn asked(&self) -> Vec<String> {
        let events = self.network().into_iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        events.filter_map(|event| Some(event["params"]["request"]["url"].as_str()?.to_owned())).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if self.session.is_empty() {
            return;
        }
        // The driver ends its browser with the session; were it killed first, the browser would stay.
        if let Ok(mut driver) = Downstream::connect(self.addr) {
            let _ = driver.request("DELETE", &self.session, &[("host", "localhost"), ("connection", "close")], b"");
        }
    }
}

fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0_u32, |bits, byte| bits << 6 | u32::from(value(*byte))) << (6 * (4 - four.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
}
