//! The fs namer over real directories: every way in which a file may change, and every way in which it may be wrong.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path as FilePath;
use std::sync::Arc;

use common::{bind, interpreter, namer, shown, try_namer, until};
use l5d_naming::{Interpreter, Path};
use tempfile::TempDir;

/// A directory and the interpreter over it, as routers have it.
struct Disco {
    dir: TempDir,
    interpreter: Arc<dyn Interpreter>,
}

impl Disco {
    fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap())
    }

    fn over(dir: TempDir) -> Self {
        let namer = namer(&format!("kind: io.l5d.fs\nrootDir: {}", dir.path().display()));
        let interpreter = interpreter("kind: default", &[namer]);
        Self { dir, interpreter }
    }

    fn path(&self) -> &FilePath {
        self.dir.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// As editors write: a new file takes the old one's place.
    fn replace(&self, name: &str, text: &str) {
        self.write("new~", text);
        fs::rename(self.path().join("new~"), self.path().join(name)).unwrap();
    }

    fn bind(&self, name: &str) -> l5d_naming::Activity<l5d_naming::NameTree<l5d_naming::Bound>> {
        bind(&self.interpreter, "/svc=>/#/io.l5d.fs", name)
    }
}

#[tokio::test]
async fn a_file_names_its_addresses() {
    let disco = Disco::new();
    disco.write("web", "# two\n127.0.0.1 81\n\n127.1 82 * 3.0\n");
    until(&disco.bind("/svc/web"), "/#/io.l5d.fs/web[/] 127.0.0.1:81 127.0.0.1:82*3").await;
    until(&disco.bind("/svc/web/a/b"), "/#/io.l5d.fs/web[/a/b] 127.0.0.1:81 127.0.0.1:82*3").await;
    disco.write("local", "localhost 80");
    let local = disco.bind("/svc/local");
    until(&local, "/#/io.l5d.fs/local[/] localhost/127.0.0.1:80").await;
}

#[tokio::test]
async fn what_is_in_memory_is_bound_at_once() {
    let disco = Disco::new();
    disco.write("web", "127.0.0.1 81");
    fs::create_dir(disco.path().join("dir")).unwrap();
    disco.write("dir/web", "127.0.0.1 82");
    assert_eq!(shown(&disco.bind("/svc/web/a")), "/#/io.l5d.fs/web[/a] 127.0.0.1:81");
    assert_eq!(shown(&disco.bind("/svc/dir/web")), "/#/io.l5d.fs/dir/web[/] 127.0.0.1:82");
    // Another disk is left to the task.
    symlink("/proc/sys/kernel/ostype", disco.path().join("elsewhere")).unwrap();
    let elsewhere = disco.bind("/svc/elsewhere");
    assert_eq!(shown(&elsewhere), "pending");
    until(&elsewhere, "/#/io.l5d.fs/elsewhere[/] failed: malformed address: Linux").await;
    // And it is followed as any.
    let web = disco.bind("/svc/web");
    disco.write("web", "127.0.0.1 83");
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:83").await;
}

#[tokio::test]
async fn every_kind_of_change_is_followed() {
    let disco = Disco::new();
    let web = disco.bind("/svc/web");
    until(&web, "~").await;
    disco.write("web", "127.0.0.1 81");
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:81").await;
    disco.write("web", "127.0.0.1 82");
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:82").await;
    disco.replace("web", "127.0.0.1 83");
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:83").await;
    disco.replace("web", "127.0.0.1 84");
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:84").await;
    fs::remove_file(disco.path().join("web")).unwrap();
    until(&web, "~").await;
    disco.write("web", "127.0.0.1 85");
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:85").await;
    fs::remove_file(disco.path().join("web")).unwrap();
    fs::create_dir(disco.path().join("web")).unwrap();
    until(&web, "~").await;
}

#[tokio::test]
async fn a_change_does_not_rebind_the_name() {
    let disco = Disco::new();
    disco.write("web", "127.0.0.1 81");
    let mut web = disco.bind("/svc/web");
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:81").await;
    web.read();
    disco.replace("web", "127.0.0.1 82");
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:82").await;
    let changed = tokio::time::timeout(std::time::Duration::ZERO, web.changed()).await;
    assert!(changed.is_err(), "the same name, with other addresses");
}

#[tokio::test]
async fn addresses_are_followed_after_the_name_was_let_go() {
    let disco = Disco::new();
    disco.write("web", "127.0.0.1 81");
    let web = disco.bind("/svc/web");
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:81").await;
    let mut addr = None;
    if let l5d_naming::State::Ok(tree) = web.current() {
        tree.for_each(&mut |bound| addr = Some(bound.addr.clone()));
    }
    let mut addr = addr.unwrap();
    drop(web);
    // Another name is looked at in between, when unwatched ones are forgotten.
    until(&disco.bind("/svc/other"), "~").await;
    addr.settled().await;
    disco.replace("web", "127.0.0.1 82");
    assert!(addr.changed().await);
    until(&disco.bind("/svc/web"), "/#/io.l5d.fs/web[/] 127.0.0.1:82").await;
}

#[tokio::test]
async fn directories_take_one_segment_each() {
    let disco = Disco::new();
    let api = disco.bind("/svc/prod/eu/api/v1");
    until(&api, "~").await;
    fs::create_dir_all(disco.path().join("prod/eu")).unwrap();
    disco.write("prod/eu/api", "127.0.0.1 81");
    until(&api, "/#/io.l5d.fs/prod/eu/api[/v1] 127.0.0.1:81").await;
    until(&disco.bind("/svc/prod/eu"), "~").await;
    until(&disco.bind("/svc"), "~").await;
    disco.replace("prod/eu/api", "127.0.0.1 82");
    until(&api, "/#/io.l5d.fs/prod/eu/api[/v1] 127.0.0.1:82").await;
    fs::remove_dir_all(disco.path().join("prod")).unwrap();
    until(&api, "~").await;
    disco.write("prod", "127.0.0.1 83");
    until(&api, "/#/io.l5d.fs/prod[/eu/api/v1] 127.0.0.1:83").await;
}

/// As Kubernetes mounts a ConfigMap: files are links through `..data`, which is replaced by a rename.
#[tokio::test]
async fn a_mounted_config_map_is_followed() {
    let disco = Disco::new();
    for (version, port) in [("..1", 81), ("..2", 82)] {
        fs::create_dir(disco.path().join(version)).unwrap();
        disco.write(&format!("{version}/web"), &format!("127.0.0.1 {port}"));
    }
    symlink("..1", disco.path().join("..data")).unwrap();
    symlink("..data/web", disco.path().join("web")).unwrap();
    let web = disco.bind("/svc/web");
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:81").await;
    symlink("..2", disco.path().join("..new")).unwrap();
    fs::rename(disco.path().join("..new"), disco.path().join("..data")).unwrap();
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:82").await;
}

/// A change behind a link that leads elsewhere has no event in the directory. The link is there before the directory is
/// watched, so that it has none either.
#[tokio::test]
async fn a_change_without_an_event_is_found() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = elsewhere.path().join("web");
    fs::write(&target, "127.0.0.1 81").unwrap();
    symlink(&target, dir.path().join("web")).unwrap();
    let disco = Disco::over(dir);
    let web = disco.bind("/svc/web");
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:81").await;
    fs::write(&target, "127.0.0.1 82").unwrap();
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:82").await;
}

#[tokio::test]
async fn wrong_files_fail_and_empty_ones_have_no_address() {
    let disco = Disco::new();
    disco.write("bad", "127.0.0.1 80\n127.0.0.1 notaport # x\n");
    disco.write("empty", "# nobody\n");
    disco.write("big", &"#\n".repeat(250 * 1024 + 1));
    disco.write("big-enough", &format!("{}127.0.0.1 80", "#\n".repeat(249 * 1024)));
    let bad = disco.bind("/svc/bad");
    until(&bad, "/#/io.l5d.fs/bad[/] failed: malformed address: 127.0.0.1 notaport").await;
    until(&disco.bind("/svc/empty"), "/#/io.l5d.fs/empty[/]").await;
    let path = disco.path().join("big");
    let too_big = format!("/#/io.l5d.fs/big[/] failed: file {} is larger than 512000 bytes", path.display());
    until(&disco.bind("/svc/big"), &too_big).await;
    until(&disco.bind("/svc/big-enough"), "/#/io.l5d.fs/big-enough[/] 127.0.0.1:80").await;
    disco.replace("bad", "127.0.0.1 80");
    until(&bad, "/#/io.l5d.fs/bad[/] 127.0.0.1:80").await;
}

/// The name of a bound but empty service stops alternatives; a missing one does not.
#[tokio::test]
async fn only_a_missing_file_falls_through() {
    let disco = Disco::new();
    let table = "/svc=>/#/io.l5d.fs | /$/inet/127.1/80";
    let foo = bind(&disco.interpreter, table, "/svc/foo");
    until(&foo, "/$/inet/127.1/80[/foo] 127.0.0.1:80").await;
    disco.write("foo", "");
    until(&foo, "/#/io.l5d.fs/foo[/]").await;
    fs::remove_file(disco.path().join("foo")).unwrap();
    until(&foo, "/$/inet/127.1/80[/foo] 127.0.0.1:80").await;
}

#[tokio::test]
async fn no_name_leaves_the_directory() {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("secret"), "127.0.0.1 80").unwrap();
    fs::create_dir_all(outer.path().join("root/dir")).unwrap();
    let root = outer.path().join("root");
    let namer = namer(&format!("kind: io.l5d.fs\nrootDir: {}", root.display()));
    let interpreter = interpreter("kind: default", &[namer]);
    let absolute = outer.path().join("secret").display().to_string();
    let slashes = [b"../secret".to_vec(), absolute.into_bytes(), b"secret\0".to_vec()];
    let mut names = vec![Path::read("/../secret").unwrap(), Path::read("/dir/../../secret").unwrap()];
    names.extend(slashes.map(|segment| Path::from_segments([segment])));
    names.push(Path::read("/./dir").unwrap());
    for name in names {
        let dtab = l5d_naming::Dtab::read("/svc=>/#/io.l5d.fs").unwrap();
        let bound = interpreter.bind(&dtab, &Path::read("/svc").unwrap().concat(&name));
        until(&bound, "~").await;
    }
}

#[tokio::test]
async fn pipes_and_devices_are_no_names() {
    let disco = Disco::new();
    symlink("/dev/zero", disco.path().join("zero")).unwrap();
    symlink("self", disco.path().join("self")).unwrap();
    symlink("nowhere", disco.path().join("broken")).unwrap();
    for name in ["/svc/zero", "/svc/self", "/svc/broken"] {
        until(&disco.bind(name), "~").await;
    }
}

#[tokio::test]
async fn names_and_state_are_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("sub/..data")).unwrap();
    for (name, text) in [("web", "127.0.0.1 80\n"), ("bad", "x"), ("sub/api", ""), ("sub/..data/api", "")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    symlink(".", dir.path().join("endless")).unwrap();
    let namer = namer(&format!("kind: io.l5d.fs\nprefix: /disco\nrootDir: {}", dir.path().display()));
    assert_eq!(namer.prefix().show(), "/#/disco");
    let names: Vec<String> = namer.names().iter().map(Path::show).collect();
    assert_eq!(
        names.iter().filter(|name| !name.contains("endless")).collect::<Vec<_>>(),
        ["/#/disco/bad", "/#/disco/sub/api", "/#/disco/web"]
    );
    let state = namer.state_json().unwrap();
    assert!(state.ends_with(r#""value":{"bad":"x","web":"127.0.0.1 80\n"}}}"#), "{state}");
    assert!(state.starts_with(r#"{"events":{"#), "{state}");
    fs::write(dir.path().join("new"), "").unwrap();
    while !namer.state_json().unwrap().contains(r#""lastEventName":"new""#) {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_root_that_is_no_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    for root in ["/nope", &path] {
        let error = try_namer(&format!("kind: io.l5d.fs\nrootDir: {root}")).err().unwrap();
        assert_eq!(error.to_string(), format!("{root} is not a directory"));
    }
}

#[tokio::test]
async fn later_namers_come_first() {
    let (first, last) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let namers: Vec<_> =
        [&first, &last].map(|dir| namer(&format!("kind: io.l5d.fs\nrootDir: {}", dir.path().display()))).into();
    fs::write(first.path().join("web"), "127.0.0.1 81").unwrap();
    let interpreter = interpreter("kind: default", &namers);
    let web = bind(&interpreter, "", "/#/io.l5d.fs/web");
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:81").await;
    fs::write(last.path().join("web"), "127.0.0.1 82").unwrap();
    until(&web, "/#/io.l5d.fs/web[/] 127.0.0.1:82").await;
    assert_eq!(shown(&bind(&interpreter, "", "/nope")), "~");
}
