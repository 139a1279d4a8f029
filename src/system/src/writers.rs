//! Who writes below `/usr`: a bind over an open file does not stop whoever has it open.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fstat, openat};

use crate::failure::Failure;
use crate::processes::{OpenFile, is_for_writing, open_files};
use crate::root::Root;
use crate::seen::mount_of;

/// Who has a file open for writing that lies in the mount of `/usr`. The kernel shows the path that a process with a root of
/// its own sees; what another program has at that path is none of ours.
///
/// # Errors
/// The kernel's, where `/usr` cannot be looked at.
pub fn writers(root: &Root) -> Result<Vec<OpenFile>, Failure> {
    let Some(usr) = root.directory("/usr")? else {
        return Ok(Vec::new());
    };
    let usr = mount_of(&usr)?.id;
    let is_ours = |link: &Path, process: &Path| {
        let file = fs::read_link(link).ok();
        let path = file.as_ref().and_then(|file| file.strip_prefix("/").ok());
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = path.and_then(|path| openat(root, path, flags, Mode::empty()).ok());
        let is_same = |found: &OwnedFd| {
            let theirs = fs::metadata(link).map(|meta| (meta.dev(), meta.ino()));
            let ours = fstat(found).map(|stat| (stat.st_dev, stat.st_ino));
            matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs == ours)
        };
        is_for_writing(link, process)
            && found.is_some_and(|found| {
                is_same(&found) && mount_of(&found).is_ok_and(|mount| mount.id == usr)
            })
    };
    Ok(open_files(|path| path.starts_with(b"/usr/"), is_ours))
}
