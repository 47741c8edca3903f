//! Files that are written whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;

/// How many symbolic links lead to a file at most; Linux has the same limit.
const MOST_LINKS: usize = 40;
/// How many names are tried for the unfinished file.
const MOST_NAMES: u32 = 1_000;

/// Has the file contain `content`, and nothing else.
///
/// The content is written to a new file beside the old one, which it then replaces: on a full disk, or where the program is
/// killed, the old file is still there, whole. The new file has the permissions of the old one, and its owner where the
/// system allows that. Other hard links keep the old content. A symbolic link stays; what it leads to is replaced. What is
/// no regular file (a pipe, `/dev/stdout`) is written to directly.
///
/// # Errors
/// The old file stays. It has to be writable, and its folder too.
pub fn save(path: &Path, content: &[u8]) -> io::Result<()> {
    let old = match fs::metadata(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let file = behind_links(path)?;
    let is_special = old.as_ref().is_some_and(|old| !old.is_file()) || is_open_file(&file);
    if is_special {
        // Appended: what the program has printed before is in there too where it is this program's standard output.
        return OpenOptions::new().append(true).open(path)?.write_all(content);
    }
    if old.is_some() {
        // Replacing a file takes no permission to write to it; having none means that it is to stay.
        OpenOptions::new().write(true).open(&file)?;
    }
    replace(&file, old.as_ref(), content)
}

/// The path of the file that symbolic links lead to, which need not exist.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if is_open_file(&path) || !fs::symlink_metadata(&path).is_ok_and(|link| link.is_symlink()) {
            return Ok(path);
        }
        let target = fs::read_link(&path)?;
        // A relative one begins where the link is.
        path = folder_of(&path).join(target);
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Whether this is the name of a file that a program has open, as `/dev/stdout` leads to. Replacing what it was opened by
/// would have the program write to a file without a name.
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
        // Where that fails too, there is nothing more to do.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    // So that the new name survives a crash of the system. Not every system can do it, and the file is in place.
    let _ = File::open(folder_of(file)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// A new file in the same folder, which no other program has.
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

/// Until it has the old file's permissions, other users must not read what the old one hid from them.
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
        // What the old group was allowed to do is not meant for the new one.
        mode &= !0o070;
    }
    new.set_permissions(PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn keep_owner(new: &File, old: Option<&Metadata>) -> io::Result<()> {
    old.map_or(Ok(()), |old| new.set_permissions(old.permissions()))
}
