//! The database file of a store: how it is found, locked and, if it does not exist, created.
//!
//! **Invariants**
//! - A file is read and written only under its lock, and only while it is itself at the store's path: a link there is
//!   refused.
//! - A new database is created in a temporary file, which is moved to the store's path when it is complete. The
//!   temporary file is created exclusively, under a random name. It never has more access rights than the finished
//!   store.
//! - A file that is not empty is never replaced. Two processes that open the same path at once cannot lose a store,
//!   because:
//!   - without a file at the path, the move fails if there is one by then;
//!   - an empty file is replaced under its own lock, after a second check that it is still at the path and still empty.
//!     A process that has opened the empty file too, and gets its lock later, finds another file at the path, and
//!     starts again.
//!
//! Without the second check a store could be lost:
//!
//! ```text
//! process A                                        process B
//! opens the empty file                             opens the empty file
//! locks it, replaces it with a store
//! saves a session, ends
//!                                                  locks the replaced file, finds it empty
//!                                                  replaces A's store
//! ```
//!
//! It does not remove the temporary files of killed processes, since they may belong to a running process.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError};
use tempfile::{Builder, NamedTempFile};

use super::StoreError;

/// How often an open is tried while the file changes. Another process that opens the same store changes it once.
const ATTEMPTS: usize = 16;

/// The state of a store's path.
enum PathState {
    Missing,
    /// An empty file, locked.
    Empty(File, Metadata),
    /// A file with content, locked. redb refuses it if the content is no database.
    Database(File),
    /// The file was moved or replaced during the inspection.
    Changed,
}

/// Resolves the path of the file: absolute, and without links. The file need not exist, but its folder must.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |error| failed_at(path, error);
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        resolved => return resolved.map_err(failed),
    }
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return Err(failed_at(path, "it is a link that leads nowhere"));
    }
    // `file_name` skips a separator or a dot at the end, which denote a folder.
    let ends_with = |name: &&std::ffi::OsStr| path.as_os_str().as_encoded_bytes().ends_with(name.as_encoded_bytes());
    let name = path.file_name().filter(ends_with).ok_or_else(|| failed_at(path, "it does not name a file"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(fs::canonicalize(folder).map_err(failed)?.join(name))
}

/// Opens the database at a resolved path. Creates it if there is no file or an empty one.
pub(super) fn open_or_create(path: &Path) -> Result<Database, StoreError> {
    for _ in 0..ATTEMPTS {
        let opened = match inspect(path)? {
            PathState::Database(file) => Some(start(path, file)?),
            PathState::Empty(file, metadata) => replace_empty(path, file, &metadata)?,
            PathState::Missing => create(path)?,
            PathState::Changed => None,
        };
        if let Some(database) = opened {
            return Ok(database);
        }
    }
    Err(failed_at(path, "other programs keep replacing it"))
}

/// Reopens the database at a resolved path.
pub(super) fn reopen(path: &Path) -> Result<Database, StoreError> {
    match inspect(path)? {
        PathState::Database(file) => start(path, file),
        PathState::Empty(..) => Err(failed_at(path, "it is empty now")),
        PathState::Missing => Err(failed_at(path, "it is gone")),
        PathState::Changed => Err(failed_at(path, "it was replaced just now")),
    }
}

fn inspect(path: &Path) -> Result<PathState, StoreError> {
    let failed = |error| failed_at(path, error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PathState::Missing),
        Err(error) => return Err(failed(error)),
        // Not opened: to open a pipe may wait for its other end, and to open a device may have effects. Links are
        // refused.
        Ok(found) if !found.is_file() => return Err(failed_at(path, "it is no file")),
        Ok(_) => {}
    }
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PathState::Changed),
        opened => opened.map_err(failed)?,
    };
    let metadata = file.metadata().map_err(failed)?;
    file.try_lock().map_err(|error| failed_to_lock(path, error))?;
    if !is_at(path, &metadata) {
        return Ok(PathState::Changed);
    }
    // Read again under the lock: no other store can write to the file now.
    let length = file.metadata().map_err(failed)?.len();
    Ok(if length == 0 { PathState::Empty(file, metadata) } else { PathState::Database(file) })
}

/// Whether the opened file is still at the path, not behind a link, and with unchanged access rights.
#[cfg(unix)]
fn is_at(path: &Path, opened: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let parts = |file: &Metadata| (file.dev(), file.ino(), file.mode(), file.uid(), file.gid());
    fs::symlink_metadata(path).is_ok_and(|found| parts(&found) == parts(opened))
}

/// Elsewhere the standard library cannot compare two files. There an empty file is not replaced either: see
/// `replace_empty`.
#[cfg(not(unix))]
fn is_at(path: &Path, _opened: &Metadata) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// Creates a database. Returns `None` if there is a file by now, which is left as it is.
fn create(path: &Path) -> Result<Option<Database>, StoreError> {
    let failed = |error| failed_at(path, error);
    let folder = Folder::of(path).map_err(failed)?;
    let (file, unfinished) = folder.new_file(&mut Builder::new()).map_err(failed)?.into_parts();
    let database = start(path, file)?;
    match unfinished.persist_noclobber(path) {
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        moved => {
            moved.map_err(|error| failed_at(path, error.error))?;
            folder.sync().map_err(failed)?;
            Ok(Some(database))
        }
    }
}

/// Creates a database in place of an empty file, with its owner, its group and its permissions. Returns `None` if the
/// file at the path is another one by now, or is no longer empty.
#[cfg(unix)]
fn replace_empty(path: &Path, empty: File, metadata: &Metadata) -> Result<Option<Database>, StoreError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error| failed_at(path, error);
    let folder = Folder::of(path).map_err(failed)?;
    // Only the owner has access until the file has the group that the other permissions are meant for.
    let for_the_owner = fs::Permissions::from_mode(metadata.permissions().mode() & 0o600);
    let new_file = folder.new_file(Builder::new().permissions(for_the_owner)).map_err(failed)?;
    let (file, unfinished) = new_file.into_parts();
    set_owner_and_group(&file, metadata).map_err(failed)?;
    file.set_permissions(metadata.permissions()).map_err(failed)?;
    let database = start(path, file)?;
    // Programs that ignore the lock may have written to the file or moved it.
    if !is_at(path, metadata) || empty.metadata().map_err(failed)?.len() != 0 {
        return Ok(None);
    }
    unfinished.persist(path).map_err(|error| failed_at(path, error.error))?;
    folder.sync().map_err(failed)?;
    Ok(Some(database))
}

/// Elsewhere a new file would not have the access list of the empty one, and an open file may not be replaced. So the
/// empty file itself becomes the store. A process that is killed meanwhile may leave a file that is refused.
#[cfg(not(unix))]
fn replace_empty(path: &Path, empty: File, _: &Metadata) -> Result<Option<Database>, StoreError> {
    start(path, empty).map(Some)
}

/// Sets the owner and the group. Only a privileged process can set another owner; otherwise the owner is that of the
/// process. A group that cannot be set is an error, because the permissions would then apply to another group.
#[cfg(unix)]
fn set_owner_and_group(file: &File, wanted: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{fchown, MetadataExt};
    let actual = file.metadata()?;
    if actual.uid() != wanted.uid() && fchown(file, Some(wanted.uid()), Some(wanted.gid())).is_ok() {
        return Ok(());
    }
    if actual.gid() == wanted.gid() {
        return Ok(());
    }
    fchown(file, None, Some(wanted.gid())).map_err(|error| {
        let group = wanted.gid();
        io::Error::new(error.kind(), format!("this process cannot keep the group {group} of the empty file: {error}"))
    })
}

/// The folder of a store's file.
struct Folder {
    path: PathBuf,
    /// Opened before anything is created in the folder, so that a folder that cannot be synced stays unchanged. Only on
    /// Unix: elsewhere a folder cannot be opened.
    opened: Option<File>,
}

impl Folder {
    fn of(file: &Path) -> io::Result<Self> {
        // A resolved path has a parent.
        let path = file.parent().unwrap_or(Path::new(".")).to_owned();
        let opened = if cfg!(unix) { Some(File::open(&path)?) } else { None };
        Ok(Self { path, opened })
    }

    /// Creates a new file exclusively. Only its owner may open it, unless the builder sets other permissions. Its name
    /// does not depend on the store's, which may be as long as the system allows.
    fn new_file(&self, builder: &mut Builder<'_, '_>) -> io::Result<NamedTempFile> {
        builder.prefix(".turnwise-").rand_bytes(12).suffix(".unfinished").tempfile_in(&self.path)
    }

    /// Syncs the folder. Otherwise a loss of power could remove a new file, with all saved records.
    fn sync(&self) -> io::Result<()> {
        self.opened.as_ref().map_or(Ok(()), File::sync_all)
    }
}

/// Opens the database in a file. redb locks it before it reads or writes.
fn start(path: &Path, file: File) -> Result<Database, StoreError> {
    release_for_redb(&file);
    let database = FileBackend::new(file).and_then(|file| Database::builder().create_with_backend(file));
    database.map_err(|error| failed_to_open(path, error))
}

/// On Unix the lock of the inspection stays. It belongs to the same open file as redb's, so they do not exclude each
/// other.
#[cfg(unix)]
fn release_for_redb(_: &File) {}

/// Elsewhere a lock excludes a second one also of the process that holds it. So the lock of the inspection is released.
/// If another process opens the store in between, redb reports it.
#[cfg(not(unix))]
fn release_for_redb(file: &File) {
    // A new file is not locked, which is an error that changes nothing.
    let _ = file.unlock();
}

fn failed_to_lock(path: &Path, error: TryLockError) -> StoreError {
    match error {
        TryLockError::WouldBlock => StoreError::InUse { path: path.to_owned() },
        TryLockError::Error(error) => failed_at(path, error),
    }
}

fn failed_to_open(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.to_owned() },
        error => failed_at(path, error),
    }
}

fn failed_at(path: &Path, error: impl fmt::Display) -> StoreError {
    StoreError::failed(format!("{}: {error}", path.display()))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    fn empty_file(path: &Path, mode: u32) {
        File::create(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_store_created_meanwhile_is_not_replaced_by_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        drop(create(&path).unwrap().unwrap());
        let first = fs::read(&path).unwrap();
        // As by a process that has found no file.
        assert!(create(&path).unwrap().is_none());
        assert!(fs::read(&path).unwrap() == first);
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn another_file_at_the_path_is_not_replaced_as_the_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let other = folder.path().join("other");
        // Another store; a link; nothing; a file with other access rights; and content in the file itself.
        let changes: [&dyn Fn(); 5] = [
            &|| fs::rename(&other, &path).unwrap(),
            &|| {
                fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink(&other, &path).unwrap();
            },
            &|| fs::remove_file(&path).unwrap(),
            &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap(),
            &|| fs::write(&path, "content").unwrap(),
        ];
        for change in changes {
            let _ = fs::remove_file(&path);
            empty_file(&path, 0o640);
            fs::write(&other, "another store").unwrap();
            let PathState::Empty(empty, metadata) = inspect(&path).unwrap() else { panic!("an empty file") };
            change();
            let before = (fs::symlink_metadata(&path).map(|found| found.file_type()).ok(), fs::read(&path).ok());
            assert!(replace_empty(&path, empty, &metadata).unwrap().is_none());
            let after = (fs::symlink_metadata(&path).map(|found| found.file_type()).ok(), fs::read(&path).ok());
            assert_eq!(after, before);
            let left = usize::from(before.0.is_some()) + usize::from(other.exists());
            assert_eq!(entries(folder.path()), left, "no unfinished file is left");
        }
    }

    #[test]
    fn an_empty_file_is_locked_while_a_store_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        empty_file(&path, 0o640);
        let PathState::Empty(empty, metadata) = inspect(&path).unwrap() else { panic!("an empty file") };
        assert!(matches!(open_or_create(&path), Err(StoreError::InUse { .. })));
        let database = replace_empty(&path, empty, &metadata).unwrap().unwrap();
        assert!(matches!(open_or_create(&path), Err(StoreError::InUse { .. })));
        drop(database);
        assert!(open_or_create(&path).is_ok());
    }

    #[test]
    fn only_its_owner_may_open_an_unfinished_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::of(&folder.path().join("store")).unwrap();
        let mode = |file: &NamedTempFile| file.as_file().metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.new_file(&mut Builder::new()).unwrap()), 0o600);
        let (one, two) = (folder.new_file(&mut Builder::new()).unwrap(), folder.new_file(&mut Builder::new()).unwrap());
        assert_ne!(one.path(), two.path());
    }
}
