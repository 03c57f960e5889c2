//! The fence, at every place where a publisher can be when it dies or is overtaken, on both kinds of destination.

use std::time::Duration;

use futures_util::TryStreamExt;
use tempfile::TempDir;

use super::testing::{BUCKET, S3Server};
use super::*;
use crate::domain::{OutputFile, Overwrite};
use crate::storage::results::{ByteRange, ReadError};
use crate::storage::{S3Settings, hex};

const QUICK: Patience = Patience {
    retries: 3,
    within: Duration::from_secs(5),
    backoff: Duration::from_millis(1),
};

fn publication(number: u128) -> PublicationId {
    PublicationId::from_uuid(uuid::Uuid::from_u128(number))
}

fn storage(path: &str, overwrite: Overwrite) -> Destination {
    Destination::Storage {
        path: ObjectPath::parse(path).unwrap(),
        overwrite,
        metadata: BTreeMap::new(),
    }
}

fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|n| (n / 7 % 251) as u8 ^ seed).collect()
}

async fn no_journal(_: Handle) -> Result<(), Failure> {
    Ok(())
}

fn parts_of(handle: &Handle) -> usize {
    let Handle::V1(staged) = handle;
    match &staged.place {
        Place::S3 { parts, .. } => parts.len(),
        Place::Local { .. } => 0,
    }
}

/// A work folder with encoded files, and somewhere to publish them.
struct Desk {
    folder: TempDir,
    destinations: Destinations,
    server: Option<S3Server>,
}

impl Desk {
    fn local() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        let settings = StorageSettings::Local {
            root: folder.path().join("storage"),
        };
        let destinations = Destinations::open_with(&settings, &[folder.path().join("root")], QUICK).unwrap();
        Self {
            folder,
            destinations,
            server: None,
        }
    }

    async fn s3() -> Self {
        let server = S3Server::start().await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        let destinations = s3_destinations(server.settings());
        Self {
            folder,
            destinations,
            server: Some(server),
        }
    }

    fn file(&self, name: &str, content: &[u8]) -> StagedFile {
        let path = self.folder.path().join("work").join(name);
        std::fs::write(&path, content).unwrap();
        StagedFile {
            path,
            size: content.len() as u64,
            sha256: hex(ring::digest::digest(&ring::digest::SHA256, content).as_ref()),
            content_type: "video/mp4".to_owned(),
        }
    }

    async fn stage(&self, to: &Destination, id: u128, file: &StagedFile) -> Handle {
        self.destinations
            .stage(to, publication(id), file, no_journal)
            .await
            .unwrap()
    }

    /// What is visible at a path of the storage.
    fn visible(&self, path: &str) -> Option<Vec<u8>> {
        match &self.server {
            Some(server) => server.object(&format!("team/a/{path}")),
            None => std::fs::read(self.folder.path().join("storage").join(path)).ok(),
        }
    }

    /// Names that publishing left behind, hidden ones included.
    fn leftovers(&self) -> Vec<String> {
        match &self.server {
            Some(server) => server.leftovers(),
            None => {
                let names = std::fs::read_dir(self.folder.path().join("storage")).unwrap();
                let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
                names.filter(|name| name.starts_with(".flux-")).collect()
            }
        }
    }
}

fn s3_destinations(settings: S3Settings) -> Destinations {
    Destinations::open_with(&StorageSettings::S3(Box::new(settings)), &[], QUICK).unwrap()
}

macro_rules! on_both {
    ($($(#[$doc:meta])* async fn $name:ident($desk:ident) $body:block)*) => {$(
        mod $name {
            use super::*;
            $(#[$doc])*
            async fn body($desk: Desk) $body
            #[tokio::test]
            async fn on_a_folder() {
                body(Desk::local()).await;
            }
            #[tokio::test]
            async fn on_s3() {
                body(Desk::s3().await).await;
            }
        }
    )*};
}

on_both! {
    async fn a_file_is_invisible_until_it_is_committed(desk) {
        let (to, content) = (storage("a.mp4", Overwrite::Replace), bytes(70_000, 1));
        let handle = desk.stage(&to, 1, &desk.file("x", &content)).await;
        assert_eq!(desk.visible("a.mp4"), None);
        assert_eq!(desk.destinations.existing(&to).await.unwrap(), None);
        let committed = desk.destinations.commit(&handle).await.unwrap();
        assert!(committed.url.ends_with("/a.mp4"), "{}", committed.url);
        assert_eq!(desk.visible("a.mp4"), Some(content));
        assert_eq!(desk.leftovers(), Vec::<String>::new());
        let existing = desk.destinations.existing(&to).await.unwrap().unwrap();
        assert_eq!((existing.publication, existing.size), (Some(publication(1)), 70_000));
        assert!(existing.sha256.is_some() && existing.etag.is_some());
    }

    async fn committing_again_says_the_same(desk) {
        let handle = desk.stage(&storage("a", Overwrite::Fail), 1, &desk.file("x", b"1")).await;
        let first = desk.destinations.commit(&handle).await.unwrap();
        assert_eq!(desk.destinations.commit(&handle).await.unwrap(), first);
    }

    async fn a_destroyed_handle_can_never_be_committed(desk) {
        let handle = desk.stage(&storage("a", Overwrite::Replace), 1, &desk.file("x", b"1")).await;
        assert_eq!(desk.destinations.destroy(&handle).await.unwrap(), HandleFate::Dead);
        assert_eq!(desk.destinations.destroy(&handle).await.unwrap(), HandleFate::Dead);
        assert_eq!(desk.destinations.commit(&handle).await.unwrap_err().code, Code::Internal);
        assert_eq!(desk.visible("a"), None);
        assert_eq!(desk.leftovers(), Vec::<String>::new());
    }

    /// Died between the commit and its record: the next run adopts.
    async fn destroying_a_committed_handle_says_so(desk) {
        let handle = desk.stage(&storage("a", Overwrite::Replace), 1, &desk.file("x", b"1")).await;
        let committed = desk.destinations.commit(&handle).await.unwrap();
        let recorded = Handle::from_json(&handle.to_json()).unwrap();
        for _ in 0..2 {
            let fate = desk.destinations.destroy(&recorded).await.unwrap();
            assert_eq!(fate, HandleFate::Committed(committed.clone()));
        }
        assert_eq!(desk.visible("a"), Some(b"1".to_vec()));
    }

    /// Two runs with byte-identical results, as a deterministic encoder gives: the loser is still the loser.
    async fn equal_bytes_are_not_mistaken_for_the_same_publication(desk) {
        let to = storage("a", Overwrite::Replace);
        let old = desk.stage(&to, 1, &desk.file("x", b"same")).await;
        let new = desk.stage(&to, 2, &desk.file("y", b"same")).await;
        assert_eq!(desk.destinations.destroy(&old).await.unwrap(), HandleFate::Dead);
        desk.destinations.commit(&new).await.unwrap();
        assert_eq!(desk.destinations.destroy(&old).await.unwrap(), HandleFate::Dead);
        assert!(desk.destinations.commit(&old).await.is_err());
        let existing = desk.destinations.existing(&to).await.unwrap().unwrap();
        assert_eq!(existing.publication, Some(publication(2)));
    }

    /// One encoded file, published twice by the same worker: the second handle must not take the first one's name away.
    async fn one_file_can_be_staged_twice(desk) {
        let (a, b) = (storage("a", Overwrite::Replace), storage("b", Overwrite::Replace));
        let file = desk.file("x", b"once");
        let first = desk.stage(&a, 1, &file).await;
        let second = desk.stage(&b, 2, &file).await;
        desk.destinations.commit(&first).await.unwrap();
        desk.destinations.commit(&second).await.unwrap();
        assert!(matches!(desk.destinations.destroy(&first).await.unwrap(), HandleFate::Committed(_)));
        assert!(matches!(desk.destinations.destroy(&second).await.unwrap(), HandleFate::Committed(_)));
    }

    async fn replace_replaces_and_fail_refuses(desk) {
        let fail = storage("a", Overwrite::Fail);
        let first = desk.stage(&fail, 1, &desk.file("x", b"1")).await;
        let second = desk.stage(&fail, 2, &desk.file("y", b"2")).await;
        desk.destinations.commit(&first).await.unwrap();
        assert_eq!(desk.destinations.commit(&second).await.unwrap_err().code, Code::DestinationExists);
        assert_eq!(desk.visible("a"), Some(b"1".to_vec()));
        assert_eq!(desk.destinations.destroy(&second).await.unwrap(), HandleFate::Dead);
        let third = desk.stage(&storage("a", Overwrite::Replace), 3, &desk.file("z", b"3")).await;
        desk.destinations.commit(&third).await.unwrap();
        assert_eq!(desk.visible("a"), Some(b"3".to_vec()));
        assert_eq!(desk.destinations.destroy(&first).await.unwrap(), HandleFate::Dead);
        assert_eq!(desk.leftovers(), Vec::<String>::new());
    }

    /// Died between the journal and the last byte: the journal's handle is enough to clean up.
    async fn what_the_journal_holds_is_enough_to_clean_up(desk) {
        let to = storage("a", Overwrite::Replace);
        let mut journaled = None;
        let refused = desk
            .destinations
            .stage(&to, publication(1), &desk.file("x", b"1"), |handle| {
                journaled = Some(handle);
                async { Err(Failure::new(Code::DiskFull, "no journal")) }
            })
            .await;
        assert_eq!(refused.unwrap_err().code, Code::DiskFull);
        assert_eq!(desk.leftovers(), Vec::<String>::new());
        // A handle whose bytes never came is refused, also when nobody destroyed it.
        let begun = desk.destinations.begin(&to, publication(2), &desk.file("x", b"1")).await.unwrap();
        assert!(desk.destinations.commit(&begun).await.is_err());
        assert_eq!(desk.visible("a"), None);
        for handle in [begun, journaled.unwrap()] {
            let recorded = Handle::from_json(&handle.to_json()).unwrap();
            assert_eq!(desk.destinations.destroy(&recorded).await.unwrap(), HandleFate::Dead);
        }
        assert_eq!(desk.leftovers(), Vec::<String>::new());
    }

    async fn a_file_that_changed_is_not_published(desk) {
        let to = storage("a", Overwrite::Replace);
        let file = desk.file("x", b"1234");
        std::fs::write(&file.path, b"12345").unwrap();
        let failure = desk.destinations.stage(&to, publication(1), &file, no_journal).await.unwrap_err();
        assert_eq!(failure.code, Code::Internal);
        assert_eq!(desk.leftovers(), Vec::<String>::new());
    }

    async fn results_are_read_back_whole_and_in_ranges(desk) {
        let (to, content) = (storage("out/a.mp4", Overwrite::Replace), bytes(600_000, 9));
        let file = desk.file("x", &content);
        let handle = desk.stage(&to, 1, &file).await;
        let output = OutputFile {
            path: "a.mp4".to_owned(),
            size: file.size,
            sha256: file.sha256.clone(),
            content_type: file.content_type.clone(),
        };
        let open = |range| desk.destinations.open_result(&to, &output, range);
        assert!(matches!(open(ByteRange::Whole).await, Err(ReadError::Gone)));
        desk.destinations.commit(&handle).await.unwrap();
        for (range, expected) in [
            (ByteRange::Whole, &content[..]),
            (ByteRange::From(599_990), &content[599_990..]),
            (ByteRange::Between(10, 300_000), &content[10..=300_000]),
            (ByteRange::Last(5), &content[599_995..]),
        ] {
            let body = open(range).await.unwrap();
            assert_eq!(body.size, 600_000);
            assert_eq!(body.range.end - body.range.start, expected.len() as u64);
            assert_eq!(body.content_type, "video/mp4");
            assert_eq!(body.etag, format!("\"{}\"", file.sha256));
            let read: Vec<_> = body.stream.try_collect().await.unwrap();
            assert!(read.concat() == expected, "{range:?}");
        }
        assert!(matches!(open(ByteRange::From(600_000)).await, Err(ReadError::Range { size: 600_000 })));
        let other = desk.stage(&to, 2, &desk.file("y", &bytes(600_000, 3))).await;
        desk.destinations.commit(&other).await.unwrap();
        assert!(matches!(open(ByteRange::Whole).await, Err(ReadError::Gone)));
    }

    async fn doctor_finds_a_working_fence(desk) {
        assert_eq!(desk.destinations.reachable(publication(9)).await.unwrap(), Fencing::Works);
        assert_eq!(desk.leftovers(), Vec::<String>::new());
    }
}

mod local {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use rustix::fs::IFlags;

    use super::*;

    fn file_at(path: impl AsRef<Path>) -> Destination {
        Destination::File {
            path: path.as_ref().to_str().unwrap().to_owned(),
            overwrite: Overwrite::Replace,
        }
    }

    #[tokio::test]
    async fn on_one_file_system_nothing_is_copied() {
        let desk = Desk::local();
        let file = desk.file("x", &bytes(100_000, 1));
        std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let handle = desk.stage(&storage("a", Overwrite::Replace), 1, &file).await;
        desk.destinations.commit(&handle).await.unwrap();
        let published = std::fs::metadata(desk.folder.path().join("storage/a")).unwrap();
        assert_eq!(published.ino(), std::fs::metadata(&file.path).unwrap().ino());
        std::fs::write(desk.folder.path().join("plain"), "").unwrap();
        let plain = std::fs::metadata(desk.folder.path().join("plain")).unwrap();
        assert_eq!(
            published.permissions().mode() & 0o777,
            plain.permissions().mode() & 0o644
        );
    }

    #[tokio::test]
    async fn from_another_file_system_it_is_copied() {
        let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        let desk = Desk::local();
        let content = bytes(3_000_000, 1);
        let mut file = desk.file("x", &content);
        let elsewhere = memory.path().join("x");
        std::fs::copy(&file.path, &elsewhere).unwrap();
        file.path = elsewhere;
        let handle = desk.stage(&storage("a", Overwrite::Replace), 1, &file).await;
        desk.destinations.commit(&handle).await.unwrap();
        assert!(desk.visible("a").unwrap() == content);
        assert!(matches!(
            desk.destinations.destroy(&handle).await.unwrap(),
            HandleFate::Committed(_)
        ));
    }

    #[tokio::test]
    async fn files_without_marks_are_recognised_by_their_content() {
        let desk = Desk::local();
        let handle = desk
            .stage(&storage("a", Overwrite::Replace), 1, &desk.file("x", b"content"))
            .await;
        desk.destinations.commit(&handle).await.unwrap();
        let target = desk.folder.path().join("storage/a");
        std::fs::remove_file(&target).unwrap();
        std::fs::write(&target, b"content").unwrap();
        assert!(matches!(
            desk.destinations.destroy(&handle).await.unwrap(),
            HandleFate::Committed(_)
        ));
        assert!(desk.destinations.commit(&handle).await.is_ok());
        std::fs::write(&target, b"another").unwrap();
        assert_eq!(
            desk.destinations.destroy(&handle).await.unwrap(),
            HandleFate::Dead
        );
        assert!(desk.destinations.commit(&handle).await.is_err());
    }

    #[tokio::test]
    async fn a_part_that_is_not_whole_is_not_committed() {
        let desk = Desk::local();
        let handle = desk
            .stage(&storage("a", Overwrite::Replace), 1, &desk.file("x", b"1234"))
            .await;
        let [part] = &desk.leftovers()[..] else {
            panic!("one part")
        };
        let path = desk.folder.path().join("storage").join(part);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"12").unwrap();
        assert_eq!(
            desk.destinations.commit(&handle).await.unwrap_err().code,
            Code::Internal
        );
        assert_eq!(desk.visible("a"), None);
    }

    #[tokio::test]
    async fn folders_that_were_made_go_again_with_the_handle() {
        let desk = Desk::local();
        let root = desk.folder.path().join("root");
        std::fs::create_dir(root.join("a")).unwrap();
        let handle = desk
            .stage(&file_at(root.join("a/b/c/x.mp4")), 1, &desk.file("x", b"1"))
            .await;
        assert!(root.join("a/b/c").is_dir());
        assert_eq!(
            desk.destinations.destroy(&handle).await.unwrap(),
            HandleFate::Dead
        );
        assert!(root.join("a").is_dir() && !root.join("a/b").exists());
    }

    #[tokio::test]
    async fn only_configured_folders_are_written() {
        let desk = Desk::local();
        let root = desk.folder.path().join("root");
        symlink(desk.folder.path(), root.join("up")).unwrap();
        std::fs::write(root.join("plain"), "").unwrap();
        let file = desk.file("x", b"1");
        for ok in ["a.mp4".to_owned(), root.join("b/c.mp4").display().to_string()] {
            assert_eq!(desk.destinations.check(&file_at(ok)), Ok(()));
        }
        for bad in [
            "/etc/passwd",
            "../x",
            "",
            "/",
            "a/../../x",
            ".flux-1.part",
            "a/.flux-x/b",
        ] {
            let failure = desk.destinations.check(&file_at(bad)).unwrap_err();
            assert_eq!(failure.code, Code::DestinationForbidden, "{bad}");
            assert!(
                !failure.message.contains(&*root.to_string_lossy()),
                "{}",
                failure.message
            );
        }
        let beside = format!("{}x/a.mp4", root.display());
        assert!(desk.destinations.check(&file_at(beside)).is_err());
        // These need a look at the disk.
        for bad in ["up/x.mp4", "plain/x.mp4"] {
            let staged = desk
                .destinations
                .stage(&file_at(bad), publication(1), &file, no_journal)
                .await;
            assert_eq!(staged.unwrap_err().code, Code::DestinationForbidden, "{bad}");
        }
        assert!(!desk.folder.path().join("x.mp4").exists());
    }

    #[tokio::test]
    async fn a_folder_in_the_way_is_forbidden_and_a_link_is_replaced() {
        let desk = Desk::local();
        let root = desk.folder.path().join("root");
        std::fs::create_dir(root.join("folder")).unwrap();
        let handle = desk.stage(&file_at("folder"), 1, &desk.file("x", b"1")).await;
        assert_eq!(
            desk.destinations.commit(&handle).await.unwrap_err().code,
            Code::DestinationForbidden
        );
        assert_eq!(
            desk.destinations.destroy(&handle).await.unwrap(),
            HandleFate::Dead
        );
        let outside = desk.folder.path().join("outside");
        std::fs::write(&outside, "precious").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        let handle = desk.stage(&file_at("link"), 2, &desk.file("x", b"1")).await;
        desk.destinations.commit(&handle).await.unwrap();
        assert_eq!(std::fs::read(&outside).unwrap(), b"precious");
        assert_eq!(std::fs::read(root.join("link")).unwrap(), b"1");
    }

    /// Tests often run as root, whom permissions do not stop; the immutable flag does.
    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_forbidden() {
        let desk = Desk::local();
        let folder = std::fs::File::open(desk.folder.path().join("storage")).unwrap();
        let Ok(flags) = rustix::fs::ioctl_getflags(&folder) else {
            return;
        };
        if rustix::fs::ioctl_setflags(&folder, flags | IFlags::IMMUTABLE).is_err() {
            return;
        }
        let to = storage("a", Overwrite::Replace);
        let staged = desk
            .destinations
            .stage(&to, publication(1), &desk.file("x", b"1"), no_journal)
            .await;
        let doctor = desk.destinations.reachable(publication(2)).await;
        rustix::fs::ioctl_setflags(&folder, flags).unwrap();
        assert_eq!(staged.unwrap_err().code, Code::DestinationForbidden);
        assert_eq!(doctor.unwrap_err().code, Code::DestinationForbidden);
    }

    #[tokio::test]
    async fn a_root_that_vanished_is_unreachable_and_not_made_again() {
        let desk = Desk::local();
        let root = desk.folder.path().join("root");
        std::fs::remove_dir(&root).unwrap();
        let staged = desk
            .destinations
            .stage(&file_at("x"), publication(1), &desk.file("x", b"1"), no_journal)
            .await;
        assert_eq!(staged.unwrap_err().code, Code::DestinationUnreachable);
        assert!(!root.exists());
    }

    #[tokio::test]
    async fn a_handle_is_no_right_to_write_elsewhere() {
        let desk = Desk::local();
        let handle = desk
            .stage(&storage("a", Overwrite::Replace), 1, &desk.file("x", b"1"))
            .await;
        let storage_folder = desk.folder.path().join("storage").display().to_string();
        let forged = handle
            .to_json()
            .replace(&storage_folder, &desk.folder.path().display().to_string());
        let forged = Handle::from_json(&forged).unwrap();
        assert_eq!(
            desk.destinations.commit(&forged).await.unwrap_err().code,
            Code::DestinationForbidden
        );
        assert_eq!(
            desk.destinations.destroy(&forged).await.unwrap_err().code,
            Code::DestinationForbidden
        );
    }

    #[tokio::test]
    async fn a_sender_that_is_given_up_leaves_nothing() {
        let desk = Desk::local();
        let (to, file) = (
            storage("a", Overwrite::Replace),
            desk.file("x", &bytes(1_000_000, 1)),
        );
        let handle = desk.destinations.begin(&to, publication(1), &file).await.unwrap();
        // Polled once: the work is on the blocking pool when its future is dropped.
        let mut sending = Box::pin(desk.destinations.send(handle.clone(), &file));
        assert!(futures_util::poll!(sending.as_mut()).is_pending());
        drop(sending);
        assert_eq!(
            desk.destinations.destroy(&handle).await.unwrap(),
            HandleFate::Dead
        );
        let gone = || desk.leftovers().is_empty();
        for _ in 0..1_000 {
            if gone() {
                break;
            }
            tokio::task::yield_now().await;
            blocking(|| Ok::<_, Failure>(())).await.unwrap();
        }
        assert!(gone());
        assert!(desk.destinations.commit(&handle).await.is_err());
    }
}

mod s3 {
    use super::*;

    #[tokio::test]
    async fn any_size_is_one_multipart_upload() {
        let desk = Desk::s3().await;
        for (id, length, parts) in [(1, 0, 1), (2, 1, 1), (3, 20 * 1024 * 1024, 3)] {
            let content = bytes(length, 5);
            let to = storage("big.mp4", Overwrite::Replace);
            let handle = desk.stage(&to, id, &desk.file("x", &content)).await;
            assert_eq!(parts_of(&handle), parts);
            let committed = desk.destinations.commit(&handle).await.unwrap();
            assert_eq!(committed.url, format!("s3://{BUCKET}/team/a/big.mp4"));
            assert!(desk.visible("big.mp4").unwrap() == content, "{length}");
            assert!(!handle.to_json().contains(testing::SECRET));
        }
        assert_eq!(desk.leftovers(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn type_and_metadata_are_kept() {
        let desk = Desk::s3().await;
        let metadata = BTreeMap::from([("project".to_owned(), "a b/c;d".to_owned())]);
        let path = ObjectPath::parse("ü/%2e%2e/a b+c.mp4").unwrap();
        let to = Destination::Storage {
            path: path.clone(),
            overwrite: Overwrite::Replace,
            metadata,
        };
        let file = desk.file("x", b"1");
        let handle = desk.stage(&to, 1, &file).await;
        desk.destinations.commit(&handle).await.unwrap();
        assert_eq!(desk.visible(path.as_str()), Some(b"1".to_vec()));
        let output = OutputFile {
            path: path.as_str().to_owned(),
            size: 1,
            sha256: file.sha256,
            content_type: "x/y".to_owned(),
        };
        let url = desk
            .destinations
            .presign(&to, &output, Duration::from_secs(60))
            .await
            .unwrap();
        let answer = client().get(url.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "video/mp4");
        assert_eq!(answer.headers()["x-amz-meta-project"], "a b/c;d");
        assert_eq!(
            answer.headers()["x-amz-meta-flux-publication"],
            publication(1).to_string()
        );
        assert_eq!(answer.text().await.unwrap(), "1");
        let forged = url.as_str().replace("X-Amz-Expires=60", "X-Amz-Expires=61");
        assert_eq!(client().get(forged).send().await.unwrap().status(), 403);
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "talks to a loopback server made by the test"
    )]
    fn client() -> reqwest::Client {
        reqwest::Client::new()
    }

    #[tokio::test]
    async fn metadata_that_could_break_a_header_is_refused_at_submission() {
        let desk = Desk::s3().await;
        let check = |name: &str, value: &str| {
            let metadata = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let path = ObjectPath::parse("a").unwrap();
            desk.destinations.check(&Destination::Storage {
                path,
                overwrite: Overwrite::Replace,
                metadata,
            })
        };
        assert_eq!(check("a-1_b", "text, with = signs"), Ok(()));
        let long = "x".repeat(2_000);
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("a\r\n", "x"),
            ("flux-publication", "x"),
            ("a", "x\ny"),
            ("a", "é"),
            ("a", ""),
            ("a", &long),
        ] {
            assert_eq!(
                check(name, value).unwrap_err().code,
                Code::DestinationForbidden,
                "{name:?} {value:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_wrong_secret_is_forbidden() {
        let desk = Desk::s3().await;
        let mut settings = desk.server.as_ref().unwrap().settings();
        settings.secret_access_key = Some("wrong".to_owned().into());
        let destinations = s3_destinations(settings);
        let to = storage("a", Overwrite::Replace);
        let staged = destinations
            .stage(&to, publication(1), &desk.file("x", b"1"), no_journal)
            .await;
        assert_eq!(staged.unwrap_err().code, Code::DestinationForbidden);
        assert_eq!(
            destinations.existing(&to).await.unwrap_err().code,
            Code::DestinationForbidden
        );
        // Not being allowed to abort is not the same as being dead.
        let handle = desk.stage(&to, 2, &desk.file("x", b"1")).await;
        assert_eq!(
            destinations.destroy(&handle).await.unwrap_err().code,
            Code::DestinationForbidden
        );
        desk.destinations.commit(&handle).await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_bucket_is_forbidden() {
        let desk = Desk::s3().await;
        let mut settings = desk.server.as_ref().unwrap().settings();
        settings.bucket = "missing".to_owned();
        let failure = s3_destinations(settings).reachable(publication(1)).await;
        // s3s-fs notices a missing bucket only at Complete, when it is asked for the object.
        assert!(matches!(
            failure,
            Ok(Fencing::Works)
                | Err(Failure {
                    code: Code::DestinationForbidden,
                    ..
                })
        ));
    }

    #[tokio::test]
    async fn an_unreachable_store_is_given_up_after_bounded_retries() {
        let desk = Desk::s3().await;
        let server = desk.server.as_ref().unwrap();
        let to = storage("a", Overwrite::Replace);
        let file = desk.file("x", b"1");
        server.be_busy(u32::MAX);
        let before = server.requests();
        let staged = desk
            .destinations
            .stage(&to, publication(1), &file, no_journal)
            .await;
        assert_eq!(staged.unwrap_err().code, Code::DestinationUnreachable);
        assert_eq!(
            server.requests() - before,
            1 + u32::try_from(QUICK.retries).unwrap()
        );
        // A port that nobody listens on: bound, then closed again.
        let port = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut settings = server.settings();
        settings.endpoint = Some(Url::parse(&format!("http://127.0.0.1:{port}")).unwrap());
        let failure = s3_destinations(settings)
            .stage(&to, publication(1), &file, no_journal)
            .await
            .unwrap_err();
        assert_eq!(failure.code, Code::DestinationUnreachable);
        assert!(!failure.message.contains("127.0.0.1"), "{}", failure.message);
    }

    #[tokio::test]
    async fn a_busy_store_is_tried_again() {
        let desk = Desk::s3().await;
        desk.server.as_ref().unwrap().be_busy(2);
        let handle = desk
            .stage(&storage("a", Overwrite::Replace), 1, &desk.file("x", b"1"))
            .await;
        desk.server.as_ref().unwrap().be_busy(2);
        desk.destinations.commit(&handle).await.unwrap();
    }

    /// The store completed and its answer got lost: the retry meets `NoSuchUpload`, and the object itself tells.
    #[tokio::test]
    async fn a_lost_answer_to_complete_is_still_a_commit() {
        let desk = Desk::s3().await;
        for (id, overwrite) in [(1, Overwrite::Replace), (2, Overwrite::Fail)] {
            let to = storage(&format!("{id}"), overwrite);
            let handle = desk.stage(&to, id, &desk.file("x", b"1")).await;
            desk.server.as_ref().unwrap().lose_completes(1);
            desk.destinations.commit(&handle).await.unwrap();
            desk.destinations.commit(&handle).await.unwrap();
            assert!(matches!(
                desk.destinations.destroy(&handle).await.unwrap(),
                HandleFate::Committed(_)
            ));
        }
    }

    /// Both publishers looked before either committed: the store's own condition decides.
    #[tokio::test]
    async fn overwrite_fail_holds_between_the_look_and_the_commit() {
        let desk = Desk::s3().await;
        let to = storage("a", Overwrite::Fail);
        let first = desk.stage(&to, 1, &desk.file("x", b"1")).await;
        let second = desk.stage(&to, 2, &desk.file("y", b"2")).await;
        desk.destinations.commit(&first).await.unwrap();
        let Configured::Bucket(bucket) = &desk.destinations.inner.storage else {
            panic!("a bucket")
        };
        let Handle::V1(staged) = &second;
        let Place::S3 {
            key, upload, parts, ..
        } = &staged.place
        else {
            panic!("a bucket")
        };
        let upload = Upload {
            key,
            id: upload,
            publication: staged.publication,
        };
        assert!(bucket.complete_new(upload, parts).await.is_err());
        assert_eq!(desk.visible("a"), Some(b"1".to_vec()));
    }

    #[tokio::test]
    async fn the_bytes_that_are_sent_are_the_bytes_that_were_verified() {
        let desk = Desk::s3().await;
        let mut file = desk.file("x", b"1234");
        std::fs::write(&file.path, b"4321").unwrap();
        let to = storage("a", Overwrite::Replace);
        let failure = desk
            .destinations
            .stage(&to, publication(1), &file, no_journal)
            .await
            .unwrap_err();
        assert_eq!(failure.code, Code::Internal);
        assert_eq!(desk.leftovers(), Vec::<String>::new());
        file.path = desk.folder.path().join("missing");
        assert!(
            desk.destinations
                .stage(&to, publication(1), &file, no_journal)
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn secrets_are_not_printed() {
        let desk = Desk::s3().await;
        let settings = desk.server.as_ref().unwrap().settings();
        assert!(!format!("{settings:?}").contains(testing::SECRET));
        let missing = storage("a", Overwrite::Replace);
        desk.server.as_ref().unwrap().be_busy(u32::MAX);
        let failure = desk.destinations.existing(&missing).await.unwrap_err();
        assert!(!format!("{failure:?}").contains(testing::SECRET));
    }
}
