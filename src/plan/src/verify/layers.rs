//! The layers that make a place read-only or writable, the witnesses beside the mount table, and other ways to the files.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::judge::Judge;
use super::{Access, Caller, Kind, Place, Topic, Verdict, Way};
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::policy::Role;
use crate::text::Shown;

/// What other witnesses say of the mounts of PID 1, and other ways to the same files.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// A second reading of the mount table; `None` where there was none, or mounts came and went meanwhile.
    pub second: Option<SecondReading>,
    /// What asking for write access said in the root directory.
    pub root: Option<Access>,
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

/// What lies at a place, layer by layer.
#[derive(Debug, Clone)]
pub struct Stack<'a> {
    /// The mount that holds it.
    pub top: &'a MountInfo,
    /// What extensions are merged over.
    pub beneath: Option<&'a MountInfo>,
}

impl fmt::Display for Stack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |is_read_only| if is_read_only { "ro" } else { "rw" };
        let layers = |f: &mut fmt::Formatter<'_>, mount: &MountInfo| {
            write!(
                f,
                "mount {} at {} is {}, its {} is {}",
                mount.mount_id,
                mount.mount_point,
                word(mount.mount_options.has("ro")),
                Shown(&mount.fs_type),
                word(mount.super_options.has("ro"))
            )
        };
        layers(f, self.top)?;
        // A root that forgets everything is an overlay too, and its upper directory is no layer of ours.
        let upper = self.top.super_options.value("upperdir");
        if let Some(directory) = upper.filter(|_| self.top.is_sysext()) {
            write!(f, " with upperdir={}", Shown(directory))?;
        }
        if let Some(beneath) = self.beneath {
            f.write_str("; beneath it ")?;
            layers(f, beneath)?;
        }
        Ok(())
    }
}

/// So many processes or paths are named in one line; the others are counted.
const NAMED: usize = 3;

impl<'a> Judge<'a> {
    /// What lies at a place; `None` where its mount is not in the table.
    pub(super) fn stack(&self, place: &Place) -> Option<Stack<'a>> {
        let top = self.observed.mount_at(place)?;
        let beneath = top.is_sysext().then(|| self.index.by_id(top.parent_id));
        Some(Stack {
            top,
            beneath: beneath.flatten(),
        })
    }

    /// Whether something is read-only by the property of a btrfs subvolume, which no table shows; `None` where that cannot
    /// be told: extensions cover it.
    pub(super) fn is_read_only_beneath(&self, beneath: &MountInfo) -> Option<bool> {
        if beneath.is_read_only() || beneath.fs_type != b"btrfs" {
            return Some(beneath.is_read_only());
        }
        match self.observed.layers.root {
            // The root directory is in the subvolume that lies beneath them.
            Some(Access::ReadOnly) if beneath.mount_point.as_bytes() == b"/" => Some(true),
            Some(Access::Writable) if beneath.mount_point.as_bytes() == b"/" => Some(false),
            _ => None,
        }
    }

    /// What the other witnesses have seen.
    pub(super) fn layers(&mut self) {
        self.second_reading();
        self.immutable();
        self.elsewhere();
        self.processes();
        self.standing();
        if self.observed.layers.has_unseen_processes {
            let what = match self.observed.caller {
                Caller::Other => {
                    "seen without the rights of root: processes with mounts of their own were not looked at"
                }
                Caller::Root => "some processes with mounts of their own could not be looked at",
            };
            self.find(
                Verdict::Warning,
                Topic::Witness,
                &"processes",
                what,
                self.observed.caller.way_to_see(),
            );
        }
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
        for path in &self.observed.layers.immutable {
            self.find(
                Verdict::Warning,
                Topic::Attribute,
                path,
                "has the immutable attribute, which usr-policy never sets",
                format!("chattr -i {path}, while it is open"),
            );
        }
    }

    /// Whether a rule is held, so that a way around it matters; what is open can be written by any way.
    fn is_held(&self, path: &MountPoint) -> bool {
        let mut mounts = self.plan.mounts.iter();
        let Some(mount) = mounts.find(|mount| mount.rule.mount_point == *path) else {
            return false;
        };
        let is_open = match mount.rule.role {
            Role::Usr => self.wanted().usr_is_open,
            Role::Database => !self.wanted().is_locked,
            _ => false,
        };
        // By way of a link the table has another path for it.
        let place = self
            .place(path)
            .filter(|place| place.kind == Kind::Directory);
        !is_open && place.is_some_and(|place| self.closes(place))
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
                        // The table says so, but for the property of a btrfs subvolume.
                        Access::NoWitness => self
                            .index
                            .holding(&way.at)
                            .is_some_and(|mount| mount.fs_type != b"btrfs"),
                    }
            });
            let paths: Vec<String> = paths.map(|(way, _)| way.at.to_string()).collect();
            let Some(first) = paths.first() else { continue };
            let what = format!("the same files can be written at {}", some_of(&paths));
            let mount = MountPoint::seen(first.as_bytes()).ok();
            let mount = mount.and_then(|way| self.index.holding(&way));
            let mount = mount.map_or(first.clone(), |mount| mount.mount_point.to_string());
            let remedy = format!("umount {mount}, or mount -o remount,bind,ro {mount}");
            self.find(Verdict::Warning, Topic::Way, path, what, remedy);
        }
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
fn some_of(names: &[String]) -> String {
    let shown = names.get(..NAMED).unwrap_or(names).join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        others => format!("{shown} and {others} more"),
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
