//! What the tests of whole sections share: building from YAML, and waiting for what a name is bound to.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use l5d_config::Cx;
use l5d_namers::{BuildError, NamerContext, parse_interpreter, parse_namer};
use l5d_naming::{Activity, Addr, Bound, Dtab, Interpreter, NameTree, Namer, Path, State};
use tokio::runtime::Handle;

pub(crate) fn context() -> NamerContext {
    NamerContext { runtime: Handle::current() }
}

pub(crate) fn try_namer(yaml: &str) -> Result<Arc<dyn Namer>, BuildError> {
    let node = l5d_config::read(yaml).unwrap();
    let mut cx = Cx::new();
    let config = parse_namer(&node, &mut cx);
    assert_eq!(cx.finish(), []);
    config.unwrap().build(&context())
}

pub(crate) fn namer(yaml: &str) -> Arc<dyn Namer> {
    try_namer(yaml).unwrap()
}

pub(crate) fn try_interpreter(yaml: &str, namers: &[Arc<dyn Namer>]) -> Result<Arc<dyn Interpreter>, BuildError> {
    let node = l5d_config::read(yaml).unwrap();
    let mut cx = Cx::new();
    let config = parse_interpreter(&node, &mut cx);
    assert_eq!(cx.finish(), []);
    config.unwrap().build(namers, &context())
}

pub(crate) fn interpreter(yaml: &str, namers: &[Arc<dyn Namer>]) -> Arc<dyn Interpreter> {
    try_interpreter(yaml, namers).unwrap()
}

pub(crate) fn bind(interpreter: &Arc<dyn Interpreter>, dtab: &str, path: &str) -> Activity<NameTree<Bound>> {
    interpreter.bind(&Dtab::read(dtab).unwrap(), &Path::read(path).unwrap())
}

/// `id[residual] address address*weight`, or what it is instead.
pub(crate) fn shown(activity: &Activity<NameTree<Bound>>) -> String {
    match activity.current() {
        State::Pending => "pending".to_owned(),
        State::Failed(why) => format!("failed: {why}"),
        State::Ok(tree) => {
            tree.map(&mut |bound| format!("{}[{}]{}", bound.id, bound.residual, addresses(bound))).to_string()
        }
    }
}

fn addresses(bound: &Bound) -> String {
    match bound.addr.current() {
        Addr::Pending => " pending".to_owned(),
        Addr::Neg => " neg".to_owned(),
        Addr::Failed(why) => format!(" failed: {why}"),
        Addr::Bound(set) => set.endpoints.iter().fold(String::new(), |mut text, address| {
            let _ = write!(text, " {address}");
            if address.weight != 1.0 {
                let _ = write!(text, "*{}", address.weight);
            }
            text
        }),
    }
}

/// Waits until a name is bound as wanted. The limit is for a test that fails, far above what any change takes.
pub(crate) async fn until(activity: &Activity<NameTree<Bound>>, wanted: &str) {
    let waiting = async {
        while shown(activity) != wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), waiting).await.is_err() {
        panic!("wanted `{wanted}`, is `{}`", shown(activity));
    }
}
