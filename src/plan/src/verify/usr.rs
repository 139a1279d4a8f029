//! The rule for `/usr`.

use alloc::format;
use alloc::string::{String, ToString};

use super::judge::{Judge, Layer, Seconds};
use super::system::provider;
use super::{Event, OPENED, START, Topic, UNLOCKED, Verdict};
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::plan::{FSTAB, Owner, PlannedMount, Stage};

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
        if sysext && top.super_options.value("upperdir").is_some() {
            let what = "extensions are merged with a writable layer over it";
            self.find(
                Verdict::Broken,
                Topic::Usr,
                path,
                what,
                "systemd-sysext unmerge, then merge with --mutable=no",
            );
            return;
        }
        if let Some(layer) = read_only {
            self.usr_is_read_only(path, top, layer, sysext);
        } else if self.wanted().usr_is_open {
            self.find(
                Verdict::Warning,
                Topic::Usr,
                path,
                self.open(),
                "usr-policy lock",
            );
        } else {
            let remedy = "run /usr/lib/usr-policy/usr-policy-generator sync, or boot again";
            let what = format!("writable{}", self.since_opened(path));
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

    /// Says what is wrong with merged extensions and what lies beneath them, if something is.
    fn is_merged_badly(&mut self, path: &MountPoint, top: &MountInfo) -> bool {
        // What an unmerge would bring back: another mount at /usr, or the one in which it lies.
        let beneath = self.observed.mounts.by_id(top.parent_id);
        let stack = self.observed.mounts.stack_at(path);
        let overlays = stack.iter().filter(|mount| mount.is_sysext()).count();
        let (what, remedy) = if !beneath.is_some_and(MountInfo::is_read_only) {
            (
                "read-only while extensions are merged, but writable beneath them",
                "systemd-sysext unmerge; /usr is closed with it",
            )
        } else if overlays > 1 {
            (
                "the overlay of systemd-sysext is mounted more than once",
                "systemd-sysext unmerge until it is gone, then merge again",
            )
        } else {
            return false;
        };
        self.find(Verdict::Broken, Topic::Usr, path, what, remedy);
        true
    }

    pub(super) fn usr_is_read_only(
        &mut self,
        path: &MountPoint,
        top: &MountInfo,
        layer: Layer,
        sysext: bool,
    ) {
        if sysext && self.is_merged_badly(path, top) {
            return;
        }
        let merged = if sysext {
            ", extensions merged over it"
        } else {
            ""
        };
        let (earlier, events) = self.since_soft_reboot();
        let is_made = |event: &&Event| event.path == "/usr" && event.result == "read-only";
        let is_unlock = |event: &&Event| event.path == "/usr" && event.result == UNLOCKED;
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
                    "find what mounts it writable: a remount by hand, or a line in fstab without ro",
                )
            } else {
                (",", self.way_into_the_initramfs())
            };
            let what = format!(
                "read-only, but late{before} since {since} after the kernel started{merged}"
            );
            self.find(Verdict::Warning, Topic::Usr, path, what, remedy);
        } else if was_made {
            let what = format!("read-only since the soft-reboot{merged}");
            self.find(Verdict::Holds, Topic::Usr, path, what, "");
        } else if first.is_some_and(before_switch) {
            self.find(
                Verdict::Holds,
                Topic::Usr,
                path,
                format!("read-only since the initramfs{merged}"),
                "",
            );
        } else if first.is_some_and(|event| is(event, Stage::Init)) {
            self.find(
                Verdict::Holds,
                Topic::Usr,
                path,
                format!("read-only since pre-init{merged}"),
                "",
            );
        } else {
            let table = &self.observed.mounts;
            let beneath = table.by_id(top.parent_id).filter(|_| sysext);
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

    /// What was recorded up to the last soft-reboot, and after it; without one everything is after it.
    pub(super) fn since_soft_reboot(&self) -> (&'a [Event], &'a [Event]) {
        let events = &self.observed.events;
        let mut starts = events
            .iter()
            .enumerate()
            .filter(|(_, event)| event.result == START);
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
            Some(event) if event.result == OPENED => {
                let since = Seconds(event.boottime);
                format!(", since something opened it {since} after the kernel started")
            }
            _ => String::new(),
        }
    }
}

fn but_for_unlocks(number: usize) -> String {
    match number {
        0 => String::new(),
        1 => ", but for an unlock by hand".into(),
        several => format!(", but for {several} unlocks by hand"),
    }
}
