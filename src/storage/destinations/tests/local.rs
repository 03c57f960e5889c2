//! What only file systems do.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::fs::IFlags;

use super::*;

fn file_at(path: impl AsRef<Path>) -> Destination {
    Destination::File { path: path.as_ref().to_str().unwrap().to_owned(), overwrite: Overwrite::Replace }
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
    assert_eq!(published.permissions().mode() & 0o777, plain.permissions().mode() & 0o644);
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
    assert!(desk.visible("a").await.unwrap() == content);
    assert!(matches!(desk.destinations.destroy(&handle).await.unwrap(), HandleFate::Committed(_)));
}

#[tokio::test]
async fn files_without_marks_are_recognised_by_their_content() {
    let desk = Desk::local();
    let handle = desk.stage(&storage("a", Overwrite::Replace), 1, &desk.file("x", b"content")).await;
    desk.destinations.commit(&handle).await.unwrap();
    let target = desk.folder.path().join("storage/a");
    std::fs::remove_file(&target).unwrap();
    std::fs::write(&target, b"content").unwrap();
    assert!(matches!(desk.destinations.destroy(&handle).await.unwrap(), HandleFate::Committed(_)));
    assert!(desk.destinations.commit(&handle).await.is_ok());
    std::fs::write(&target, b"another").unwrap();
    assert_eq!(desk.destinations.destroy(&handle).await.unwrap(), HandleFate::Dead);
    assert!(desk.destinations.commit(&handle).await.is_err());
}

#[tokio::test]
async fn a_part_that_is_not_whole_is_not_committed() {
    let desk = Desk::local();
    let handle = desk.stage(&storage("a", Overwrite::Replace), 1, &desk.file("x", b"1234")).await;
    let [part] = &desk.leftovers().await[..] else { panic!("one part") };
    let path = desk.folder.path().join("storage").join(part);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"12").unwrap();
    assert_eq!(desk.destinations.commit(&handle).await.unwrap_err().code, Code::Internal);
    assert_eq!(desk.visible("a").await, None);
}

#[tokio::test]
async fn folders_that_were_made_go_again_with_the_handle() {
    let desk = Desk::local();
    let root = desk.folder.path().join("root");
    std::fs::create_dir(root.join("a")).unwrap();
    let handle = desk.stage(&file_at(root.join("a/b/c/x.mp4")), 1, &desk.file("x", b"1")).await;
    assert!(root.join("a/b/c").is_dir());
    assert_eq!(desk.destinations.destroy(&handle).await.unwrap(), HandleFate::Dead);
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
    for bad in ["/etc/passwd", "../x", "", "/", "a/../../x", ".flux-1.part", "a/.flux-x/b"] {
        let failure = desk.destinations.check(&file_at(bad)).unwrap_err();
        assert_eq!(failure.code, Code::DestinationForbidden, "{bad}");
        assert!(!failure.message.contains(&*root.to_string_lossy()), "{}", failure.message);
    }
    let beside = format!("{}x/a.mp4", root.display());
    assert!(desk.destinations.check(&file_at(beside)).is_err());
    // These need a look at the disk.
    for bad in ["up/x.mp4", "plain/x.mp4"] {
        let staged = desk.destinations.stage(&file_at(bad), publication(1), &file, no_journal).await;
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
    assert_eq!(desk.destinations.commit(&handle).await.unwrap_err().code, Code::DestinationForbidden);
    assert_eq!(desk.destinations.destroy(&handle).await.unwrap(), HandleFate::Dead);
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
    let staged = desk.destinations.stage(&to, publication(1), &desk.file("x", b"1"), no_journal).await;
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
    let staged =
        desk.destinations.stage(&file_at("x"), publication(1), &desk.file("x", b"1"), no_journal).await;
    assert_eq!(staged.unwrap_err().code, Code::DestinationUnreachable);
    assert!(!root.exists());
}

#[tokio::test]
async fn a_handle_is_no_right_to_write_elsewhere() {
    let desk = Desk::local();
    let handle = desk.stage(&storage("a", Overwrite::Replace), 1, &desk.file("x", b"1")).await;
    let storage_folder = desk.folder.path().join("storage").display().to_string();
    let forged = handle.to_json().replace(&storage_folder, &desk.folder.path().display().to_string());
    let forged = Handle::from_json(&forged).unwrap();
    assert_eq!(desk.destinations.commit(&forged).await.unwrap_err().code, Code::DestinationForbidden);
    assert_eq!(desk.destinations.destroy(&forged).await.unwrap_err().code, Code::DestinationForbidden);
}

/// The sender's future was dropped and its handle destroyed while the blocking pool had not begun yet.
#[tokio::test]
async fn a_sender_that_is_given_up_leaves_nothing() {
    let desk = Desk::local();
    let to = storage("new/a", Overwrite::Replace);
    let file = desk.file("x", &bytes(1_000_000, 1));
    let staged = desk.destinations.begin(&to, publication(1), &file).await.unwrap();
    let handle = Handle::V1(staged.clone());
    let waiting = Waiting::default();
    let abandoned = Arc::clone(&waiting.abandoned);
    drop(waiting);
    assert_eq!(desk.destinations.destroy(&handle).await.unwrap(), HandleFate::Dead);
    let Resolved::File(target) = desk.destinations.resolve(&staged).unwrap() else {
        panic!("a folder");
    };
    let sent = super::super::local::send(&target, &file.path, &abandoned);
    assert!(matches!(sent, Err(LocalError::Abandoned)));
    assert!(!desk.folder.path().join("storage/new").exists());
    assert!(desk.destinations.commit(&handle).await.is_err());
}
