//! The rules for the package database and for what is in memory.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::judge::Judge;
use super::open::{LET_IT_END, LOCK_OR_UNLOCK};
use super::undone::with;
use super::{Topic, Verdict};
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::plan::{FSTAB, PlannedMount};
use crate::policy::{Role, Rule, Tmpfs};
use crate::unit::SYNC;

impl<'a> Judge<'a> {
    pub(super) fn database(&mut self, rule: &Rule) {
        let Some((place, read_only)) = self.judged(rule) else {
            return;
        };
        let path = &rule.mount_point;
        let real = self.observed.database_at.as_ref().unwrap_or(path);
        if read_only.is_none() && self.wanted().usr_is_open {
            return self.find(
                Verdict::Warning,
                Topic::Database,
                path,
                self.open(),
                "usr-policy lock",
            );
        }
        if read_only.is_none()
            && let Some(what) = self.waits_for_transaction()
        {
            return self.find(Verdict::Warning, Topic::Database, path, what, LET_IT_END);
        }
        if read_only.is_none() && !self.wanted().is_locked {
            // The pair says more of it.
            let what = format!("open: {}", self.wanted().why);
            return self.find(Verdict::Holds, Topic::Database, path, what, "");
        }
        if read_only.is_none() {
            let (what, remedy) = if let Some(who) = &self.observed.at_work {
                let what = format!(
                    "writable: {who} is changing packages; it is locked as soon as that ends"
                );
                (what, LET_IT_END.into())
            } else {
                let undone = self.who_opened_database(path);
                let what = format!(
                    "writable, although it is to be locked{}",
                    self.since_opened(path)
                );
                let remedy = format!("run {SYNC}");
                (with(what, &undone), undone.remedy.unwrap_or(remedy))
            };
            self.find(Verdict::Broken, Topic::Database, path, what, remedy);
        } else if self.observed.mounts.is_doubled(real) {
            self.find(
                Verdict::Broken,
                Topic::Database,
                path,
                "locked more than once; one unlock would not open it",
                "umount it once for each lock too many",
            );
        } else if let Some(hole) = self.hole_in(real) {
            self.find(
                Verdict::Broken,
                Topic::Database,
                path,
                format!("locked, but {hole} is a writable mount of its own below it"),
                format!("run {SYNC}, and write ro in its line of {FSTAB}"),
            );
        } else if let (Some(layer), Some(top)) = (read_only, self.observed.mount_at(place))
            && let Some(though) = self.closed_though_open(path, top, layer)
        {
            let what = format!("locked, {though}");
            self.find(
                Verdict::Warning,
                Topic::Database,
                path,
                what,
                LOCK_OR_UNLOCK,
            );
        } else {
            self.find(
                Verdict::Holds,
                Topic::Database,
                path,
                "locked: pacman can read it and change nothing",
                "",
            );
        }
    }

    /// A mount below a path that can be written and is seen.
    pub(super) fn hole_in(&self, path: &MountPoint) -> Option<&'a MountPoint> {
        let mut holes = self.index.holes_below(path);
        holes.next().map(|mount| &mount.mount_point)
    }

    pub(super) fn read_only(&mut self, mount: &PlannedMount) {
        match self.judged(&mount.rule) {
            None => {}
            Some((place, Some(_))) => match self.hole_in(&place.path) {
                None => self.find(Verdict::Holds, Topic::Path, &place.path, "read-only", ""),
                Some(hole) => {
                    let what =
                        format!("read-only, but {hole} is a writable mount of its own below it");
                    let remedy = format!("mount {hole} read-only, or give it a rule of its own");
                    self.find(Verdict::Warning, Topic::Hole, &place.path, what, remedy);
                }
            },
            Some((place, None)) => {
                let found = format!("writable{}", self.since_opened(&place.path));
                self.not_mounted(Topic::of(&mount.rule), place, &found);
            }
        }
    }

    pub(super) fn tmpfs(&mut self, mount: &PlannedMount, options: Tmpfs) {
        let Some(place) = self.seen(&mount.rule) else {
            return;
        };
        let path = &mount.rule.mount_point;
        let Some(top) = self.observed.mount_at(place) else {
            return self.not_in_table(path);
        };
        if top.fs_type == b"tmpfs" && top.mount_point != *path {
            // A volatile /var, for instance: it was empty when the unit was to be started.
            let what = format!(
                "in memory, on the tmpfs at {}; size and options are of that",
                top.mount_point
            );
            let remedy = "give it a tmpfs of its own in /etc/fstab, where size and options matter";
            return self.find(Verdict::Warning, Topic::Memory, path, what, remedy);
        }
        if top.fs_type != b"tmpfs" {
            if mount.rule.role == Role::Cache && self.wanted().usr_is_open {
                return self.find(
                    Verdict::Warning,
                    Topic::Memory,
                    path,
                    self.open(),
                    "usr-policy lock",
                );
            }
            if mount.rule.role == Role::Cache
                && let Some(what) = self.waits_for_transaction()
            {
                return self.find(Verdict::Warning, Topic::Memory, path, what, LET_IT_END);
            }
            let found = format!("no tmpfs{}", self.since_opened(path));
            return self.not_mounted(Topic::of(&mount.rule), place, &found);
        }
        let (differences, other_share) = self.tmpfs_differences(top, options);
        if differences.is_empty() {
            match other_share {
                None => self.find(
                    Verdict::Holds,
                    Topic::Memory,
                    path,
                    match self.fill_of(path) {
                        Some(fill) => format!("tmpfs {options}, {fill}"),
                        None => format!("tmpfs {options}"),
                    },
                    "",
                ),
                Some(what) => {
                    let remedy = format!("mount -o remount,size={} {path}", options.size);
                    self.find(Verdict::Warning, Topic::Memory, path, what, remedy);
                }
            }
        } else {
            let what = format!("a tmpfs, but with {}", differences.join(", "));
            let undone = self.who_left_out(path);
            let remedy = format!("find who mounted it; it should have {options}");
            self.find(
                Verdict::Broken,
                Topic::Memory,
                path,
                with(what, &undone),
                undone.remedy.unwrap_or(remedy),
            );
        }
    }

    /// The options that are not as they should be; in the second a size that is another share of today's memory.
    pub(super) fn tmpfs_differences(
        &self,
        top: &MountInfo,
        options: Tmpfs,
    ) -> (Vec<String>, Option<String>) {
        let mut differences = Vec::new();
        let flags = [
            ("nosuid", true),
            ("nodev", true),
            ("noexec", options.noexec),
        ];
        for (flag, wanted) in flags {
            if wanted && !top.mount_options.has(flag) {
                differences.push(format!("no {flag}"));
            }
        }
        if top.is_read_only() {
            differences.push("no write access".into());
        }
        // The kernel leaves out what is its own default: mode=1777, half of the memory. Source: mm/shmem.c
        // (shmem_show_options, shmem_default_max_blocks).
        let mode = top
            .super_options
            .value("mode")
            .map_or(Some(0o1777), |text| {
                u16::from_str_radix(core::str::from_utf8(text).ok()?, 8).ok()
            });
        if mode != Some(options.mode) {
            differences.push(format!("mode={:04o}", mode.unwrap_or_default()));
        }
        let wanted = self
            .observed
            .memory
            .and_then(|memory| options.size.bytes(memory));
        let actual = match top.super_options.value("size") {
            None => self.observed.memory.map(|memory| memory / 2),
            Some(text) => core::str::from_utf8(text)
                .ok()
                .and_then(|text| text.strip_suffix('k')?.parse::<u64>().ok())
                .and_then(|number| number.checked_mul(1024)),
        };
        let mut other_share = None;
        match (wanted, actual) {
            (Some(_), Some(0)) => differences.push("no size limit".into()),
            // A percentage counts the memory of the moment of mounting, in whole pages; /proc/meminfo counts it now.
            (Some(wanted), Some(actual)) if wanted.abs_diff(actual) > wanted / 50 + 4096 => {
                let (wanted, actual) = (wanted / 1024, actual / 1024);
                if options.size.is_share() {
                    other_share = Some(format!(
                        "a tmpfs with size={actual}k, and {} of the memory would be {wanted}k: the memory has changed since, or somebody else mounted it",
                        options.size
                    ));
                } else {
                    differences.push(format!("size={actual}k"));
                }
            }
            _ => {}
        }
        (differences, other_share)
    }
}
