//! Files that are written whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;

/// The longest chain of symbolic links. Linux has the same limit.
const MOST_LINKS: usize = 40;
/// The number of names that are tried for the unfinished file.
const MOST_NAMES: u32 = 1_000;

/// Replaces the content of the file by `content`.
///
/// The content is written to a new file beside the old one, which it then replaces. So on a full disk, or after a kill
/// of the program, the old file is whole. The new file has the permissions of the old one, and its owner if the system
/// allows that. Other hard links keep the old content. A symbolic link stays, and its target is replaced. A file that
/// is not regular, such as a pipe or `/dev/stdout`, is written to directly.
///
/// # Errors
/// Fails if the file or its folder is not writable, or if a write fails. The old file then stays as it is.
pub fn save(path: &Path, content: &[u8]) -> io::Result<()> {
    let old = match fs::metadata(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let file = behind_links(path)?;
    let is_special = old.as_ref().is_some_and(|old| !old.is_file()) || is_open_file(&file);
    if is_special {
        // The content is appended: if the file is this program's standard output, it has earlier output.
        return OpenOptions::new().append(true).open(path)?.write_all(content);
    }
    if old.is_some() {
        // The system allows to replace a file that is not writable. But such a file should stay, so this checks it.
        OpenOptions::new().write(true).open(&file)?;
    }
    replace(&file, old.as_ref(), content)
}

/// The path to which symbolic links lead. Its file need not exist.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if is_open_file(&path) || !fs::symlink_metadata(&path).is_ok_and(|link| link.is_symlink()) {
            return Ok(path);
        }
        let target = fs::read_link(&path)?;
        // A relative target starts at the folder of the link.
        path = folder_of(&path).join(target);
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Whether this path names an open file of a program, to which `/dev/stdout` leads. If that file were replaced, the
/// program would write to a file without a name.
fn is_open_file(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/dev/fd")
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn replace(file: &Path, old: Option<&Metadata>, content: &[u8]) -> io::Result<()> {
    let (unfinished, mut new) = create_beside(file, old)?;
    let written = keep_owner(&new, old)
        .and_then(|()| new.write_all(content))
        .and_then(|()| new.sync_all())
        .and_then(|()| fs::rename(&unfinished, file));
    if let Err(error) = written {
        // A failure here is ignored: the first error is the one to report.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    // With this the new name survives a crash of the system. Not every system supports it, and the file is in place.
    let _ = File::open(folder_of(file)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Creates a new file in the same folder, under a name that no other program uses.
fn create_beside(file: &Path, old: Option<&Metadata>) -> io::Result<(PathBuf, File)> {
    let name = file.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "not the name of a file"))?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    if old.is_some() {
        keep_private(&mut options);
    }
    for number in 0..MOST_NAMES {
        let mut unfinished = OsString::from(".");
        unfinished.push(name);
        unfinished.push(format!(".{}-{number}.unfinished", process::id()));
        let unfinished = folder_of(file).join(unfinished);
        match options.open(&unfinished) {
            Ok(new) => return Ok((unfinished, new)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Makes the new file private until it has the old file's permissions, so that no other user can read its content.
#[cfg(unix)]
fn keep_private(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
fn keep_private(_: &mut OpenOptions) {}

#[cfg(unix)]
fn keep_owner(new: &File, old: Option<&Metadata>) -> io::Result<()> {
    use std::os::unix::fs::{fchown, MetadataExt, PermissionsExt};
    let Some(old) = old else { return Ok(()) };
    let made = new.metadata()?;
    let mut mode = old.permissions().mode() & 0o777;
    let has_owner = (made.uid(), made.gid()) == (old.uid(), old.gid())
        || fchown(new, Some(old.uid()), Some(old.gid())).is_ok()
        || fchown(new, None, Some(old.gid())).is_ok();
    if !has_owner {
        // The rights of the old group must not pass to another group.
        mode &= !0o070;
    }
    new.set_permissions(PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn keep_owner(new: &File, old: Option<&Metadata>) -> io::Result<()> {
    old.map_or(Ok(()), |old| new.set_permissions(old.permissions()))
}
