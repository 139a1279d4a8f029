//! The mount that is seen at a path: asked for by its id, looked up in the table of PID 1.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxFlags, statvfs, statx};

/// proc_pid_mountinfo(5) of the first process: the table of the machine, whatever namespace the reader is in.
pub const TABLE: &str = "/proc/1/mountinfo";

/// How often to try again when the table changed between two questions.
const TRIES: u32 = 10;

/// What can be told about a path in two system calls, to see whether a longer look is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    id: u64,
    read_only: bool,
}

impl Glance {
    /// Looks at a path; `None` where there is nothing.
    pub fn at(path: &Path) -> Option<Self> {
        // Not through an open descriptor: it would hold the mount for a moment, and an unmount just then would fail.
        let id = statx(CWD, path, AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID)
            .ok()?
            .stx_mnt_id;
        let flags = statvfs(path).ok()?.f_flag;
        Some(Self {
            id,
            read_only: flags.contains(StatVfsMountFlags::RDONLY),
        })
    }
}

/// The mount that a process sees at a path, in words of proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Field 1.
    pub id: u64,
    /// Whether neither the mount nor its file system is read-only.
    pub writable: bool,
    /// Field 9.
    pub fs_type: String,
    /// Field 5.
    pub mount_point: String,
    /// Field 6.
    pub options: String,
    /// Field 11.
    pub super_options: String,
}

impl Seen {
    /// Finds the mount of `path`; `None` where there is nothing.
    ///
    /// # Errors
    /// The table cannot be read, or changes faster than it can be read.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        for _ in 0..TRIES {
            let Some(glance) = Glance::at(path) else {
                return Ok(None);
            };
            let table = fs::read_to_string(TABLE)?;
            if let Some(seen) = table
                .lines()
                .filter_map(Self::parse)
                .find(|seen| seen.id == glance.id)
            {
                return Ok(Some(seen));
            }
        }
        Err(io::Error::other(format!(
            "{}: its mount is not in {TABLE}",
            path.display()
        )))
    }

    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mount: Vec<&str> = mount.split(' ').collect();
        let file_system: Vec<&str> = file_system.split(' ').collect();
        let (options, super_options) = (*mount.get(5)?, *file_system.get(2)?);
        let read_only = |options: &str| options.split(',').any(|option| option == "ro");
        Some(Self {
            id: mount.first()?.parse().ok()?,
            writable: !read_only(options) && !read_only(super_options),
            fs_type: (*file_system.first()?).to_owned(),
            mount_point: (*mount.get(4)?).to_owned(),
            options: options.to_owned(),
            super_options: super_options.to_owned(),
        })
    }
}
