//! Binding and explaining names with namers that the test turns by hand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use l5d_naming::{
    Activity, Addr, AddrUpdater, AddrWatch, Address, Binding, Bound, Dtab, Name, NameTree, Namer, Namers, Path, State,
    Updater, delegate,
};
use proptest::prelude::*;

fn path(text: &str) -> Path {
    Path::read(text).unwrap()
}

fn dtab(text: &str) -> Dtab {
    Dtab::read(text).unwrap()
}

/// `/$/<anything>/rest` is bound to one address, like `/$/inet`; the names below are special.
struct BuiltIn(Path);

impl BuiltIn {
    fn arc() -> Arc<dyn Namer> {
        Arc::new(Self(path("/$")))
    }
}

impl Namer for BuiltIn {
    fn prefix(&self) -> &Path {
        &self.0
    }

    fn lookup(&self, rest: &Path) -> Activity<NameTree<Name>> {
        match rest.segment_str(0) {
            Some("fail") => Activity::value(NameTree::Fail),
            Some("nil") => Activity::value(NameTree::Empty),
            Some("pending") => Activity::pending(),
            Some("bad") => Activity::failed("bad name"),
            Some("to") => Activity::value(NameTree::Leaf(Name::Path(rest.drop(1)))),
            Some(_) => Activity::value(NameTree::Leaf(bound("/$", rest))),
            None => Activity::value(NameTree::Neg),
        }
    }
}

fn address() -> Address {
    Address::new(SocketAddr::from(([127, 0, 0, 1], 8080)))
}

fn bound(prefix: &str, rest: &Path) -> Name {
    let addr = AddrWatch::value(Addr::bound([address()]));
    Name::Bound(Bound::new(path(prefix).concat(&rest.take(1)), rest.drop(1), addr))
}

/// A namer whose answers are set by name; a name nobody set is pending.
#[derive(Clone)]
struct Manual {
    prefix: Path,
    names: Arc<Mutex<HashMap<Path, Updater<NameTree<Name>>>>>,
}

impl Manual {
    fn new(prefix: &str) -> Self {
        Self { prefix: path(prefix), names: Arc::default() }
    }

    fn arc(&self) -> Arc<dyn Namer> {
        Arc::new(self.clone())
    }

    fn set(&self, name: &str, state: State<NameTree<Name>>) {
        let mut names = self.names.lock().unwrap();
        names.entry(path(name)).or_insert_with(|| Activity::channel().0).set(state);
    }

    fn bind(&self, name: &str) {
        self.set(name, State::Ok(NameTree::Leaf(bound(&self.prefix.show(), &path(name)))));
    }

    fn is_watched(&self, name: &str) -> bool {
        self.names.lock().unwrap().get(&path(name)).is_some_and(|updater| !updater.is_closed())
    }
}

impl Namer for Manual {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn lookup(&self, rest: &Path) -> Activity<NameTree<Name>> {
        self.names.lock().unwrap().entry(rest.clone()).or_insert_with(|| Activity::channel().0).activity()
    }
}

/// Binds with `/$` names only, which never change.
fn bind(table: &str, name: &str) -> State<NameTree<Bound>> {
    let namers = Namers::new(&[], &[BuiltIn::arc()]);
    let (activity, future) = Binding::new(namers, None, dtab(table), path(name)).start();
    assert!(future.is_none(), "nothing can change");
    activity.current()
}

fn show(state: State<NameTree<Bound>>) -> String {
    match state {
        State::Pending => "pending".to_owned(),
        State::Failed(why) => format!("failed: {why}"),
        State::Ok(tree) => tree.map(&mut |bound| format!("{}[{}]", bound.id, bound.residual)).to_string(),
    }
}

fn bound_as(table: &str, name: &str) -> String {
    show(bind(table, name))
}

#[test]
fn the_reference_tables_bind() {
    for (table, name, result) in [
        ("/svc=>/$/b", "/svc/foo", "/$/b[/foo]"),
        ("/svc/* => /$/b", "/svc/foo", "/$/b[/]"),
        ("/svc/foo => ~ | /$/b", "/svc/foo", "/$/b[/]"),
        ("/svc/foo => $ | /$/b", "/svc/foo", "$"),
        ("/svc/foo => ! | /$/b", "/svc/foo", "!"),
        ("/svc/foo => /$/fail | /$/b", "/svc/foo", "!"),
        ("/svc/foo => /$/nil | /$/b", "/svc/foo", "$"),
        ("/svc/foo => /$/bad | /$/b", "/svc/foo", "failed: bad name"),
        ("/svc/foo => /$/pending | /$/b", "/svc/foo", "pending"),
        ("/svc/foo => /nope | /$/b", "/svc/foo", "/$/b[/]"),
        ("/svc/foo => 1*/nope & 1*/$/b", "/svc/foo", "/$/b[/]"),
        ("/svc/foo => 1*/$/a & 3*/$/b", "/svc/foo", "/$/a[/] & 3.00*/$/b[/]"),
        ("/svc/foo => /$/a & (2*/$/b & 3*/$/c)", "/svc/foo", "/$/a[/] & (2.00*/$/b[/] & 3.00*/$/c[/])"),
        ("/svc/foo => /$/bad & /$/b & /$/pending & !", "/svc/foo", "/$/b[/]"),
        ("/svc/foo => /$/pending & /$/bad", "/svc/foo", "failed: bad name"),
        ("/svc/foo => /$/pending & /$/pending", "/svc/foo", "pending"),
        ("/svc/foo => /nope & ~", "/svc/foo", "~"),
        ("/svc=>/$/a;/svc=>/$/b", "/svc/foo", "/$/b[/foo]"),
        ("/svc=>/$/a;/svc=>/nope", "/svc/foo", "/$/a[/foo]"),
        ("/svc=>/$/a;/svc/foo=>~", "/svc/foo", "/$/a[/foo]"),
        ("/svc=>/host;/host=>/$/b", "/svc/foo", "/$/b[/foo]"),
        ("/$/b=>/$/c;/svc=>/$/b", "/svc/foo", "/$/c[/foo]"),
        ("/svc=>/$/to/host;/host=>/$/b", "/svc/foo", "/$/b[/foo]"),
        ("", "/svc/foo", "~"),
        ("/svc=>/svc", "/svc/foo", "failed: Max recursion level: 100 reached in Namer lookup"),
        ("/svc=>/svc/a | /$/b", "/svc/foo", "failed: Max recursion level: 100 reached in Namer lookup"),
    ] {
        assert_eq!(bound_as(table, name), result, "{name} with {table}");
    }
}

#[test]
fn a_hundred_steps_are_allowed() {
    let table: String = (0..100).map(|i| format!("/s{i}=>/s{};", i + 1)).collect();
    assert_eq!(bound_as(&format!("{table}/s100=>~"), "/s0"), "~");
    assert_eq!(bound_as(&format!("{table}/s100=>/$/b"), "/s1"), "/$/b[/]");
    assert_eq!(
        bound_as(&format!("{table}/s100=>/$/b"), "/s0"),
        "failed: Max recursion level: 100 reached in Namer lookup"
    );
}

#[test]
fn a_table_that_branches_for_ever_is_given_up() {
    let why = bound_as("/svc=>/svc/a & /svc/b", "/svc/foo");
    assert_eq!(why, "failed: Max recursion level: 100 reached in Namer lookup");
    let tree: String = (0..60).map(|i| format!("/s{i}=>/s{}/a | /s{}/b;", i + 1, i + 1)).collect();
    assert_eq!(bound_as(&tree, "/s0"), "failed: more than 5000 names to look up for one");
    let parens = format!("{}/svc | ~{}", "(~ | ".repeat(32), ")".repeat(32));
    assert_eq!(bound_as(&format!("/svc=>{parens}"), "/svc/foo"), "failed: trees nested too deeply to be evaluated");
}

/// Lets every task run until it waits: the paused clock moves only then.
async fn idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Waits until a binding is what the test wants; the test hangs, and so fails, if it never is.
async fn wait_for(activity: &mut Activity<NameTree<Bound>>, wanted: &str) {
    while show(activity.read()) != wanted {
        assert!(activity.changed().await, "ended as {}", show(activity.current()));
    }
}

fn watch(namers: &[Arc<dyn Namer>], own: Option<Activity<Dtab>>, table: &str, name: &str) -> Activity<NameTree<Bound>> {
    let namers = Namers::new(namers, &[BuiltIn::arc()]);
    let (activity, future) = Binding::new(namers, own, dtab(table), path(name)).start();
    tokio::spawn(future.expect("something may change"));
    activity
}

#[tokio::test(start_paused = true)]
async fn the_namer_listed_last_is_asked_first() {
    let (first, last) = (Manual::new("/#/fs"), Manual::new("/#/fs"));
    let mut activity = watch(&[first.arc(), last.arc()], None, "/svc=>/#/fs", "/svc/foo");
    assert_eq!(show(activity.current()), "pending");
    first.bind("/foo");
    assert!(!first.is_watched("/foo"), "who comes later is not asked while the first is pending");
    last.set("/foo", State::Ok(NameTree::Neg));
    wait_for(&mut activity, "/#/fs/foo[/]").await;
    last.set("/foo", State::Ok(NameTree::Empty));
    wait_for(&mut activity, "$").await;
    assert!(!first.is_watched("/foo"), "what is not read any more is let go");
}

#[tokio::test(start_paused = true)]
async fn a_bound_name_outlives_failures_but_not_a_negative() {
    let namer = Manual::new("/#/fs");
    let mut activity = watch(&[namer.arc()], None, "/svc=>/#/fs | /$/b", "/svc/foo");
    namer.set("/foo", State::Failed("broken".into()));
    wait_for(&mut activity, "failed: broken").await;
    namer.bind("/foo");
    wait_for(&mut activity, "/#/fs/foo[/]").await;
    for state in [State::Failed("broken".into()), State::Pending] {
        namer.set("/foo", state);
        idle().await;
        assert_eq!(show(activity.current()), "/#/fs/foo[/]");
    }
    namer.set("/foo", State::Ok(NameTree::Neg));
    wait_for(&mut activity, "/$/b[/foo]").await;
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_answer_wakes_nobody() {
    let namer = Manual::new("/#/fs");
    let mut activity = watch(&[namer.arc()], None, "/svc=>/#/fs/foo & /#/fs/bar", "/svc");
    namer.bind("/foo");
    wait_for(&mut activity, "/#/fs/foo[/]").await;
    namer.set("/bar", State::Ok(NameTree::Neg));
    idle().await;
    namer.set("/bar", State::Failed("broken".into()));
    assert!(tokio::time::timeout(Duration::from_secs(1), activity.changed()).await.is_err());
    namer.bind("/bar");
    wait_for(&mut activity, "/#/fs/foo[/] & /#/fs/bar[/]").await;
}

#[tokio::test(start_paused = true)]
async fn the_interpreters_own_table_comes_first_and_may_change() {
    let (table, own) = Activity::channel();
    let mut activity = watch(&[], Some(own), "/svc/web=>/$/router", "/svc/web");
    assert_eq!(show(activity.current()), "pending");
    table.fail("no table");
    wait_for(&mut activity, "failed: no table").await;
    table.ok(dtab("/svc=>/$/file;/svc/web=>/$/file"));
    wait_for(&mut activity, "/$/router[/]").await;
    table.ok(dtab("/$/router=>/$/other"));
    wait_for(&mut activity, "/$/other[/]").await;
    table.set(State::Pending);
    idle().await;
    assert_eq!(show(activity.current()), "/$/other[/]");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_watched_when_nobody_looks() {
    let namer = Manual::new("/#/fs");
    let namers = Namers::new(&[namer.arc()], &[]);
    let (activity, future) = Binding::new(namers, None, Dtab::empty(), path("/#/fs/foo")).start();
    let task = tokio::spawn(future.unwrap());
    let clone = activity.clone();
    drop(activity);
    idle().await;
    assert!(namer.is_watched("/foo"));
    drop(clone);
    task.await.unwrap();
    assert!(!namer.is_watched("/foo"));
}

async fn explained(table: &str, name: &str) -> String {
    let namers = Namers::new(&[], &[BuiltIn::arc()]);
    delegate(namers, None, dtab(table), path(name)).await.unwrap().to_json()
}

const ADDR: &str = r#"{"type":"bound","addrs":[{"ip":"127.0.0.1","port":8080,"meta":{}}],"meta":{}}"#;

/// The texts are what Linkerd 1.7.5 answered, with shorter bound names.
#[tokio::test(start_paused = true)]
async fn delegations_are_told_as_linkerd_tells_them() {
    assert_eq!(
        explained("/svc=>/$/b", "/svc/foo").await,
        format!(
            r#"{{"type":"delegate","path":"/svc/foo","delegate":{{"type":"leaf","path":"/$/b/foo","dentry":{{"prefix":"/svc","dst":"/$/b"}},"bound":{{"addr":{ADDR},"id":"/$/b","path":"/foo"}}}}}}"#
        )
    );
    assert_eq!(
        explained("/svc=>/$/b | ~;/svc=>/nope", "/svc/a").await,
        format!(
            r#"{{"type":"alt","path":"/svc/a","alt":[{{"type":"neg","path":"/nope/a","dentry":{{"prefix":"/svc","dst":"/nope"}}}},{{"type":"leaf","path":"/$/b/a","dentry":{{"prefix":"/svc","dst":"/$/b | ~"}},"bound":{{"addr":{ADDR},"id":"/$/b","path":"/a"}}}},{{"type":"neg","path":"~","dentry":{{"prefix":"/svc","dst":"/$/b | ~"}}}}]}}"#
        )
    );
    assert_eq!(
        explained("/svc=>0.1*/$/b & 0.9*/$/c", "/svc/a").await,
        format!(
            r#"{{"type":"union","path":"/svc/a","union":[{{"weight":0.1,"tree":{{"type":"leaf","path":"/$/b/a","dentry":{{"prefix":"/svc","dst":"0.10*/$/b & 0.90*/$/c"}},"bound":{{"addr":{ADDR},"id":"/$/b","path":"/a"}}}}}},{{"weight":0.9,"tree":{{"type":"leaf","path":"/$/c/a","dentry":{{"prefix":"/svc","dst":"0.10*/$/b & 0.90*/$/c"}},"bound":{{"addr":{ADDR},"id":"/$/c","path":"/a"}}}}}}]}}"#
        )
    );
    assert_eq!(
        explained("/svc=>~", "/svc/a").await,
        r#"{"type":"delegate","path":"/svc/a","delegate":{"type":"neg","path":"~","dentry":{"prefix":"/svc","dst":"~"}}}"#
    );
    assert_eq!(
        explained("/svc=>!", "/svc/a").await,
        r#"{"type":"delegate","path":"/svc/a","delegate":{"type":"fail","path":"!","dentry":{"prefix":"/svc","dst":"!"}}}"#
    );
    assert_eq!(
        explained("/svc=>$", "/svc/a").await,
        r#"{"type":"delegate","path":"/svc/a","delegate":{"type":"empty","path":"/svc/a","dentry":{"prefix":"/svc","dst":"$"}}}"#
    );
    assert_eq!(explained("", "/svc/web").await, r#"{"type":"neg","path":"/svc/web"}"#);
    assert_eq!(
        explained("/svc=>/#/io.l5d.fs", "/svc/cat").await,
        r#"{"type":"delegate","path":"/svc/cat","delegate":{"type":"neg","path":"/#/io.l5d.fs/cat","dentry":{"prefix":"/svc","dst":"/#/io.l5d.fs"}}}"#
    );
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_becomes_a_node() {
    assert_eq!(
        explained("/svc=>/svc", "/svc/a").await,
        r#"{"type":"exception","path":"/svc/a","message":"Max recursion level: 100 reached in Namer lookup"}"#
    );
    assert_eq!(
        explained("/svc=>/$/bad", "/svc").await,
        r#"{"type":"delegate","path":"/svc","delegate":{"type":"exception","path":"/$/bad","dentry":{"prefix":"/svc","dst":"/$/bad"},"message":"bad name"}}"#
    );
    assert!(explained("/svc=>/svc/a | /svc/b", "/svc").await.contains("more than 5000 names"));
}

#[tokio::test(start_paused = true)]
async fn an_explanation_waits_for_names_and_addresses() {
    let namer = Manual::new("/#/fs");
    let namers = Namers::new(&[namer.arc()], &[]);
    let (table, own) = Activity::channel();
    let explaining = tokio::spawn(delegate(namers, Some(own), dtab("/x=>/#/fs"), path("/svc/foo")));
    table.ok(dtab("/svc=>/x"));
    while !namer.is_watched("/foo") {
        idle().await;
    }
    let (addr, watch): (AddrUpdater, AddrWatch) = AddrWatch::channel(Addr::Pending);
    let name = Name::Bound(Bound::new(path("/#/fs/foo"), Path::empty(), watch));
    namer.set("/foo", State::Ok(NameTree::Leaf(name)));
    idle().await;
    assert!(!explaining.is_finished());
    addr.set(Addr::failed("malformed address: x"));
    let json = explaining.await.unwrap().unwrap().to_json();
    assert!(json.contains(r#""addr":{"type":"failed","cause":"malformed address: x"}"#), "{json}");
}

#[tokio::test(start_paused = true)]
async fn an_interpreter_without_its_table_explains_nothing() {
    let failed = delegate(Namers::new(&[], &[]), Some(Activity::failed("no table")), Dtab::empty(), path("/a")).await;
    assert_eq!(failed.unwrap_err().as_ref(), "no table");
}

proptest! {
    /// Tables over few names, so that they refer to each other and recurse.
    #[test]
    fn any_table_is_evaluated(table in "(/[ab](/[ab*])?=>[(]?(/[ab$](/[ab])?|~|[$]|!)( [|&] (/[ab$](/[ab])?|~)){0,2};){0,6}") {
        if let Ok(table) = Dtab::read(&table) {
            let namers = Namers::new(&[], &[BuiltIn::arc()]);
            let (activity, future) = Binding::new(namers.clone(), None, table.clone(), path("/a/b")).start();
            prop_assert!(future.is_none());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let explained = runtime.block_on(delegate(namers, None, table, path("/a/b"))).unwrap().to_json();
            // Whatever is bound has a leaf in the explanation too.
            if let State::Ok(tree) = activity.current() {
                tree.for_each(&mut |bound| assert!(explained.contains(&format!("\"id\":\"{}\"", bound.id))));
            }
        }
    }
}
