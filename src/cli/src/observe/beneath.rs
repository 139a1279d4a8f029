//! What lies beneath the extensions that are merged over a path: whether it could be written, and its immutable flag.
//!
//! The property of a btrfs subvolume itself is not read: BTRFS_IOC_SUBVOL_GETFLAGS has no safe wrapper, statx(2) and the
//! extended attributes do not show it. EROFS, while the flags of mount and superblock are rw, says the same of every file
//! system that decides by itself.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access as Asked, AtFlags, CWD, Mode, OFlags, accessat, openat};
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::MountTable;
use usr_policy_plan::plan::Plan;
use usr_policy_plan::verify::{Access, BeneathExtensions};
use usr_policy_system::root::Root;
use usr_policy_system::seen::mount_of;

use super::hidden::clone_above;
use super::layers::has_immutable_flag;
use super::{access, access_of};

/// Looks beneath what systemd-sysext has merged over the paths of the plan.
pub(super) fn beneath_extensions(
    plan: &Plan,
    root: Option<&Root>,
    mounts: &MountTable,
    processes: &[(u32, PathBuf)],
) -> Vec<BeneathExtensions> {
    let rules = plan.mounts.iter().map(|mount| &mount.rule.mount_point);
    let merged = rules.filter_map(|path| {
        let top = mounts.top_at(path).filter(|top| top.is_sysext())?;
        look(root?, mounts, top.parent_id, path, processes)
    });
    merged.collect()
}

fn look(
    root: &Root,
    mounts: &MountTable,
    beneath: u64,
    path: &MountPoint,
    processes: &[(u32, PathBuf)],
) -> Option<BeneathExtensions> {
    if let Some((clone, name)) = clone_above(root, beneath, path) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // The clone keeps its flags, which are what is asked for; O_PATH changes no time stamp.
        let directory = openat(&clone, name, flags, Mode::empty()).ok()?;
        return Some(BeneathExtensions {
            path: path.clone(),
            access: access(&directory),
            is_immutable: Some(has_immutable_flag(&directory)),
        });
    }
    // A mount of its own is covered as a whole: a clone of the one above it does not show it. In an overlay a file of a lower
    // layer says nothing of its directory: whether it could be copied up is another question.
    if mounts.by_id(beneath)?.fs_type == b"overlay" {
        return None;
    }
    let programs = processes.iter().map(|(_, process)| process.join("exe"));
    let mut answers = programs.filter_map(|program| ask_program(&program, path, beneath));
    Some(BeneathExtensions {
        path: path.clone(),
        access: answers.next()?,
        is_immutable: None,
    })
}

/// What asking for write access says of a program in this mount. One that was started before the merge lies in what the
/// extensions cover, where no path leads: PID 1 most often.
fn ask_program(program: &Path, path: &MountPoint, mount: u64) -> Option<Access> {
    // Others are not opened: theirs may be a file system that does not answer.
    let at = fs::read_link(program).ok()?;
    let at = MountPoint::seen(at.as_os_str().as_bytes()).ok()?;
    if !at.is_below(path) {
        return None;
    }
    let file = openat(CWD, program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    if mount_of(&file).ok()?.id != mount {
        return None;
    }
    // By the path: for a file that is open, rustix has no faccessat(2).
    let asked = accessat(CWD, program, Asked::WRITE_OK, AtFlags::EACCESS);
    Some(access_of(asked)).filter(|access| *access != Access::NoWitness)
}
