//! [`Stack`]: what lies at the path of a rule, layer by layer, and what each witness says of it.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::fmt;

use super::judge::Judge;
use super::layers::keeps_attributes;
use super::{Access, Kind, Place};
use crate::mount_point::MountPoint;
use crate::mountinfo::{MountInfo, MountOptions};
use crate::text::Shown;

/// A mount, and what lies beneath it where extensions are merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Its number, as statx(2) and the mount table have it.
    pub mount_id: u64,
    /// Where it is mounted.
    pub mount_point: String,
    /// The type of its file system.
    pub fs_type: String,
    /// Its own flag.
    pub mount: Flag,
    /// The flag of its superblock, which all mounts of the file system have in common.
    pub superblock: Flag,
    /// The subvolume of a btrfs.
    pub subvolume: Option<String>,
    /// The directory of an overlay that takes what is written.
    pub upperdir: Option<String>,
    /// Whether it is the overlay of systemd-sysext(8).
    pub is_sysext: bool,
    /// What asking for write access said: `EROFS` while both flags are rw is a property of the file system.
    pub access: Access,
    /// The flag of statvfs(3); `None` where it could not be asked.
    pub statvfs: Option<Flag>,
    /// Whether the directory has the immutable attribute; `None` where it was not asked, or
    /// the file system says that of everything.
    pub is_immutable: Option<bool>,
    /// What extensions are merged over; `None` also where the table has it not.
    pub beneath: Option<Box<Stack>>,
}

/// A flag of a mount, of a superblock or of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// ro
    ReadOnly,
    /// rw
    Writable,
}

impl Flag {
    fn of(options: &MountOptions) -> Self {
        Flag::read_only(options.has("ro"))
    }

    fn read_only(is_read_only: bool) -> Self {
        if is_read_only {
            Flag::ReadOnly
        } else {
            Flag::Writable
        }
    }

    /// As mount(8) writes it, which does not change.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Flag::ReadOnly => "ro",
            Flag::Writable => "rw",
        }
    }
}

impl Stack {
    /// What the mount table says alone.
    fn of(mount: &MountInfo) -> Self {
        let value = |key| Some(Shown(mount.super_options.value(key)?).to_string());
        Stack {
            mount_id: mount.mount_id,
            mount_point: mount.mount_point.to_string(),
            fs_type: Shown(&mount.fs_type).to_string(),
            mount: Flag::of(&mount.mount_options),
            superblock: Flag::of(&mount.super_options),
            subvolume: value("subvol").filter(|_| mount.fs_type == b"btrfs"),
            upperdir: value("upperdir").filter(|_| mount.fs_type == b"overlay"),
            is_sysext: mount.is_sysext(),
            access: Access::NoWitness,
            statvfs: None,
            is_immutable: None,
            beneath: None,
        }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mount, superblock) = (self.mount.id(), self.superblock.id());
        let Stack {
            mount_id,
            mount_point,
            fs_type,
            ..
        } = self;
        write!(
            f,
            "mount {mount_id} at {mount_point} is {mount}, its {fs_type} is {superblock}"
        )?;
        // A root that forgets everything is an overlay too, and its upper directory is no layer of ours.
        if let Some(directory) = self.upperdir.as_ref().filter(|_| self.is_sysext) {
            write!(f, " with upperdir={directory}")?;
        }
        if self.access == Access::ReadOnly && [self.mount, self.superblock] == [Flag::Writable; 2] {
            match &self.subvolume {
                Some(subvolume) => write!(f, ", and refuses writes to subvolume {subvolume}")?,
                None => f.write_str(", and refuses writes by itself")?,
            }
        }
        if self.is_immutable == Some(true) {
            f.write_str(", immutable")?;
        }
        match &self.beneath {
            Some(beneath) => write!(f, "; beneath it {beneath}"),
            None => Ok(()),
        }
    }
}

impl Judge<'_> {
    /// Judges a rule, and gives the layers at its path to what is found there.
    pub(super) fn with_layers(&mut self, path: &MountPoint, judge: impl FnOnce(&mut Self)) {
        let first = self.findings.len();
        judge(self);
        let place = self
            .place(path)
            .filter(|place| matches!(place.kind, Kind::Directory | Kind::Linked));
        let Some(stack) = place.and_then(|place| self.stack(place)) else {
            return;
        };
        let subject = path.to_string();
        let findings = self.findings.iter_mut().skip(first);
        for finding in findings.filter(|finding| finding.subject == subject) {
            finding.layers = Some(Box::new(stack.clone()));
        }
    }

    /// What lies at a place; `None` where its mount is not in the table.
    pub(super) fn stack(&self, place: &Place) -> Option<Stack> {
        let top = self.observed.mount_at(place)?;
        let layers = &self.observed.layers;
        let mounts = self.plan.mounts.iter().map(|mount| &mount.rule);
        let mut rules = mounts.chain(&self.plan.writable);
        // Of other paths that is not asked.
        let is_asked = rules.any(|rule| rule.mount_point == place.path) && keeps_attributes(top);
        let beneath = top.is_sysext().then(|| self.index.by_id(top.parent_id));
        let beneath = beneath.flatten().map(|mount| {
            let mut seen = layers.beneath.iter();
            let seen = seen.find(|seen| seen.path == place.path);
            Box::new(Stack {
                access: seen.map_or(Access::NoWitness, |seen| seen.access),
                is_immutable: seen
                    .and_then(|seen| seen.is_immutable)
                    .filter(|_| keeps_attributes(mount)),
                ..Stack::of(mount)
            })
        });
        Some(Stack {
            access: place.access,
            statvfs: place.statvfs_read_only.map(Flag::read_only),
            is_immutable: is_asked.then(|| layers.immutable.contains(&place.path)),
            beneath,
            ..Stack::of(top)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec;

    use super::super::tests::{PACMAN, machine, plan};
    use super::super::{BeneathExtensions, Finding, Observed, Topic, Verdict, report};
    use super::*;

    fn usr() -> MountPoint {
        MountPoint::new(b"/usr").unwrap()
    }

    /// What is said of a path on a machine with these mounts, after a change.
    fn about(path: &str, table: &str, change: impl FnOnce(&mut Observed)) -> Finding {
        let plan = plan("usrpolicy=strict");
        let mut seen = machine(&plan, &[table, PACMAN].concat());
        change(&mut seen);
        let findings = report(&plan, &seen).findings;
        let is_it = |it: &Finding| it.subject == path && it.topic != Topic::Attribute;
        findings.into_iter().find(is_it).unwrap()
    }

    fn shown(table: &str, change: impl FnOnce(&mut Observed)) -> String {
        about("/usr", table, change).layers.unwrap().to_string()
    }

    const ROOT: &str = "1 0 0:1 / / rw - ext4 a rw\n";

    #[test]
    fn the_layers_of_a_place_are_told_one_by_one() {
        let table = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:5 / /usr rw - ext4 b ro\n\
            3 2 0:3 / /usr rw - overlay sysext rw,upperdir=/x\n";
        assert_eq!(
            shown(table, |_| {}),
            "mount 3 at /usr is rw, its overlay is rw with upperdir=/x; beneath it mount 2 at /usr is rw, its ext4 is ro"
        );
        // Of a root that forgets everything the upper directory is for programs.
        let volatile = "1 0 0:1 / / ro - overlay o rw,upperdir=/x\n";
        let finding = about("/usr", volatile, |_| {});
        let layers = finding.layers.unwrap();
        assert_eq!(layers.upperdir.as_deref(), Some("/x"));
        assert_eq!(layers.to_string(), "mount 1 at / is ro, its overlay is rw");
    }

    #[test]
    fn a_property_that_no_flag_shows_and_an_immutable_directory_are_layers_too() {
        let refuses = |seen: &mut Observed| seen.places[0].access = Access::ReadOnly;
        let table = [ROOT, "2 1 0:5 /@usr /usr rw - btrfs b rw,subvol=/@usr\n"].concat();
        assert_eq!(
            shown(&table, refuses),
            "mount 2 at /usr is rw, its btrfs is rw, and refuses writes to subvolume /@usr"
        );
        let table = [ROOT, "2 1 0:5 / /usr rw - fuse.x b rw\n"].concat();
        assert_eq!(
            shown(&table, refuses),
            "mount 2 at /usr is rw, its fuse.x is rw, and refuses writes by itself"
        );
        // EROFS is what a flag means.
        let table = [ROOT, "2 1 0:5 / /usr ro - ext4 b rw\n"].concat();
        assert_eq!(
            shown(&table, refuses),
            "mount 2 at /usr is ro, its ext4 is rw"
        );
        assert_eq!(
            shown(&table, |seen| seen.layers.immutable = vec![usr()]),
            "mount 2 at /usr is ro, its ext4 is rw, immutable"
        );
    }

    #[test]
    fn what_was_seen_beneath_extensions_is_a_layer() {
        let table = [
            ROOT,
            "2 1 0:5 / /usr rw - btrfs b rw,subvol=/@usr\n3 2 0:3 / /usr ro - overlay sysext ro\n",
        ];
        let text = shown(&table.concat(), |seen| {
            seen.layers.beneath = vec![BeneathExtensions {
                path: usr(),
                access: Access::ReadOnly,
                is_immutable: Some(true),
            }];
        });
        assert_eq!(
            text,
            "mount 3 at /usr is ro, its overlay is ro; beneath it mount 2 at /usr is rw, its btrfs is rw, and refuses writes to subvolume /@usr, immutable"
        );
    }

    #[test]
    fn every_rule_has_its_layers_whatever_is_found() {
        let closed = "2 1 0:1 /usr /usr ro - ext4 a rw\n\
            5 1 0:9 / /var/tmp rw,nosuid,nodev - tmpfs t rw\n";
        for (path, topic, verdict, mount_id) in [
            ("/usr", Topic::Usr, Verdict::Holds, 2),
            ("/var/lib/pacman", Topic::Database, Verdict::Holds, 4),
            ("/var/tmp", Topic::Memory, Verdict::Holds, 5),
            ("/var/cache/pacman", Topic::Memory, Verdict::Broken, 1),
            ("/var/log", Topic::Writable, Verdict::Holds, 1),
            ("/etc", Topic::Writable, Verdict::Holds, 1),
        ] {
            let finding = about(path, &[ROOT, closed].concat(), |_| {});
            assert_eq!((finding.topic, finding.verdict), (topic, verdict), "{path}");
            let layers = finding.layers.unwrap();
            assert_eq!(layers.mount_id, mount_id, "{path}");
            assert_eq!(layers.is_immutable, (path != "/etc").then_some(false));
        }
        // Where witnesses disagree, that is what one wants to see.
        let finding = about("/usr", &[ROOT, closed].concat(), |seen| {
            seen.places[0].statvfs_read_only = Some(false);
        });
        let statvfs = finding.layers.as_ref().map(|layers| layers.statvfs);
        assert_eq!(
            (finding.topic, statvfs),
            (Topic::Witness, Some(Some(Flag::Writable)))
        );
        // What is not there has none, and what is no rule.
        for (path, change) in [
            (
                "/usr",
                (|seen| seen.places[0].kind = Kind::Missing) as fn(&mut Observed),
            ),
            ("/usr", |seen| seen.places[0].mount_id = Some(99)),
            ("/var/lib/pacman", |seen| {
                seen.places.retain(|place| place.path == usr());
            }),
        ] {
            let finding = about(path, &[ROOT, closed].concat(), change);
            assert_eq!(finding.layers, None, "{path}");
        }
    }
}
