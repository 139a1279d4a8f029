//! What lies beneath a mount, seen without changing a mount.
//!
//! The mount in which the covered directory lies is cloned without what is mounted on it. The clone is made read-only and is
//! attached nowhere: no mount table shows it, no other process can reach it, and it ends with its descriptor. Reading through
//! it changes no time stamp. That needs CAP_SYS_ADMIN in PID 1's mount namespace; without it nothing is seen.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::MountTable;
use usr_policy_plan::verify::Beneath;
use usr_policy_system::mount::set_read_only;
use usr_policy_system::root::Root;
use usr_policy_system::seen::mount_of;

/// How far verify goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// It walks nowhere.
    Shallow,
    /// It counts.
    Deep,
}

/// How many entries a short look reads before it gives up: what is there then are directories in directories.
const SHORT_LOOK: usize = 1_000;

/// Looks beneath what is mounted at a path. `None` where nothing is hidden, or a short look could not see it.
pub(crate) fn beneath(
    root: &Root,
    mounts: &MountTable,
    path: &MountPoint,
    depth: Depth,
) -> Option<Beneath> {
    let top = mounts.top_at(path)?;
    let unseen = (depth == Depth::Deep).then_some(Beneath::Unseen);
    let Some(covered) = covered(root, top.parent_id, path) else {
        return unseen;
    };
    let counted = match covered {
        Ok(directory) => count(directory, depth),
        // The mount can outlive the directory that it covers.
        Err(Errno::NOENT) => return None,
        Err(error) => Err(error),
    };
    match (counted, depth) {
        (Ok((0, _)), Depth::Shallow) => None,
        (Ok(_), Depth::Shallow) => Some(Beneath::Files),
        (Ok((files, bytes)), Depth::Deep) => Some(Beneath::Counted { files, bytes }),
        (Err(_), _) => unseen,
    }
}

/// The directory that is covered; `None` where its mount cannot be cloned.
fn covered(root: &Root, parent: u64, path: &MountPoint) -> Option<Result<OwnedFd, Errno>> {
    let (clone, name) = clone_above(root, parent, path)?;
    set_read_only(&clone).ok()?;
    Some(open(&clone, name))
}

/// The directory above a covered one in a clone of its mount, with the flags of that, and the name that is covered.
pub(super) fn clone_above<'a>(
    root: &Root,
    parent: u64,
    path: &'a MountPoint,
) -> Option<(OwnedFd, &'a [u8])> {
    let path = path.as_bytes();
    let at = path.iter().rposition(|&byte| byte == b'/')?;
    let above = OsStr::from_bytes(path[..at].get(1..).unwrap_or_default());
    let directory = root
        .open_at(above.to_str()?, OFlags::PATH | OFlags::DIRECTORY)
        .ok()?;
    // Where it lies beneath two mounts, the first one hides the second.
    if mount_of(&directory).ok()?.id != parent {
        return None;
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(&directory, "", flags).ok()?;
    Some((clone, &path[at + 1..]))
}

fn open(directory: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Files, and their room on the disk in bytes; a short look ends at the first file.
fn count(directory: OwnedFd, depth: Depth) -> Result<(u64, u64), Errno> {
    // By name: a process may have few files open, and so one is open for each level, not for each directory.
    let mut waiting: Vec<(Rc<OwnedFd>, CString)> = Vec::new();
    let mut next = Some(Rc::new(directory));
    let (mut files, mut bytes, mut read) = (0, 0, 0);
    let mut linked = HashSet::new();
    while let Some(directory) = next {
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if [&b"."[..], b".."].contains(&name.to_bytes()) {
                continue;
            }
            read += 1;
            if depth == Depth::Shallow && read > SHORT_LOOK {
                return Ok((files, bytes));
            }
            let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                waiting.push((Rc::clone(&directory), name.to_owned()));
                continue;
            }
            files += 1;
            if depth == Depth::Shallow {
                return Ok((files, bytes));
            }
            if stat.st_nlink <= 1 || linked.insert(stat.st_ino) {
                // Blocks of 512 bytes, whatever the file system has. Source: stat(2).
                bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            }
        }
        let opened = waiting
            .pop()
            .map(|(above, name)| open(&above, name.to_bytes()));
        next = opened.transpose()?.map(Rc::new);
    }
    Ok((files, bytes))
}
