//! fstab(5), with line numbers. A line that cannot be read is one error, not the end.

use alloc::vec::Vec;
use core::fmt;

use crate::mount_point::{MountPoint, NotAMountPoint};
use crate::text::Shown;

/// One line of fstab(5), escapes decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Line number in the file, from 1.
    pub line: u32,
    /// First field: the device, share or label.
    pub spec: Vec<u8>,
    /// Second field: where it is mounted.
    pub file: MountPoint,
    /// Third field: the type of the file system.
    pub vfstype: Vec<u8>,
    /// Fourth field, split at commas (quotes protect a comma, as libmount has it); `defaults` where it is missing.
    pub mntops: Vec<Vec<u8>>,
}

/// A line that is left out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Line number in the file, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a line of fstab(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Fewer than the three fields that libmount insists on.
    MissingFields,
    /// The second field is no mount point (and not `none` or `swap`, which name no place).
    MountPoint(Vec<u8>, NotAMountPoint),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::MissingFields => f.write_str("fewer than three fields; write device, mount point and type"),
            Problem::MountPoint(field, why) => write!(f, "mount point \"{}\" {why}", Shown(field)),
        }
    }
}

/// What an fstab says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fstab {
    /// The lines that name a mount point, in order.
    pub entries: Vec<Entry>,
    /// The lines that could not be read.
    pub bad_lines: Vec<BadLine>,
}

impl Fstab {
    /// Reads the text of an fstab. Total: no input panics. Comments, blank lines, `swap` and `none` lines make no entry.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        todo!("{text:?}")
    }

    /// The last entry for a mount point: the one that is mounted last, and seen.
    #[must_use]
    pub fn entry_at(&self, mount_point: &MountPoint) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.file == *mount_point)
    }
}

impl Entry {
    /// Whether the line carries an option, as a whole word: `errors=remount-ro` is not `ro`.
    #[must_use]
    pub fn has_option(&self, option: &str) -> bool {
        self.mntops.iter().any(|o| o == option.as_bytes())
    }
}

/// Returns the text of an fstab without its lines for one mount point; every other byte stays.
#[must_use]
pub fn without(text: &[u8], mount_point: &MountPoint) -> Vec<u8> {
    todo!("{text:?} {mount_point:?}")
}
