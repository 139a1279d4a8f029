//! `proc_pid_mountinfo(5)`: the mount table of a process.
//!
//! The order of the lines is not the order of stacking: the mount that is seen at a path is found by its mount id
//! (statx(2), `STATX_MNT_ID`) or by walking from parent to child.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::mount_point::MountPoint;
use crate::octal;
use crate::text::{Shown, numbered_lines};

/// Options, split at commas, escapes decoded.
// One buffer, each option ended by a NUL, which none of them can contain: a table has hundreds of options.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MountOptions(Vec<u8>);

impl MountOptions {
    /// Splits a comma-separated list.
    #[must_use]
    pub fn parse(list: &[u8]) -> Self {
        let mut options = Vec::with_capacity(list.len() + 1);
        for option in list
            .split(|&byte| byte == b',')
            .filter(|option| !option.is_empty())
        {
            // Decoded after the split: \054 is a comma within an option.
            options.extend_from_slice(&octal::decoded(option));
            options.push(0);
        }
        MountOptions(options)
    }

    /// Whether the list has an option as a whole word: `errors=remount-ro` is not `ro`.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.iter().any(|o| o == option.as_bytes())
    }

    /// The value of the last `key=value` in the list.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        let value_of = |option| <[u8]>::strip_prefix(option, key.as_bytes())?.strip_prefix(b"=");
        self.iter().filter_map(value_of).last()
    }

    /// The options, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|&byte| byte == 0)
            .filter(|option| !option.is_empty())
    }
}

impl fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(Shown)).finish()
    }
}

/// One line of `proc_pid_mountinfo(5)`, escapes decoded.
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
    /// The field of `proc_pid_mountinfo(5)` that could not be read.
    pub field: &'static str,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} is missing or not as proc_pid_mountinfo(5) has it",
            self.line, self.field
        )
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
        let mut table = MountTable::default();
        for (line, bytes) in numbered_lines(text).filter(|(_, bytes)| !bytes.is_empty()) {
            match mount_info(bytes) {
                Ok(mount) => table.mounts.push(mount),
                Err(field) => table.bad_lines.push(BadLine { line, field }),
            }
        }
        table
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
        self.way_to(mount_point)
            .pop()
            .filter(|mount| mount.mount_point == *mount_point)
    }

    /// Returns the mount that holds `path` for a process: the top mount at the nearest mount point at or above it.
    #[must_use]
    pub fn holding(&self, path: &MountPoint) -> Option<&MountInfo> {
        self.way_to(path).pop()
    }

    /// Returns the mounts stacked at `mount_point`, lowest first, the visible one last.
    #[must_use]
    pub fn stack_at(&self, mount_point: &MountPoint) -> Vec<&MountInfo> {
        let mut way = self.way_to(mount_point);
        way.retain(|mount| mount.mount_point == *mount_point);
        way
    }

    /// The mounts that a path lookup goes through on its way to `path`, each attached to the one before it.
    fn way_to(&self, path: &MountPoint) -> Vec<&MountInfo> {
        let mut on_the_way: Vec<&MountInfo> = self
            .mounts
            .iter()
            .filter(|mount| path.is_at_or_below(&mount.mount_point))
            .collect();
        // A stable sort: of two mounts that one parent has at one place (kernels before 4.12) the later line is on top.
        on_the_way.sort_by_key(|mount| (mount.mount_point.as_bytes().len(), mount.parent_id));
        let mut ids: Vec<u64> = on_the_way.iter().map(|mount| mount.mount_id).collect();
        ids.sort_unstable();
        // The parent of a mount on the way is on the way too, or the process does not see it: it lies outside the root
        // directory, or the root directory is no mount point (chroot(2)).
        let is_attached_outside = |mount: &&&MountInfo| {
            mount.parent_id == mount.mount_id || ids.binary_search(&mount.parent_id).is_err()
        };

        let mut way: Vec<&MountInfo> = Vec::new();
        for place in on_the_way.chunk_by(|a, b| a.mount_point == b.mount_point) {
            if way.is_empty() {
                way.extend(place.iter().rfind(is_attached_outside));
            }
            // A lookup starts in the root directory itself: what is stacked on that, it never enters.
            if place
                .first()
                .is_some_and(|mount| mount.mount_point.as_bytes() == b"/")
            {
                continue;
            }
            // Bounded: the parents of a table that the kernel did not write can go round in circles.
            for _ in place {
                let Some(below) = way.last() else { break };
                let after = place.partition_point(|mount| mount.parent_id <= below.mount_id);
                let Some(above) = place[..after].last() else {
                    break;
                };
                if above.parent_id != below.mount_id || above.mount_id == below.mount_id {
                    break;
                }
                way.push(above);
            }
        }
        way
    }
}

/// Reads one line; on failure returns the field that could not be read.
///
/// Source: `proc_pid_mountinfo(5)`; Linux `fs/proc_namespace.c`, `show_mountinfo`.
fn mount_info(line: &[u8]) -> Result<MountInfo, &'static str> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut field = |name| fields.next().ok_or(name);
    let mount_id = number(field("mount ID")?).ok_or("mount ID")?;
    let parent_id = number(field("parent ID")?).ok_or("parent ID")?;
    let st_dev = device(field("major:minor")?).ok_or("major:minor")?;
    let root = octal::decode(field("root")?);
    let mount_point =
        MountPoint::new(&octal::decoded(field("mount point")?)).map_err(|_| "mount point")?;
    let mount_options = MountOptions::parse(field("mount options")?);
    let mut peer_group = None;
    loop {
        match field("separator")? {
            b"-" => break,
            optional => {
                if let Some(group) = optional.strip_prefix(b"shared:") {
                    peer_group = Some(number(group).ok_or("optional fields")?);
                }
            }
        }
    }
    let fs_type = octal::decode(field("filesystem type")?);
    // The source can be empty: then two spaces follow one another.
    let mount_source = octal::decode(field("mount source")?);
    let super_options = MountOptions::parse(field("super options")?);
    Ok(MountInfo {
        mount_id,
        parent_id,
        st_dev,
        root,
        mount_point,
        mount_options,
        peer_group,
        fs_type,
        mount_source,
        super_options,
    })
}

fn device(field: &[u8]) -> Option<(u32, u32)> {
    let colon = field.iter().position(|&byte| byte == b':')?;
    Some((number(&field[..colon])?, number(&field[colon + 1..])?))
}

fn number<T: FromStr>(field: &[u8]) -> Option<T> {
    str::from_utf8(field).ok()?.parse().ok()
}
