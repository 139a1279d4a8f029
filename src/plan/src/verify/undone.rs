//! Who has undone a rule that does not hold, as far as there is evidence.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::judge::Judge;
use super::sysext::is_mutable;
use super::{Event, OPENED};
use crate::config::{self, ConfigFile};
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::plan::{FSTAB, Owner, Plan, PlannedMount};
use crate::policy::Mode;
use crate::text::Shown;
use crate::unit::{APPLY_SERVICE, FOLLOW_SERVICE, LOCK_SERVICE};
use crate::unit_name::mount_unit;

/// What could have undone a rule.
#[derive(Debug, Clone, Default)]
pub struct Undoers {
    /// The files of the units that [`units`] names, where they are not the vendor's; the ones that win come first.
    pub units: Vec<UnitFile>,
    /// `sysext.conf` and its drop-ins, in the order in which they apply.
    pub sysext_conf: Vec<ConfigFile>,
    /// Whether PID 1 finds a generator of usr-policy; `None` where that was not looked at.
    pub has_generator: Option<bool>,
}

/// A file of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFile {
    /// The unit's name.
    pub unit: String,
    /// Its path.
    pub path: String,
    /// Whether it adds to the unit, or is it.
    pub is_drop_in: bool,
    /// Its bytes; none where it is a link to /dev/null.
    pub text: Vec<u8>,
}

impl UnitFile {
    /// An empty file masks a unit, as a link to /dev/null does. Source: systemd.unit(5).
    fn masks(&self) -> bool {
        self.text.is_empty() && !self.is_drop_in
    }

    fn is_generated(&self) -> bool {
        self.path.starts_with(GENERATED)
    }

    fn value(&self, section: &str, key: &str) -> Option<Vec<u8>> {
        value(&self.text, section, key)
    }

    /// Whether it mounts something and does not say read-only.
    fn mounts_writable(&self) -> bool {
        let options = self.value("Mount", "Options");
        options.is_some_and(|options| !options.split(|&byte| byte == b',').any(|one| one == b"ro"))
    }
}

/// Where generators write what the administrator's files win over, with the slash at its end.
const GENERATED: &str = "/run/systemd/generator/";

/// The service that remounts `/` and `/usr` with the options of fstab.
const REMOUNT: &str = "systemd-remount-fs.service";

/// The service that merges extensions.
const SYSEXT: &str = "systemd-sysext.service";

/// What tells systemd-sysext(8) how writable a merge is to be, in its environment.
const MUTABLE_MODE: &[u8] = b"SYSTEMD_SYSEXT_MUTABLE_MODE=";

/// The last value of a key in a text of systemd's style.
fn value(text: &[u8], section: &str, key: &str) -> Option<Vec<u8>> {
    let (assignments, _) = config::parse(text);
    let those = assignments.into_iter();
    those
        .rev()
        .find(|one| one.section == section.as_bytes() && one.key == key.as_bytes())
        .map(|one| one.value)
}

/// The units whose files tell who has undone a rule of the plan.
#[must_use]
pub fn units(plan: &Plan) -> Vec<String> {
    let mounts = plan.mounts.iter();
    let mounts = mounts.filter_map(|mount| unit_of(&mount.rule.mount_point));
    let services = [APPLY_SERVICE, LOCK_SERVICE, FOLLOW_SERVICE, REMOUNT, SYSEXT];
    mounts
        .chain(services.iter().map(ToString::to_string))
        .collect()
}

fn unit_of(path: &MountPoint) -> Option<String> {
    Some(mount_unit(path).ok()?.as_str().into())
}

/// Who it was, and what to do about that; without a remedy, that of the finding counts.
pub(super) struct Undone {
    pub(super) what: String,
    pub(super) remedy: Option<String>,
}

impl Undone {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Undone {
            what: what.into(),
            remedy: Some(remedy.into()),
        }
    }

    fn unknown(what: &str) -> Self {
        Undone {
            what: what.into(),
            remedy: None,
        }
    }
}

impl Judge<'_> {
    /// Who has made `/usr` writable.
    pub(super) fn who_opened_usr(&self, mount: &PlannedMount, top: &MountInfo) -> Undone {
        let path = &mount.rule.mount_point;
        if self.plan.mode != Mode::Strict {
            return Undone::unknown("");
        }
        // A bind has no line in fstab and no unit that could be another one.
        let has_own_file_system =
            top.mount_point == *path && !self.observed.mounts.is_self_bind(path);
        if has_own_file_system {
            if let Some(file) = self
                .files_of("usr.mount")
                .find(|file| file.mounts_writable())
                && !file.is_generated()
            {
                return Undone::new(
                    format!("{} mounts it without ro", file.path),
                    format!("write ro in its Options=, then {RELOAD}"),
                );
            }
            if let Owner::Fstab { line } = mount.owner
                && self.plan.usr_line_is_writable
            {
                return self.remounted(line, path);
            }
        }
        if self.was_closed(path) {
            return unknown(path, top);
        }
        self.never_closed(path, &[APPLY_SERVICE])
    }

    /// A remount takes the options of fstab, and that of systemd-remount-fs is only kept from it by a drop-in.
    fn remounted(&self, line: u32, path: &MountPoint) -> Undone {
        let write =
            "write ro in its options, then run /usr/lib/usr-policy/usr-policy-generator sync";
        let keeps = |file: &UnitFile| {
            file.is_drop_in
                && String::from_utf8_lossy(&file.text).contains("SYSTEMD_FSTAB=/run/systemd/")
        };
        let mut files = self.files_of(REMOUNT);
        if let Some(ours) = files
            .clone()
            .find(|file| file.is_generated() && keeps(file))
        {
            let name = ours.path.rsplit('/').next().unwrap_or_default();
            // Of two drop-ins with one name only the administrator's counts.
            let other = files.find(|file| {
                !file.is_generated() && file.is_drop_in && file.path.ends_with(&format!("/{name}"))
            });
            return match other {
                Some(other) => Undone::new(
                    format!(
                        "systemd-remount-fs applies {FSTAB}:{line}, which has no ro: {} hides what keeps it from that",
                        other.path
                    ),
                    format!("remove {}, then {RELOAD}", other.path),
                ),
                // Nor is a remount by hand told from one that took its options from there.
                None => Undone::new(
                    format!(
                        "by whom is not known; a remount of {path} without options of its own applies {FSTAB}:{line}, which has no ro"
                    ),
                    write,
                ),
            };
        }
        Undone::new(
            format!(
                "systemd-remount-fs applies {FSTAB}:{line}, which has no ro: the drop-in that keeps it from that is missing"
            ),
            write,
        )
    }

    /// Who has opened the package database.
    pub(super) fn who_opened_database(&self, path: &MountPoint) -> Undone {
        if self.plan.mode != Mode::Strict {
            return Undone::unknown("");
        }
        if self.was_closed(path)
            && let Some(place) = self.place(path)
            && let Some(top) = self.observed.mount_at(place)
        {
            return unknown(path, top);
        }
        let unit = unit_of(path).unwrap_or_default();
        self.never_closed(path, &[&unit, LOCK_SERVICE])
    }

    /// Why a unit of ours has not mounted what it was to mount.
    pub(super) fn who_left_out(&self, path: &MountPoint) -> Undone {
        let Some(unit) = unit_of(path).filter(|_| self.plan.mode == Mode::Strict) else {
            return Undone::unknown("");
        };
        if let Some(undone) = self.replaced(&unit) {
            return undone;
        }
        let changes =
            |file: &&UnitFile| !file.is_generated() && file.is_drop_in && !file.text.is_empty();
        match self.files_of(&unit).find(changes) {
            Some(file) => Undone::new(
                format!("{} changes {unit}", file.path),
                format!("look into {}", file.path),
            ),
            None if self.observed.undoers.has_generator == Some(false) => no_generator(),
            None => Undone::unknown("by whom is not known"),
        }
    }

    /// Who has merged extensions with a writable layer.
    pub(super) fn who_merged_writable(&self) -> Undone {
        let undoers = &self.observed.undoers;
        let asks = |value: &[u8]| is_mutable(value, true) == Some(true);
        for file in self.files_of(SYSEXT).filter(|file| !file.is_generated()) {
            let (assignments, _) = config::parse(&file.text);
            for one in assignments.iter().filter(|one| one.key == b"Environment") {
                let words = one.value.split(|&byte| byte == b' ' || byte == b'"');
                let mut values = words.filter_map(|word| word.strip_prefix(MUTABLE_MODE));
                if let Some(value) = values.find(|value| asks(value)) {
                    let (path, line) = (&file.path, one.line);
                    return Undone::new(
                        format!("{path}:{line} asks for it, with {}", Shown(value)),
                        format!("remove that line, {RELOAD}, and merge again"),
                    );
                }
            }
        }
        let mut files = undoers.sysext_conf.iter().rev();
        let found = files.find_map(|file| {
            let value = value(&file.text, "SysExt", "Mutable")?;
            Some((Shown(&file.path), value))
        });
        match found {
            Some((path, value)) if asks(&value) => Undone::new(
                format!("{path} asks for it, with Mutable={}", Shown(&value)),
                format!("write Mutable=no in {path}, and merge again"),
            ),
            _ => Undone::unknown(
                "no file asks for it: whoever merged them gave --mutable or SYSTEMD_SYSEXT_MUTABLE_MODE",
            ),
        }
    }

    fn files_of(&self, unit: &str) -> impl Iterator<Item = &UnitFile> + Clone {
        let files = self.observed.undoers.units.iter();
        let unit = String::from(unit);
        files.filter(move |file| file.unit == unit)
    }

    /// Whether another file stands in place of a unit of ours.
    fn replaced(&self, unit: &str) -> Option<Undone> {
        // The first one wins; where it is the generator's, ours is what systemd reads.
        let file = self.files_of(unit).find(|file| !file.is_drop_in)?;
        if file.masks() {
            return Some(Undone::new(
                format!("{} masks {unit}", file.path),
                format!("systemctl unmask {unit}, then systemctl start {unit}"),
            ));
        }
        (!file.is_generated()).then(|| {
            Undone::new(
                format!("{} stands in place of {unit}", file.path),
                format!("remove {}, then {RELOAD}", file.path),
            )
        })
    }

    fn was_closed(&self, path: &MountPoint) -> bool {
        let path = path.to_string();
        let (_, events) = self.since_soft_reboot();
        let mut events = events.iter();
        events.any(|event| {
            event.path == path && ["read-only", CLOSED, OPENED].contains(&event.result.as_str())
        })
    }

    /// Nothing of ours has closed it at this boot.
    fn never_closed(&self, path: &MountPoint, units: &[&str]) -> Undone {
        if let Some(undone) = units.iter().find_map(|unit| self.replaced(unit)) {
            return undone;
        }
        if self.observed.undoers.has_generator == Some(false) {
            return no_generator();
        }
        let path = path.to_string();
        let failed = |event: &&Event| event.path == path && event.result == "failed";
        if let Some(event) = self.observed.events.iter().find(failed) {
            return Undone::new(
                format!("usr-policy could not close it ({})", event.stage),
                "journalctl -b -t usr-policy-generator says why",
            );
        }
        Undone::unknown("nothing of usr-policy has closed it at this boot")
    }
}

/// Something of ours has closed it, and it is open: which layer is gone can be seen, and no more.
fn unknown(path: &MountPoint, top: &MountInfo) -> Undone {
    Undone::unknown(if top.mount_point == *path {
        "the read-only flag of its mount was taken away, by whom is not known"
    } else {
        "the mount that closed it is gone, by whom is not known"
    })
}

/// What the follower records when something is read-only again. Source: generator, `follow`.
const CLOSED: &str = "closed";

/// So that a change of unit files counts.
const RELOAD: &str = "systemctl daemon-reload";

fn no_generator() -> Undone {
    Undone::new(
        "systemd finds no generator of usr-policy: it is missing, or masked in /etc/systemd/system-generators",
        "make install, or remove what masks it; then boot again",
    )
}

/// `what`, and who it was where there is something to say.
pub(super) fn with(what: impl Into<String>, undone: &Undone) -> String {
    let what = what.into();
    if undone.what.is_empty() {
        what
    } else {
        format!("{what}; {}", undone.what)
    }
}

#[cfg(test)]
#[path = "undone_tests.rs"]
mod tests;
