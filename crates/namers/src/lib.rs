//! Namers, interpreters and transformers: what turns names into addresses.
//!
//! Three families of plug-ins, each with its table: [`NAMERS`] (`namers:`), [`INTERPRETERS`] (`routers[].interpreter`) and
//! [`TRANSFORMERS`] (`transformers:` of either). A section is parsed without touching anything, then built with a
//! [`NamerContext`], whose runtime does all the watching and resolving. The `/$` names ([`BuiltIn`]) are always there.
//!
//! The rules by which names are followed are not here but in `l5d-naming`.

use std::sync::Arc;

use l5d_config::{Cx, Fields, Kind, Node, asks_for_experimental, parse_kind};
use l5d_naming::{Namer, Path};
use tokio::runtime::Handle;

mod built_in;
mod derive;
mod disk;
mod dns;
mod error;
mod file_watch;
mod interpreters;
mod transformers;

l5d_config::kinds! {
    /// Every namer that `namers:` may name, in the order of the reference.
    pub NAMERS: dyn NamerConfig => fs, rewrite,
}

pub use built_in::BuiltIn;
pub use error::BuildError;
pub use interpreters::{INTERPRETERS, InterpreterConfig, default_interpreter, parse_interpreter};
pub use transformers::{TRANSFORMERS, Transformer, TransformerConfig, parse_transformer};

use transformers::Transformed;

/// Namers of Linkerd that l5d does not have yet.
const UNSUPPORTED: &[&str] = &[
    "io.l5d.consul",
    "io.l5d.curator",
    "io.l5d.dnssrv",
    "io.l5d.k8s",
    "io.l5d.k8s.external",
    "io.l5d.k8s.ns",
    "io.l5d.marathon",
    "io.l5d.rancher",
    "io.l5d.serversets",
    "io.l5d.zkLeader",
];

/// What everything in this crate is built with.
#[derive(Clone)]
pub struct NamerContext {
    /// Where tasks run: watching, resolving, evaluating. It has to be there for as long as what was built with it.
    pub runtime: Handle,
}

/// A namer's section, parsed.
pub trait NamerConfig: Send {
    /// The names it will answer start with this, `/#` and the prefix.
    fn prefix(&self) -> Path;

    /// Opens what the namer watches.
    fn build(self: Box<Self>, cx: &NamerContext) -> Result<Arc<dyn Namer>, BuildError>;
}

/// Reads one item of `namers:`.
pub fn parse_namer(node: &Node, cx: &mut Cx) -> Option<Box<dyn NamerConfig>> {
    let (id, config) = parse_kind("namer", NAMERS, UNSUPPORTED, node, cx)?;
    asked_for(NAMERS, id, node, &format!("{} namer", config.prefix()), cx)?;
    Some(config)
}

/// Refuses an experimental kind whose section does not say that it wants it, in Linkerd's words.
fn asked_for<P: ?Sized>(kinds: &[&Kind<P>], id: &str, node: &Node, what: &str, cx: &mut Cx) -> Option<()> {
    let experimental = kinds.iter().any(|kind| kind.id == id && kind.experimental);
    if !experimental || asks_for_experimental(node) {
        return Some(());
    }
    let must = "is experimental and must be explicitly enabled by setting the `experimental' parameter to `true'.";
    cx.error(node, format!("The {what} {must}"));
    None
}

/// What all namers' sections have.
struct Common {
    /// `/#` and the prefix.
    prefix: Path,
    transformers: Vec<Box<dyn TransformerConfig>>,
}

impl Common {
    /// Takes the common keys. `default` is the kind's prefix; without one, none is an error.
    fn read(fields: &mut Fields<'_>, default: Result<&str, &str>, cx: &mut Cx) -> Option<Self> {
        fields.skip_kind();
        let errors = cx.error_count();
        let given = fields.parsed("prefix", cx, Path::read);
        let wrong = cx.error_count() > errors;
        let transformers = fields.each("transformers", cx, parse_transformer);
        let prefix = match (given, default) {
            (Some(prefix), _) => prefix,
            (None, Ok(default)) => Path::from_segments(default.split('/')),
            (None, Err(why)) => {
                if !wrong {
                    cx.error_at(fields.at(), why);
                }
                return None;
            }
        };
        Some(Self { prefix: Path::from_segments(["#"]).concat(&prefix), transformers })
    }

    /// Puts the transformers around a namer.
    fn finish(self, namer: Arc<dyn Namer>, cx: &NamerContext) -> Result<Arc<dyn Namer>, BuildError> {
        self.transformers.into_iter().try_fold(namer, |namer, transformer| {
            Ok(Arc::new(Transformed { inner: namer, transformer: transformer.build(cx)?, runtime: cx.runtime.clone() })
                as Arc<dyn Namer>)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors of one section.
    fn errors(yaml: &str) -> Vec<String> {
        let node = l5d_config::read(yaml).unwrap();
        let mut cx = Cx::new();
        let parsed = parse_namer(&node, &mut cx);
        let errors: Vec<String> = cx.finish().iter().map(ToString::to_string).collect();
        assert!(parsed.is_some() || !errors.is_empty(), "{yaml}: refused without a word");
        errors
    }

    #[test]
    fn namers_are_refused_with_the_place_and_the_remedy() {
        assert_eq!(errors("kind: io.l5d.fs"), ["1:1: 'rootDir' must be specified"]);
        assert_eq!(
            errors("kind: io.l5d.rewrite\npattern: /a\nname: /b"),
            ["1:1: The 'prefix' property is required for the io.l5d.rewrite namer."]
        );
        assert_eq!(
            errors("kind: io.l5d.fs\nrootDir: .\nprefix: bogus"),
            ["3:9: prefix: '/' expected but 'b' found at '[b]ogus'"]
        );
        assert_eq!(
            errors("kind: io.l5d.fs\nrootDir: .\nrootDirs: ."),
            ["3:1: unknown key `rootDirs`; known: experimental, kind, prefix, rootDir, transformers"]
        );
        assert_eq!(
            errors("kind: io.l5d.consul"),
            [
                "1:7: kind: the namer \"io.l5d.consul\" is not supported by l5d yet; supported: io.l5d.fs, io.l5d.rewrite"
            ]
        );
        assert!(errors("kind: io.l5d.k8s.istio")[0].contains("unknown namer"));
        assert!(errors("rootDir: .")[0].contains("missing type id property 'kind'"));
        let wrong = "kind: io.l5d.fs\nrootDir: .\ntransformers:\n- kind: io.l5d.port\n  port: 99999";
        assert_eq!(errors(wrong), ["5:9: transformers[0].port: 99999 outside valid range for ports"]);
    }

    #[test]
    fn an_experimental_namer_has_to_be_asked_for() {
        let kind: Kind<dyn NamerConfig> =
            Kind { id: "io.l5d.new", experimental: true, summary: "", example: "", parse: |_, _| None };
        for (yaml, allowed) in [("experimental: true", true), ("experimental: false", false), ("a: b", false)] {
            let node = l5d_config::read(yaml).unwrap();
            let mut cx = Cx::new();
            let asked = asked_for(&[&kind], kind.id, &node, "/#/io.l5d.new namer", &mut cx);
            assert_eq!(asked.is_some(), allowed, "{yaml}");
            assert_eq!(
                cx.finish().pop().map(|error| error.what),
                (!allowed).then(|| {
                    "The /#/io.l5d.new namer is experimental and must be explicitly enabled by setting \
                                    the `experimental' parameter to `true'."
                        .to_owned()
                })
            );
        }
    }
}
