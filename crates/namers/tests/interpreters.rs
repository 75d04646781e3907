//! Whole sections of interpreters, transformers and the rewriting namer, from YAML to bound names and explanations.

mod common;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use common::{bind, interpreter, namer, shown, try_interpreter, until};
use l5d_config::Cx;
use l5d_namers::{INTERPRETERS, NAMERS, TRANSFORMERS, parse_interpreter, parse_namer, parse_transformer};
use l5d_naming::{Dtab, Interpreter, Path};

async fn explained(interpreter: &Arc<dyn Interpreter>, dtab: &str, path: &str) -> String {
    let delegator = interpreter.delegator().expect("it can explain");
    delegator.delegate(&Dtab::read(dtab).unwrap(), &Path::read(path).unwrap()).await.unwrap().to_json()
}

/// Recorded from Linkerd 1.7.5.
#[tokio::test]
async fn inet_names_are_explained_as_linkerd_explains_them() {
    let interpreter = interpreter("kind: default", &[]);
    assert_eq!(
        explained(&interpreter, "/svc=>/$/inet/127.1/8080", "/svc/foo").await,
        r#"{"type":"delegate","path":"/svc/foo","delegate":{"type":"leaf","path":"/$/inet/127.1/8080/foo","dentry":{"prefix":"/svc","dst":"/$/inet/127.1/8080"},"bound":{"addr":{"type":"bound","addrs":[{"ip":"127.0.0.1","port":8080,"meta":{}}],"meta":{}},"id":"/$/inet/127.1/8080","path":"/foo"}}}"#
    );
    let unknown = "failed: Unknown namer: nope for path: /$/nope/foo";
    assert_eq!(shown(&bind(&interpreter, "/svc=>/$/nope", "/svc/foo")), unknown);
    let localhost = explained(&interpreter, "/svc=>/$/inet/localhost/80", "/svc").await;
    assert!(localhost.contains(r#"{"ip":"127.0.0.1","port":80,"meta":{}}"#), "{localhost}");
}

#[tokio::test]
async fn rinet_and_porthost_find_hosts_with_and_without_ports() {
    let interpreter = interpreter("kind: default", &[]);
    let table = "/ph=>/$/io.buoyant.rinet;/svc=>/ph/80;/svc=>/$/io.buoyant.porthostPfx/ph";
    let with_port = bind(&interpreter, table, "/svc/127.1:8080");
    assert_eq!(shown(&with_port), "/$/io.buoyant.rinet/8080/127.1[/] 127.0.0.1:8080");
    assert_eq!(shown(&bind(&interpreter, table, "/svc/127.1")), "/$/io.buoyant.rinet/80/127.1[/] 127.0.0.1:80");
}

/// Recorded from Linkerd 1.7.5: the client of `/svc/web.ex`, and none for `/svc/web`.
#[tokio::test]
async fn the_rewriting_namer_rewrites_what_matches() {
    let rewrite = namer("kind: io.l5d.rewrite\nprefix: /rw\npattern: \"/{name}.ex\"\nname: \"/two/{name}\"\n");
    let interpreter = interpreter("kind: default", &[rewrite]);
    let table = "/svc=>/#/rw;/two=>/$/inet/127.1/80";
    assert_eq!(shown(&bind(&interpreter, table, "/svc/web.ex/dropped")), "/$/inet/127.1/80[/web] 127.0.0.1:80");
    assert_eq!(shown(&bind(&interpreter, table, "/svc/web")), "~");
    assert!(explained(&interpreter, table, "/svc/web.ex").await.contains(r#""path":"/two/web""#));
}

#[test]
fn a_rewritten_name_has_to_be_a_path() {
    for (name, error) in [
        ("two/{name}", "4:7: name: '/' expected but 't' found at '[t]wo/x'"),
        ("/two/{nam}", "4:7: name: label char expected but '{' found at '/two/[{]nam}'"),
    ] {
        let yaml = format!("kind: io.l5d.rewrite\nprefix: /rw\npattern: \"/{{name}}.ex\"\nname: \"{name}\"\n");
        let mut cx = Cx::new();
        assert!(parse_namer(&l5d_config::read(&yaml).unwrap(), &mut cx).is_none());
        assert_eq!(cx.finish()[0].to_string(), error);
    }
}

#[tokio::test]
async fn the_dtab_file_comes_before_the_routers_table_and_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("table");
    fs::write(&file, "/svc/web=>/$/inet/127.1/2;\n/svc/filed=>/$/inet/127.1/2;\n").unwrap();
    let interpreter = interpreter(&format!("kind: io.l5d.fs\ndtabFile: {}", file.display()), &[]);
    let router = "/svc/web=>/$/inet/127.1/1";
    let (web, filed) = (bind(&interpreter, router, "/svc/web"), bind(&interpreter, router, "/svc/filed"));
    let later = bind(&interpreter, router, "/svc/later");
    assert_eq!(shown(&web), "/$/inet/127.1/1[/] 127.0.0.1:1");
    assert_eq!(shown(&filed), "/$/inet/127.1/2[/] 127.0.0.1:2");
    assert_eq!(shown(&later), "~");
    // Replaced, as editors do it.
    fs::write(dir.path().join("new"), "/svc/later=>/$/inet/127.1/3").unwrap();
    fs::rename(dir.path().join("new"), &file).unwrap();
    until(&later, "/$/inet/127.1/3[/] 127.0.0.1:3").await;
    until(&filed, "~").await;

    fs::write(&file, "bogus").unwrap();
    until(&bind(&interpreter, router, "/svc/later"), "/$/inet/127.1/3[/] 127.0.0.1:3").await;
    let new_when_bad = "failed: '/' expected but 'b' found at '[b]ogus'";
    wait_for_new(&interpreter, router, new_when_bad).await;
    assert_eq!(shown(&later), "/$/inet/127.1/3[/] 127.0.0.1:3", "what was bound stays");

    fs::remove_file(&file).unwrap();
    wait_for_new(&interpreter, router, "pending").await;
    assert_eq!(shown(&later), "/$/inet/127.1/3[/] 127.0.0.1:3", "what was bound stays");

    fs::write(&file, "/svc/new=>/$/inet/127.1/4").unwrap();
    wait_for_new(&interpreter, router, "/$/inet/127.1/4[/] 127.0.0.1:4").await;
    until(&later, "~").await;
    let dtab = interpreter.delegator().unwrap().dtab().settled().await.unwrap();
    assert_eq!(dtab.to_string(), "/svc/new=>/$/inet/127.1/4");
}

/// Binds anew until the result is as wanted.
async fn wait_for_new(interpreter: &Arc<dyn Interpreter>, router: &str, wanted: &str) {
    let waiting = async {
        while shown(&bind(interpreter, router, "/svc/new")) != wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let last = || shown(&bind(interpreter, router, "/svc/new"));
    assert!(tokio::time::timeout(Duration::from_secs(60), waiting).await.is_ok(), "wanted {wanted}, is {}", last());
}

#[tokio::test]
async fn a_dtab_file_that_is_none_is_refused() {
    for file in ["/nope", "/"] {
        let error = try_interpreter(&format!("kind: io.l5d.fs\ndtabFile: {file}"), &[]).err().unwrap();
        assert_eq!(error.to_string(), format!("{file} is not a file"));
    }
}

fn transforming(transformers: &str) -> Arc<dyn Interpreter> {
    interpreter(&format!("kind: default\ntransformers:\n{transformers}"), &[])
}

/// The client's name and the residual are recorded from Linkerd 1.7.5.
#[tokio::test]
async fn the_port_transformer_replaces_ports() {
    let interpreter = transforming("- kind: io.l5d.port\n  port: 4141\n");
    let web = bind(&interpreter, "/svc=>/$/inet/127.1/80", "/svc/web");
    assert_eq!(shown(&web), "/%/io.l5d.port/4141/$/inet/127.1/80[/web] 127.0.0.1:4141");
    let json = explained(&interpreter, "/svc=>/$/inet/127.1/80", "/svc/web").await;
    assert!(
        json.contains(r#"{"type":"transformation","path":"/$/inet/127.1/80/web","name":"PortTransformer","bound":"#)
    );
    assert!(json.contains(r#""id":"/%/io.l5d.port/4141/$/inet/127.1/80","path":"/web"}"#), "{json}");
    assert_eq!(shown(&bind(&interpreter, "", "/svc/web")), "~");
}

#[tokio::test]
async fn the_last_transformer_is_outermost_and_prefixes_may_be_chosen() {
    let interpreter = transforming(
        "- kind: io.l5d.port\n  port: 4141\n- kind: io.l5d.specificHost\n  host: 127.1\n  prefix: /here\n",
    );
    let web = bind(&interpreter, "/svc=>/$/inet/127.1/80 & /$/inet/10.1/80", "/svc");
    assert_eq!(
        shown(&web),
        "/%/here/%/io.l5d.port/4141/$/inet/127.1/80[/] 127.0.0.1:4141 & \
         /%/here/%/io.l5d.port/4141/$/inet/10.1/80[/] neg"
    );
}

/// A name whose addresses were all filtered away is still that name: alternatives do not apply.
#[tokio::test]
async fn the_localhost_transformer_keeps_this_hosts_addresses() {
    let interpreter = transforming("- kind: io.l5d.localhost\n");
    let table = "/svc=>/$/inet/127.1/80;/away=>/$/inet/192.0.2.1/80 | /$/inet/127.1/80";
    assert_eq!(shown(&bind(&interpreter, table, "/svc")), "/%/io.l5d.localhost/$/inet/127.1/80[/] 127.0.0.1:80");
    assert_eq!(shown(&bind(&interpreter, table, "/away")), "/%/io.l5d.localhost/$/inet/192.0.2.1/80[/] neg");
}

#[tokio::test]
async fn replace_changes_what_is_bound_and_const_everything() {
    let table = "/svc=>/$/inet/10.1/80;/no=>~;/none=>$;/two=>/$/inet/10.1/1 & 3*/$/nil";
    let replacing = transforming("- kind: io.l5d.replace\n  path: /$/inet/127.1/1\n");
    let replaced = "/%/io.l5d.replace/$/inet/127.1/1[/] 127.0.0.1:1";
    assert_eq!(shown(&bind(&replacing, table, "/svc/web")), replaced);
    assert_eq!(shown(&bind(&replacing, table, "/no")), "~");
    assert_eq!(shown(&bind(&replacing, table, "/none")), "$");
    assert_eq!(shown(&bind(&replacing, table, "/two")), format!("{replaced} & 3.00*$"));
    assert!(replacing.delegator().is_none());
    let constant = transforming("- kind: io.l5d.const\n  path: /$/inet/127.1/1\n");
    assert_eq!(shown(&bind(&constant, table, "/no")), "/%/io.l5d.const/$/inet/127.1/1[/] 127.0.0.1:1");
    assert!(constant.delegator().is_none());
}

#[tokio::test]
async fn a_namers_transformers_change_its_names_only() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("web"), "127.0.0.1 80").unwrap();
    let yaml =
        format!("kind: io.l5d.fs\nrootDir: {}\ntransformers:\n- kind: io.l5d.port\n  port: 1\n", dir.path().display());
    let rewrite =
        "kind: io.l5d.rewrite\nprefix: /rw\npattern: /\nname: /svc\ntransformers:\n- kind: io.l5d.port\n  port: 2\n";
    let interpreter = interpreter("kind: default", &[namer(&yaml), namer(rewrite)]);
    let table = "/svc=>/$/inet/127.1/80";
    let web = bind(&interpreter, table, "/#/io.l5d.fs/web");
    until(&web, "/%/io.l5d.port/1/#/io.l5d.fs/web[/] 127.0.0.1:1").await;
    fs::write(dir.path().join("web"), "127.0.0.2 80").unwrap();
    until(&web, "/%/io.l5d.port/1/#/io.l5d.fs/web[/] 127.0.0.2:1").await;
    assert_eq!(shown(&bind(&interpreter, table, "/svc")), "/$/inet/127.1/80[/] 127.0.0.1:80");
    assert_eq!(shown(&bind(&interpreter, table, "/#/rw/x")), "/$/inet/127.1/80[/] 127.0.0.1:80");
}

/// What the tests of every table of kinds have in common.
fn errors<T>(yaml: &str, parse: impl FnOnce(&l5d_config::Node, &mut Cx) -> Option<T>) -> Vec<String> {
    let node = l5d_config::read(yaml).unwrap();
    let mut cx = Cx::new();
    let parsed = parse(&node, &mut cx);
    let errors: Vec<String> = cx.finish().iter().map(ToString::to_string).collect();
    assert!(parsed.is_some() || !errors.is_empty(), "{yaml}: refused without a word");
    errors
}

#[test]
fn every_kind_reads_its_example_and_refuses_unknown_keys() {
    type Errors = Box<dyn Fn(&str) -> Vec<String>>;
    let mut kinds: Vec<(&str, &str, Errors)> = Vec::new();
    for kind in NAMERS {
        kinds.push((kind.id, kind.example, Box::new(|yaml| errors(yaml, parse_namer))));
    }
    for kind in INTERPRETERS {
        kinds.push((kind.id, kind.example, Box::new(|yaml| errors(yaml, parse_interpreter))));
    }
    for kind in TRANSFORMERS {
        kinds.push((kind.id, kind.example, Box::new(|yaml| errors(yaml, parse_transformer))));
    }
    for (id, example, errors) in kinds {
        assert_eq!(errors(example), [""; 0], "{id}");
        let wrong = errors(&format!("{example}unknown: 1\n"));
        assert_eq!(wrong.len(), 1, "{id}: {wrong:?}");
        assert!(wrong[0].contains("unknown key `unknown`"), "{id}: {wrong:?}");
        assert!(wrong[0].starts_with(&format!("{}:1: ", example.lines().count() + 1)), "{id}: {wrong:?}");
    }
    for ids in [
        NAMERS.iter().map(|kind| kind.id).collect::<Vec<_>>(),
        INTERPRETERS.iter().map(|kind| kind.id).collect(),
        TRANSFORMERS.iter().map(|kind| kind.id).collect(),
    ] {
        let mut unique = ids.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), ids.len());
    }
}

#[test]
fn what_linkerd_has_and_l5d_has_not_is_refused_by_name() {
    for (wrong, what) in [
        (errors("kind: io.l5d.mesh", parse_interpreter), "the interpreter \"io.l5d.mesh\" is not supported by l5d yet"),
        (errors("kind: io.l5d.namerd", parse_interpreter), "not supported by l5d yet"),
        (
            errors("kind: io.l5d.nope", parse_interpreter),
            "unknown interpreter \"io.l5d.nope\"; known: default, io.l5d.fs",
        ),
        (errors("kind: io.l5d.fs", parse_interpreter), "'dtabFile' must be specified"),
        (errors("kind: io.l5d.k8s.localnode", parse_transformer), "not supported by l5d yet"),
        (errors("kind: io.l5d.specificHost", parse_transformer), "'host' must be specified"),
        (errors("kind: io.l5d.port", parse_transformer), "'port' must be specified"),
        (errors("kind: io.l5d.const\npath: x", parse_transformer), "'/' expected but 'x' found at '[x]'"),
        (errors("kind: io.l5d.replace", parse_transformer), "'path' must be specified"),
        (errors("kind: default\ntransformers: {}", parse_interpreter), "expected a list"),
    ] {
        assert!(wrong[0].contains(what), "{wrong:?}");
    }
}
