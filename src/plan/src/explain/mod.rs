//! `usr-policy explain`: why a path is as it is, and the right way to change it. What was seen goes in, lines come out.

#[cfg(test)]
mod tests;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::fstab::Fstab;
use crate::lock::{State, Wanted, Why};
use crate::mount_point::MountPoint;
use crate::mountinfo::{MountInfo, MountTable};
use crate::package_manager::PACMAN;
use crate::plan::{FSTAB, Facts, Plan, enabled_fstab, read_only_by_nature};
use crate::policy::{CMDLINE_FILE, Lock, Origin, Role, Rule, Treatment};
use crate::text::Shown;
use crate::unit_name::mount_unit;
use crate::verify::{Access, EXTENSION_DIRECTORIES, is_open, rule_of};

/// File systems whose files are in memory. Source: tmpfs(5), Linux Documentation/filesystems/ramfs-rootfs-initramfs.rst.
const IN_MEMORY: [&[u8]; 3] = [b"tmpfs", b"ramfs", b"devtmpfs"];

/// File systems without files of their own: what is read there the kernel makes at that moment.
const OF_THE_KERNEL: [&[u8]; 6] = [
    b"proc",
    b"sysfs",
    b"cgroup2",
    b"debugfs",
    b"securityfs",
    b"configfs",
];

/// What was seen of a path.
#[derive(Debug, Clone)]
pub struct Looked {
    /// The path that was asked about, absolute.
    pub asked: MountPoint,
    /// Where symbolic links lead from there; the path itself where none is on the way.
    pub path: MountPoint,
    /// The nearest thing at or above it that exists.
    pub nearest: MountPoint,
    /// Whether that is a directory.
    pub is_directory: bool,
    /// The mount that holds that, as the kernel says (statx(2)); `None` where it could not be asked.
    pub mount_id: Option<u64>,
    /// What asking for write access said.
    pub access: Access,
    /// The mount table of whoever asks.
    pub mounts: MountTable,
    /// The extensions that are there, or merged.
    pub extensions: Vec<Extension>,
    /// The packages that have the path in their lists; `None` where there is no database.
    pub packages: Option<Vec<String>>,
    /// What the lock table remembers.
    pub state: State,
    /// Whether pacman would run our hook.
    pub is_guarded: bool,
    /// When it was looked, `CLOCK_BOOTTIME` in microseconds.
    pub now: u64,
    /// What else must be known of the look itself.
    pub notes: Vec<String>,
}

impl Looked {
    /// What the lock table says now, after the merge that may have come since it was written.
    fn wanted(&self, plan: &Plan) -> Wanted {
        let usr = rule_of(plan, Role::Usr);
        let top = usr.and_then(|usr| self.mounts.holding(&usr.mount_point));
        let state = self
            .state
            .after(top.is_some_and(MountInfo::is_sysext), self.now);
        state.wanted(plan.lock, self.is_guarded, self.now)
    }
}

/// An extension of systemd-sysext(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Its name, as systemd-sysext(8) has it.
    pub name: String,
    /// Where it comes from; `None` where that is gone.
    pub source: Option<String>,
    /// Whether it is merged over the path.
    pub is_merged: bool,
    /// Whether the path is in it.
    pub ships: Ships,
}

/// Whether a path is in an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ships {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// That cannot be seen: it is an image, or gone.
    Unseen,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub key: &'static str,
    /// The answer.
    pub what: String,
}

/// Answers.
#[must_use]
pub fn explain(facts: &Facts, plan: &Plan, looked: &Looked) -> Vec<Line> {
    let fstab = Fstab::parse(enabled_fstab(facts));
    let by_id = looked.mount_id.and_then(|id| looked.mounts.by_id(id));
    let explained = Explained {
        plan,
        looked,
        mount: by_id.or_else(|| looked.mounts.holding(&looked.nearest)),
        fstab: &fstab,
        rule: rule_over(plan, &looked.path),
        wanted: looked.wanted(plan),
    };
    let lines = [
        ("path", Some(explained.path())),
        ("mount", Some(explained.mount())),
        ("beneath", explained.beneath()),
        ("rule", Some(explained.rule())),
        ("extension", explained.extension()),
        ("package", explained.package()),
        ("write", Some(explained.write())),
        ("reboot", explained.reboot()),
        ("change", Some(explained.change())),
    ];
    let lines = lines
        .into_iter()
        .filter_map(|(key, what)| what.map(|what| Line { key, what }));
    let notes = looked.notes.iter().map(|note| Line {
        key: "note",
        what: note.clone(),
    });
    lines.chain(notes).collect()
}

/// The rule that a path is under, and what is said where it is not carried out.
struct RuleOver<'a> {
    rule: &'a Rule,
    left_out: Option<String>,
}

/// The rule of the nearest path at or above this one.
fn rule_over<'a>(plan: &'a Plan, path: &MountPoint) -> Option<RuleOver<'a>> {
    let carried_out = plan.mounts.iter().map(|mount| &mount.rule);
    let carried_out = carried_out.chain(&plan.writable).map(|rule| RuleOver {
        rule,
        left_out: None,
    });
    let left_out = plan.left_out.iter().map(|left_out| RuleOver {
        rule: &left_out.rule,
        left_out: Some(left_out.to_string()),
    });
    carried_out
        .chain(left_out)
        .filter(|over| path.is_at_or_below(&over.rule.mount_point))
        .max_by_key(|over| over.rule.mount_point.as_bytes().len())
}

/// Everything that the lines are made from.
struct Explained<'a> {
    plan: &'a Plan,
    looked: &'a Looked,
    mount: Option<&'a MountInfo>,
    fstab: &'a Fstab,
    rule: Option<RuleOver<'a>>,
    wanted: Wanted,
}

impl Explained<'_> {
    fn path(&self) -> String {
        let Looked {
            asked,
            path,
            nearest,
            ..
        } = self.looked;
        let leads = if asked == path {
            path.to_string()
        } else {
            format!("{asked} leads to {path}")
        };
        if path == nearest {
            leads
        } else {
            format!("{leads}, which does not exist; {nearest} does")
        }
    }

    fn mount(&self) -> String {
        match self.mount {
            None => "none in the mount table holds it".to_owned(),
            Some(mount) => {
                let line = self.fstab.entry_at(&mount.mount_point);
                let by = line.map_or(String::new(), |entry| {
                    format!(", mounted by {FSTAB}:{}", entry.line)
                });
                format!("{}{by}", self.about(mount))
            }
        }
    }

    /// A mount, and which of its two flags closes it.
    fn about(&self, mount: &MountInfo) -> String {
        let layer = mount.super_options.value("upperdir");
        let layer = layer.filter(|_| mount.is_sysext()).map(Shown);
        let layer = layer.map_or(String::new(), |layer| {
            format!(", with a writable layer, {layer}")
        });
        let options: Vec<&[u8]> = mount.mount_options.iter().collect();
        let options = options.join(&b","[..]);
        let own = mount.mount_options.has("ro");
        let file_system = mount.super_options.has("ro");
        let flags = match (own, file_system) {
            (true, true) => "read-only by its own flag and by its file system",
            (true, false) => "read-only by its own flag, on a writable file system",
            (false, true) => "read-only by its file system",
            (false, false) => "writable",
        };
        let of_itself = if self.looked.mounts.is_self_bind(&mount.mount_point) {
            ", a bind of the directory on itself"
        } else {
            ""
        };
        format!(
            "{}: {} of {}{of_itself}{layer}, {flags} ({})",
            mount.mount_point,
            Shown(&mount.fs_type),
            Shown(&mount.mount_source),
            Shown(&options)
        )
    }

    /// What an overlay of extensions covers: the path is in one of the two.
    fn beneath(&self) -> Option<String> {
        let mount = self.mount.filter(|mount| mount.is_sysext())?;
        let beneath = self.looked.mounts.by_id(mount.parent_id)?;
        Some(self.about(beneath))
    }

    fn rule(&self) -> String {
        let plan = self.plan;
        let Some(over) = &self.rule else {
            let decides = self.mount.map(|mount| self.decides(mount));
            return format!(
                "none: usr-policy leaves it to {}",
                decides.as_deref().unwrap_or("others")
            );
        };
        let rule = over.rule;
        let by = match &rule.origin {
            Origin::Table if plan.is_strict() => {
                format!("by default under strict ({})", plan.mode_origin)
            }
            Origin::Table => "by default".to_owned(),
            Origin::CommandLine => format!("by usrpolicy.path= in {CMDLINE_FILE}"),
            Origin::File { .. } => format!("by {}", rule.origin),
        };
        let asked = format!(
            "{} {}, {by}: {}",
            rule.mount_point, rule.treatment, rule.because
        );
        let rest = if plan.is_strict() {
            self.how_the_rule_fares(over)
        } else {
            let (mode, origin) = (plan.mode, &plan.mode_origin);
            [format!("not carried out: usrpolicy is {mode} ({origin})")].into()
        };
        [[asked].into(), rest].concat().join("; ")
    }

    /// What there is to say of a rule beside what it asks for.
    fn how_the_rule_fares(&self, over: &RuleOver<'_>) -> Vec<String> {
        let rule = over.rule;
        let mut said: Vec<String> = over.left_out.iter().cloned().collect();
        let is_on_its_own = |mount: &&MountInfo| {
            mount.mount_point.is_below(&rule.mount_point) && !mount.is_sysext()
        };
        if let Some(mount) = self.mount.filter(is_on_its_own) {
            said.push(format!(
                "{} is a mount of its own below it, and its own flags count",
                mount.mount_point
            ));
        } else if self.wanted.usr_is_open && rule.role != Role::Path {
            said.push("open now: unlocked by hand".to_owned());
        } else if rule.role == Role::Database {
            let word = if self.wanted.is_locked {
                "locked"
            } else {
                "open"
            };
            said.push(format!("{word}: {}", self.wanted.why));
        }
        if over.left_out.is_none() && !self.is_as_the_rule_wants(rule) {
            said.push("it is not so now, and usr-policy verify says why".to_owned());
        }
        said
    }

    /// Whether the mount is what the rule makes of it.
    fn is_as_the_rule_wants(&self, rule: &Rule) -> bool {
        let Some(mount) = self.mount else {
            return false;
        };
        let is_on_its_own = mount.mount_point.is_below(&rule.mount_point);
        is_open(&self.wanted, rule.role)
            || is_on_its_own
            || match rule.treatment {
                Treatment::Tmpfs(_) => mount.fs_type == b"tmpfs",
                Treatment::ReadOnly => mount.is_read_only() || self.is_refused(),
                Treatment::ReadWrite => !mount.is_read_only(),
            }
    }

    /// Who decides about a mount that no rule is about.
    fn decides(&self, mount: &MountInfo) -> String {
        if let Some(entry) = self.fstab.entry_at(&mount.mount_point) {
            return format!("{FSTAB}:{}", entry.line);
        }
        if mount.is_sysext() {
            return "systemd-sysext".to_owned();
        }
        if mount.mount_point.as_bytes() == b"/" {
            return "what mounts the root file system".to_owned();
        }
        match mount_unit(&mount.mount_point) {
            Ok(unit) => format!("whoever mounts {} ({unit})", mount.mount_point),
            Err(_) => format!("whoever mounts {}", mount.mount_point),
        }
    }

    fn extension(&self) -> Option<String> {
        let all = &self.looked.extensions;
        if all.is_empty() {
            return None;
        }
        let shown = |extension: &Extension| match &extension.source {
            Some(source) => format!("{} ({source})", extension.name),
            None => format!("{} (its source is gone)", extension.name),
        };
        let named = |wanted: &dyn Fn(&&Extension) -> bool| {
            let names: Vec<String> = all.iter().filter(wanted).map(shown).collect();
            names.join(", ")
        };
        let is_merged = self.mount.is_some_and(MountInfo::is_sysext);
        let shipping =
            named(&|extension| extension.is_merged == is_merged && extension.ships == Ships::Yes);
        let unseen = named(&|extension| extension.is_merged && extension.ships == Ships::Unseen);
        let mut text = match (is_merged, shipping.is_empty()) {
            (true, false) => format!("shipped by {shipping}"),
            (true, true) if unseen.is_empty() => format!(
                "in none of those that are merged: {}",
                named(&|extension| extension.is_merged)
            ),
            (true, true) => format!("may be shipped by {unseen}, into which this does not look"),
            (false, false) => format!("{shipping} has it, and is not merged here"),
            (false, true) => return None,
        };
        if is_merged && shipping.is_empty() && self.exists() {
            text.push_str(if unseen.is_empty() {
                "; it is of the base"
            } else {
                "; else it is of the base"
            });
        }
        Some(text)
    }

    fn package(&self) -> Option<String> {
        /// A directory can be in the lists of hundreds.
        const AT_MOST: usize = 3;
        let packages = self.looked.packages.as_deref()?;
        if !self.exists() {
            return None;
        }
        Some(match packages {
            [] => format!("in the list of no package of {}", PACMAN.name),
            some if some.len() > AT_MOST => format!(
                "{} and {} more of {}",
                some[..AT_MOST].join(", "),
                some.len() - AT_MOST,
                PACMAN.name
            ),
            some => format!("{} of {}", some.join(", "), PACMAN.name),
        })
    }

    fn is_directory(&self) -> bool {
        self.exists() && self.looked.is_directory
    }

    fn exists(&self) -> bool {
        self.looked.path == self.looked.nearest
    }

    /// Whether nothing can be written there, whoever tries.
    fn is_refused(&self) -> bool {
        match self.looked.access {
            Access::ReadOnly => true,
            Access::Writable => false,
            Access::NoWitness => self.mount.is_some_and(MountInfo::is_read_only),
        }
    }

    fn write(&self) -> String {
        let is_flagged = self.mount.is_some_and(MountInfo::is_read_only);
        match (self.is_refused(), self.looked.access) {
            (true, _) if is_flagged => "no, not even by root: the mount is read-only".to_owned(),
            (true, _) => {
                "no, not even by root: read-only although no flag of the mount says so, as a subvolume of btrfs can be".to_owned()
            }
            (false, Access::Writable) => "yes".to_owned(),
            (false, _) => {
                "the mount is writable; whether you may, owner and mode decide".to_owned()
            }
        }
    }

    fn reboot(&self) -> Option<String> {
        let mount = self.mount?;
        let is_one_of = |types: &[&[u8]]| types.contains(&mount.fs_type.as_slice());
        if is_one_of(&IN_MEMORY) {
            return Some(format!(
                "what is written there is gone: {} is in memory",
                Shown(&mount.fs_type)
            ));
        }
        if is_one_of(&OF_THE_KERNEL) {
            return Some("nothing there is kept: the kernel makes it".to_owned());
        }
        let becomes_tmpfs = self.rule.as_ref().is_some_and(|over| {
            over.left_out.is_none()
                && matches!(over.rule.treatment, Treatment::Tmpfs(_))
                && !mount.mount_point.is_below(&over.rule.mount_point)
        });
        (self.plan.is_strict() && becomes_tmpfs).then(|| {
            "a tmpfs covers it from the next boot on; what is there stays on the disk, hidden"
                .to_owned()
        })
    }

    fn change(&self) -> String {
        let is_covered = self.mount.is_some_and(MountInfo::is_sysext);
        if is_covered && self.is_refused() {
            return self.change_merged();
        }
        let rule = self.rule.as_ref();
        let rule = rule.filter(|over| over.left_out.is_none() && self.plan.is_strict());
        let is_on_its_own = |rule: &Rule| {
            self.mount
                .is_some_and(|mount| mount.mount_point.is_below(&rule.mount_point))
        };
        match rule.map(|over| over.rule) {
            Some(rule) if !is_on_its_own(rule) => match (rule.role, rule.treatment) {
                (Role::Usr, _) if self.is_refused() => self.change_usr(),
                (Role::Database, _) if self.is_refused() => self.change_database(),
                (_, Treatment::Tmpfs(_)) => keep_on_disk(rule),
                (Role::Path, Treatment::ReadOnly) if self.is_refused() => {
                    format!(
                        "{} is read-only because that was asked for: change it there ({}), and reboot",
                        rule.mount_point, rule.origin
                    )
                }
                _ => self.change_elsewhere(),
            },
            _ => self.change_elsewhere(),
        }
    }

    fn change_merged(&self) -> String {
        let extensions = self.looked.extensions.iter();
        // What is in a directory can come from each of them and from the base.
        let mut shipping = extensions.filter(|extension| {
            extension.is_merged && extension.ships == Ships::Yes && !self.is_directory()
        });
        if let Some(extension) = shipping.next_back() {
            let source = extension.source.as_deref().unwrap_or(&extension.name);
            return format!("change it in {source}, then run systemd-sysext refresh");
        }
        let way = if self.plan.is_strict() {
            self.opened("change it")
        } else {
            "change it".to_owned()
        };
        format!(
            "{}, then run systemd-sysext refresh; or, for the base, systemd-sysext unmerge, {way}, and systemd-sysext merge",
            self.in_an_extension()
        )
    }

    fn change_usr(&self) -> String {
        let usr = self.mount;
        if let Some(fs_type) = usr.and_then(read_only_by_nature) {
            return format!(
                "{}, then run systemd-sysext merge; or make the image of the base anew: nothing writes to {fs_type}",
                self.in_an_extension()
            );
        }
        let local = MountPoint::new(b"/usr/local");
        if local.is_ok_and(|local| self.looked.path.is_at_or_below(&local)) {
            return format!(
                "give /usr/local a line in {FSTAB} that mounts a file system or a directory of /var there: its own flags count; or {}",
                self.opened("change it")
            );
        }
        match self.looked.packages.as_deref() {
            Some([package]) if self.exists() => {
                self.opened(&format!("let {} change {package}", PACMAN.name))
            }
            _ => format!(
                "{}, then run systemd-sysext merge; or {}",
                self.in_an_extension(),
                self.opened("change it")
            ),
        }
    }

    fn change_database(&self) -> String {
        let opened = self.opened(&format!("run {}", PACMAN.name));
        // Unlock is refused while extensions are merged.
        if self.wanted.why == Why::Merged {
            format!("systemd-sysext unmerge, then {opened}")
        } else {
            opened
        }
    }

    /// Where the file would be in an extension.
    fn in_an_extension(&self) -> String {
        let [_, _, lasting, ..] = EXTENSION_DIRECTORIES;
        format!(
            "put it in an extension, as {lasting}/NAME{}",
            self.looked.path
        )
    }

    /// The way to do something while everything is open.
    fn opened(&self, what: &str) -> String {
        match self.plan.lock {
            Lock::Always => {
                format!("boot with usrpolicy=off and {what}: usrpolicy.lock=always opens nothing")
            }
            Lock::Merged | Lock::Off => {
                format!("usr-policy unlock, {what}, and usr-policy lock")
            }
        }
    }

    /// What no rule closes.
    fn change_elsewhere(&self) -> String {
        let Some(mount) = self.mount else {
            return "see findmnt for what is mounted".to_owned();
        };
        let is_in_memory = IN_MEMORY.contains(&mount.fs_type.as_slice());
        if self.is_refused() {
            format!(
                "not by usr-policy, which does not close it: {} decides",
                self.decides(mount)
            )
        } else if is_in_memory {
            format!(
                "to keep it, put it elsewhere; {} decides that this is in memory",
                self.decides(mount)
            )
        } else if self.looked.access == Access::Writable {
            "nothing of usr-policy is in the way".to_owned()
        } else {
            "nothing of usr-policy is in the way; see ls -ld for owner and mode".to_owned()
        }
    }
}

/// A tmpfs is forgotten by design.
fn keep_on_disk(rule: &Rule) -> String {
    let path = &rule.mount_point;
    let way = match &rule.origin {
        Origin::File { .. } => format!("Treatment=rw at {}", rule.origin),
        Origin::CommandLine => {
            format!("usrpolicy.path={path}:rw on the kernel command line, in place of that word")
        }
        Origin::Table => format!(
            "usrpolicy.path={path}:rw on the kernel command line, or Treatment=rw below [Path:{path}] in /etc/usr-policy.conf"
        ),
    };
    format!(
        "to keep it, put it elsewhere; or leave {path} on the disk from the next boot on: {way}"
    )
}
