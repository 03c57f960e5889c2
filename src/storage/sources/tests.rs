//! Every kind of source through the one handle, and every way a name may try to lead elsewhere.

mod bucket;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use uuid::Uuid;

use super::*;
use crate::domain::{ObjectPath, SystemIds, UploadId};
use crate::storage::test_origin::{Fault, Script, TestOrigin, noise};

struct House {
    dir: tempfile::TempDir,
    sources: Sources,
}

fn settings(dir: &Path) -> SourceSettings {
    SourceSettings {
        file_roots: vec![dir.join("media")],
        allow: vec!["127.0.0.1".parse().unwrap()],
        limits: SourceLimits { max_bytes: 10_000_000, ..SourceLimits::default() },
        fetch: FetchLimits {
            backoff: (Duration::from_millis(1), Duration::from_millis(2)),
            spool_first: 0,
            spool_first_within: Duration::ZERO,
            disk_margin: 0,
            ..FetchLimits::default()
        },
        inline_dir: dir.join("inline"),
        upload_dir: dir.join("uploads"),
        storage: SourceStorage::Local { root: dir.join("storage") },
        buckets: BucketAccess::default(),
    }
}

fn house_with(change: impl FnOnce(&mut SourceSettings)) -> House {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["media", "work"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let mut settings = settings(dir.path());
    change(&mut settings);
    let sources = Sources::open_with(settings).unwrap();
    House { dir, sources }
}

impl House {
    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    async fn open(&self, source: &Source) -> Result<OpenSource, Failure> {
        self.sources.open(source, &JobSecrets::default(), &self.dir.path().join("work"), &SystemIds).await
    }

    async fn refusal(&self, source: &Source) -> Failure {
        self.open(source).await.map(|_| ()).unwrap_err()
    }

    fn work(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("work")).unwrap().count()
    }
}

fn file(path: impl Into<String>) -> Source {
    Source::File { path: path.into() }
}

fn key(path: &str) -> ObjectPath {
    ObjectPath::parse(path).unwrap()
}

fn the_file(input: SourceInput) -> PathBuf {
    match input {
        SourceInput::File(path) => path,
        SourceInput::Loopback { url } => panic!("a file was expected, not {url}"),
    }
}

#[tokio::test]
async fn local_kinds_are_files_in_the_work_folder() {
    let house = house_with(|_| {});
    let id = UploadId::from_uuid(Uuid::from_u128(7));
    house.write("media/a/film.mp4", b"film");
    house.write("inline/k/1", b"film");
    house.write(&format!("uploads/{id}"), b"film");
    house.write("storage/in/x.mp4", b"film");
    let absolute = house.dir.path().join("media/a/film.mp4");
    for source in [
        file("a/film.mp4"),
        file(absolute.to_str().unwrap()),
        Source::Inline { key: key("k/1"), size: 4 },
        Source::Upload { id },
        Source::Storage { path: key("in/x.mp4") },
    ] {
        house.sources.check(&source, &JobSecrets::default()).unwrap();
        let open = house.open(&source).await.unwrap();
        assert_eq!(open.size(), 4);
        let path = the_file(open.input());
        assert!(path.starts_with(house.dir.path().join("work")), "{path:?}");
        assert_eq!(std::fs::read(path).unwrap(), b"film");
        assert_eq!(open.read_at(1, 100).await.unwrap().as_ref(), b"ilm");
        assert!(open.read_at(4, 1).await.unwrap().is_empty());
        open.verdict().await.unwrap();
        assert_eq!(house.work(), 0, "{source:?} leaves something behind");
    }
    assert!(absolute.metadata().is_ok(), "only the link goes, never the source");
}

#[tokio::test]
async fn hostile_paths_are_refused_with_a_code_and_no_host_path() {
    let house = house_with(|_| {});
    house.write("secret", b"secret");
    let media = house.dir.path().join("media");
    symlink("../secret", media.join("out")).unwrap();
    symlink("/proc/self/environ", media.join("environ")).unwrap();
    std::fs::create_dir(media.join("folder")).unwrap();
    house.write("media/empty", b"");
    house.write("media/large", &vec![0; 10_000_001]);
    rustix::fs::mknodat(rustix::fs::CWD, media.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    for (path, code) in [
        ("../secret", Code::SourceBlocked),
        ("a/../../secret", Code::SourceBlocked),
        ("/etc/passwd", Code::SourceBlocked),
        ("/proc/self/environ", Code::SourceBlocked),
        ("", Code::SourceBlocked),
        ("out", Code::SourceBlocked),
        ("environ", Code::SourceBlocked),
        ("folder", Code::SourceBlocked),
        ("fifo", Code::SourceBlocked),
        ("nothing", Code::SourceNotFound),
        ("a\0b", Code::SourceUnreachable),
        ("empty", Code::MediaCorrupt),
        ("large", Code::SourceTooLarge),
    ] {
        let refused = house.refusal(&file(path)).await;
        assert_eq!(refused.code, code, "{path:?}: {refused:?}");
        assert!(!refused.message.contains('/') && refused.message.ends_with('.'), "{refused}");
        assert_eq!(house.work(), 0, "{path:?}");
    }
    for path in ["../secret", "/etc/passwd", &format!("{}/../secret", media.display())] {
        assert_eq!(
            house.sources.check(&file(path), &JobSecrets::default()).unwrap_err().code,
            Code::SourceBlocked,
            "{path}"
        );
    }
    let closed = house_with(|settings| settings.file_roots.clear());
    assert_eq!(
        closed.sources.check(&file("a"), &JobSecrets::default()).unwrap_err().code,
        Code::SourceBlocked
    );
}

#[tokio::test]
async fn a_file_that_is_written_to_meanwhile_is_no_source() {
    let house = house_with(|_| {});
    house.write("media/growing", b"half");
    let open = house.open(&file("growing")).await.unwrap();
    house.write("media/growing", b"half and more");
    assert_eq!(open.verdict().await.unwrap_err().code, Code::SourceChanged);
    house.write("media/shrinking", b"four");
    let open = house.open(&file("shrinking")).await.unwrap();
    house.write("media/shrinking", b"");
    assert_eq!(open.read_at(0, 4).await.unwrap_err().code, Code::SourceChanged);
}

#[tokio::test]
async fn http_sources_use_the_sealed_url_and_never_show_it() {
    let content = noise(700_000);
    let origin = TestOrigin::start(Script { content: Arc::clone(&content), ..Default::default() }).await;
    let house = house_with(|_| {});
    let secrets = JobSecrets {
        source_url: Some(origin.url("/in.mp4?sig=canary").replace("http://", "http://me:canary@")),
        source_headers: BTreeMap::from([("X-Token".to_owned(), "canary".to_owned())]),
        ..Default::default()
    };
    let source = Source::Http { url: origin.url("/in.mp4") };
    house.sources.check(&source, &JobSecrets::default()).unwrap();
    let work = house.dir.path().join("work");
    let open = house.sources.open(&source, &secrets, &work, &SystemIds).await.unwrap();
    assert!(matches!(open.input(), SourceInput::Loopback { .. }));
    assert_eq!(open.read_at(300_000, 10).await.unwrap().as_ref(), &content[300_000..300_010]);
    open.whole().await.unwrap();
    assert_eq!(std::fs::read(the_file(open.input())).unwrap(), content.as_ref());
    assert_eq!(open.traffic().fetched, 700_000);
    open.verdict().await.unwrap();
    assert!(
        origin.heads()[0].starts_with("get /in.mp4?sig=canary ")
            && origin.heads()[0].contains("x-token: canary")
    );

    let gone =
        TestOrigin::start(Script { content, fault: Fault::StatusFrom(1, 500), ..Default::default() }).await;
    let secrets = JobSecrets { source_url: Some(gone.url("/?sig=canary")), ..secrets };
    let failed = house.sources.open(&source, &secrets, &work, &SystemIds).await.map(|_| ()).unwrap_err();
    assert!(!format!("{failed:?}").contains("canary"), "{failed:?}");
    let closed =
        JobSecrets { source_url: Some("http://127.0.0.1:1/?sig=canary".to_owned()), ..Default::default() };
    let failed = house.sources.open(&source, &closed, &work, &SystemIds).await.map(|_| ()).unwrap_err();
    assert_eq!(failed.code, Code::SourceUnreachable);
    assert!(!format!("{failed:?}").contains("canary"), "{failed:?}");
    assert_eq!(house.work(), 0);
}

#[tokio::test]
async fn inner_addresses_are_blocked_at_submission_and_at_opening() {
    let origin = TestOrigin::start(Script { content: noise(10), ..Default::default() }).await;
    let house = house_with(|settings| settings.allow.clear());
    let source = Source::Http { url: origin.url("/") };
    assert_eq!(house.sources.check(&source, &JobSecrets::default()).unwrap_err().code, Code::SourceBlocked);
    assert_eq!(house.refusal(&source).await.code, Code::SourceBlocked);
    // The sealed URL decides, not the shown one.
    let shown = Source::Http { url: "https://example.com/".to_owned() };
    let secrets = JobSecrets { source_url: Some(origin.url("/?k=v")), ..Default::default() };
    let work = house.dir.path().join("work");
    let refused = house.sources.open(&shown, &secrets, &work, &SystemIds).await.map(|_| ()).unwrap_err();
    assert_eq!((refused.code, origin.requests()), (Code::SourceBlocked, 0));
    assert!(house.sources.check(&Source::Http { url: "no url".to_owned() }, &JobSecrets::default()).is_err());
    assert!(
        house
            .sources
            .check(&Source::Inline { key: key("k"), size: u64::MAX }, &JobSecrets::default())
            .is_err()
    );
}

#[tokio::test]
async fn objects_are_read_in_ranges_under_their_validator() {
    let store = Arc::new(InMemory::new());
    let content = noise(3_000_000);
    let at = object_store::path::Path::from("pre/in/x.mp4");
    store.put(&at, PutPayload::from(content.to_vec())).await.unwrap();
    store.put(&"pre/empty".into(), PutPayload::new()).await.unwrap();
    let objects = Arc::clone(&store) as Arc<dyn ObjectStore>;
    let house = house_with(move |settings| {
        settings.storage = SourceStorage::Objects { store: objects, prefix: "pre".to_owned() };
    });
    let source = Source::Storage { path: key("in/x.mp4") };
    let open = house.open(&source).await.unwrap();
    assert_eq!(open.size(), 3_000_000);
    assert_eq!(open.read_at(2_999_990, 99).await.unwrap().as_ref(), &content[2_999_990..]);
    open.whole().await.unwrap();
    assert_eq!(std::fs::read(the_file(open.input())).unwrap(), content.as_ref());
    open.verdict().await.unwrap();

    let origin = ObjectOrigin::new(Arc::clone(&store) as _, at.clone(), Duration::from_secs(1));
    let pin = origin.open(1000).await.unwrap().pin;
    store.put(&at, PutPayload::from(vec![1; 3_000_000])).await.unwrap();
    let changed = origin.range(&pin, 1000..2000).await.map(|_| ()).unwrap_err();
    assert_eq!(changed.exhausted(1).code, Code::SourceChanged);

    assert_eq!(house.refusal(&Source::Storage { path: key("no") }).await.code, Code::SourceNotFound);
    assert_eq!(house.refusal(&Source::Storage { path: key("empty") }).await.code, Code::MediaCorrupt);
}
