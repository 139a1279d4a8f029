//! The rest of the system: what of it lies outside `/usr`, what a tmpfs hides, and who else keeps it read-only.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::judge::{Judge, Layer, Writability};
use super::next_boot::Unit;
use super::{Builders, Kind, Place, Topic, Verdict};
use crate::cmdline::Cmdline;
use crate::config::ConfigFile;
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::plan::read_only_by_nature;
use crate::text::Shown;

/// What was seen of the system beside its mounts.
#[derive(Debug, Clone, Default)]
pub struct SystemFacts {
    /// The kernel command line.
    pub cmdline: Cmdline,
    /// The text of /etc/fstab.
    pub fstab: Vec<u8>,
    /// Those of [`OUTSIDE`] that are no links into `/usr`, and hold something.
    pub outside: Vec<Place>,
    /// A directory that holds every program, in place of `/usr`.
    pub store: Option<Place>,
    /// What lies beneath each tmpfs of the plan, where that could be seen.
    pub hidden: Vec<Hidden>,
    /// The files of the units that [`units_to_look_at`](super::units_to_look_at) names.
    pub units: Vec<Unit>,
    /// The files that `EnvironmentFile=` of systemd-sysext.service names, in their order.
    pub environment_files: Vec<ConfigFile>,
    /// system.conf of the service manager and its drop-ins, in the order in which they apply.
    pub manager: Vec<ConfigFile>,
    /// Whether PID 1 is systemd; `None` where that was not looked at.
    pub runs_systemd: Option<bool>,
    /// What systemd finds under the name of our generator.
    pub generator: Generator,
    /// What makes the initramfs.
    pub builders: Builders,
}

/// What systemd finds under the name of our generator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Generator {
    /// A program.
    Ours,
    /// A file that comes before it, or takes its place, and is no program.
    Masked(String),
    /// Nothing.
    Missing,
    /// That was not looked at, or usr-policy is not installed as a whole.
    #[default]
    Unknown,
}

/// What lies beneath a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Where it is mounted.
    pub path: MountPoint,
    /// What was seen there.
    pub beneath: Beneath,
}

/// What was seen beneath a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beneath {
    /// It could not be looked at.
    Unseen,
    /// There are files, and nobody counted them.
    Files,
    /// There are so many files.
    Counted {
        /// Their number; directories do not count.
        files: u64,
        /// Their room on the disk, in bytes.
        bytes: u64,
    },
}

/// Directories that file-hierarchy(7) makes links into `/usr`, and that hold half of the system where they are none.
pub const OUTSIDE: [&str; 6] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Where a system has every program that has no content in `/usr`: NixOS, Guix.
pub const STORES: [&str; 2] = ["/nix/store", "/gnu/store"];

impl Judge<'_> {
    pub(super) fn layout(&mut self) {
        let system = &self.observed.system;
        if let Some(store) = &system.store {
            match self.writability(store) {
                Some(Writability::ReadOnly(_)) => self.find(
                    Verdict::Holds,
                    Topic::Layout,
                    &store.path,
                    "holds the programs of this system in place of /usr, and is read-only",
                    "",
                ),
                Some(Writability::Writable) => self.find(
                    Verdict::Warning,
                    Topic::Layout,
                    &store.path,
                    "holds the programs of this system in place of /usr, and can be written",
                    "usr-policy closes /usr alone: have the store mounted read-only",
                ),
                _ => {}
            }
            // What is left of /bin and /lib there are links into the store.
            return;
        }
        let is = |place: &&Place, wanted: bool| match self.writability(place) {
            Some(Writability::ReadOnly(_)) => wanted,
            Some(Writability::Writable) => !wanted,
            _ => false,
        };
        let names = |read_only: bool| {
            let those = system.outside.iter();
            let those = those.filter(|place| place.kind != Kind::Unknown && is(place, read_only));
            those
                .map(|place| place.path.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let (read_only, writable) = (names(true), names(false));
        if !read_only.is_empty() {
            let what = "outside /usr, and read-only as well";
            self.find(Verdict::Holds, Topic::Layout, &read_only, what, "");
        }
        if !writable.is_empty() {
            self.find(
                Verdict::Warning,
                Topic::Layout,
                &writable,
                "outside /usr, and can be written: what of the system lies there is not protected",
                "merge it into /usr, as the distribution describes, and leave links in its place",
            );
        }
    }

    pub(super) fn hidden(&mut self) {
        for Hidden { path, beneath } in &self.observed.system.hidden {
            let (above, name) = split(path);
            let see = format!("to see them: mount --bind {above} /mnt, and look in /mnt/{name}");
            let (verdict, what, remedy) = match *beneath {
                Beneath::Unseen => (
                    Verdict::NotApplicable,
                    "what lies beneath it could not be looked at".to_string(),
                    self.observed.caller.way_to_see().to_string(),
                ),
                Beneath::Counted { files: 0, .. } => continue,
                Beneath::Counted { files, bytes } => {
                    let files = match files {
                        1 => "1 file is".to_string(),
                        files => format!("{files} files are"),
                    };
                    let what =
                        format!("{files} hidden beneath it, and {} of the disk", Room(bytes));
                    (Verdict::Warning, what, see)
                }
                // No warning: nearly every machine had packages in its cache before it had this policy.
                Beneath::Files => (
                    Verdict::NotApplicable,
                    "files on the disk are hidden beneath it".into(),
                    format!("{see}; verify --deep says how much it is"),
                ),
            };
            self.find(verdict, Topic::Hidden, path, what, remedy);
        }
    }
}

/// The directory in which a path lies, and its name there.
fn split(path: &MountPoint) -> (String, String) {
    let text = path.to_string();
    match text.rsplit_once('/') {
        Some(("", name)) => ("/".into(), name.into()),
        Some((above, name)) => (above.into(), name.into()),
        None => (text, String::new()),
    }
}

/// A number of bytes, for a person.
struct Room(u64);

impl core::fmt::Display for Room {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            bytes if bytes < 1 << 20 => write!(f, "{} KiB", bytes.div_ceil(1 << 10)),
            bytes => write!(f, "{} MiB", bytes >> 20),
        }
    }
}

/// What keeps a path read-only, where it is not usr-policy: the mounts that hold it, the lowest first.
pub(super) fn provider<'a>(holding: impl Iterator<Item = &'a MountInfo>, layer: Layer) -> String {
    let mut top = None;
    for mount in holding {
        if let Some(fs_type) = nature(mount) {
            return format!("by its file system, {fs_type}");
        }
        top = Some(mount);
    }
    let Some(top) = top else {
        return "by its file system".into();
    };
    let is_root = top.mount_point.as_bytes() == b"/";
    match layer {
        // The property is of the subvolume, whichever mount shows it.
        Layer::FileSystem if top.fs_type == b"btrfs" && !top.super_options.has("ro") => {
            if is_root {
                "by its root, a read-only btrfs subvolume".into()
            } else {
                "by its file system, a read-only btrfs subvolume".into()
            }
        }
        Layer::FileSystem if !top.super_options.has("ro") => format!(
            "by its file system, {}, whatever its flags say",
            Shown(&top.fs_type)
        ),
        Layer::FileSystem => "by its file system".into(),
        Layer::Mount if top.root.starts_with(b"/ostree/deploy/") => {
            "by ostree, of a deployment that is mounted so".into()
        }
        Layer::Mount if is_root && top.fs_type == b"btrfs" => {
            let subvolume = top.super_options.value("subvol").unwrap_or(&top.root);
            format!(
                "by the mount of its root, btrfs subvolume {}, that is not usr-policy's",
                Shown(subvolume)
            )
        }
        Layer::Mount if is_root => "by the mount of its root, that is not usr-policy's".into(),
        Layer::Mount => "by a mount that is not usr-policy's".into(),
    }
}

/// The name of a file system that nothing makes writable.
fn nature(mount: &MountInfo) -> Option<&'static str> {
    // The overlay of composefs has no upper layer, and its content is checked against the image.
    let is_composefs = mount.fs_type == b"overlay"
        && mount.mount_source.split(|&byte| byte == b':').next() == Some(b"composefs")
        && mount.super_options.value("upperdir").is_none();
    read_only_by_nature(mount).or(is_composefs.then_some("composefs"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{machine, plan, says};
    use super::super::{Caller, report};
    use super::*;

    #[test]
    fn what_a_tmpfs_hides_says_where_to_find_it_and_once_counted_is_a_warning() {
        let plan = plan("usrpolicy=strict");
        let said = |path: &str, beneath, caller| {
            let mut seen = machine(&plan, "1 0 0:1 / / ro - ext4 a rw\n");
            let path = MountPoint::new(path.as_bytes()).unwrap();
            seen.system.hidden.push(Hidden { path, beneath });
            seen.caller = caller;
            report(&plan, &seen)
        };
        let short = said("/var/tmp", Beneath::Files, Caller::Root);
        says(
            &short,
            Verdict::NotApplicable,
            "/var/tmp",
            "files on the disk are hidden beneath it",
        );
        let mut findings = short.findings.iter();
        let finding = findings.find(|finding| finding.topic == Topic::Hidden);
        assert_eq!(
            finding.unwrap().remedy,
            "to see them: mount --bind /var /mnt, and look in /mnt/tmp; verify --deep says how much it is"
        );
        for (files, bytes, what) in [
            (1, 1, "1 file is hidden beneath it, and 1 KiB of the disk"),
            (
                7,
                5 << 20,
                "7 files are hidden beneath it, and 5 MiB of the disk",
            ),
        ] {
            let deep = said("/srv", Beneath::Counted { files, bytes }, Caller::Root);
            says(&deep, Verdict::Warning, "/srv", what);
            let is_at_the_root = |finding: &super::super::Finding| {
                finding.remedy == "to see them: mount --bind / /mnt, and look in /mnt/srv"
            };
            assert!(deep.findings.iter().any(is_at_the_root), "{deep:#?}");
        }
        let none = said(
            "/var/tmp",
            Beneath::Counted { files: 0, bytes: 0 },
            Caller::Root,
        );
        assert!(
            none.findings
                .iter()
                .all(|finding| finding.topic != Topic::Hidden)
        );
        let unseen = said("/var/tmp", Beneath::Unseen, Caller::Other);
        says(
            &unseen,
            Verdict::NotApplicable,
            "/var/tmp",
            "could not be looked at",
        );
    }
}
