//! The model root names every byte of a folder, and refuses what it could not vouch for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use cocoon_attestation::{Digest, Error, model_root};
use tempfile::TempDir;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    for (path, content) in [("a", "one"), ("b", "two"), ("sub/c", "three")] {
        fs::write(folder.path().join(path), content).unwrap();
    }
    folder
}

fn root(folder: &Path) -> Digest {
    model_root(folder).unwrap().root
}

fn reason(folder: &Path) -> &'static str {
    match model_root(folder) {
        Err(Error::ModelEntry { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_change_of_the_content_changes_the_root() {
    let original = root(folder().path());
    assert_eq!(root(folder().path()), original, "the same content elsewhere");
    type Change = fn(&Path);
    let changes: [(&str, Change); 4] = [
        ("a byte", |at| fs::write(at.join("a"), "onf").unwrap()),
        ("a name", |at| fs::rename(at.join("a"), at.join("z")).unwrap()),
        ("one file more", |at| fs::write(at.join("d"), "").unwrap()),
        ("one file less", |at| fs::remove_file(at.join("sub/c")).unwrap()),
    ];
    for (what, change) in changes {
        let folder = folder();
        change(folder.path());
        assert_ne!(root(folder.path()), original, "{what}");
    }
}

#[test]
fn files_are_listed_sorted_with_size_and_digest() {
    let folder = folder();
    let files = model_root(folder.path()).unwrap().files;
    let paths: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    assert_eq!(paths, [("a", 3), ("b", 3), ("sub/c", 5)]);
    assert_eq!(files[0].sha256, Digest::of(&[b"one"]));
}

#[test]
fn links_count_as_the_file_they_lead_to_and_must_stay_inside() {
    let folder = folder();
    let copied = {
        fs::write(folder.path().join("d"), "one").unwrap();
        root(folder.path())
    };
    fs::remove_file(folder.path().join("d")).unwrap();
    symlink("a", folder.path().join("d")).unwrap();
    assert_eq!(root(folder.path()), copied);

    let outside = tempfile::NamedTempFile::new().unwrap();
    for (target, expected) in [
        (outside.path(), "a symbolic link that leads out of the folder"),
        (Path::new("absent"), "a symbolic link that leads nowhere"),
        (Path::new("sub"), "a symbolic link to something that is no file"),
    ] {
        fs::remove_file(folder.path().join("d")).unwrap();
        symlink(target, folder.path().join("d")).unwrap();
        assert_eq!(reason(folder.path()), expected);
    }
}

#[test]
fn other_entries_and_absent_folders_are_refused() {
    let sockets = folder();
    let _listener = std::os::unix::net::UnixListener::bind(sockets.path().join("socket")).unwrap();
    assert_eq!(reason(sockets.path()), "neither file nor folder");

    let lines = folder();
    fs::write(lines.path().join("a\n0000 5 fake"), "").unwrap();
    assert_eq!(reason(lines.path()), "its name has control characters");

    let empty = tempfile::tempdir().unwrap();
    assert_eq!(reason(empty.path()), "the folder is empty");

    let absent = empty.path().join("absent");
    let error = model_root(&absent).unwrap_err();
    assert!(matches!(error, Error::NoModelFolder(_)) && error.to_string().contains("absent"));
    assert!(matches!(model_root(&folder().path().join("a")), Err(Error::NoModelFolder(_))), "a file is no folder");
}
