//! Extensions: what systemd-sysext(8) has merged over `/usr` and from where, and what it would merge.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::judge::Judge;
use super::next_boot::{SYSEXT_SERVICE, Setting};
use super::{Access, OPENED, Topic, UNLOCKED, Verdict};
use crate::cmdline::Cmdline;
use crate::config::{self, ConfigFile};
use crate::lock::Extensions;
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::os_release::{OsRelease, Suits, suits};
use crate::plan::is_switched_off;
use crate::policy::Role;
use crate::text::Shown;

/// What there is to merge, and what is merged.
#[derive(Debug, Clone, Default)]
pub struct Sysext {
    /// The names that the merged `/usr` carries; `None` where it carries none, or they could not be read.
    pub merged: Option<Vec<String>>,
    /// What lies in the directories that are searched, in their order.
    pub extensions: Vec<Extension>,
    /// The directories that are searched, as far as they exist.
    pub directories: Vec<SearchDirectory>,
    /// The system's own os-release.
    pub system: Vec<u8>,
    /// The architecture, by systemd's name.
    pub architecture: &'static str,
    /// sysext.conf and its drop-ins, in the order in which they apply.
    pub configuration: Vec<ConfigFile>,
    /// Whether there is a directory to which a mutable merge of `/usr` would write.
    pub has_mutable_directory: bool,
    /// When the overlay at `/usr` was mounted and when the lock at the database was, as numbers that only grow (statx(2),
    /// `STATX_MNT_ID_UNIQUE`); `None` on kernels before 6.8.
    pub order: Option<(u64, u64)>,
}

/// A directory in which systemd-sysext(8) looks for extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchDirectory {
    /// Its path.
    pub path: &'static str,
    /// Whether it is one.
    pub is_directory: bool,
    /// Whether it can be written.
    pub access: Access,
}

/// An entry of a directory that is searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// What systemd-sysext(8) calls it.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Where a link leads that is there in its place.
    pub target: Option<String>,
    /// What it is.
    pub content: Content,
}

/// What an extension is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A disk image, in a file or on a block device; or a directory of versions of one.
    Image,
    /// A directory with the files themselves.
    Directory {
        /// Whether it can be written while it is merged.
        access: Access,
        /// Its extension-release file; `None` where there is none.
        release: Option<Vec<u8>>,
        /// Whether it has the file that says which system this is.
        has_os_release: bool,
    },
    /// An empty directory, which hides what is called the same in the directories that are searched after its own.
    Mask,
    /// A link that leads nowhere.
    LeadsNowhere,
}

/// The directories in which every release looks for extensions. Source: systemd-sysext(8), since v254.
const SEARCHED: [&str; 3] = ["/etc/extensions", "/run/extensions", "/var/lib/extensions"];

impl Extension {
    /// What systemd-sysext(8) takes an entry for; `None` for what it passes over.
    ///
    /// Source: systemd src/shared/discover-image.c (`image_discover`, `image_name_is_valid`).
    #[must_use]
    pub fn name_of(entry: &str, is_directory: bool) -> Option<&str> {
        if entry.starts_with('.') {
            return None;
        }
        let name = if is_directory {
            match entry.strip_suffix(".v") {
                Some(versions) => without_suffix(versions),
                None => entry,
            }
        } else {
            without_suffix(entry.strip_suffix(".raw").map(|_| entry)?)
        };
        (!name.is_empty()).then_some(name)
    }

    fn is(&self, name: &str) -> bool {
        let is_of_versions = || {
            let version = name.strip_prefix(&*self.name);
            self.path.ends_with(".v") && version.is_some_and(|version| version.starts_with('_'))
        };
        self.name == name || is_of_versions()
    }

    fn is_searched(&self) -> bool {
        let directory = self.path.rsplit_once('/').map(|(directory, _)| directory);
        directory.is_some_and(|directory| SEARCHED.contains(&directory))
    }
}

/// A name without `.raw`, and without the class before it.
fn without_suffix(name: &str) -> &str {
    match name.strip_suffix(".raw") {
        Some(name) => name.strip_suffix(".sysext").unwrap_or(name),
        None => name,
    }
}

/// Where it is, and where it leads.
struct Source<'a>(&'a Extension);

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.target {
            Some(target) => write!(f, "{}, a link to {target}", self.0.path),
            None => f.write_str(&self.0.path),
        }
    }
}

/// Whether a mutable mode makes `/usr` writable; `None` for what is no mode.
fn is_mutable(mode: &[u8], has_directory: bool) -> Option<bool> {
    let is = |word: &&str| mode.eq_ignore_ascii_case(word.as_bytes());
    if ["yes", "y", "true", "t", "on", "1"].iter().any(|w| is(w))
        || [&b"ephemeral"[..], b"ephemeral-import"].contains(&mode)
    {
        Some(true)
    } else if mode == b"auto" {
        Some(has_directory)
    } else if mode == b"import" || ["no", "n", "false", "f", "off", "0"].iter().any(|w| is(w)) {
        Some(false)
    } else {
        None
    }
}

impl<'a> Judge<'a> {
    pub(super) fn sysext(&mut self) {
        self.search_directories();
        self.what_stops_a_merge();
        match self.overlay_at("/usr") {
            Some(_) => self.merged(),
            None => self.not_merged(),
        }
        if let Some(overlay) = self.overlay_at("/opt")
            && overlay.super_options.value("upperdir").is_some()
        {
            self.find(
                Verdict::Warning,
                Topic::Sysext,
                &"/opt",
                "extensions are merged with a writable layer over it",
                "systemd-sysext unmerge, then merge with --mutable=no",
            );
        }
        self.mutable();
    }

    /// The overlay of systemd-sysext(8) that is seen at a path.
    fn overlay_at(&self, path: &str) -> Option<&'a MountInfo> {
        let path = MountPoint::new(path.as_bytes()).ok()?;
        let top = match self.place(&path) {
            Some(place) => self.observed.mount_at(place),
            None => self.observed.mounts.top_at(&path),
        };
        top.filter(|top| {
            top.mount_point == path && top.fs_type == b"overlay" && top.mount_source == b"sysext"
        })
    }

    fn search_directories(&mut self) {
        for directory in &self.observed.sysext.directories {
            if !directory.is_directory {
                let what = "is no directory: systemd-sysext finds nothing there";
                let remedy = format!("remove it, or make it a directory: {}", directory.path);
                self.find(
                    Verdict::Warning,
                    Topic::Sysext,
                    &directory.path,
                    what,
                    remedy,
                );
            } else if directory.path == "/run/extensions" && directory.access == Access::ReadOnly {
                self.find(
                    Verdict::Warning,
                    Topic::Sysext,
                    &directory.path,
                    "read-only: no extension can be linked there until the next boot",
                    "find who mounts it read-only: findmnt --target /run/extensions",
                );
            }
        }
    }

    /// What makes systemd-sysext(8) merge nothing at all, or leave out what somebody has put there.
    fn what_stops_a_merge(&mut self) {
        for extension in &self.observed.sysext.extensions {
            if !extension.is_searched() {
                continue;
            }
            let (what, remedy) = match &extension.content {
                Content::LeadsNowhere => (
                    "a link that leads nowhere: systemd-sysext leaves it out without a word",
                    "make it lead to an extension, or remove it",
                ),
                _ if extension.name.contains([':', ',']) => (
                    "with this name every merge fails, for all extensions",
                    "give it a name without colon and comma",
                ),
                Content::Directory {
                    has_os_release: true,
                    ..
                } => (
                    "it has a usr/lib/os-release, so every merge fails, for all extensions",
                    "remove that file from it",
                ),
                _ => continue,
            };
            self.find(
                Verdict::Warning,
                Topic::Sysext,
                &extension.path,
                what,
                remedy,
            );
        }
    }

    fn merged(&mut self) {
        let sysext = &self.observed.sysext;
        let names = sysext.merged.iter().flatten();
        for name in names {
            let Some(extension) = sysext.extensions.iter().find(|source| source.is(name)) else {
                self.find(
                    Verdict::Warning,
                    Topic::Sysext,
                    name,
                    "is merged, and lies in none of the directories that are searched: the next refresh takes it away",
                    "put it back, or systemd-sysext refresh",
                );
                continue;
            };
            let from = Source(extension);
            match &extension.content {
                // Asking without rights is no witness, and the file system is not read-only.
                Content::Directory {
                    access: Access::Writable | Access::NoWitness,
                    ..
                } => self.find(
                    Verdict::Warning,
                    Topic::Sysext,
                    name,
                    format!(
                        "merged from {from}: a directory that can be written, and what changes there changes /usr at once"
                    ),
                    "make an image of it, or put it on a read-only file system",
                ),
                Content::Directory { .. } => self.find(
                    Verdict::Holds,
                    Topic::Sysext,
                    name,
                    format!("merged from {from}: a read-only directory"),
                    "",
                ),
                Content::Image => self.find(
                    Verdict::Holds,
                    Topic::Sysext,
                    name,
                    format!("merged from {from}: an image"),
                    "",
                ),
                Content::Mask | Content::LeadsNowhere => self.find(
                    Verdict::Warning,
                    Topic::Sysext,
                    name,
                    format!("is merged, and {from} is no extension any more: the next refresh takes it away"),
                    "put it back, or systemd-sysext refresh",
                ),
            }
        }
        self.order();
    }

    /// Whether the merge came before the lock, where nothing but the boot can have taken that.
    fn order(&mut self) {
        let Some((merge, lock)) = self.observed.sysext.order else {
            return;
        };
        let Some(database) = self.plan.mount_of(Role::Database) else {
            return;
        };
        let path = database.rule.mount_point.to_string();
        let (_, events) = self.since_soft_reboot();
        // An unlock and a lock, by hand or after an unmerge, put a younger lock over an older merge.
        let was_opened = events
            .iter()
            .any(|event| event.path == path && [OPENED, UNLOCKED].contains(&&*event.result));
        let closings = events
            .iter()
            .filter(|event| event.path == path && event.result == "read-only");
        let is_ours = self
            .observed
            .mounts
            .is_self_bind(&database.rule.mount_point);
        if merge < lock && is_ours && !was_opened && closings.count() == 1 {
            self.find(
                Verdict::Warning,
                Topic::Sysext,
                &"/usr",
                format!("extensions were merged at this boot before {path} was locked"),
                "order what merges them after local-fs.target, as systemd-sysext.service is",
            );
        }
    }

    fn not_merged(&mut self) {
        let sysext = &self.observed.sysext;
        let mut seen: Vec<&str> = Vec::new();
        let (mut suitable, mut perhaps) = (Vec::new(), Vec::new());
        for extension in &sysext.extensions {
            // The first of a name hides the others.
            if !extension.is_searched() || seen.contains(&&*extension.name) {
                continue;
            }
            let answer = match &extension.content {
                Content::LeadsNowhere => continue,
                Content::Mask => {
                    Suits::No("an empty directory, which hides what has its name".into())
                }
                Content::Image => Suits::Perhaps,
                Content::Directory { release: None, .. } => {
                    Suits::No("it has no extension-release file".into())
                }
                Content::Directory {
                    release: Some(text),
                    ..
                } => suits(
                    &OsRelease::parse(text),
                    &OsRelease::parse(&sysext.system),
                    sysext.architecture,
                ),
            };
            seen.push(&extension.name);
            match answer {
                Suits::Yes => suitable.push(&*extension.name),
                Suits::Perhaps => perhaps.push(&*extension.name),
                Suits::No(reason) => self.find(
                    Verdict::NotApplicable,
                    Topic::Sysext,
                    &extension.path,
                    format!("not merged: {reason}"),
                    "",
                ),
            }
        }
        let Some(expected) = self.is_expected() else {
            return;
        };
        let (names, but) = if suitable.is_empty() {
            (
                perhaps,
                "; whether they suit this system, systemd-sysext says when it merges",
            )
        } else {
            (suitable, "")
        };
        if !names.is_empty() {
            self.find(
                Verdict::Warning,
                Topic::Sysext,
                &"extensions",
                format!("{}: not merged, although {expected}{but}", names.join(", ")),
                "systemctl status systemd-sysext, then systemd-sysext refresh",
            );
        }
    }

    /// Why extensions are to be merged since the boot; `None` where they are not, or somebody has unmerged them.
    fn is_expected(&self) -> Option<String> {
        let is_off = is_switched_off(&self.observed.system.cmdline, "systemd.sysext");
        let was_merged = self.observed.state.extensions != Extensions::NotYet;
        let service = self.unit_named(SYSEXT_SERVICE);
        let is_masked = service.is_some_and(|service| service.mask().is_some());
        if is_off || was_merged || is_masked || self.wanted().usr_is_open {
            return None;
        }
        if self.plan.is_strict() && self.plan.sysext_at_boot {
            return Some("[Sysext] AtBoot=yes asks for it".into());
        }
        let link = service?.pulled_in_by.first()?;
        Some(format!("{SYSEXT_SERVICE} is enabled ({link})"))
    }

    /// A setting with which the next merge makes `/usr` writable. The command line of systemd-sysext(8) beats its
    /// environment, and that its configuration.
    fn mutable(&mut self) {
        const VARIABLE: &[u8] = b"SYSTEMD_SYSEXT_MUTABLE_MODE";
        let sysext = &self.observed.sysext;
        let mut arguments = Vec::new();
        let mut environment = Vec::new();
        if let Some(service) = self.unit_named(SYSEXT_SERVICE) {
            for setting in service.values("Service", "ExecStart").0 {
                let value = value_of(&setting, b"--mutable");
                arguments.extend(value.map(|value| (value, setting.path.to_string())));
            }
            for setting in service.values("Service", "Environment").0 {
                let value = value_of(&setting, VARIABLE);
                environment.extend(value.map(|value| (value, setting.path.to_string())));
            }
        }
        let mut configuration = Vec::new();
        for file in &sysext.configuration {
            for assignment in config::parse(&file.text).0 {
                if assignment.section.eq_ignore_ascii_case(b"SysExt")
                    && assignment.key == b"Mutable"
                {
                    configuration.push((assignment.value, Shown(&file.path).to_string()));
                }
            }
        }
        let is_writable = |(mode, _): &&(Vec<u8>, String)| {
            is_mutable(mode, sysext.has_mutable_directory) == Some(true)
        };
        let by_hand = configuration.last();
        let by_service = arguments.last().or(environment.last()).or(by_hand);
        if let Some((mode, path)) = by_service.filter(is_writable) {
            let what = format!(
                "lets {SYSEXT_SERVICE} merge with a writable layer: mutable mode {}",
                Shown(mode)
            );
            let remedy = "take it out: a mutable merge makes /usr writable";
            self.find(Verdict::Warning, Topic::Sysext, path, what, remedy);
        } else if let Some((mode, path)) = by_hand.filter(is_writable) {
            let what = format!(
                "lets a merge by hand put a writable layer over /usr: Mutable={}",
                Shown(mode)
            );
            let remedy = "write Mutable=no, or merge with --mutable=no";
            self.find(Verdict::Warning, Topic::Sysext, path, what, remedy);
        }
    }
}

/// The last value of a key among the words of a setting.
fn value_of(setting: &Setting<'_>, key: &[u8]) -> Option<Vec<u8>> {
    let line = Cmdline::parse(&setting.value);
    let words = line.words().filter(|word| word.key == key);
    words.last()?.value.clone()
}
