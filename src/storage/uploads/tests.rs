//! Uploads: exact, durable, never half there.

use futures_util::stream;

use super::*;

const ID: UploadId = UploadId::from_uuid(uuid::Uuid::from_u128(5));

fn uploads() -> (tempfile::TempDir, Uploads) {
    let folder = tempfile::tempdir().unwrap();
    let uploads = Uploads::open(folder.path()).unwrap();
    (folder, uploads)
}

fn chunks(texts: &[&'static str]) -> impl Stream<Item = Result<Bytes, io::Error>> + Send + use<> {
    stream::iter(texts.iter().map(|text| Ok(Bytes::from_static(text.as_bytes()))).collect::<Vec<_>>())
}

fn names(folder: &tempfile::TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path().join("uploads")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn what_was_announced_is_kept_where_the_source_side_looks() {
    let (folder, uploads) = uploads();
    let received = uploads.receive(ID, 6, chunks(&["abc", "", "def"])).await.unwrap();
    assert_eq!(received.size, 6);
    // printf abcdef | sha256sum
    assert_eq!(received.sha256, "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721");
    assert_eq!(std::fs::read(upload_folder(folder.path()).join(ID.to_string())).unwrap(), b"abcdef");
    assert_eq!(names(&folder), [ID.to_string()]);
    assert_eq!(uploads.inspect(ID).await.unwrap(), Some(received));
    uploads.remove(ID).await.unwrap();
    uploads.remove(ID).await.unwrap();
    assert_eq!(uploads.inspect(ID).await.unwrap(), None);
}

#[tokio::test]
async fn an_empty_upload_is_a_file_too() {
    let (_folder, uploads) = uploads();
    assert_eq!(uploads.receive(ID, 0, chunks(&[])).await.unwrap().size, 0);
    assert!(uploads.upload_path(ID).is_file());
}

#[tokio::test]
async fn any_other_size_is_refused_and_nothing_stays() {
    let (folder, uploads) = uploads();
    let long = uploads.receive(ID, 5, chunks(&["abc", "def"])).await.unwrap_err();
    assert!(matches!(long, UploadError::TooLong { announced: 5 }));
    let short = uploads.receive(ID, 7, chunks(&["abc", "def"])).await.unwrap_err();
    assert!(matches!(short, UploadError::TooShort { announced: 7, received: 6 }));
    let broken = chunks(&["abc"]).chain(stream::iter([Err(io::Error::other("reset"))]));
    let broken = uploads.receive(ID, 6, broken).await.unwrap_err();
    assert!(matches!(broken, UploadError::Interrupted { received: 3, .. }));
    assert_eq!(names(&folder), Vec::<String>::new());
    assert_eq!(uploads.receive(ID, 3, chunks(&["abc"])).await.unwrap().size, 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_falls_silent_is_given_up() {
    let (folder, uploads) = uploads();
    let silent = chunks(&["abc"]).chain(stream::pending());
    let error = uploads.receive(ID, 6, silent).await.unwrap_err();
    assert!(matches!(error, UploadError::Interrupted { received: 3, .. }));
    assert_eq!(names(&folder), Vec::<String>::new());
}

#[tokio::test]
async fn a_finished_upload_is_never_replaced() {
    let (_folder, uploads) = uploads();
    uploads.receive(ID, 3, chunks(&["abc"])).await.unwrap();
    let again = uploads.receive(ID, 3, chunks(&["xyz"])).await.unwrap_err();
    assert!(matches!(again, UploadError::AlreadyThere));
    assert_eq!(std::fs::read(uploads.upload_path(ID)).unwrap(), b"abc");
}

#[tokio::test]
async fn two_senders_of_one_upload_do_not_mix() {
    let (folder, uploads) = uploads();
    let mut first = Box::pin(uploads.receive(ID, 6, chunks(&["abc"]).chain(stream::pending())));
    // Runs until the first one waits for its client, with its part open and locked.
    for _ in 0..1_000 {
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        if !names(&folder).is_empty() && uploads.sweep().await.unwrap() == 0 {
            break;
        }
    }
    let second = uploads.receive(ID, 3, chunks(&["xyz"])).await.unwrap_err();
    assert!(matches!(second, UploadError::Busy), "{second}");
    assert_eq!(uploads.sweep().await.unwrap(), 0);
    drop(first);
    assert_eq!(names(&folder), Vec::<String>::new());
}

#[tokio::test]
async fn parts_of_a_dead_process_are_swept() {
    let (folder, uploads) = uploads();
    std::fs::write(folder.path().join("uploads").join(format!("{ID}.part")), "half").unwrap();
    std::fs::create_dir(folder.path().join("inline/j")).unwrap();
    std::fs::write(folder.path().join("inline/j/0.part"), "half").unwrap();
    std::fs::write(folder.path().join("inline/j/0"), "whole").unwrap();
    assert_eq!(uploads.sweep().await.unwrap(), 2);
    assert_eq!(names(&folder), Vec::<String>::new());
    assert!(folder.path().join("inline/j/0").is_file());
    // Not swept, it is simply written over.
    std::fs::write(folder.path().join("uploads").join(format!("{ID}.part")), "half and more").unwrap();
    uploads.receive(ID, 3, chunks(&["abc"])).await.unwrap();
    assert_eq!(std::fs::read(uploads.upload_path(ID)).unwrap(), b"abc");
}

#[tokio::test]
async fn an_upload_that_cannot_fit_is_refused_before_it_is_sent() {
    let (folder, uploads) = uploads();
    // Larger than any disk, smaller than the largest file that ext4 takes (16 TiB).
    let error = uploads.receive(ID, 15 << 40, chunks(&["abc"])).await.unwrap_err();
    assert!(matches!(error, UploadError::NoSpace | UploadError::TooShort { .. }), "{error}");
    assert_eq!(names(&folder), Vec::<String>::new());
}

#[tokio::test]
async fn inline_sources_are_stored_once() {
    let (folder, uploads) = uploads();
    let key = ObjectPath::parse("job/0").unwrap();
    let stored = uploads.store_inline(&key, Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(stored, uploads.store_inline(&key, Bytes::from_static(b"abc")).await.unwrap());
    let other = uploads.store_inline(&key, Bytes::from_static(b"xyz")).await.unwrap_err();
    assert!(matches!(other, UploadError::AlreadyThere));
    assert_eq!(std::fs::read(inline_folder(folder.path()).join("job/0")).unwrap(), b"abc");
    let source = Source::Inline { key: key.clone(), size: 3 };
    uploads.remove_source(&source).await.unwrap();
    uploads.remove_source(&source).await.unwrap();
    assert!(!uploads.inline_path(&key).exists());
}

#[tokio::test]
async fn the_sweeper_removes_uploads_and_nothing_of_other_people() {
    let (folder, uploads) = uploads();
    uploads.receive(ID, 3, chunks(&["abc"])).await.unwrap();
    let theirs = folder.path().join("theirs");
    std::fs::write(&theirs, "x").unwrap();
    let file = Source::File { path: theirs.display().to_string() };
    uploads.remove_source(&file).await.unwrap();
    assert!(theirs.exists());
    uploads.remove_source(&Source::Upload { id: ID }).await.unwrap();
    assert_eq!(names(&folder), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_kept_is_listed_without_parts() {
    let (folder, uploads) = uploads();
    uploads.receive(ID, 3, chunks(&["abc"])).await.unwrap();
    let key = ObjectPath::parse("one").unwrap();
    uploads.store_inline(&key, Bytes::from_static(b"12345")).await.unwrap();
    for part in [upload_folder(folder.path()), inline_folder(folder.path())] {
        std::fs::write(part.join("two.part"), b"x").unwrap();
    }
    assert_eq!(uploads.kept().unwrap(), [Source::Upload { id: ID }, Source::Inline { key, size: 5 }]);
}
