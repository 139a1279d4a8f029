//! What was seen of the running system.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Event, Fill, Layers, Sysext, SystemFacts};
use crate::lock::State;
use crate::mount_point::MountPoint;
use crate::mountinfo::{MountInfo, MountTable};

/// What was seen of the running system, in the mount namespace of PID 1.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The mount table of PID 1.
    pub mounts: MountTable,
    /// Where the database lies, where links lead there from its path.
    pub database_at: Option<MountPoint>,
    /// What is at each path that [`paths`](super::paths) names.
    pub places: Vec<Place>,
    /// Physical memory, in bytes; `None` where it could not be read.
    pub memory: Option<u64>,
    /// How full each path is that is to be in memory and is a tmpfs.
    pub fills: Vec<Fill>,
    /// What our own stages recorded at this boot, in order.
    pub events: Vec<Event>,
    /// What the lock table remembers.
    pub state: State,
    /// When it was looked, `CLOCK_BOOTTIME` in microseconds.
    pub now: u64,
    /// The same moment in microseconds since 1970; `None` where the clock is not set.
    pub clock: Option<u64>,
    /// Whether one of our own programs was changing mounts or state in that moment.
    pub is_changing: bool,
    /// Whether pacman would run our hook, which stops what a read-only `/usr` would break.
    pub is_guarded: bool,
    /// Whether somebody follows merges.
    pub follower: Follower,
    /// A package manager at work: its name and process, for a person. Only root sees who it is.
    pub at_work: Option<String>,
    /// The packages that were changed while extensions covered `/usr`, and not again since.
    pub covered: Vec<String>,
    /// The copy of the boot program outside `/usr`.
    pub pre_init: PreInit,
    /// What other witnesses say of the mounts, and other ways to the same files.
    pub layers: Layers,
    /// Who looked.
    pub caller: Caller,
    /// Configuration and fstab that could not be read: what is promised may be more than the plan says.
    pub unread: Vec<Blind>,
    /// What of the machine could not be looked at.
    pub blind: Vec<Blind>,
    /// What there is to merge over `/usr`, and what is merged.
    pub sysext: Sysext,
    /// What was seen of the system beside its mounts.
    pub system: SystemFacts,
}

impl Observed {
    /// The mount that holds a place: the kernel's answer, else by walking the table.
    #[must_use]
    pub fn mount_at(&self, place: &Place) -> Option<&MountInfo> {
        match place.mount_id {
            Some(id) => self.mounts.by_id(id),
            None => self.mounts.holding(&place.path),
        }
    }
}

/// Whether usr-policy-follow.service is at work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Follower {
    /// It could not be told, or nothing runs it here.
    #[default]
    Unknown,
    /// It is.
    Alive,
    /// It is not.
    Dead,
}

/// Who looks, as far as rights go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Caller {
    /// Root.
    #[default]
    Root,
    /// Anybody else.
    Other,
}

impl Caller {
    /// What to do about something that this caller could not see.
    #[must_use]
    pub fn way_to_see(self) -> &'static str {
        match self {
            Caller::Root => {
                "run usr-policy verify outside any sandbox; report it where that says the same"
            }
            Caller::Other => "run usr-policy verify as root",
        }
    }
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blind {
    /// A file, or a line of one.
    pub subject: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// What is at a path.
#[derive(Debug, Clone)]
pub struct Place {
    /// The path.
    pub path: MountPoint,
    /// What it is.
    pub kind: Kind,
    /// The mount that holds it, as the kernel says (statx(2)); `None` where it could not be asked.
    pub mount_id: Option<u64>,
    /// What asking for write access said.
    pub access: Access,
    /// The read-only flag of statvfs(3), which is the mount's or the file system's; `None` where it could not be asked.
    pub statvfs_read_only: Option<bool>,
}

/// What is at [`PRE_INIT`](crate::pre_init::PRE_INIT).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PreInit {
    /// Nothing, or it could not be read.
    #[default]
    Missing,
    /// The boot program that is installed.
    Installed,
    /// Another one.
    Different,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Missing,
    /// A directory, by a path without symbolic links.
    Directory,
    /// A directory, by way of a symbolic link.
    Linked,
    /// Something else.
    Other,
    /// It could not be looked at.
    Unknown,
}

/// The answer to faccessat(2) with `W_OK`, which changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It could be written.
    Writable,
    /// `EROFS`.
    ReadOnly,
    /// The caller may not write there, or not look: no witness.
    NoWitness,
}
