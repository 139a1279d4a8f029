//! The rule for `/usr`.

use alloc::format;
use alloc::string::{String, ToString};

use super::judge::{Judge, Layer, Seconds};
use super::layers::Covered;
use super::open::{LET_IT_END, LOCK_OR_UNLOCK};
use super::system::provider;
use super::undone::with;
use super::{Caller, Done, Event, Topic, Verdict};
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::plan::{FSTAB, Owner, PlannedMount, Stage};
use crate::text::Shown;
use crate::unit::SYNC;

impl<'a> Judge<'a> {
    pub(super) fn usr(&mut self, mount: &PlannedMount) {
        let Some((place, read_only)) = self.judged(&mount.rule) else {
            return;
        };
        let path = &mount.rule.mount_point;
        let Some(top) = self.observed.mount_at(place) else {
            return self.not_in_table(path);
        };
        let sysext = top.is_sysext();
        if let Some(directory) = top.super_options.value("upperdir").filter(|_| sysext) {
            let undone = self.who_merged_writable();
            let what = format!(
                "extensions are merged with a writable layer over it, {}",
                Shown(directory)
            );
            let remedy = "systemd-sysext unmerge, then merge with --mutable=no".into();
            self.find(
                Verdict::Broken,
                Topic::Usr,
                path,
                with(what, &undone),
                undone.remedy.unwrap_or(remedy),
            );
            return;
        }
        if let Some(layer) = read_only
            && let Some(though) = self.closed_though_open(path, top, layer)
        {
            let what = format!("read-only, {though}");
            self.find(Verdict::Warning, Topic::Usr, path, what, LOCK_OR_UNLOCK);
        } else if let Some(layer) = read_only {
            self.usr_is_read_only(path, top, layer, sysext);
        } else if self.wanted().usr_is_open {
            self.find(
                Verdict::Warning,
                Topic::Usr,
                path,
                self.open(),
                "usr-policy lock",
            );
        } else if let Some(what) = self.waits_for_transaction() {
            self.find(Verdict::Warning, Topic::Usr, path, what, LET_IT_END);
        } else {
            let remedy = format!("run {SYNC}, or boot again");
            let undone = self.who_opened_usr(mount, top);
            let what = with(format!("writable{}", self.since_opened(path)), &undone);
            let what = match self.stack(place) {
                Some(stack) => format!("{what} ({stack})"),
                None => what,
            };
            let remedy = undone.remedy.unwrap_or(remedy);
            self.find(Verdict::Broken, Topic::Usr, path, what, remedy);
        }
        if let Owner::Fstab { line } = mount.owner
            && self.plan.usr_line_is_writable
        {
            self.find(
                Verdict::Warning,
                Topic::NextBoot,
                &format_args!("{FSTAB}:{line}"),
                "mounts /usr writable; only a drop-in keeps systemd-remount-fs from it",
                "write ro in its options",
            );
        }
    }

    pub(super) fn usr_is_read_only(
        &mut self,
        path: &MountPoint,
        top: &MountInfo,
        layer: Layer,
        sysext: bool,
    ) {
        // What an unmerge would bring back: another mount at /usr, or the one in which it lies.
        let beneath = self.index.by_id(top.parent_id);
        if sysext && !self.is_merged_well(path, beneath) {
            return;
        }
        let merged = if sysext {
            ", extensions merged over it"
        } else {
            ""
        };
        // What was recorded is about the flag of a mount: where that is gone something else keeps it read-only.
        let (earlier, events) = if top.is_read_only() {
            self.since_soft_reboot()
        } else {
            (&[][..], &[][..])
        };
        let is_made = |event: &&Event| event.path == "/usr" && event.result == Done::ReadOnly;
        let is_unlock = |event: &&Event| event.path == "/usr" && event.result == Done::Unlocked;
        let was_made = earlier.iter().any(|event| is_made(&event));
        // What closes after an unlock is neither late nor a repair.
        let mut was_unlocked = false;
        let mut made = events.iter().filter(|event| {
            let closes_it = was_unlocked;
            was_unlocked = !is_made(event) && (was_unlocked || is_unlock(event));
            is_made(event) && !closes_it
        });
        let first = made.next();
        let last = made.last();
        let merged = but_for_unlocks(events.iter().filter(is_unlock).count()) + merged;
        let is = |event: &Event, stage: Stage| event.stage == stage.to_string();
        let before_switch = |event: &Event| is(event, Stage::Early) || is(event, Stage::Late);
        if let Some(event) = last
            .or(first)
            .filter(|event| is(event, Stage::Host) || is(event, Stage::Sync))
        {
            let since = Seconds(event.boottime);
            let was_closed = was_made
                || first.is_some_and(|first| before_switch(first) || is(first, Stage::Init));
            let (before, remedy) = if was_closed {
                (
                    ": something had opened it again, and it is closed",
                    "find what mounts it writable: a remount by hand, or a line in fstab without ro".into(),
                )
            } else {
                (",", self.way_into_the_initramfs())
            };
            let by = how_late(event, events);
            let what = format!(
                "read-only, but late{before} since {since} after the kernel started{merged} ({by})"
            );
            self.find(Verdict::Warning, Topic::Usr, path, what, remedy);
        } else if was_made {
            let what = format!("read-only since the soft-reboot{merged}");
            self.find(Verdict::Holds, Topic::Usr, path, what, "");
        } else if let Some(event) =
            first.filter(|event| before_switch(event) || is(event, Stage::Init))
        {
            let before = if before_switch(event) {
                "the initramfs"
            } else {
                "pre-init"
            };
            let what = format!(
                "read-only since {before}{merged} ({} stage, {} after the kernel started)",
                Shown(event.stage.as_bytes()),
                Seconds(event.boottime)
            );
            self.find(Verdict::Holds, Topic::Usr, path, what, "");
        } else {
            let table = &self.observed.mounts;
            let beneath = table.by_id(top.parent_id).filter(|_| sysext);
            // Of extensions that lie over it, the flags are not its own.
            let layer = match beneath {
                Some(beneath) if !beneath.mount_options.has("ro") => Layer::FileSystem,
                _ => layer,
            };
            let those = table.stack_at(path).into_iter();
            let by = provider(those.chain(beneath.or(Some(top))), layer);
            self.find(
                Verdict::Holds,
                Topic::Usr,
                path,
                format!("read-only {by}{merged}"),
                "",
            );
        }
    }

    /// Whether extensions are merged once, over something that is read-only; says so where they are not.
    fn is_merged_well(&mut self, path: &MountPoint, beneath: Option<&MountInfo>) -> bool {
        let Some(beneath) = beneath else {
            let what = "read-only while extensions are merged; what lies beneath them is not in the mount table of PID 1, and may be writable";
            self.find(
                Verdict::Unknown,
                Topic::Usr,
                path,
                what,
                "systemd-sysext unmerge, and ask again",
            );
            return false;
        };
        let covered = match self.covered_by_extensions(path, beneath) {
            Covered::Contradiction(what) => {
                self.contradiction(path, what);
                return false;
            }
            Covered::Unknown => {
                let what = "read-only while extensions are merged; what lies beneath them cannot be seen, and may be writable";
                let remedy = match self.observed.caller {
                    Caller::Root => "systemd-sysext unmerge, and ask again",
                    Caller::Other => self.observed.caller.way_to_see(),
                };
                self.find(Verdict::Unknown, Topic::Usr, path, what, remedy);
                return false;
            }
            covered => covered,
        };
        if covered == Covered::Writable {
            let what = "read-only while extensions are merged, but writable beneath them";
            self.find(
                Verdict::Broken,
                Topic::Usr,
                path,
                what,
                format!("systemd-sysext unmerge, then {SYNC}"),
            );
            return false;
        }
        if self
            .observed
            .mounts
            .stack_at(path)
            .iter()
            .filter(|mount| mount.is_sysext())
            .count()
            > 1
        {
            let what = "the overlay of systemd-sysext is mounted more than once";
            self.find(
                Verdict::Broken,
                Topic::Usr,
                path,
                what,
                "systemd-sysext unmerge until it is gone, then merge again",
            );
            return false;
        }
        true
    }

    /// What was recorded up to the last soft-reboot, and after it; without one everything is after it.
    pub(super) fn since_soft_reboot(&self) -> (&'a [Event], &'a [Event]) {
        let events = &self.observed.events;
        let mut starts = events
            .iter()
            .enumerate()
            .filter(|(_, event)| event.result == Done::Start);
        match (starts.next(), starts.next_back()) {
            (Some(_), Some((last, _))) => events.split_at(last + 1),
            _ => (&[], events),
        }
    }

    /// Since when a path is open, where that was seen.
    pub(super) fn since_opened(&self, path: &MountPoint) -> String {
        let path = path.to_string();
        let events = self.observed.events.iter();
        match events.rev().find(|event| event.path == path) {
            Some(event) if event.result == Done::Opened => {
                let since = Seconds(event.boottime);
                format!(", since something opened it {since} after the kernel started")
            }
            Some(event) if event.result == Done::Gone => {
                let since = Seconds(event.boottime);
                format!(", since something took it away {since} after the kernel started")
            }
            _ => String::new(),
        }
    }
}

/// Which of the late ones made `/usr` read-only. The host stage comes before local-fs.target when it runs for the first time;
/// it and `sync` run again at any time.
fn how_late(event: &Event, events: &[Event]) -> String {
    let mut after = events.iter().skip_while(|one| *one != event);
    let is_host = event.stage == Stage::Host.to_string();
    if is_host && after.any(|one| one.result == Done::Start) {
        "host stage, before local-fs.target".into()
    } else {
        let stage = if is_host { "host stage" } else { "sync" };
        format!("{stage}, when services may have been running")
    }
}

fn but_for_unlocks(number: usize) -> String {
    match number {
        0 => String::new(),
        1 => ", but for an unlock by hand".into(),
        several => format!(", but for {several} unlocks by hand"),
    }
}
