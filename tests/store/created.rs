//! The creation of a store: the access rights of its file, planted files and links, and concurrent creators.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{symlink, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Barrier;
use std::thread;

use turnwise::store::{FileStore, SessionStore, StoreError, StoredSession};
use turnwise::{Message, Session, SessionId};

use crate::support::*;

/// The environment variable with the file that a process opens.
const FILE: &str = "TURNWISE_CREATED_FILE";
const SIGXFSZ: i32 = 25;

fn stored(text: &str) -> StoredSession {
    let mut history = Session::new();
    history.push(Message::user(text));
    StoredSession::new(history)
}

fn make_empty_file(path: &Path, mode: u32) {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Opens the store that the environment names, in a process of [`process`]; `false` in the test's own process.
fn opened_as_told() -> bool {
    let Some(file) = std::env::var_os(FILE) else { return false };
    put(&FileStore::open(file).expect("the store opens"), &stored("one")).expect("a save");
    true
}

#[test]
fn a_planted_file_or_link_is_neither_used_nor_changed() {
    for empty_in_place in [false, true] {
        let folder = Folder::new();
        let victim = folder.join("victim");
        fs::write(&victim, "precious").unwrap();
        // Names that a creator could derive from the name of the store. Earlier versions used the first one.
        let names = [
            ".sessions.redb.unfinished",
            ".sessions.redb.tmp",
            "sessions.redb.unfinished",
            "sessions.redb.tmp",
            "sessions.redb~",
            ".turnwise-.unfinished",
        ];
        let planted: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
        for (n, planted) in planted.iter().enumerate() {
            match n % 2 {
                0 => symlink(&victim, planted).unwrap(),
                _ => fs::write(planted, [7; 5_000]).unwrap(),
            }
        }
        if empty_in_place {
            make_empty_file(&folder.file(), 0o640);
        }
        let before = entries(&folder);
        put(&folder.store(), &stored("one")).unwrap();
        assert_eq!(folder.store().list().unwrap().len(), 1);
        assert!(fs::read(&victim).unwrap() == b"precious");
        for (n, planted) in planted.iter().enumerate() {
            match n % 2 {
                0 => assert_eq!(fs::read_link(planted).unwrap(), victim),
                _ => assert!(fs::read(planted).unwrap() == [7; 5_000]),
            }
        }
        let store = fs::symlink_metadata(folder.file()).unwrap();
        assert!(store.is_file());
        assert_eq!(store.permissions().mode() & 0o777, if empty_in_place { 0o640 } else { 0o600 });
        let made = usize::from(!empty_in_place);
        assert_eq!(entries(&folder).len(), before.len() + made, "no other file is left");
    }
}

/// An attacker may hold a planted file open for reading. So the store must not be created in that file.
#[test]
fn a_planted_file_that_is_open_shows_nothing_of_the_store() {
    let folder = Folder::new();
    let planted = folder.join(".sessions.redb.unfinished");
    make_empty_file(&planted, 0o666);
    let mut opened = File::open(&planted).unwrap();
    put(&folder.store(), &stored("secret words")).unwrap();
    let mut read = Vec::new();
    opened.read_to_end(&mut read).unwrap();
    assert!(read.is_empty());
    assert_eq!(mode(&planted), 0o666);
    assert_eq!(mode(&folder.file()), 0o600);
}

#[test]
fn a_new_store_is_private_also_with_an_empty_umask() {
    if opened_as_told() {
        return;
    }
    const NAME: &str = "created::a_new_store_is_private_also_with_an_empty_umask";
    let folder = Folder::new();
    assert!(process(NAME, "umask 0").env(FILE, folder.file()).output().unwrap().status.success());
    assert_eq!(mode(&folder.file()), 0o600);
    assert_eq!(folder.store().list().unwrap().len(), 1);
}

/// The system kills the process at its first write, so the files that it leaves have the rights of their creation.
#[test]
fn a_killed_creation_leaves_private_files_and_does_not_disturb_the_next() {
    if opened_as_told() {
        return;
    }
    const NAME: &str = "created::a_killed_creation_leaves_private_files_and_does_not_disturb_the_next";
    for in_place in [None, Some(0o600), Some(0o640), Some(0o604), Some(0o666), Some(0o600)] {
        let folder = Folder::new();
        if let Some(mode) = in_place {
            make_empty_file(&folder.file(), mode);
        }
        let allowed = in_place.unwrap_or(0o600);
        for killed in 1..=2 {
            let preparation = "umask 0; ulimit -c 0; ulimit -f 0";
            let ended = process(NAME, preparation).env(FILE, folder.file()).output().unwrap().status;
            assert_eq!(ended.signal(), Some(SIGXFSZ), "{ended:?}");
            match in_place {
                Some(before) => {
                    assert_eq!(fs::metadata(folder.file()).unwrap().len(), 0);
                    assert_eq!(mode(&folder.file()), before);
                }
                None => assert!(!folder.file().exists()),
            }
            let mut left = entries(&folder);
            left.retain(|path| *path != folder.file());
            assert_eq!(left.len(), killed, "each killed process leaves one file: {left:?}");
            for path in left {
                assert_eq!(mode(&path) & !allowed, 0, "{:o} instead of {allowed:o}", mode(&path));
                assert!(!path.to_string_lossy().contains("sessions"), "{path:?}");
            }
        }
        let left = entries(&folder);
        put(&folder.store(), &stored("one")).unwrap();
        assert_eq!(folder.store().list().unwrap().len(), 1);
        assert_eq!(mode(&folder.file()), allowed);
        for path in left.iter().filter(|path| **path != folder.file()) {
            assert_eq!(fs::metadata(path).unwrap().len(), 0, "the file of a killed process is not used");
        }
        assert_eq!(entries(&folder).len(), 3);
    }
}

#[test]
fn a_new_store_has_the_permissions_of_the_empty_file_in_its_place() {
    for wanted in [0o600, 0o640, 0o660, 0o644, 0o666, 0o700, 0o2640] {
        let folder = Folder::new();
        make_empty_file(&folder.file(), wanted);
        put(&folder.store(), &stored("one")).unwrap();
        assert_eq!(mode(&folder.file()), wanted, "{wanted:o}");
        assert_eq!(entries(&folder), [folder.file()]);
    }
}

/// The store is refused if the process cannot write the file. An administrator's process can always write it.
#[test]
fn an_empty_file_that_is_read_only_is_refused_or_stays_read_only() {
    for wanted in [0o400, 0o440, 0] {
        let folder = Folder::new();
        make_empty_file(&folder.file(), wanted);
        let opened = FileStore::open(folder.file());
        assert_eq!(opened.is_ok(), OpenOptions::new().write(true).open(folder.file()).is_ok());
        if opened.is_err() {
            assert_eq!(fs::metadata(folder.file()).unwrap().len(), 0);
        }
        assert_eq!(mode(&folder.file()), wanted, "{wanted:o}");
        assert_eq!(entries(&folder), [folder.file()]);
    }
}

#[test]
fn a_new_store_has_the_owner_and_the_group_of_the_empty_file_in_its_place() {
    let folder = Folder::new();
    make_empty_file(&folder.file(), 0o640);
    // If this process may not change the owner, the file keeps the owner and the group of the process.
    let _ = std::os::unix::fs::chown(folder.file(), Some(12_345), Some(23_456));
    let before = fs::metadata(folder.file()).unwrap();
    put(&folder.store(), &stored("one")).unwrap();
    let after = fs::metadata(folder.file()).unwrap();
    assert_ne!(after.ino(), before.ino());
    assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
}

#[test]
fn another_hard_link_of_the_empty_file_stays_empty() {
    let folder = Folder::new();
    make_empty_file(&folder.file(), 0o600);
    fs::hard_link(folder.file(), folder.join("link")).unwrap();
    put(&folder.store(), &stored("one")).unwrap();
    assert_eq!(fs::metadata(folder.join("link")).unwrap().len(), 0);
    assert_eq!(folder.store().list().unwrap().len(), 1);
}

#[test]
fn a_name_may_be_as_long_as_the_system_allows() {
    for length in [1, 250, 255] {
        for empty_in_place in [false, true] {
            let folder = Folder::new();
            let path = folder.join("n".repeat(length));
            if empty_in_place {
                make_empty_file(&path, 0o600);
            }
            put(&FileStore::open(&path).unwrap(), &stored("one")).unwrap();
            assert_eq!(FileStore::open(&path).unwrap().list().unwrap().len(), 1);
            assert_eq!(entries(&folder), [path]);
        }
    }
    let folder = Folder::new();
    assert!(matches!(FileStore::open(folder.join("n".repeat(256))), Err(StoreError::Failed(_))));
    assert!(entries(&folder).is_empty());
}

#[test]
fn a_path_that_names_no_file_is_an_error_and_leaves_no_file() {
    let folder = Folder::new();
    fs::create_dir(folder.join("inner")).unwrap();
    fs::write(folder.join("file"), "x").unwrap();
    symlink(folder.join("missing"), folder.join("nowhere")).unwrap();
    symlink("round", folder.join("round")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap());
    let before = entries(&folder);
    let within = [
        "",
        ".",
        "..",
        "inner",
        "inner/",
        "inner/.",
        "inner/..",
        "new/",
        "new/.",
        "new/..",
        "new/file",
        "file/",
        "file/.",
        "file/new",
        "nowhere",
        "nowhere/",
        "nowhere/new",
        "round",
        "socket",
        "inner/../new/",
        "a\0b",
    ];
    let paths = within.iter().map(|path| folder.join(path));
    for path in paths.chain(["", ".", "..", "/", "/dev/null", "/dev/full", "/proc/self/mem"].map(PathBuf::from)) {
        let error = FileStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Failed(_)), "{path:?}: {error}");
        assert_eq!(entries(&folder), before, "{path:?}");
    }
    assert!(entries(&folder.join("inner")).is_empty());
}

#[test]
fn a_relative_path_starts_at_the_current_folder() {
    if opened_as_told() {
        return;
    }
    const NAME: &str = "created::a_relative_path_starts_at_the_current_folder";
    for path in ["sessions.redb", "./sessions.redb", "inner/../sessions.redb", "inner/link/sessions.redb"] {
        for empty_in_place in [false, true] {
            let folder = Folder::new();
            fs::create_dir(folder.join("inner")).unwrap();
            symlink("..", folder.join("inner/link")).unwrap();
            if empty_in_place {
                make_empty_file(&folder.file(), 0o640);
            }
            let output = process(NAME, "").current_dir(&*folder).env(FILE, path).output().unwrap();
            assert!(output.status.success(), "{path}: {output:?}");
            assert_eq!(folder.store().list().unwrap().len(), 1, "{path}");
            assert_eq!(entries(&folder).len(), 2);
        }
    }
}

/// An administrator's process may write into such a folder all the same.
#[test]
fn a_folder_without_access_is_an_error_and_stays_as_it_is() {
    for (rights, empty_in_place) in [(0o500, false), (0o500, true), (0o300, false), (0o300, true), (0, false)] {
        let folder = Folder::new();
        let inner = folder.join("inner");
        fs::create_dir(&inner).unwrap();
        if empty_in_place {
            make_empty_file(&inner.join("store"), 0o600);
        }
        let before = entries(&inner);
        fs::set_permissions(&inner, Permissions::from_mode(rights)).unwrap();
        let is_administrator = fs::write(inner.join("probe"), "").and_then(|()| fs::read_dir(&inner)).is_ok();
        let opened = FileStore::open(inner.join("store"));
        fs::set_permissions(&inner, Permissions::from_mode(0o700)).unwrap();
        let _ = fs::remove_file(inner.join("probe"));
        assert_eq!(opened.is_ok(), is_administrator, "{opened:?}");
        if opened.is_err() {
            assert_eq!(entries(&inner), before);
        }
    }
}

#[test]
fn one_of_many_threads_that_create_a_store_gets_it() {
    for round in 0..20 {
        let folder = Folder::new();
        let empty_in_place = round % 2 == 1;
        if empty_in_place {
            make_empty_file(&folder.file(), 0o640);
        }
        let (all_begin, all_tried) = (Barrier::new(4), Barrier::new(4));
        let opened: usize = thread::scope(|scope| {
            let open = || {
                all_begin.wait();
                let opened = FileStore::open(folder.file());
                match &opened {
                    Ok(store) => put(store, &stored("one")).unwrap(),
                    Err(error) => assert!(matches!(error, StoreError::InUse { .. }), "{error}"),
                }
                all_tried.wait();
                usize::from(opened.is_ok())
            };
            let openers: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).sum()
        });
        assert_eq!(opened, 1);
        assert_eq!(folder.store().list().unwrap().len(), 1);
        assert_eq!(mode(&folder.file()), if empty_in_place { 0o640 } else { 0o600 });
        assert_eq!(entries(&folder), [folder.file()], "no other file is left");
    }
}

/// Each thread holds the store for a moment only. So the others find it new, in use or free, and no save is lost.
#[test]
fn threads_that_create_and_close_a_store_lose_no_save_of_another() {
    for round in 0..20 {
        let folder = Folder::new();
        if round % 2 == 1 {
            make_empty_file(&folder.file(), 0o640);
        }
        let all_begin = Barrier::new(4);
        let mut saved: Vec<SessionId> = thread::scope(|scope| {
            let open = || {
                all_begin.wait();
                loop {
                    match FileStore::open(folder.file()) {
                        Ok(store) => {
                            let session = stored("one");
                            put(&store, &session).unwrap();
                            return session.id();
                        }
                        Err(StoreError::InUse { .. }) => thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
            };
            let openers: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect()
        });
        saved.sort();
        let mut listed = folder.store().list().unwrap();
        listed.sort();
        assert_eq!(listed, saved);
        assert_eq!(entries(&folder), [folder.file()], "no other file is left");
    }
}

/// The body of a process that opens a store when a line arrives, prints the outcome, and holds the store until its
/// input ends.
fn open_until_told() -> bool {
    let Some(file) = std::env::var_os(FILE) else { return false };
    let mut input = std::io::stdin().lock();
    let mut line = String::new();
    println!("\nready");
    input.read_line(&mut line).expect("a line");
    let opened = FileStore::open(file);
    println!(
        "\n{}",
        match &opened {
            Ok(store) => put(store, &stored("one")).map_or_else(|error| error.to_string(), |()| "has it".to_owned()),
            Err(StoreError::InUse { .. }) => "in use".to_owned(),
            Err(error) => error.to_string(),
        }
    );
    input.read_to_string(&mut line).expect("a line");
    true
}

#[test]
fn one_of_many_processes_that_create_a_store_gets_it() {
    if open_until_told() {
        return;
    }
    const NAME: &str = "created::one_of_many_processes_that_create_a_store_gets_it";
    run(|| {
        for round in 0..6 {
            let folder = Folder::new();
            if round % 2 == 1 {
                make_empty_file(&folder.file(), 0o640);
            }
            let begin = |_| {
                let mut command = process(NAME, "");
                command.env(FILE, folder.file()).stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = command.spawn().expect("the program starts");
                let out = BufReader::new(child.stdout.take().expect("a pipe"));
                (child, out)
            };
            let mut children: Vec<(Child, BufReader<_>)> = (0..4).map(begin).collect();
            let next = |out: &mut BufReader<_>, wanted: &[&str]| {
                let mut lines = BufRead::lines(out).map_while(Result::ok);
                lines.find(|line| wanted.contains(&line.as_str())).expect("one of the answers")
            };
            children.iter_mut().for_each(|(_, out)| drop(next(out, &["ready"])));
            children.iter().for_each(|(child, _)| child.stdin.as_ref().unwrap().write_all(b"open\n").unwrap());
            let answers: Vec<String> = children.iter_mut().map(|(_, out)| next(out, &["has it", "in use"])).collect();
            assert_eq!(answers.iter().filter(|answer| *answer == "has it").count(), 1, "{answers:?}");
            for (mut child, mut out) in children {
                drop(child.stdin.take());
                std::io::copy(&mut out, &mut std::io::sink()).unwrap();
                assert!(child.wait().unwrap().success());
            }
            assert_eq!(folder.store().list().unwrap().len(), 1);
            assert_eq!(mode(&folder.file()), if round % 2 == 1 { 0o640 } else { 0o600 });
            assert_eq!(entries(&folder), [folder.file()]);
        }
    });
}

#[test]
fn a_reopen_after_a_failure_does_not_follow_a_link() {
    run(|| {
        let (folder, other) = (Folder::new(), Folder::new());
        put(&other.store(), &stored("of another store")).unwrap();
        let store = folder.store();
        let ids: Vec<SessionId> = (1..=9_u128).map(|n| SessionId::from_uuid(uuid::Uuid::from_u128(n << 64))).collect();
        ids.iter().for_each(|id| put(&store, &StoredSession::new(Session::with_id(*id))).unwrap());
        drop(store);
        let sound = fs::read(folder.file()).unwrap();
        let (from, to) = (*ids[4].as_uuid().as_bytes(), *ids[0].as_uuid().as_bytes());
        let mut damaged = sound.clone();
        for at in 0..damaged.len() - 16 {
            if damaged[at..at + 16] == from {
                damaged[at..at + 16].copy_from_slice(&to);
            }
        }
        fs::write(folder.file(), damaged).unwrap();
        let store = folder.store();
        store.list().unwrap_err();
        fs::rename(folder.file(), folder.join("moved")).unwrap();
        assert!(store.list().is_err(), "there is no file");
        assert!(!folder.file().exists(), "no store is made");
        symlink(other.file(), folder.file()).unwrap();
        assert!(store.list().is_err(), "there is a link");
        // The caller learns why. Nothing is logged, because a logger that uses the store would wait for itself.
        let refused = put(&store, &stored("mine")).unwrap_err().to_string();
        assert!(refused.contains("does not open again") && refused.contains("it is no file"), "{refused}");
        fs::remove_file(folder.file()).unwrap();
        make_empty_file(&folder.file(), 0o600);
        assert!(store.list().is_err(), "there is an empty file");
        assert_eq!(fs::metadata(folder.file()).unwrap().len(), 0);
        fs::write(folder.file(), sound).unwrap();
        assert_eq!(store.list().unwrap(), ids, "the store opens again");
        assert_eq!(other.store().list().unwrap().len(), 1);
    });
}
