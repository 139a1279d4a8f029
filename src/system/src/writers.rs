//! Who writes below `/usr`: a bind over an open file does not stop whoever has it open.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fstat, openat};

use crate::failure::Failure;
use crate::processes::{OpenFile, is_for_writing, mapped_files, open_files};
use crate::root::Root;
use crate::seen::mount_of;

/// Who has a file open for writing that lies in the mount of `/usr`.
///
/// # Errors
/// The kernel's, where `/usr` cannot be looked at.
pub fn writers(root: &Root) -> Result<Vec<OpenFile>, Failure> {
    let Some(usr) = mount_id(root)? else {
        return Ok(Vec::new());
    };
    Ok(open_files(is_below, |link, _| {
        is_for_writing(link) && is_in(root, usr, link)
    }))
}

/// Who has closed such a file and writes to the memory that shows it. That looks at every mapping of every process.
///
/// # Errors
/// The kernel's, where `/usr` cannot be looked at.
pub fn mappers(root: &Root) -> Result<Vec<OpenFile>, Failure> {
    let Some(usr) = mount_id(root)? else {
        return Ok(Vec::new());
    };
    Ok(mapped_files(is_below, |link| is_in(root, usr, link)))
}

fn mount_id(root: &Root) -> Result<Option<u64>, Failure> {
    let usr = root.directory("/usr")?;
    usr.map(|usr| Ok(mount_of(&usr)?.id)).transpose()
}

fn is_below(path: &[u8]) -> bool {
    path.starts_with(b"/usr/")
}

/// The kernel shows the path that a process with a root of its own sees; what another program has at that path is none of
/// ours.
fn is_in(root: &Root, usr: u64, link: &Path) -> bool {
    let file = fs::read_link(link).ok();
    let path = file.as_ref().and_then(|file| file.strip_prefix("/").ok());
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = path.and_then(|path| openat(root, path, flags, Mode::empty()).ok());
    let is_same = |found: &OwnedFd| {
        let theirs = fs::metadata(link).map(|meta| (meta.dev(), meta.ino()));
        let ours = fstat(found).map(|stat| (stat.st_dev, stat.st_ino));
        matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs == ours)
    };
    found
        .is_some_and(|found| is_same(&found) && mount_of(&found).is_ok_and(|mount| mount.id == usr))
}
