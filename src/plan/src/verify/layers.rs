//! The layers that make a place read-only or writable, the witnesses beside the mount table, and other ways to the files.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::judge::Judge;
use super::{Access, Kind, Topic, Verdict, Way, is_open};
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::plan::read_only_by_nature;
use crate::policy::Role;
use crate::text::Shown;

/// What other witnesses say of the mounts of PID 1, and other ways to the same files.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// A second reading of the mount table; `None` where there was none, or mounts came and went meanwhile.
    pub second: Option<SecondReading>,
    /// What asking for write access said in the root directory.
    pub root: Option<Access>,
    /// What was seen beneath the extensions that are merged over a path.
    pub beneath: Vec<BeneathExtensions>,
    /// The paths of rules that carry the immutable flag.
    pub immutable: Vec<MountPoint>,
    /// The ways of [`super::Ways::elsewhere`], and what asking for write access said there.
    pub elsewhere: Vec<(Way, Access)>,
    /// Processes with a way of their own, one of each mount namespace.
    pub processes: Vec<Process>,
    /// Who was there before it was closed.
    pub standing: Vec<Standing>,
    /// Whether there are processes whose mounts could not be looked at.
    pub has_unseen_processes: bool,
}

/// What was seen of a directory that extensions cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeneathExtensions {
    /// The path of the rule.
    pub path: MountPoint,
    /// What asking for write access said there.
    pub access: Access,
    /// Whether it carries the immutable flag, where that could be asked.
    pub is_immutable: Option<bool>,
}

/// A process with mounts of its own, and a way to files that a rule makes read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name, as proc_pid_comm(5) has it.
    pub program: String,
    /// The way.
    pub way: Way,
}

/// A process whose working directory lies where a rule makes everything read-only, in a mount that was there before and can be
/// written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its number.
    pub pid: u32,
    /// Its name, as proc_pid_comm(5) has it.
    pub program: String,
    /// The path of the rule.
    pub of: MountPoint,
}

/// A mount table as another parser reads it, from another file of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecondReading {
    /// The mounts, in order.
    pub mounts: Vec<SecondMount>,
    /// How many lines that parser could not read.
    pub unreadable: usize,
}

/// A mount as the second reading has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondMount {
    /// Where it is mounted.
    pub mount_point: MountPoint,
    /// The type of the file system.
    pub fs_type: Vec<u8>,
    /// Whether the mount or its file system is read-only.
    pub is_read_only: bool,
}

impl SecondReading {
    /// The mount points where the two readings do not agree, and what each says. The whole list of each mount point counts:
    /// what is stacked there, in order.
    #[must_use]
    pub fn differences(&self, mounts: &[MountInfo]) -> Vec<(MountPoint, String)> {
        type Line<'a> = (&'a [u8], bool);
        let mut places: BTreeMap<&MountPoint, (Vec<Line<'_>>, Vec<Line<'_>>)> = BTreeMap::new();
        for mount in mounts {
            let line = (mount.fs_type.as_slice(), mount.is_read_only());
            places.entry(&mount.mount_point).or_default().0.push(line);
        }
        for mount in &self.mounts {
            let line = (mount.fs_type.as_slice(), mount.is_read_only);
            places.entry(&mount.mount_point).or_default().1.push(line);
        }
        let shown = |lines: &[Line<'_>]| {
            let lines = lines.iter().map(|(fs_type, is_read_only)| {
                let word = if *is_read_only {
                    "read-only"
                } else {
                    "writable"
                };
                format!("{} {word}", Shown(fs_type))
            });
            let lines: Vec<String> = lines.collect();
            if lines.is_empty() {
                "nothing".into()
            } else {
                lines.join(", ")
            }
        };
        // A line that the second parser could not read is missing there, and nowhere else.
        let mut may_be_missing = self.unreadable;
        let mut differences = Vec::new();
        for (path, (table, second)) in places {
            let missing = table.len().saturating_sub(second.len());
            if missing <= may_be_missing && is_part_of(&second, &table) {
                may_be_missing -= missing;
            } else {
                let what = format!(
                    "the mount table says {}, a second reading says {}",
                    shown(&table),
                    shown(&second)
                );
                differences.push((path.clone(), what));
            }
        }
        differences
    }
}

/// Whether one list is another one from which some were left out.
fn is_part_of<T: PartialEq>(part: &[T], whole: &[T]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|one| {
        rest.any(|other| {
            #[cfg(test)]
            crate::mount_index::count(1);
            other == one
        })
    })
}

/// What is known of a place that extensions cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Covered {
    ReadOnly,
    Writable,
    /// No witness could look there, and the table does not decide it.
    Unknown,
    Contradiction(String),
}

/// Whether a file system may refuse to write although neither flag says so: by a property of a subvolume or a snapshot, or as
/// a server decides. Of the others the flags say all there is.
pub(super) fn may_refuse_by_itself(fs_type: &[u8]) -> bool {
    let alone: [&[u8]; 9] = [
        b"btrfs",
        b"bcachefs",
        b"virtiofs",
        b"nfs",
        b"nfs4",
        b"9p",
        b"cifs",
        b"smb3",
        b"ceph",
    ];
    alone.contains(&fs_type) || fs_type.starts_with(b"fuse")
}

/// Whether the immutable attribute of a directory is one that somebody has set: erofs says it of everything, and an overlay
/// says what its layers say.
pub(super) fn keeps_attributes(mount: &MountInfo) -> bool {
    read_only_by_nature(mount).is_none() && mount.fs_type != b"overlay"
}

/// So many processes or paths are named in one line; the others are counted.
const NAMED: usize = 3;

impl Judge<'_> {
    /// What is at a path beneath the extensions that are merged over it; `beneath` is the mount that holds it.
    pub(super) fn covered_by_extensions(&self, path: &MountPoint, beneath: &MountInfo) -> Covered {
        let is_read_only = beneath.is_read_only();
        let mut seen = self.observed.layers.beneath.iter();
        let seen = seen.find(|beneath| beneath.path == *path);
        match (seen.map(|beneath| beneath.access), is_read_only) {
            (Some(Access::Writable), true) => Covered::Contradiction(
                "the mount table says read-only beneath the extensions, faccessat says writable"
                    .into(),
            ),
            (_, true) | (Some(Access::ReadOnly), false) => Covered::ReadOnly,
            (Some(Access::Writable), false) => Covered::Writable,
            _ if !may_refuse_by_itself(&beneath.fs_type) => Covered::Writable,
            // The root directory is most often in the subvolume that lies beneath them, and everybody may ask there.
            _ if beneath.mount_point.as_bytes() == b"/" => match self.observed.layers.root {
                Some(Access::ReadOnly) => Covered::ReadOnly,
                Some(Access::Writable) => Covered::Writable,
                _ => Covered::Unknown,
            },
            _ => Covered::Unknown,
        }
    }

    /// What the other witnesses have seen.
    pub(super) fn layers(&mut self) {
        self.second_reading();
        self.immutable();
        self.elsewhere();
        self.processes();
        self.standing();
    }

    fn second_reading(&mut self) {
        // Lines that are none were told already, and are missing here only.
        let table = &self.observed.mounts;
        let Some(second) = &self.observed.layers.second else {
            return;
        };
        if !table.bad_lines.is_empty() {
            return;
        }
        let differences = second.differences(&table.mounts);
        let others = differences.len().saturating_sub(NAMED);
        for (path, what) in differences.into_iter().take(NAMED) {
            self.contradiction(&path, what);
        }
        if others > 0 {
            let what =
                format!("the two readings of the mount table differ in {others} more places");
            self.find(
                Verdict::Unknown,
                Topic::Witness,
                &"/proc/1/mounts",
                what,
                "report this with /proc/1/mountinfo",
            );
        }
    }

    fn immutable(&mut self) {
        let Layers {
            beneath, immutable, ..
        } = &self.observed.layers;
        let what = "has the immutable attribute, which usr-policy never sets";
        let holding = |path: &MountPoint| {
            let place = self.place(path);
            place.and_then(|place| self.observed.mount_at(place))
        };
        let covered = beneath.iter().filter(|beneath| {
            let mount = holding(&beneath.path).and_then(|top| self.index.by_id(top.parent_id));
            beneath.is_immutable == Some(true) && mount.is_some_and(keeps_attributes)
        });
        let seen = immutable
            .iter()
            .filter(|path| holding(path).is_some_and(keeps_attributes));
        let covered: Vec<&MountPoint> = covered.map(|beneath| &beneath.path).collect();
        let seen: Vec<&MountPoint> = seen.collect();
        for path in covered {
            let what = format!("beneath the extensions it {what}");
            let remedy = format!("systemd-sysext unmerge, then chattr -i {path}, while it is open");
            self.find(Verdict::Warning, Topic::Attribute, path, what, remedy);
        }
        for path in seen {
            let remedy = format!("chattr -i {path}, while it is open");
            self.find(Verdict::Warning, Topic::Attribute, path, what, remedy);
        }
    }

    /// Whether a rule is held, so that a way around it matters; what is open can be written by any way.
    fn is_held(&self, path: &MountPoint) -> bool {
        let mut mounts = self.plan.mounts.iter();
        let Some(mount) = mounts.find(|mount| mount.rule.mount_point == *path) else {
            return false;
        };
        // By way of a link the table has another path for it, and only the database is followed there.
        let is_followed = mount.rule.role == Role::Database && self.observed.database_at.is_some();
        let place = self
            .place(path)
            .filter(|place| place.kind == Kind::Directory || is_followed);
        !is_open(&self.wanted(), mount.rule.role) && place.is_some_and(|place| self.closes(place))
    }

    fn elsewhere(&mut self) {
        let ways = &self.observed.layers.elsewhere;
        let mut held: Vec<&MountPoint> = ways.iter().map(|(way, _)| &way.of).collect();
        held.dedup();
        held.retain(|path| self.is_held(path));
        for path in held {
            let paths = ways.iter().filter(|(way, access)| {
                way.of == *path
                    && match access {
                        Access::Writable => true,
                        Access::ReadOnly => false,
                        // The table says so, but for what a file system decides by itself.
                        Access::NoWitness => self
                            .index
                            .holding(&way.at)
                            .is_some_and(|mount| !may_refuse_by_itself(&mount.fs_type)),
                    }
            });
            let paths: Vec<&MountPoint> = paths.map(|(way, _)| &way.at).collect();
            let Some(first) = paths.first() else { continue };
            let names: Vec<String> = paths.iter().map(ToString::to_string).collect();
            let what = format!("the same files can be written at {}", some_of(&names));
            let remedy = self.way_to_close(path, first);
            self.find(Verdict::Warning, Topic::Way, path, what, remedy);
        }
    }

    /// How to close another way to a rule's files; a mount that shows more than these is in use for that, and stays as it is.
    fn way_to_close(&self, of: &MountPoint, at: &MountPoint) -> String {
        if let Some(mount) = self.index.holding(at)
            && at.as_bytes() != b"/"
        {
            if mount.mount_point == *at {
                return format!("umount {at}, or mount -o remount,bind,ro {at}");
            }
            if !self.propagates_to(of, at, mount) {
                return format!(
                    "mount --bind -o ro {at} {at} closes it until the next boot; {} shows more than that, and stays as it is",
                    mount.mount_point
                );
            }
        }
        format!(
            "as long as the file system is mounted so, whoever writes to {at} changes {of}: write there only what is meant for it, or give {of} a file system or subvolume of its own that is mounted nowhere else"
        )
    }

    /// Whether what is mounted at a way would appear at the rule's path too, by way of a mount of the same peer group: there it
    /// would be one mount too many.
    fn propagates_to(&self, of: &MountPoint, at: &MountPoint, mount: &MountInfo) -> bool {
        let root = |mount: &MountInfo| MountPoint::seen(&mount.root).ok();
        let Some(directory) = root(mount)
            .zip(at.below(&mount.mount_point))
            .map(|(root, rest)| root.join(rest))
        else {
            return true;
        };
        let group = mount.peer_group;
        let mut peers = self.observed.mounts.mounts.iter();
        group.is_some()
            && peers.any(|peer| {
                let rest = |root: MountPoint| Some(peer.mount_point.join(directory.below(&root)?));
                peer.peer_group == group && root(peer).and_then(rest).as_ref() == Some(of)
            })
    }

    /// A bind changes what a path leads to, and not where somebody is already.
    fn standing(&mut self) {
        for standing in &self.observed.layers.standing {
            if !self.is_held(&standing.of) {
                continue;
            }
            let Standing { pid, program, of } = standing;
            let program = Shown(program.as_bytes());
            let what = format!(
                "pid {pid} ({program}) has its working directory in it since before it was closed, and can write there by relative names"
            );
            let remedy = format!("let it leave that directory, or end it: {pid}");
            self.find(Verdict::Warning, Topic::Way, of, what, remedy);
        }
    }

    fn processes(&mut self) {
        let processes = &self.observed.layers.processes;
        let mut held: Vec<&MountPoint> = processes.iter().map(|process| &process.way.of).collect();
        held.sort();
        held.dedup();
        held.retain(|path| self.is_held(path));
        for path in held {
            let those = processes.iter().filter(|process| process.way.of == *path);
            let names: Vec<String> = those
                .clone()
                .map(|process| {
                    let at = &process.way.at;
                    let at = (at != path).then(|| format!(", at {at}"));
                    format!(
                        "pid {} ({}{})",
                        process.pid,
                        Shown(process.program.as_bytes()),
                        at.unwrap_or_default()
                    )
                })
                .collect();
            let pid = those.map(|process| process.pid).next().unwrap_or_default();
            self.find(
                Verdict::Warning,
                Topic::Way,
                path,
                format!(
                    "can be written in mount namespaces of their own by {}",
                    some_of(&names)
                ),
                format!("restart what they belong to: systemctl status {pid} names its unit"),
            );
        }
    }
}

/// The first of a list, and how many there are beside them.
pub(super) fn some_of(names: &[String]) -> String {
    let shown = names.get(..NAMED).unwrap_or(names).join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        others => format!("{shown} and {others} more"),
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
