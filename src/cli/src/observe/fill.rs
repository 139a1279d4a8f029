//! How full what is in memory is. It is asked for, and nothing is walked.

use rustix::fs::{FsWord, OFlags, fstatfs, fstatvfs};
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::plan::Plan;
use usr_policy_plan::policy::Treatment;
use usr_policy_plan::verify::Fill;
use usr_policy_system::root::Root;
use usr_policy_system::seen::mount_of;

/// What statfs(2) says of the type of a tmpfs.
const TMPFS_MAGIC: FsWord = 0x0102_1994;

// What cannot be asked is told by the rule's own line.
pub(super) fn fills(plan: &Plan, root: &Root) -> Vec<Fill> {
    let in_memory = plan.mounts.iter().map(|mount| &mount.rule);
    in_memory
        .filter(|rule| matches!(rule.treatment, Treatment::Tmpfs(_)))
        .filter_map(|rule| fill(root, &rule.mount_point))
        .collect()
}

fn fill(root: &Root, path: &MountPoint) -> Option<Fill> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = root.open_at(&path.to_string(), flags).ok()?;
    // Another one's, such as that of a volatile /var, has a size of its own.
    let is_its_own = mount_of(&directory).is_ok_and(|mount| mount.is_its_root);
    if fstatfs(&directory).ok()?.f_type != TMPFS_MAGIC || !is_its_own {
        return None;
    }
    let stat = fstatvfs(&directory).ok()?;
    Some(Fill {
        path: path.clone(),
        size: stat.f_blocks.saturating_mul(stat.f_frsize),
        used: stat
            .f_blocks
            .saturating_sub(stat.f_bfree)
            .saturating_mul(stat.f_frsize),
        inodes: stat.f_files,
        used_inodes: stat.f_files.saturating_sub(stat.f_ffree),
    })
}
