//! What lies beneath the extensions that are merged over a path: whether it could be written, and its immutable flag.
//!
//! The property of a btrfs subvolume itself is not read: BTRFS_IOC_SUBVOL_GETFLAGS has no safe wrapper, statx(2) and the
//! extended attributes do not show it. EROFS, while the flags of mount and superblock are rw, says the same of every file
//! system that decides by itself.

use rustix::fs::{Access as Asked, AtFlags, CWD, Mode, OFlags, accessat, openat};
use rustix::io::Errno;
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::MountTable;
use usr_policy_plan::plan::Plan;
use usr_policy_plan::verify::{Access, BeneathExtensions};
use usr_policy_system::root::Root;
use usr_policy_system::seen::mount_of;

use super::access;
use super::hidden::clone_above;
use super::layers::has_immutable_flag;

/// The program of PID 1. Where it was started before the merge, it lies beneath the extensions, and no path leads there.
const PROGRAM: &str = "/proc/1/exe";

/// Looks beneath what systemd-sysext has merged over the paths of the plan.
pub(super) fn beneath_extensions(
    plan: &Plan,
    root: Option<&Root>,
    mounts: &MountTable,
) -> Vec<BeneathExtensions> {
    let rules = plan.mounts.iter().map(|mount| &mount.rule.mount_point);
    let merged = rules.filter_map(|path| {
        let top = mounts.top_at(path).filter(|top| top.is_sysext())?;
        look(root?, top.parent_id, path)
    });
    merged.collect()
}

fn look(root: &Root, beneath: u64, path: &MountPoint) -> Option<BeneathExtensions> {
    if let Some((clone, name)) = clone_above(root, beneath, path) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(&clone, name, flags, Mode::empty()).ok()?;
        return Some(BeneathExtensions {
            path: path.clone(),
            access: access(&directory),
            is_immutable: Some(has_immutable_flag(&directory)),
        });
    }
    // A mount of its own is covered as a whole: a clone of the one above it does not show it.
    let program = openat(CWD, PROGRAM, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    if mount_of(&program).ok()?.id != beneath {
        return None;
    }
    let access = match accessat(CWD, PROGRAM, Asked::WRITE_OK, AtFlags::EACCESS) {
        Ok(()) => Access::Writable,
        Err(Errno::ROFS) => Access::ReadOnly,
        Err(_) => Access::NoWitness,
    };
    Some(BeneathExtensions {
        path: path.clone(),
        access,
        is_immutable: None,
    })
}
