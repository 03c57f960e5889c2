//! The fence, at every place where a publisher can be when it dies or is overtaken, on every kind of destination that
//! has one: folders, S3 (`s3s`), Google's XML multipart uploads (the same server behind Google's headers: no emulator to
//! be had speaks them), Azure (azurite).

mod azure;
mod local;
mod request;
mod s3;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use tempfile::TempDir;

use super::testing::{BUCKET, S3Server};
use super::*;
use crate::domain::{self, Credentials, OutputFile, Overwrite};
use crate::storage::hex;
use crate::storage::object::Upload;
use crate::storage::results::{ByteRange, ReadError};

const QUICK: Patience =
    Patience { retries: 3, within: Duration::from_secs(5), backoff: Duration::from_millis(1) };

fn publication(number: u128) -> PublicationId {
    PublicationId::from_uuid(uuid::Uuid::from_u128(number))
}

fn storage(path: &str, overwrite: Overwrite) -> Destination {
    Destination::Storage { path: ObjectPath::parse(path).unwrap(), overwrite, metadata: BTreeMap::new() }
}

fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n / 7 % 251).unwrap() ^ seed).collect()
}

async fn no_journal(_: Handle) -> Result<(), Failure> {
    Ok(())
}

fn parts_of(handle: &Handle) -> usize {
    match &handle.entry().place {
        Place::S3 { parts, .. } | Place::Bucket { parts, .. } => parts.len(),
        Place::Local { .. } | Place::Ftp { .. } | Place::Http { .. } => 0,
    }
}

/// A work folder with encoded files, and somewhere to publish them.
struct Desk {
    folder: TempDir,
    destinations: Destinations,
    server: Option<S3Server>,
    /// Ends with the desk.
    azurite: Option<azure::Azurite>,
}

impl Desk {
    fn local() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        let settings = StorageSettings::Local { root: folder.path().join("storage") };
        let destinations = Destinations::open_with(&settings, &[folder.path().join("root")], QUICK).unwrap();
        Self { folder, destinations, server: None, azurite: None }
    }

    async fn s3() -> Self {
        let server = S3Server::start().await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        let destinations = s3_destinations(&server.settings());
        Self { folder, destinations, server: Some(server), azurite: None }
    }

    /// Google's uploads: XML like S3's, other headers, a bearer token.
    async fn gcs() -> Self {
        let server = S3Server::start_google().await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        let settings = StorageSettings::Bucket {
            bucket: domain::Bucket::Gcs { name: BUCKET.to_owned(), endpoint: Some(server.plain_endpoint()) },
            prefix: Some(testing::prefix()),
            credentials: Some(Credentials::Bearer { token: testing::SECRET.to_owned() }),
        };
        let destinations = Destinations::open_with(&settings, &[], QUICK).unwrap();
        Self { folder, destinations, server: Some(server), azurite: None }
    }

    async fn azure() -> Self {
        let azurite = azure::Azurite::start().await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        let settings = StorageSettings::Bucket {
            bucket: azurite.container(),
            prefix: Some(testing::prefix()),
            credentials: Some(azure::key()),
        };
        let destinations = Destinations::open_with(&settings, &[], QUICK).unwrap();
        Self { folder, destinations, server: None, azurite: Some(azurite) }
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

    /// A set of an entry, a list and these members, which hold their names.
    fn set(&self, entry: &[u8], members: &[&str]) -> SetFiles {
        let named = |name: &str| (name.to_owned(), self.file(&name.replace('/', "-"), name.as_bytes()));
        SetFiles {
            // A file of its own each time: on one file system they are linked, and not copied.
            entry: self.file(&format!("entry-{}", hex(entry)), entry),
            lists: vec![("manifest.mpd".to_owned(), self.file("mpd", b"<MPD/>"))],
            members: members.iter().map(|name| named(name)).collect(),
        }
    }

    async fn stage_set(&self, to: &Destination, number: u128, files: &SetFiles) -> Handle {
        self.destinations.stage_set(to, publication(number), files, no_journal).await.unwrap()
    }

    async fn stage(&self, to: &Destination, id: u128, file: &StagedFile) -> Handle {
        self.destinations.stage(to, publication(id), file, no_journal).await.unwrap()
    }

    /// What is visible at a path of the storage.
    async fn visible(&self, path: &str) -> Option<Vec<u8>> {
        match (&self.server, self.destinations.reading()) {
            (Some(server), _) => server.object(&format!("team/a/{path}")),
            (None, Reading::Folder(root)) => std::fs::read(root.join(path)).ok(),
            (None, Reading::Objects { store, .. }) => {
                let key = object_store::path::Path::parse(format!("team/a/{path}")).unwrap();
                let object = store.get_opts(&key, object_store::GetOptions::default()).await.ok()?;
                Some(object.bytes().await.unwrap().to_vec())
            }
        }
    }

    /// Names that publishing left behind, hidden ones included.
    async fn leftovers(&self) -> Vec<String> {
        if let Some(server) = &self.server {
            return server.leftovers();
        }
        if let Reading::Objects { store, .. } = self.destinations.reading() {
            let names: Vec<_> =
                store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
            return names.into_iter().filter(|name| name.contains(".flux-")).collect();
        }
        let names = std::fs::read_dir(self.folder.path().join("storage")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".flux-")).collect()
    }
}

fn s3_destinations(settings: &StorageSettings) -> Destinations {
    Destinations::open_with(settings, &[], QUICK).unwrap()
}

macro_rules! on_all {
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
            #[tokio::test]
            async fn on_gcs() {
                body(Desk::gcs().await).await;
            }
            #[tokio::test]
            async fn on_azure() {
                body(Desk::azure().await).await;
            }
        }
    )*};
}

on_all! {
    async fn a_file_is_invisible_until_it_is_committed(desk) {
        let (to, content) = (storage("a.mp4", Overwrite::Replace), bytes(70_000, 1));
        let handle = desk.stage(&to, 1, &desk.file("x", &content)).await;
        assert_eq!(desk.visible("a.mp4").await, None);
        assert_eq!(desk.destinations.existing(&to).await.unwrap(), None);
        let committed = desk.destinations.commit(&handle).await.unwrap();
        assert!(committed.url.ends_with("/a.mp4"), "{}", committed.url);
        assert_eq!(desk.visible("a.mp4").await, Some(content));
        assert_eq!(desk.leftovers().await, Vec::<String>::new());
        let existing = desk.destinations.existing(&to).await.unwrap().unwrap();
        assert_eq!((existing.publication, existing.size), (Some(publication(1)), 70_000));
        assert!(existing.sha256.is_some() && existing.etag.is_some());
    }

    async fn only_what_a_publication_put_there_is_removed(desk) {
        let to = storage("kept/a.mp4", Overwrite::Replace);
        let old = desk.stage(&to, 1, &desk.file("x", b"1")).await;
        desk.destinations.commit(&old).await.unwrap();
        let new = desk.stage(&to, 2, &desk.file("y", b"2")).await;
        desk.destinations.commit(&new).await.unwrap();
        assert!(!desk.destinations.remove(&to, publication(1), &[]).await.unwrap(), "another is there by now");
        assert_eq!(desk.visible("kept/a.mp4").await, Some(b"2".to_vec()));
        assert!(desk.destinations.remove(&to, publication(2), &[]).await.unwrap());
        assert_eq!(desk.visible("kept/a.mp4").await, None);
        assert!(!desk.destinations.remove(&to, publication(2), &[]).await.unwrap(), "it is gone already");
    }

    async fn a_set_becomes_visible_by_its_entry(desk) {
        let to = storage("vod/film/master.m3u8", Overwrite::Replace);
        let set = desk.set(b"#EXTM3U", &["5e7/0.m4s", "5e7/1.m4s"]);
        let handle = desk.stage_set(&to, 1, &set).await;
        assert_eq!(desk.visible("vod/film/5e7/1.m4s").await, Some(b"5e7/1.m4s".to_vec()), "nothing leads to it");
        for list in ["vod/film/master.m3u8", "vod/film/manifest.mpd"] {
            assert_eq!(desk.visible(list).await, None, "{list}");
        }
        let recorded = Handle::from_json(&handle.to_json()).unwrap();
        let committed = desk.destinations.commit(&recorded).await.unwrap();
        assert!(committed.url.ends_with("vod/film/master.m3u8"), "{}", committed.url);
        assert_eq!(desk.destinations.commit(&recorded).await.unwrap(), committed, "again");
        assert_eq!(desk.visible("vod/film/master.m3u8").await, Some(b"#EXTM3U".to_vec()));
        assert_eq!(desk.visible("vod/film/manifest.mpd").await, Some(b"<MPD/>".to_vec()));
        assert_eq!(desk.destinations.destroy(&recorded).await.unwrap(), HandleFate::Committed(committed));
        assert_eq!(desk.leftovers().await, Vec::<String>::new());
        let others = ["manifest.mpd", "5e7/0.m4s", "5e7/1.m4s"].map(str::to_owned);
        assert!(desk.destinations.remove(&to, publication(1), &others).await.unwrap());
        for file in ["master.m3u8", "manifest.mpd", "5e7/0.m4s", "5e7/1.m4s"] {
            assert_eq!(desk.visible(&format!("vod/film/{file}")).await, None, "{file}");
        }
    }

    async fn a_destroyed_set_leaves_nothing_and_an_earlier_one_as_it_was(desk) {
        let to = storage("vod/master.m3u8", Overwrite::Replace);
        let first = desk.stage_set(&to, 1, &desk.set(b"first", &["a/0.m4s"])).await;
        desk.destinations.commit(&first).await.unwrap();
        let second = desk.stage_set(&to, 2, &desk.set(b"second", &["b/0.m4s"])).await;
        assert_eq!(desk.destinations.destroy(&second).await.unwrap(), HandleFate::Dead);
        assert_eq!(desk.destinations.destroy(&second).await.unwrap(), HandleFate::Dead, "again");
        assert!(desk.destinations.commit(&second).await.is_err(), "nobody can commit it any more");
        assert_eq!(desk.visible("vod/b/0.m4s").await, None);
        assert_eq!(desk.visible("vod/a/0.m4s").await, Some(b"a/0.m4s".to_vec()));
        assert_eq!(desk.visible("vod/master.m3u8").await, Some(b"first".to_vec()));
        assert_eq!(desk.leftovers().await, Vec::<String>::new());
        // One whose lists are visible and whose entry is not was being committed by somebody who died.
        let third = desk.stage_set(&to, 3, &desk.set(b"third", &["c/0.m4s"])).await;
        let Handle::V2(set) = &third else { panic!("a set") };
        desk.destinations.commit(&Handle::V1(set.lists[0].clone())).await.unwrap();
        assert_eq!(desk.destinations.destroy(&third).await.unwrap(), HandleFate::Dead);
        assert_eq!(desk.visible("vod/manifest.mpd").await, None);
        assert_eq!(desk.visible("vod/master.m3u8").await, Some(b"first".to_vec()));
        assert_eq!(desk.leftovers().await, Vec::<String>::new());
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
        assert_eq!(desk.visible("a").await, None);
        assert_eq!(desk.leftovers().await, Vec::<String>::new());
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
        assert_eq!(desk.visible("a").await, Some(b"1".to_vec()));
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
        assert_eq!(desk.visible("a").await, Some(b"1".to_vec()));
        assert_eq!(desk.destinations.destroy(&second).await.unwrap(), HandleFate::Dead);
        let third = desk.stage(&storage("a", Overwrite::Replace), 3, &desk.file("z", b"3")).await;
        desk.destinations.commit(&third).await.unwrap();
        assert_eq!(desk.visible("a").await, Some(b"3".to_vec()));
        assert_eq!(desk.destinations.destroy(&first).await.unwrap(), HandleFate::Dead);
        assert_eq!(desk.leftovers().await, Vec::<String>::new());
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
        assert_eq!(desk.leftovers().await, Vec::<String>::new());
        // A handle whose bytes never came is refused, also when nobody destroyed it.
        let begun = desk.destinations.begin(&to, publication(2), &desk.file("x", b"1")).await.unwrap();
        let begun = Handle::V1(begun);
        assert!(desk.destinations.commit(&begun).await.is_err());
        assert_eq!(desk.visible("a").await, None);
        for handle in [begun, journaled.unwrap()] {
            let recorded = Handle::from_json(&handle.to_json()).unwrap();
            assert_eq!(desk.destinations.destroy(&recorded).await.unwrap(), HandleFate::Dead);
        }
        assert_eq!(desk.leftovers().await, Vec::<String>::new());
    }

    async fn a_file_that_changed_is_not_published(desk) {
        let to = storage("a", Overwrite::Replace);
        let file = desk.file("x", b"1234");
        std::fs::write(&file.path, b"12345").unwrap();
        let failure = desk.destinations.stage(&to, publication(1), &file, no_journal).await.unwrap_err();
        assert_eq!(failure.code, Code::Internal);
        assert_eq!(desk.leftovers().await, Vec::<String>::new());
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
            role: None,
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

    async fn the_source_side_reads_the_same_storage(desk) {
        let handle = desk.stage(&storage("in/a", Overwrite::Replace), 1, &desk.file("x", b"abc")).await;
        desk.destinations.commit(&handle).await.unwrap();
        let read = match desk.destinations.reading() {
            Reading::Folder(root) => std::fs::read(root.join("in/a")).unwrap(),
            Reading::Objects { store, prefix } => {
                let key = object_store::path::Path::parse(format!("{}/in/a", prefix.unwrap())).unwrap();
                let object = store.get_opts(&key, object_store::GetOptions::default()).await.unwrap();
                object.bytes().await.unwrap().to_vec()
            }
        };
        assert_eq!(read, b"abc");
    }

    async fn a_token_is_read_where_it_was_left(desk) {
        let id = uuid::Uuid::from_u128(7);
        assert_eq!(desk.destinations.read_token(id).await.unwrap(), None);
        desk.destinations.leave_token(id, "tell".into()).await.unwrap();
        assert_eq!(desk.destinations.read_token(id).await.unwrap().as_deref(), Some("tell"));
        assert_eq!(desk.destinations.tokens().await.unwrap(), [id]);
        for _ in 0..2 {
            desk.destinations.remove_token(id).await.unwrap();
        }
        assert_eq!(desk.destinations.read_token(id).await.unwrap(), None);
        assert_eq!(desk.destinations.tokens().await.unwrap(), Vec::<uuid::Uuid>::new());
        assert_eq!(desk.leftovers().await, Vec::<String>::new());
    }

    async fn doctor_finds_a_working_fence(desk) {
        assert_eq!(desk.destinations.reachable(publication(9)).await.unwrap(), Fencing::Works);
        assert_eq!(desk.leftovers().await, Vec::<String>::new());
    }
}
