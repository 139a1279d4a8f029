//! mount_setattr(2): the one syscall that rustix does not have yet, and the only unsafe block.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

/// Which mounts an attribute is set on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The mount of the file descriptor only.
    Top,
    /// Every mount below it as well.
    Tree,
}

/// What is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attribute {
    /// `MOUNT_ATTR_RDONLY`, of this mount alone; other flags stay as they are.
    ReadOnly,
    /// Without it.
    Writable,
    /// Propagation `MS_PRIVATE`: out of its peer group.
    Private,
    /// Propagation `MS_SHARED`: in a new peer group, where it is private.
    Shared,
}

/// Changes a mount's attributes by file descriptor.
///
/// # Errors
/// `ENOSYS` before Linux 5.12; `EBUSY` where a file is open for writing.
///
/// Source: mount_setattr(2).
pub(crate) fn mount_setattr(
    mount: impl AsFd,
    reach: Reach,
    attribute: Attribute,
) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if reach == Reach::Tree {
        flags |= libc::AT_RECURSIVE;
    }
    let (attr_set, attr_clr, propagation) = match attribute {
        Attribute::ReadOnly => (libc::MOUNT_ATTR_RDONLY, 0, 0),
        Attribute::Writable => (0, libc::MOUNT_ATTR_RDONLY, 0),
        Attribute::Private => (0, 0, libc::MS_PRIVATE),
        Attribute::Shared => (0, 0, libc::MS_SHARED),
    };
    let attr = libc::mount_attr {
        attr_set,
        attr_clr,
        propagation,
        userns_fd: 0,
    };
    // SAFETY: the descriptor is open as long as `mount` is borrowed, the path is a NUL-terminated constant, and the kernel
    // reads exactly size_of::<mount_attr>() bytes of a structure that lives until the call returns. It writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
