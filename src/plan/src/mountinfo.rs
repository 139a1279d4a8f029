//! proc_pid_mountinfo(5): the mount table of a process.
//!
//! The order of the lines is not the order of stacking: the mount that is seen at a path is found by its mount id
//! (statx(2), `STATX_MNT_ID`) or by walking from parent to child.

use alloc::vec::Vec;
use core::fmt;

use crate::mount_point::MountPoint;

/// Options, split at commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions(Vec<Vec<u8>>);

impl MountOptions {
    /// Splits a comma-separated list.
    #[must_use]
    pub fn parse(list: &[u8]) -> Self {
        todo!("{list:?}")
    }

    /// Whether the list has an option as a whole word: `errors=remount-ro` is not `ro`.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.0.iter().any(|o| o == option.as_bytes())
    }

    /// The value of the last `key=value` in the list.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        todo!("{key:?}")
    }

    /// The options, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }
}

/// One line of proc_pid_mountinfo(5), escapes decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// Field 1: unique while the mount exists.
    pub mount_id: u64,
    /// Field 2: the mount that this one is attached to; its own id at the root of the tree.
    pub parent_id: u64,
    /// Field 3: major and minor number of the device.
    pub st_dev: (u32, u32),
    /// Field 4: the directory of the file system that is this mount's root.
    pub root: Vec<u8>,
    /// Field 5: where it is mounted, below the process's root directory.
    pub mount_point: MountPoint,
    /// Field 6: options of this mount. `ro` here means this mount only.
    pub mount_options: MountOptions,
    /// Field 7: peer group, `shared:N`; `None` for a mount that is not shared.
    pub peer_group: Option<u32>,
    /// Field 9: type of the file system.
    pub fs_type: Vec<u8>,
    /// Field 10: source, as the file system shows it.
    pub mount_source: Vec<u8>,
    /// Field 11: options of the file system. `ro` here means every mount of it.
    pub super_options: MountOptions,
}

/// A line that is no mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Line number in the table, from 1.
    pub line: u32,
    /// The field of proc_pid_mountinfo(5) that could not be read.
    pub field: &'static str,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is missing or not as proc_pid_mountinfo(5) has it", self.line, self.field)
    }
}

/// A mount table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountTable {
    /// The mounts, in the table's order.
    pub mounts: Vec<MountInfo>,
    /// The lines that could not be read.
    pub bad_lines: Vec<BadLine>,
}

impl MountTable {
    /// Reads the text of a mount table. Total: no input panics.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        todo!("{text:?}")
    }

    /// Returns the mount with this id.
    #[must_use]
    pub fn by_id(&self, mount_id: u64) -> Option<&MountInfo> {
        self.mounts.iter().find(|mount| mount.mount_id == mount_id)
    }

    /// Returns the mount that a process sees at `mount_point`, by walking from parent to child; `None` where nothing is
    /// mounted there, or what is there is hidden by a mount above it.
    ///
    /// Where the kernel can be asked, ask it for the mount id (statx(2)) and use [`MountTable::by_id`].
    #[must_use]
    pub fn top_at(&self, mount_point: &MountPoint) -> Option<&MountInfo> {
        todo!("{mount_point:?}")
    }

    /// Returns the mount that holds `path` for a process: the top mount at the nearest mount point at or above it.
    #[must_use]
    pub fn holding(&self, path: &MountPoint) -> Option<&MountInfo> {
        todo!("{path:?}")
    }

    /// Returns the mounts stacked at `mount_point`, lowest first, the visible one last.
    #[must_use]
    pub fn stack_at(&self, mount_point: &MountPoint) -> Vec<&MountInfo> {
        todo!("{mount_point:?}")
    }
}
