//! The mounts that the policy makes by itself, by file descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_bind,
    mount_bind_recursive, mount_change, mount_remount, move_mount, open_tree,
};

use crate::mount_setattr::{Attribute, Reach, mount_setattr};

/// How a bind came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// In one step that nobody can see half done.
    Atomically,
    /// In the two steps of kernels before 5.12: for a moment it was writable.
    InTwoSteps,
}

/// Binds a directory on itself, read-only; other flags of its mount, such as nosuid, stay.
///
/// The new mount has a peer group of its own. In its parent's, an overlay that systemd-sysext(8) puts on top would appear
/// a second time, and one copy would stay after an unmerge. It ends up shared where its parent is: over a private `/usr` a
/// merge would report success, and nobody would see it.
///
/// # Errors
/// The kernel's.
pub fn read_only_bind(directory: &OwnedFd, recursive: bool) -> io::Result<How> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let clone = match open_tree(directory, "", flags) {
        Ok(clone) => clone,
        Err(Errno::NOSYS) => {
            return classic_read_only_bind(directory, recursive).map(|()| How::InTwoSteps);
        }
        Err(error) => return Err(error.into()),
    };
    match mount_setattr(&clone, Reach::Tree, Attribute::Private) {
        Err(error) if error.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => {
            return classic_read_only_bind(directory, recursive).map(|()| How::InTwoSteps);
        }
        result => result?,
    }
    // What is mounted below keeps its own flags.
    mount_setattr(&clone, Reach::Top, Attribute::ReadOnly)?;
    let here = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&clone, "", directory, "", here)?;
    Ok(How::Atomically)
}

/// Sets the read-only flag of the mount that is at a directory; the file system and its other mounts stay as they are.
///
/// # Errors
/// `EBUSY` where a file is open for writing, else the kernel's.
pub fn set_read_only(directory: &OwnedFd) -> io::Result<How> {
    match mount_setattr(directory, Reach::Top, Attribute::ReadOnly) {
        Err(error) if error.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => {
            remount_read_only(&path_of(directory))?;
            Ok(How::InTwoSteps)
        }
        result => result.map(|()| How::Atomically),
    }
}

/// mount(2) as it was before Linux 5.12: bind, leave the peer group, remount read-only, share again.
fn classic_read_only_bind(directory: &OwnedFd, recursive: bool) -> io::Result<()> {
    let path = path_of(directory);
    if recursive {
        mount_bind_recursive(&path, &path)?;
    } else {
        mount_bind(&path, &path)?;
    }
    // The descriptor still names what is below; the path of a new one leads to the bind.
    let target = std::fs::read_link(&path)?;
    let bind = rustix::fs::openat(
        CWD,
        &target,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let path = path_of(&bind);
    mount_change(&path, MountPropagationFlags::PRIVATE)?;
    remount_read_only(&path)?;
    mount_change(&path, MountPropagationFlags::SHARED)?;
    Ok(())
}

/// mount(2) replaces every flag of the mount, so those that are there are given again.
fn remount_read_only(path: &str) -> io::Result<()> {
    let present = rustix::fs::statvfs(path)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (there, flag) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if present.contains(there) {
            flags |= flag;
        }
    }
    Ok(mount_remount(path, flags, "")?)
}

/// A path for a directory that is open, whatever is mounted or renamed meanwhile.
fn path_of(directory: impl AsFd) -> String {
    format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd())
}

/// What witnesses say when a file is asked for writing, without writing: `Ok` where it could be done.
///
/// # Errors
/// `EROFS` where the mount or its file system is read-only; `EACCES` where the caller may not, which says nothing.
pub fn may_write(directory: impl AsFd) -> Result<(), Errno> {
    rustix::fs::accessat(
        directory,
        ".",
        rustix::fs::Access::WRITE_OK,
        AtFlags::EACCESS,
    )
}
