//! Extensions: what systemd-sysext(8) has merged over `/usr` and from where, and what it would merge.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::judge::Judge;
use super::next_boot::SYSEXT_SERVICE;
use super::{Access, Done, Topic, Verdict};
use crate::config::{self, ConfigFile, boolean};
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
    /// Whether none of this is known: a file system that something of it lies on does not answer.
    pub has_no_answer: bool,
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
    /// It lies where a look may wait for ever, and nobody has looked.
    Unseen,
}

/// Where extensions are looked for, the first name wins; in the last two by v252 and v253 only.
/// Source: systemd-sysext(8); systemd src/shared/discover-image.c (`image_search_path`).
pub const EXTENSION_DIRECTORIES: [&str; 5] = [
    "/etc/extensions",
    "/run/extensions",
    "/var/lib/extensions",
    "/usr/local/lib/extensions",
    "/usr/lib/extensions",
];

/// Those of them in which every release looks. Source: systemd-sysext(8), since v254.
const SEARCHED: &[&str] = EXTENSION_DIRECTORIES.split_at(3).0;

impl Sysext {
    fn considered(&self) -> Vec<&Extension> {
        considered(&self.extensions)
    }

    /// The mutable mode that the configuration asks for, and the file that does.
    pub(super) fn configured_mode(&self) -> Option<(Vec<u8>, String)> {
        let mut mode = None;
        for file in &self.configuration {
            for assignment in config::parse(&file.text).0 {
                // Spelt so and not otherwise: v262 passes over [Sysext].
                if assignment.section == b"SysExt" && assignment.key == b"Mutable" {
                    mode = Some((assignment.value, Shown(&file.path).to_string()));
                }
            }
        }
        mode
    }
}

/// What is looked at when extensions are merged: the first of a name hides the others, a link that leads nowhere hides
/// nothing.
#[must_use]
pub fn considered(extensions: &[Extension]) -> Vec<&Extension> {
    let mut names = BTreeSet::new();
    let considered = extensions.iter().filter(|extension| {
        extension.is_searched()
            && extension.content != Content::LeadsNowhere
            && names.insert(&*extension.name)
    });
    considered.collect()
}

/// Extensions by name.
#[derive(Debug)]
pub struct ByName<'a> {
    extensions: &'a [Extension],
    /// The first one of each name that is a directory of versions, or is none.
    first: BTreeMap<(&'a str, bool), usize>,
}

impl<'a> ByName<'a> {
    /// Sorts them; they come in the order in which their directories are searched.
    #[must_use]
    pub fn new(extensions: &'a [Extension]) -> Self {
        let mut first = BTreeMap::new();
        for (at, extension) in extensions.iter().enumerate() {
            let key = (&*extension.name, extension.has_versions());
            first.entry(key).or_insert(at);
        }
        ByName { extensions, first }
    }

    /// The first one that a merge can have under this name: its own, or that of a version before which there is a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a Extension> {
        let own = [(name, false), (name, true)];
        let versions = name
            .match_indices('_')
            .map(|(at, _)| (name.get(..at).unwrap_or_default(), true));
        let keys = own.into_iter().chain(versions);
        let at = keys.filter_map(|key| self.first.get(&key)).min()?;
        self.extensions.get(*at)
    }
}

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

    fn has_versions(&self) -> bool {
        self.path.as_bytes().ends_with(b".v")
    }

    fn suits(&self, sysext: &Sysext) -> Suits {
        match &self.content {
            Content::LeadsNowhere => Suits::No("a link that leads nowhere".into()),
            Content::Mask => Suits::No("an empty directory, which hides what has its name".into()),
            Content::Image | Content::Unseen => Suits::Perhaps,
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
        }
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

/// How well something is merged that comes from here, and what to do; `None` is what lies nowhere.
fn how_it_is_merged(source: Option<&Extension>) -> (Verdict, String, &'static str) {
    let Some(extension) = source else {
        return (
            Verdict::Warning,
            "is merged, and lies in none of the directories that are searched: the next refresh takes it away".into(),
            "put it back, or systemd-sysext refresh",
        );
    };
    let from = Source(extension);
    match &extension.content {
        // Asking without rights is no witness, and the file system is not read-only.
        Content::Directory {
            access: Access::Writable | Access::NoWitness,
            ..
        } => (
            Verdict::Warning,
            format!(
                "merged from {from}: a directory that can be written, and what changes there changes /usr at once"
            ),
            "make an image of it, or put it on a read-only file system",
        ),
        Content::Directory { .. } => (
            Verdict::Holds,
            format!("merged from {from}: a read-only directory"),
            "",
        ),
        Content::Image => (Verdict::Holds, format!("merged from {from}: an image"), ""),
        Content::Unseen if extension.path.as_bytes().ends_with(b".raw") => (
            Verdict::NotApplicable,
            format!("merged from {from}, which is not looked at"),
            "",
        ),
        Content::Unseen => (
            Verdict::Warning,
            format!(
                "merged from {from}: a directory on a file system that may stop answering, and what changes there changes /usr at once"
            ),
            "make an image of it, or put it on a read-only file system of this machine",
        ),
        Content::Mask | Content::LeadsNowhere => (
            Verdict::Warning,
            format!(
                "is merged, and {from} is no extension any more: the next refresh takes it away"
            ),
            "put it back, or systemd-sysext refresh",
        ),
    }
}

/// Whether a mutable mode makes `/usr` writable; `None` for what is no mode.
pub(super) fn is_mutable(mode: &[u8], has_directory: bool) -> Option<bool> {
    match mode {
        b"ephemeral" | b"ephemeral-import" => Some(true),
        b"auto" => Some(has_directory),
        b"import" => Some(false),
        _ => boolean(mode),
    }
}

impl<'a> Judge<'a> {
    pub(super) fn sysext(&mut self) {
        if self.observed.sysext.has_no_answer {
            return self.find(
                Verdict::Warning,
                Topic::Sysext,
                &"extensions",
                "could not be looked at: a file system that one of them lies on does not answer",
                "see /etc/extensions, /run/extensions and /var/lib/extensions for a link to a network or FUSE file system",
            );
        }
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
            None => self.index.top_at(&path),
        };
        top.filter(|top| top.mount_point == path && top.is_sysext())
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
        let sysext = &self.observed.sysext;
        for extension in &sysext.extensions {
            if extension.is_searched() && extension.content == Content::LeadsNowhere {
                self.find(
                    Verdict::Warning,
                    Topic::Sysext,
                    &extension.path,
                    "a link that leads nowhere: systemd-sysext leaves it out without a word",
                    "make it lead to an extension, or remove it",
                );
            }
        }
        for extension in sysext.considered() {
            if extension.content == Content::Unseen {
                self.find(
                    Verdict::NotApplicable,
                    Topic::Sysext,
                    &extension.path,
                    format!("{} is not looked at: it lies on a network or FUSE file system or an automount, which may never answer", Source(extension)),
                    "",
                );
            }
            // What does not suit is not merged, whatever its name; but each is opened to see that.
            let is_merged = !matches!(extension.suits(sysext), Suits::No(_));
            let (what, remedy) = match extension.content {
                Content::Directory {
                    has_os_release: true,
                    ..
                } => (
                    "it has a usr/lib/os-release, so every merge fails, for all extensions",
                    "remove that file from it",
                ),
                _ if is_merged && extension.name.contains([':', ',']) => (
                    "with this name every merge fails, for all extensions",
                    "give it a name without colon and comma",
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
        if sysext.merged.is_none() {
            let what = "merged, and which they are could not be read";
            let remedy = self.observed.caller.way_to_see();
            self.find(
                Verdict::NotApplicable,
                Topic::Sysext,
                &"extensions",
                what,
                remedy,
            );
        }
        let sources = ByName::new(&sysext.extensions);
        for name in sysext.merged.iter().flatten() {
            let (verdict, what, remedy) = how_it_is_merged(sources.get(name));
            self.find(verdict, Topic::Sysext, name, what, remedy);
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
        let became = |outcome| {
            let events = events.iter();
            events
                .filter(|event| event.path == path && event.result == outcome)
                .count()
        };
        let was_opened = became(Done::Opened) + became(Done::Unlocked) > 0;
        let is_ours = self
            .observed
            .mounts
            .is_self_bind(&database.rule.mount_point);
        let is_boot = became(Done::ReadOnly) == 1 && !self.is_merged_by_initramfs();
        if merge < lock && is_ours && !was_opened && is_boot {
            self.find(
                Verdict::Warning,
                Topic::Sysext,
                &"/usr",
                format!("extensions were merged at this boot before {path} was locked"),
                format!("order what merges them after local-fs.target, as {SYSEXT_SERVICE} is"),
            );
        }
    }

    /// Whether the initramfs merged what is seen at `/usr`, before anything of the real root could run or be locked: the
    /// overlay keeps the names that its layers had there.
    fn is_merged_by_initramfs(&self) -> bool {
        let Some(usr) = self.plan.mount_of(Role::Usr) else {
            return false;
        };
        let stack = self.observed.mounts.stack_at(&usr.rule.mount_point);
        let mut overlays = stack.into_iter().filter(|mount| mount.is_sysext());
        overlays.any(|overlay| {
            let mut layers = overlay
                .super_options
                .iter()
                .flat_map(|option| option.split(|byte| b"=:".contains(byte)));
            layers.any(|layer| layer == b"/sysroot/usr")
        })
    }

    fn not_merged(&mut self) {
        let sysext = &self.observed.sysext;
        let (mut suitable, mut perhaps) = (Vec::new(), Vec::new());
        for extension in sysext.considered() {
            match extension.suits(sysext) {
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

    /// A setting with which the next merge makes `/usr` writable. The service's own beats the configuration.
    fn mutable(&mut self) {
        let sysext = &self.observed.sysext;
        let configuration = sysext.configured_mode();
        let is_writable = |(mode, _): &&(Vec<u8>, String)| {
            is_mutable(mode, sysext.has_mutable_directory) == Some(true)
        };
        let by_hand = configuration.as_ref();
        let by_service = self.mode_of_service().map(|mode| (mode.value, mode.path));
        let by_service = by_service.as_ref().or(by_hand);
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

#[cfg(test)]
mod tests {
    use super::super::tests::{machine, plan, says};
    use super::super::{Event, Observed, Report, Unit, UnitPart, report};
    use super::*;
    use crate::cmdline::Cmdline;

    const BASE: &str = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n4 1 0:1 /var/lib/pacman /var/lib/pacman ro - ext4 a rw\n";
    const OVERLAY: &str = "3 2 0:3 / /usr ro - overlay sysext ro,lowerdir=/usr\n";

    fn of(is_merged: bool, words: &str, prepare: impl FnOnce(&mut Observed)) -> Report {
        let plan = plan(&format!("usrpolicy=strict {words}"));
        let table = format!("{BASE}{}", if is_merged { OVERLAY } else { "" });
        let mut seen = machine(&plan, &table);
        seen.system.cmdline = Cmdline::parse(words.as_bytes());
        seen.sysext.merged = is_merged.then(|| ["a".into()].into());
        seen.sysext.system = b"ID=arch\n".into();
        seen.sysext.architecture = "x86-64";
        prepare(&mut seen);
        report(&plan, &seen)
    }

    fn extension(path: &str, content: Content) -> Extension {
        let entry = path.rsplit_once('/').unwrap().1;
        let is_directory = !matches!(content, Content::Image) || entry.as_bytes().ends_with(b".v");
        Extension {
            name: Extension::name_of(entry, is_directory).unwrap().into(),
            path: path.into(),
            target: None,
            content,
        }
    }

    fn directory(access: Access, release: Option<&str>) -> Content {
        Content::Directory {
            access,
            release: release.map(Into::into),
            has_os_release: false,
        }
    }

    fn service(text: &str, link: Option<&str>) -> Unit {
        Unit {
            name: SYSEXT_SERVICE.into(),
            parts: [UnitPart {
                path: "/usr/lib/systemd/system/systemd-sysext.service".into(),
                text: text.into(),
                is_drop_in: false,
            }]
            .into(),
            pulled_in_by: link.map(String::from).into_iter().collect(),
        }
    }

    /// Nothing to say but what holds, or does not apply.
    #[track_caller]
    fn is_calm(report: &Report) {
        let mut findings = report.findings.iter();
        assert!(
            findings.all(|finding| finding.topic != Topic::Sysext
                || matches!(finding.verdict, Verdict::Holds | Verdict::NotApplicable)),
            "{report:#?}"
        );
    }

    #[test]
    fn of_two_sources_that_a_merge_can_have_the_first_is_named() {
        let image = |path| extension(path, Content::Image);
        let sources = [
            image("/etc/extensions/b_1.raw"),
            image("/etc/extensions/a_1.raw.v"),
            image("/run/extensions/a.raw.v"),
            image("/run/extensions/b.raw.v"),
            image("/var/lib/extensions/a_1_2.raw"),
        ];
        let sources = ByName::new(&sources);
        for (name, path) in [
            ("a", Some("/run/extensions/a.raw.v")),
            ("a_1", Some("/etc/extensions/a_1.raw.v")),
            ("a_1_2", Some("/etc/extensions/a_1.raw.v")),
            ("a_2", Some("/run/extensions/a.raw.v")),
            ("b_1", Some("/etc/extensions/b_1.raw")),
            ("b_1_2", Some("/run/extensions/b.raw.v")),
            ("ab", None),
            ("_1", None),
        ] {
            let found = sources.get(name).map(|source| &*source.path);
            assert_eq!(found, path, "{name}");
        }
    }

    #[test]
    fn entries_have_the_names_that_systemd_gives_them() {
        for (entry, is_directory, name) in [
            ("a.raw", false, Some("a")),
            ("a.sysext.raw", false, Some("a")),
            ("a", false, None),
            ("a.txt", false, None),
            ("a", true, Some("a")),
            ("a.raw.v", true, Some("a")),
            ("a.v", true, Some("a")),
            (".#a.raw", false, None),
            (".raw", false, None),
        ] {
            assert_eq!(Extension::name_of(entry, is_directory), name, "{entry}");
        }
    }

    #[test]
    fn what_is_merged_says_from_where() {
        for (content, verdict, what) in [
            (
                Content::Image,
                Verdict::Holds,
                "merged from /etc/extensions/a.raw.v: an image",
            ),
            (
                directory(Access::ReadOnly, None),
                Verdict::Holds,
                "merged from /etc/extensions/a.raw.v: a read-only directory",
            ),
            (
                directory(Access::Writable, None),
                Verdict::Warning,
                "a directory that can be written, and what changes there changes /usr at once",
            ),
            (
                directory(Access::NoWitness, None),
                Verdict::Warning,
                "a directory that can be written",
            ),
            (Content::Mask, Verdict::Warning, "is no extension any more"),
            (
                Content::LeadsNowhere,
                Verdict::Warning,
                "is no extension any more",
            ),
        ] {
            let report = of(true, "", |seen| {
                let found = extension("/etc/extensions/a.raw.v", content);
                seen.sysext.extensions.push(found);
            });
            says(&report, verdict, "a", what);
        }
        let linked = of(true, "", |seen| {
            let mut found = extension("/run/extensions/a", directory(Access::Writable, None));
            found.target = Some("/home/me/a".into());
            // The first of a name counts.
            seen.sysext.extensions = [
                found,
                extension("/var/lib/extensions/a.raw", Content::Image),
            ]
            .into();
        });
        let what = "merged from /run/extensions/a, a link to /home/me/a: a directory";
        says(&linked, Verdict::Warning, "a", what);
        let nameless = of(true, "", |seen| seen.sysext.merged = None);
        let what = "merged, and which they are could not be read";
        says(&nameless, Verdict::NotApplicable, "extensions", what);
        let gone = of(true, "", |_| {});
        says(
            &gone,
            Verdict::Warning,
            "a",
            "lies in none of the directories that are searched",
        );
    }

    #[test]
    fn a_version_of_several_is_merged_under_the_name_of_its_file() {
        let report = of(true, "", |seen| {
            seen.sysext.merged = Some(["a_1.2".into()].into());
            seen.sysext
                .extensions
                .push(extension("/var/lib/extensions/a.raw.v", Content::Image));
        });
        says(
            &report,
            Verdict::Holds,
            "a_1.2",
            "from /var/lib/extensions/a.raw.v",
        );
    }

    #[test]
    fn a_merge_that_was_expected_and_is_not_there_is_a_warning() {
        const LINK: &str = "/etc/systemd/system/sysinit.target.wants/systemd-sysext.service";
        let suits = || {
            extension(
                "/etc/extensions/a",
                directory(Access::ReadOnly, Some("ID=arch")),
            )
        };
        let enabled = of(false, "", |seen| {
            seen.sysext.extensions =
                [suits(), extension("/etc/extensions/i.raw", Content::Image)].into();
            seen.system.units.push(service("", None));
            is_calm(&of(false, "", |_| {}));
            seen.system.units[0] = service("[Service]\n", Some(LINK));
        });
        let what = format!("a: not merged, although systemd-sysext.service is enabled ({LINK})");
        says(&enabled, Verdict::Warning, "extensions", &what);

        let image = of(false, "", |seen| {
            seen.sysext
                .extensions
                .push(extension("/etc/extensions/i.raw", Content::Image));
            seen.system.units.push(service("[Service]\n", Some(LINK)));
        });
        let what = "i: not merged, although systemd-sysext.service is enabled";
        says(&image, Verdict::Warning, "extensions", what);
        says(
            &image,
            Verdict::Warning,
            "extensions",
            "whether they suit this system",
        );

        // Nobody asks for it; it was switched off; it was unmerged; nothing suits; nothing is searched there.
        is_calm(&of(false, "", |seen| seen.sysext.extensions.push(suits())));
        is_calm(&of(false, "systemd.sysext=0", |seen| {
            seen.sysext.extensions.push(suits());
            seen.system.units.push(service("[Service]\n", Some(LINK)));
        }));
        is_calm(&of(false, "", |seen| {
            seen.sysext.extensions.push(suits());
            seen.system.units.push(service("[Service]\n", Some(LINK)));
            seen.state.extensions = Extensions::Unmerged { since: 1 };
        }));
        is_calm(&of(false, "", |seen| {
            seen.sysext.extensions.push(suits());
            seen.system.units.push(service("", Some(LINK)));
        }));
        for (path, content, reason) in [
            (
                "/etc/extensions/a",
                directory(Access::ReadOnly, Some("ID=debian")),
                "its ID=debian is another",
            ),
            (
                "/etc/extensions/a",
                directory(Access::ReadOnly, None),
                "it has no extension-release file",
            ),
            (
                "/etc/extensions/a",
                Content::Mask,
                "an empty directory, which hides what has its name",
            ),
        ] {
            let report = of(false, "", |seen| {
                seen.sysext.extensions.push(extension(path, content));
                seen.sysext
                    .extensions
                    .push(extension("/var/lib/extensions/a.raw", Content::Image));
                seen.sysext
                    .extensions
                    .push(extension("/usr/lib/extensions/b.raw", Content::Image));
                seen.system.units.push(service("[Service]\n", Some(LINK)));
            });
            says(&report, Verdict::NotApplicable, path, reason);
            is_calm(&report);
        }
    }

    #[test]
    fn at_boot_yes_is_a_reason_too() {
        let mut plan = plan("usrpolicy=strict");
        plan.sysext_at_boot = true;
        let mut seen = machine(&plan, BASE);
        let found = extension(
            "/etc/extensions/a",
            directory(Access::ReadOnly, Some("ID=_any")),
        );
        seen.sysext.extensions.push(found);
        let report = report(&plan, &seen);
        let what = "a: not merged, although [Sysext] AtBoot=yes asks for it";
        says(&report, Verdict::Warning, "extensions", what);
    }

    #[test]
    fn what_stops_every_merge_is_a_warning() {
        let forbidden = Content::Directory {
            access: Access::ReadOnly,
            release: None,
            has_os_release: true,
        };
        for (path, content, what) in [
            (
                "/etc/extensions/a",
                Content::LeadsNowhere,
                "a link that leads nowhere",
            ),
            (
                "/run/extensions/a:1.raw",
                Content::Image,
                "with this name every merge fails",
            ),
            (
                "/run/extensions/a,1.raw",
                Content::Image,
                "with this name every merge fails",
            ),
            (
                "/var/lib/extensions/a",
                forbidden,
                "it has a usr/lib/os-release",
            ),
        ] {
            let report = of(false, "", |seen| {
                seen.sysext.extensions.push(extension(path, content));
            });
            says(&report, Verdict::Warning, path, what);
        }
    }

    #[test]
    fn what_is_not_merged_anyway_stops_nothing() {
        is_calm(&of(false, "", |seen| {
            let release = Some("ID=other");
            seen.sysext.extensions = [
                extension("/etc/extensions/a:1", directory(Access::Writable, release)),
                extension("/etc/extensions/b:1", Content::Mask),
                extension(
                    "/var/lib/extensions/b:1",
                    directory(Access::Writable, Some("ID=_any")),
                ),
            ]
            .into();
        }));
    }

    #[test]
    fn a_search_directory_that_cannot_be_used_is_a_warning() {
        for (path, is_directory, access, what) in [
            (
                "/etc/extensions",
                false,
                Access::NoWitness,
                Some("is no directory"),
            ),
            (
                "/run/extensions",
                false,
                Access::NoWitness,
                Some("is no directory"),
            ),
            (
                "/run/extensions",
                true,
                Access::ReadOnly,
                Some("no extension can be linked there"),
            ),
            ("/run/extensions", true, Access::Writable, None),
            ("/run/extensions", true, Access::NoWitness, None),
            ("/etc/extensions", true, Access::ReadOnly, None),
        ] {
            let report = of(false, "", |seen| {
                seen.sysext.directories.push(SearchDirectory {
                    path,
                    is_directory,
                    access,
                });
            });
            match what {
                Some(what) => says(&report, Verdict::Warning, path, what),
                None => is_calm(&report),
            }
        }
    }

    #[test]
    fn a_mutable_mode_is_found_where_it_stands_and_by_what_wins() {
        const NO: &str = "Environment=SYSTEMD_SYSEXT_MUTABLE_MODE=no\n";
        const YES: &str = "Environment=X=1 \"SYSTEMD_SYSEXT_MUTABLE_MODE=yes\"\n";
        const ARGUMENT: &str = "ExecStart=systemd-sysext refresh --mutable=ephemeral\n";
        const CONF: &str = "/etc/systemd/sysext.conf";
        const UNIT: &str = "/usr/lib/systemd/system/systemd-sysext.service";
        let of_words = |conf: Option<&str>, unit: &str, has_mutable_directory: bool| {
            of(false, "", |seen| {
                seen.sysext.has_mutable_directory = has_mutable_directory;
                seen.sysext.configuration = conf
                    .map(|mode| ConfigFile {
                        path: CONF.into(),
                        text: format!("[SysExt]\nMutable={mode}\n").into(),
                    })
                    .into_iter()
                    .collect();
                seen.system
                    .units
                    .push(service(&format!("[Service]\n{unit}"), None));
            })
        };
        for (conf, unit, has_directory, at, what) in [
            (
                Some("yes"),
                "",
                false,
                CONF,
                "lets systemd-sysext.service merge with a writable layer: mutable mode yes",
            ),
            (
                Some("yes"),
                NO,
                false,
                CONF,
                "lets a merge by hand put a writable layer over /usr: Mutable=yes",
            ),
            (Some("auto"), NO, true, CONF, "Mutable=auto"),
            (
                Some("ephemeral-import"),
                NO,
                false,
                CONF,
                "Mutable=ephemeral-import",
            ),
            (None, YES, false, UNIT, "mutable mode yes"),
            (Some("no"), YES, false, UNIT, "mutable mode yes"),
            (None, ARGUMENT, false, UNIT, "mutable mode ephemeral"),
        ] {
            says(
                &of_words(conf, unit, has_directory),
                Verdict::Warning,
                at,
                what,
            );
        }
        for (conf, unit, has_directory) in [
            (None, NO, true),
            (Some("no"), NO, true),
            (Some("import"), NO, true),
            (Some("auto"), NO, false),
            (Some("perhaps"), "", false),
            (
                None,
                "Environment=SYSTEMD_SYSEXT_MUTABLE_MODE=yes\nEnvironment=\n",
                false,
            ),
        ] {
            is_calm(&of_words(conf, unit, has_directory));
        }
    }

    #[test]
    fn a_section_that_systemd_passes_over_is_passed_over() {
        is_calm(&of(false, "", |seen| {
            seen.sysext.configuration.push(ConfigFile {
                path: b"/etc/systemd/sysext.conf".into(),
                text: b"[Sysext]\nMutable=yes\n[Confext]\nMutable=yes\n".into(),
            });
        }));
    }

    #[test]
    fn a_writable_layer_over_opt_is_a_warning() {
        let plan = plan("usrpolicy=strict");
        let opt = "9 1 0:9 / /opt rw - overlay sysext rw,lowerdir=/opt,upperdir=/u,workdir=/w\n";
        let report = report(&plan, &machine(&plan, &format!("{BASE}{opt}")));
        says(&report, Verdict::Warning, "/opt", "with a writable layer");
    }

    #[test]
    fn a_merge_before_the_lock_is_said_where_nothing_else_explains_it() {
        const LOCKED: &str = "1 early /usr read-only\n2 sync /var/lib/pacman read-only\n";
        let with = |order, events: &str| {
            of(true, "", |seen| {
                seen.sysext.order = order;
                seen.sysext
                    .extensions
                    .push(extension("/etc/extensions/a.raw", Content::Image));
                seen.events = Event::parse(events.as_bytes());
            })
        };
        let early = with(Some((7, 9)), LOCKED);
        let what = "extensions were merged at this boot before /var/lib/pacman was locked";
        says(&early, Verdict::Warning, "/usr", what);
        let opened =
            format!("{LOCKED}3 follow /var/lib/pacman open\n4 sync /var/lib/pacman read-only\n");
        for (order, events) in [
            (None, LOCKED),
            (Some((9, 7)), LOCKED),
            (Some((7, 9)), &*opened),
            (
                Some((7, 9)),
                "4 unlock /var/lib/pacman open\n5 sync /var/lib/pacman read-only\n",
            ),
            (
                Some((7, 9)),
                "4 sync /var/lib/pacman read-only\n5 sync /var/lib/pacman read-only\n",
            ),
            (Some((7, 9)), ""),
        ] {
            is_calm(&with(order, events));
        }
    }

    #[test]
    fn a_merge_in_the_initramfs_comes_before_every_lock_and_is_no_warning() {
        let by_initramfs = OVERLAY.replace("lowerdir=/usr", "lowerdir=/run/meta/usr:/sysroot/usr");
        for (overlay, is_said) in [(OVERLAY, true), (&*by_initramfs, false)] {
            let plan = plan("usrpolicy=strict");
            let mut seen = machine(&plan, &format!("{BASE}{overlay}"));
            seen.sysext.order = Some((7, 9));
            seen.events =
                Event::parse(b"1 early /usr read-only\n2 sync /var/lib/pacman read-only\n");
            let report = report(&plan, &seen);
            let mut findings = report.findings.iter();
            let is_about_order = findings.any(|finding| finding.what.contains("was locked"));
            assert_eq!(is_about_order, is_said, "{report:#?}");
        }
    }
}
