//! Who has undone a rule that does not hold, as far as there is evidence.

use alloc::format;
use alloc::string::{String, ToString};

use super::judge::Judge;
use super::next_boot::{Author, REMOUNT_SERVICE, UnitPart};
use super::sysext::is_mutable;
use super::{Done, Event, Follower, Generator, Observed};
use crate::lock::{Manual, Why};
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::plan::{FSTAB, Owner, PlannedMount};
use crate::policy::Mode;
use crate::text::Shown;
use crate::unit::{APPLY_SERVICE, KEEPS_USR_CLOSED, LOCK_SERVICE, SYNC};
use crate::unit_name::mount_unit;

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
        if let Some(undone) = self.opened_by_us(path) {
            return undone;
        }
        // A bind has no line in fstab and no unit that could be another one.
        let has_own_file_system =
            top.mount_point == *path && !self.observed.mounts.is_self_bind(path);
        if has_own_file_system {
            let writable = self
                .unit_named("usr.mount")
                .and_then(|unit| unit.mounts_writable());
            if let Some(file) =
                writable.filter(|file| !matches!(file.author(), Author::Generator | Author::Vendor))
            {
                return Undone::new(
                    format!("{} mounts it without ro", file.path),
                    format!("write ro in its Options=, then {RELOAD}"),
                );
            }
            // What nothing has closed, nobody has opened either.
            if let Owner::Fstab { line } = mount.owner
                && self.plan.usr_line_is_writable
                && self.was_closed(path)
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
        let write = || format!("write ro in its options, then run {SYNC}");
        // A remount by hand is not told from one that took its options from there.
        let by_anybody = || {
            Undone::new(
                format!(
                    "by whom is not known; a remount of {path} without options of its own applies {FSTAB}:{line}, which has no ro"
                ),
                write(),
            )
        };
        let service = self.unit_named(REMOUNT_SERVICE);
        let is_masked = service.is_some_and(|service| service.mask().is_some());
        if is_masked || self.observed.system.runs_systemd == Some(false) {
            return by_anybody();
        }
        let applies = format!("systemd-remount-fs applies {FSTAB}:{line}, which has no ro");
        // Of two drop-ins with one name only the administrator's counts.
        let drop_in = self
            .files_of(REMOUNT_SERVICE)
            .find(|file| file.path.ends_with(KEEPS_USR_CLOSED));
        match drop_in {
            Some(file) if file.author() == Author::Generator => by_anybody(),
            drop_in => match (self.no_generator(), drop_in) {
                // There is nothing that a drop-in could hide.
                (Some(Undone { what, remedy }), _) => Undone {
                    what: format!("{applies}, and nothing keeps it from that: {what}"),
                    remedy,
                },
                (None, Some(file)) => Undone::new(
                    format!("{applies}: {} hides what keeps it from that", file.path),
                    way_to_remove(file),
                ),
                (None, None) => Undone::new(
                    format!("{applies}: the drop-in that keeps it from that is missing"),
                    write(),
                ),
            },
        }
    }

    /// What is to be said where PID 1 is a systemd that finds no generator of ours.
    fn no_generator(&self) -> Option<Undone> {
        let system = &self.observed.system;
        if system.runs_systemd == Some(false) {
            return None;
        }
        let none = "systemd finds no generator of usr-policy:";
        match &system.generator {
            Generator::Masked(path) => {
                let remedy = format!("{}, then boot again", way_to_unmask(path));
                Some(Undone::new(format!("{none} {path} is no program"), remedy))
            }
            Generator::Missing => Some(Undone::new(
                format!("{none} it is missing"),
                "make install, then boot again",
            )),
            Generator::Ours | Generator::Unknown => None,
        }
    }

    /// Whether one of ours has opened it on purpose, nothing has closed it since, and it is to be closed again.
    fn opened_by_us(&self, path: &MountPoint) -> Option<Undone> {
        let path = path.to_string();
        let (_, events) = self.since_soft_reboot();
        let last = events.iter().rev().find(|event| event.path == path);
        let event = last.filter(|event| event.result == Done::Unlocked)?;
        let Observed {
            state,
            now,
            follower,
            ..
        } = self.observed;
        if event.stage == FOLLOW {
            return (self.wanted().why == Why::NoGuard).then(|| {
                Undone::unknown(
                    "usr-policy opened it after an unmerge, while the guard hook was there; it is no longer",
                )
            });
        }
        let is_over =
            matches!(state.manual, Manual::Unlock { until: Some(until) } if until <= *now);
        Some(Undone::unknown(match (is_over, follower) {
            (true, Follower::Dead) => {
                "usr-policy unlock opened it, its time is over and nobody follows"
            }
            (true, _) => "usr-policy unlock opened it, and its time is over",
            (false, _) => "usr-policy unlock opened it, and nothing has closed it since",
        }))
    }

    /// Who has opened the package database.
    pub(super) fn who_opened_database(&self, path: &MountPoint) -> Undone {
        if self.plan.mode != Mode::Strict {
            return Undone::unknown("");
        }
        if let Some(undone) = self.opened_by_us(path) {
            return undone;
        }
        if self.was_closed(path)
            && let Some(place) = self.place(path)
            && let Some(top) = self.observed.mount_at(place)
        {
            let real = self.observed.database_at.as_ref().unwrap_or(path);
            return unknown(real, top);
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
        let changes = |file: &&UnitPart| {
            file.author() != Author::Generator && file.is_drop_in && !file.text.is_empty()
        };
        if let Some(file) = self.files_of(&unit).find(changes) {
            return Undone::new(
                format!("{} changes {unit}", file.path),
                format!("look into {}", file.path),
            );
        }
        let none = self.no_generator();
        none.unwrap_or_else(|| Undone::unknown("by whom is not known"))
    }

    /// Who has merged extensions with a writable layer.
    pub(super) fn who_merged_writable(&self) -> Undone {
        let sysext = &self.observed.sysext;
        let asks = |value: &[u8]| is_mutable(value, true) == Some(true);
        match (self.mode_of_service(), sysext.configured_mode()) {
            (Some(mode), _) if asks(&mode.value) => Undone::new(
                format!("{} asks for it, with {}", mode.from, Shown(&mode.value)),
                format!("take that out of {}, {RELOAD}, and merge again", mode.from),
            ),
            _ if sysext.has_no_answer => Undone::unknown("by whom is not known"),
            (_, Some((mode, path))) if asks(&mode) => Undone::new(
                format!("{path} asks for it, with Mutable={}", Shown(&mode)),
                format!("write Mutable=no in {path}, and merge again"),
            ),
            _ => Undone::unknown(
                "no file asks for it: whoever merged them gave --mutable or SYSTEMD_SYSEXT_MUTABLE_MODE",
            ),
        }
    }

    /// The files of a unit that are evidence: what a vendor ships has undone nothing.
    fn files_of(&self, unit: &str) -> impl Iterator<Item = &UnitPart> {
        let files = self
            .unit_named(unit)
            .into_iter()
            .flat_map(|unit| &unit.parts);
        files.filter(|file| file.author() != Author::Vendor)
    }

    /// Whether another file stands in place of a unit of ours.
    fn replaced(&self, unit: &str) -> Option<Undone> {
        let file = self.files_of(unit).find(|file| !file.is_drop_in)?;
        if file.text.is_empty() {
            return Some(Undone::new(
                format!("{} masks {unit}", file.path),
                format!("systemctl unmask {unit}, then systemctl start {unit}"),
            ));
        }
        // Where ours is, ours is what systemd reads.
        (file.author() != Author::Generator).then(|| {
            Undone::new(
                format!("{} stands in place of {unit}", file.path),
                way_to_remove(file),
            )
        })
    }

    fn was_closed(&self, path: &MountPoint) -> bool {
        let path = path.to_string();
        let (_, events) = self.since_soft_reboot();
        let mut results = events
            .iter()
            .filter_map(|event| (event.path == path).then_some(event.result));
        results.any(|result| matches!(result, Done::ReadOnly | Done::Closed | Done::Opened))
    }

    /// Nothing of ours has closed it at this boot.
    fn never_closed(&self, path: &MountPoint, units: &[&str]) -> Undone {
        // Elsewhere nobody reads units.
        if self.observed.system.runs_systemd != Some(false)
            && let Some(undone) = units.iter().find_map(|unit| self.replaced(unit))
        {
            return undone;
        }
        if let Some(undone) = self.no_generator() {
            return undone;
        }
        let path = path.to_string();
        let failed = |event: &&Event| event.path == path && event.result == Done::Failed;
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

/// Where systemd's own and what `make install` puts there lies, with the slash at its end.
const INSTALLED: &str = "/usr/lib/systemd/";

/// What to do about something that stands in place of the generator.
pub(super) fn way_to_unmask(path: &str) -> String {
    if path.starts_with(INSTALLED) {
        "make install".into()
    } else {
        format!("rm {path}")
    }
}

/// The stage under which the follower records what it does.
const FOLLOW: &str = "follow";

/// So that a change of unit files counts.
const RELOAD: &str = "systemctl daemon-reload";

/// What a generator has written comes back with the next reload.
fn way_to_remove(file: &UnitPart) -> String {
    let path = &file.path;
    match file.author() {
        Author::EarlyGenerator => format!(
            "find the generator that writes {path}, and mask it in /etc/systemd/system-generators; then {RELOAD}"
        ),
        _ => format!("remove {path}, then {RELOAD}"),
    }
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
