//! Interpreters bind names for a router. Owns the local one, which all kinds here share: a table of its own or none, the
//! table it is given, the configured namers, the `/$` names.

use std::sync::Arc;

use l5d_config::{Cx, Node, parse_kind};
use l5d_naming::{
    Activity, Binding, Bound, BoxFuture, DelegateTree, Delegator, Dtab, Interpreter, NameTree, Namer, Namers, Path,
    delegate,
};
use l5d_net::Follower;
use tokio::runtime::Handle;

use crate::transformers::Transformed;
use crate::{BuildError, BuiltIn, NamerContext, TransformerConfig, asked_for};

l5d_config::kinds! {
    /// Every interpreter that a router may name, in the order of the reference.
    pub INTERPRETERS: dyn InterpreterConfig => default, fs,
}

/// Interpreters of Linkerd that l5d does not have yet.
const UNSUPPORTED: &[&str] = &[
    "io.l5d.consul.interpreter",
    "io.l5d.k8s.configMap",
    "io.l5d.k8s.istio",
    "io.l5d.mesh",
    "io.l5d.namerd",
    "io.l5d.namerd.http",
];

/// An interpreter's section, parsed.
pub trait InterpreterConfig: Send {
    /// Opens what the interpreter watches. `namers` are the configured ones in the order in which they are listed.
    fn build(self: Box<Self>, namers: &[Arc<dyn Namer>], cx: &NamerContext)
    -> Result<Arc<dyn Interpreter>, BuildError>;
}

/// Reads `interpreter:`.
pub fn parse_interpreter(node: &Node, cx: &mut Cx) -> Option<Box<dyn InterpreterConfig>> {
    let (id, config) = parse_kind("interpreter", INTERPRETERS, UNSUPPORTED, node, cx)?;
    asked_for(INTERPRETERS, id, node, &format!("{id} interpreter"), cx)?;
    Some(config)
}

/// The interpreter of a router that names none: without a table of its own. The admin server explains names with one.
pub fn default_interpreter(namers: &[Arc<dyn Namer>], cx: &NamerContext) -> Arc<dyn Interpreter> {
    Arc::new(Local::new(None, namers, cx))
}

/// Puts transformers around an interpreter, the last outermost.
fn transformed(
    interpreter: Arc<dyn Interpreter>,
    transformers: Vec<Box<dyn TransformerConfig>>,
    cx: &NamerContext,
) -> Result<Arc<dyn Interpreter>, BuildError> {
    transformers.into_iter().try_fold(interpreter, |interpreter, transformer| {
        Ok(Arc::new(Transformed {
            inner: interpreter,
            transformer: transformer.build(cx)?,
            runtime: cx.runtime.clone(),
        }) as Arc<dyn Interpreter>)
    })
}

/// Binds a path with the `/$` names alone.
pub(crate) fn bind_built_in(path: &Path, cx: &NamerContext) -> Activity<NameTree<Bound>> {
    Local::new(None, &[], cx).bind(&Dtab::empty(), path)
}

/// Interprets names in this process.
struct Local {
    own: Option<Activity<Dtab>>,
    namers: Namers,
    runtime: Handle,
}

impl Local {
    fn new(own: Option<Activity<Dtab>>, namers: &[Arc<dyn Namer>], cx: &NamerContext) -> Self {
        let built_in: Arc<dyn Namer> = Arc::new(BuiltIn::new(cx.runtime.clone()));
        Self { own, namers: Namers::new(namers, &[built_in]), runtime: cx.runtime.clone() }
    }
}

impl Interpreter for Local {
    fn bind(&self, dtab: &Dtab, path: &Path) -> Activity<NameTree<Bound>> {
        let binding = Binding::new(self.namers.clone(), self.own.clone(), dtab.clone(), path.clone());
        let (activity, keeping_current) = binding.start();
        match keeping_current {
            Some(keeping_current) => activity.keeping(Follower::start(&self.runtime, keeping_current)),
            None => activity,
        }
    }

    fn delegator(&self) -> Option<&dyn Delegator> {
        Some(self)
    }
}

impl Delegator for Local {
    fn delegate(&self, dtab: &Dtab, path: &Path) -> BoxFuture<'static, Result<DelegateTree, Arc<str>>> {
        Box::pin(delegate(self.namers.clone(), self.own.clone(), dtab.clone(), path.clone()))
    }

    fn dtab(&self) -> Activity<Dtab> {
        self.own.clone().unwrap_or_else(|| Activity::value(Dtab::empty()))
    }
}
