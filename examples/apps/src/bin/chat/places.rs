//! Which files a model may reach: those in one folder.
//!
//! A path has no `..`, is not absolute, and leads through no symbolic link to another place. Hidden files are left alone,
//! because some of them are programs or settings of programs, such as `.git/hooks` and `.bashrc`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// The place of a file in a folder.
///
/// # Errors
/// Fails if a file with this name is or would be outside of the folder or hidden, or if it is no regular file. The text
/// has the reason.
pub(crate) fn place(folder: &Path, name: &str) -> Result<PathBuf, String> {
    let refused = |why: &str| Err(why.to_owned());
    if name.is_empty() || name.ends_with(['/', '\\']) || name.contains('\0') {
        return refused("it is not the name of a file");
    }
    let mut place = folder.to_owned();
    for component in Path::new(name).components() {
        match component {
            Component::CurDir => continue,
            Component::Normal(part) => place.push(part),
            _ => return refused("it is not below the working directory"),
        }
        // The metadata of the link itself, which may lead to nothing.
        match fs::symlink_metadata(&place) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return refused(&error.to_string()),
        }
        match place.canonicalize() {
            Ok(real) if !real.starts_with(folder) => return refused("it is a link out of the working directory"),
            Ok(real) => place = real,
            Err(error) => return refused(&error.to_string()),
        }
    }
    let hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
    match place.strip_prefix(folder) {
        Ok(inside) if inside.components().any(hidden) => return refused("it is hidden"),
        Ok(inside) if inside.as_os_str().is_empty() => return refused("it is not the name of a file"),
        Ok(_) => {}
        Err(_) => return refused("it is not below the working directory"),
    }
    match fs::metadata(&place) {
        Ok(old) if !old.is_file() => refused("there is something else with this name"),
        _ => Ok(place),
    }
}
