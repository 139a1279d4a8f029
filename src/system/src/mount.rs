//! The mounts that the policy makes by itself, by file descriptor.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountFlags, MountPropagationFlags,
    MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_reconfigure,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, mount_bind,
    mount_bind_recursive, mount_change, mount_remount, move_mount, open_tree, unmount,
};
use usr_policy_plan::mount_options::{self as options, Options};
use usr_policy_plan::mount_point::MountPoint;

use crate::failure::Failure;
use crate::mount_setattr::{Attribute, Reach, mount_setattr};
use crate::seen::{mount_of, mount_table};

/// How a bind came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// In one step that nobody can see half done.
    Atomically,
    /// In the two steps of kernels before 5.12: for a moment it was writable.
    InTwoSteps,
}

/// What becomes of the mounts below a directory that is bound on itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// There are none; the bind would hide them.
    Nothing,
    /// They are taken along and keep their own flags.
    AsItIs,
    /// They are taken along and become read-only too; on kernels before 5.12 they keep their flags.
    ReadOnly,
}

/// Binds a directory on itself, read-only; other flags of its mount, such as nosuid, stay.
///
/// The new mount has a peer group of its own. In its parent's, an overlay that systemd-sysext(8) puts on top would appear
/// a second time, and one copy would stay after an unmerge. It ends up shared where its parent is: over a private `/usr` a
/// merge would report success, and nobody would see it.
///
/// # Errors
/// The kernel's, or of the kind `WouldBlock` where somebody has mounted there since the directory was opened: then nothing
/// was done.
pub fn read_only_bind(directory: &OwnedFd, below: Below) -> io::Result<How> {
    let recursive = below != Below::Nothing;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let clone = open_tree(directory, "", flags)?;
    match mount_setattr(&clone, Reach::Tree, Attribute::Private) {
        Err(error) if is(&error, Errno::NOSYS) => {
            return classic_read_only_bind(directory, recursive).map(|()| How::InTwoSteps);
        }
        result => result?,
    }
    let reach = match below {
        Below::ReadOnly => Reach::Tree,
        Below::Nothing | Below::AsItIs => Reach::Top,
    };
    mount_setattr(&clone, reach, Attribute::ReadOnly)?;
    let here = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&clone, "", directory, "", here)?;
    // The kernel attaches on top of everything: what was merged meanwhile would be hidden, and could not be unmerged.
    if lies_on(&clone, directory) == Some(false) {
        unmount(link_of(&clone), UnmountFlags::DETACH)?;
        return Err(Errno::AGAIN.into());
    }
    Ok(How::Atomically)
}

/// Whether a mount is attached to the one of a directory; `None` where that cannot be seen.
fn lies_on(mount: &OwnedFd, directory: &OwnedFd) -> Option<bool> {
    let below = mount_of(directory).ok()?.id;
    let table = mount_table().ok()?;
    Some(table.by_id(mount_of(mount).ok()?.id)?.parent_id == below)
}

/// Sets the read-only flag of the mount that is at a directory; the file system and its other mounts stay as they are.
///
/// # Errors
/// `EBUSY` where a file is open for writing, else the kernel's.
pub fn set_read_only(directory: &OwnedFd) -> io::Result<How> {
    match mount_setattr(directory, Reach::Top, Attribute::ReadOnly) {
        Err(error) if is(&error, Errno::NOSYS) => {
            remount(&link_of(directory), MountFlags::RDONLY)?;
            Ok(How::InTwoSteps)
        }
        result => result.map(|()| How::Atomically),
    }
}

/// A mount of a directory that is attached nowhere and that can be written, whatever the one there can.
///
/// # Errors
/// The kernel's; `ENOSYS` before Linux 5.12.
pub fn writable_clone(directory: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(directory, "", flags)?;
    mount_setattr(&clone, Reach::Top, Attribute::Writable)?;
    Ok(clone)
}

/// Takes the mount that is at a directory out of its peer group, and shares it in a new one.
///
/// # Errors
/// The kernel's.
pub fn leave_peer_group(directory: &OwnedFd) -> io::Result<()> {
    match mount_setattr(directory, Reach::Top, Attribute::Private) {
        Err(error) if is(&error, Errno::NOSYS) => {
            let path = link_of(directory);
            mount_change(&path, MountPropagationFlags::PRIVATE)?;
            Ok(mount_change(&path, MountPropagationFlags::SHARED)?)
        }
        result => result.and_then(|()| mount_setattr(directory, Reach::Top, Attribute::Shared)),
    }
}

/// Takes the read-only flag of the mount that is at a directory away; its file system stays as it is.
///
/// # Errors
/// The kernel's.
pub fn set_writable(directory: &OwnedFd) -> io::Result<()> {
    match mount_setattr(directory, Reach::Top, Attribute::Writable) {
        Err(error) if is(&error, Errno::NOSYS) => remount(&link_of(directory), MountFlags::empty()),
        result => result,
    }
}

/// Makes a file system writable that was mounted read-only as a whole; the flags of its mounts stay.
///
/// # Errors
/// The kernel's: `EACCES` or `EROFS` where its device is write-protected.
pub fn set_file_system_writable(directory: &OwnedFd) -> io::Result<()> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let fs = fspick(directory, "", flags)?;
    fsconfig_set_flag(&fs, "rw")?;
    Ok(fsconfig_reconfigure(&fs)?)
}

/// The mounts at a path without links and below it, once more, attached nowhere.
///
/// # Errors
/// The kernel's; `ENOSYS` before Linux 5.2.
pub fn clone_tree(point: &MountPoint) -> Result<OwnedFd, Failure> {
    let path = path_to(point);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let fail = |error: io::Error| Failure::new(path, "cannot keep its mount", error);
    let tree = open_tree(CWD, path, flags).map_err(|error| fail(error.into()))?;
    // In the peer group of the first ones, what is mounted deeper would be unmounted with those.
    match mount_setattr(&tree, Reach::Tree, Attribute::Private) {
        Err(error) if !is(&error, Errno::NOSYS) => Err(fail(error)),
        _ => Ok(tree),
    }
}

/// Opens what is seen at a path without links, a file too, without the right to read it.
///
/// # Errors
/// The kernel's.
pub fn open_point(point: &MountPoint) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path_to(point), flags, Mode::empty())
        .map_err(|error| Failure::new(path_to(point), "cannot open", error))
}

/// Attaches what [`clone_tree`] has made.
///
/// # Errors
/// The kernel's.
pub fn attach(tree: &OwnedFd, point: &MountPoint) -> Result<(), Failure> {
    let path = path_to(point);
    move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|error| Failure::new(path, "cannot mount it again", error))
}

/// Takes the mount with an id away that was seen at a path without links, whoever uses it; not what others have mounted on
/// it since. The kernel has no lock for that: what is mounted while this runs goes instead.
///
/// # Errors
/// The kernel's, or `EBUSY` where another mount is there by now.
pub fn detach_seen(point: &MountPoint, mount_id: u64) -> Result<(), Failure> {
    let fail = |error| Failure::new(path_to(point), "cannot unmount", error);
    let there = open_point(point)?;
    if mount_of(&there)?.id != mount_id {
        return Err(fail(Errno::BUSY).with_remedy(
            "somebody has mounted there at the same moment; see findmnt, and try again",
        ));
    }
    unmount(link_of(&there), UnmountFlags::DETACH).map_err(fail)
}

fn path_to(point: &MountPoint) -> &Path {
    Path::new(OsStr::from_bytes(point.as_bytes()))
}

/// A file system that is to be mounted.
#[derive(Debug, Clone, Copy)]
pub struct NewMount<'a> {
    /// Its device, share or name.
    pub source: &'a [u8],
    /// Its type.
    pub fs_type: &'a [u8],
    /// Its options.
    pub options: &'a Options,
}

/// Mounts a file system on a directory, and returns its mount. Nobody sees it before it has all its flags, read-only among
/// them.
///
/// # Errors
/// The kernel's, in the words of the file system where it has some; of the kind `InvalidInput` where it refuses an option.
pub fn mount_new(new: &NewMount<'_>, directory: impl AsFd) -> Result<OwnedFd, Failure> {
    let mut mount = fs_mount(new, new.options.read_only_file_system);
    // A device that is write-protected: mount(8) tries it so too.
    if mount.as_ref().is_err_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied
        )
    }) {
        mount = fs_mount(new, true);
    }
    let here = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    let attached = mount.and_then(|mount| {
        move_mount(&mount, "", directory, "", here)?;
        Ok(mount)
    });
    attached.map_err(|error| {
        let remedy = if is(&error, Errno::NODEV) {
            "the kernel has no such file system, nor a module that it could load; build it in"
        } else if is(&error, Errno::NOSYS) {
            "Linux 5.8 or later is needed"
        } else {
            "the kernel log may say more"
        };
        let source = OsStr::from_bytes(new.source);
        Failure::new(source, "cannot mount", error).with_remedy(remedy)
    })
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Makes a mount that is nowhere yet.
fn fs_mount(new: &NewMount<'_>, read_only_file_system: bool) -> io::Result<OwnedFd> {
    let context = fsopen(new.fs_type, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let configured = || -> Result<(), Errno> {
        fsconfig_set_string(&context, "source", new.source)?;
        if read_only_file_system {
            fsconfig_set_flag(&context, "ro")?;
        }
        for (key, value) in &new.options.settings {
            match value {
                Some(value) => fsconfig_set_string(&context, key.as_slice(), value.as_slice())?,
                None => fsconfig_set_flag(&context, key.as_slice())?,
            }
        }
        fsconfig_create(&context)
    };
    configured().map_err(|errno| in_its_words(&context, errno))?;
    let mut attributes = MountAttrFlags::empty();
    if new.options.read_only {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    for attribute in &new.options.attributes {
        attributes |= match attribute {
            options::Attribute::NoSuid => MountAttrFlags::MOUNT_ATTR_NOSUID,
            options::Attribute::NoDev => MountAttrFlags::MOUNT_ATTR_NODEV,
            options::Attribute::NoExec => MountAttrFlags::MOUNT_ATTR_NOEXEC,
            options::Attribute::NoAtime => MountAttrFlags::MOUNT_ATTR_NOATIME,
            options::Attribute::StrictAtime => MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            options::Attribute::NoDirAtime => MountAttrFlags::MOUNT_ATTR_NODIRATIME,
            options::Attribute::NoSymFollow => MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW,
        };
    }
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// What a file system says about its failure: "e ext4: Unknown parameter 'x'". Source: fsconfig(2).
fn in_its_words(context: &OwnedFd, errno: Errno) -> io::Error {
    let mut message = [0; 256];
    match rustix::io::read(context, &mut message) {
        Ok(length) if message[..length].starts_with(b"e ") => {
            let words = String::from_utf8_lossy(message[2..length].trim_ascii());
            io::Error::new(io::Error::from(errno).kind(), words)
        }
        // Most say it in the kernel's log, if at all.
        _ => errno.into(),
    }
}

/// mount(2) as it was before Linux 5.12: bind, leave the peer group, remount read-only, share again.
fn classic_read_only_bind(directory: &OwnedFd, recursive: bool) -> io::Result<()> {
    let path = link_of(directory);
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
    let path = link_of(&bind);
    mount_change(&path, MountPropagationFlags::PRIVATE)?;
    remount(&path, MountFlags::RDONLY)?;
    mount_change(&path, MountPropagationFlags::SHARED)?;
    Ok(())
}

/// mount(2) replaces every flag of the mount, so those that are there are given again.
fn remount(path: &str, access: MountFlags) -> io::Result<()> {
    let present = rustix::fs::statvfs(path)?.f_flag;
    let mut flags = MountFlags::BIND | access;
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
pub(crate) fn link_of(directory: impl AsFd) -> String {
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
