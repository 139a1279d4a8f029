//! What is open on purpose, and what is not although it is to be.

use alloc::format;
use alloc::string::String;
use core::fmt;

use super::judge::{Judge, Layer};
use super::{Done, Follower};
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::plan::read_only_by_nature;
use crate::policy::Role;

/// What to do about what is closed and was to be open.
pub(super) const LOCK_OR_UNLOCK: &str =
    "usr-policy lock, to close everything, or usr-policy unlock again";

/// What to do about a transaction for whose end it is waited.
pub(super) const LET_IT_END: &str = "let it end";

impl Judge<'_> {
    /// What is open on purpose, and until when.
    pub(super) fn open(&self) -> String {
        let Some(until) = self.wanted().until else {
            return "open by usr-policy unlock, until the next lock, merge or boot".into();
        };
        let left = until.saturating_sub(self.observed.now);
        let at = self
            .observed
            .clock
            .and_then(|clock| clock.checked_add(left));
        let at = at.and_then(|at| Utc::new(at / 1_000_000));
        let at = at.map(|at| format!(", until {at}"));
        let seconds = left / 1_000_000;
        format!(
            "open for another {seconds} s{}, by usr-policy unlock",
            at.unwrap_or_default()
        )
    }

    /// Why what an unlock has opened is open still, although that is over: nothing is closed under a transaction. `None` where
    /// none is at work, where somebody else has opened `/usr`, and where nobody would close it.
    pub(super) fn waits_for_transaction(&self) -> Option<String> {
        let who = self.observed.at_work.as_ref()?;
        let mut events = self.observed.events.iter().rev();
        let last = events.find(|event| event.path == "/usr")?;
        let is_left_open = last.result == Done::Unlocked
            && self.is_read_only(Role::Usr) == Some(false)
            && self.observed.follower != Follower::Dead
            && self.observed.system.runs_systemd != Some(false);
        is_left_open.then(|| {
            format!("still open: usr-policy unlock is over, but {who} is changing packages; it is closed as soon as that ends")
        })
    }

    /// What an unlock has on record for a place that is closed all the same: it was ended half-way, or somebody else closed the
    /// place. `None` where nothing is on record, where an unlock opens nothing, and while one of our programs is at work.
    pub(super) fn closed_though_open(
        &self,
        path: &MountPoint,
        top: &MountInfo,
        layer: Layer,
    ) -> Option<String> {
        if !self.wanted().usr_is_open || self.observed.is_changing || top.is_sysext() {
            return None;
        }
        let is_in_another = top.mount_point != *path || self.observed.mounts.is_self_bind(path);
        let is_by_nature = read_only_by_nature(top).is_some()
            || (layer == Layer::FileSystem && !top.super_options.has("ro"))
            || (is_in_another && top.super_options.has("ro"));
        (!is_by_nature).then(|| format!("although the lock table says {}", self.open()))
    }
}

/// A point in time, RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Utc(u64);

/// The first second that has no four digits for its year, and so no words in RFC 3339, since 1970.
pub const YEAR_10_000: u64 = 253_402_300_800;

const DAY: u64 = 86_400;

impl Utc {
    /// From seconds since 1970; `None` where RFC 3339 has no words for it.
    fn new(seconds: u64) -> Option<Self> {
        (seconds < YEAR_10_000).then_some(Utc(seconds))
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut days, second) = (self.0 / DAY, self.0 % DAY);
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let mut year = 1970;
        while days >= 365 + u64::from(is_leap(year)) {
            days -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let february = 28 + u64::from(is_leap(year));
        let mut month = 1;
        for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let day = days + 1;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::super::tests::{PACMAN, machine, plan, says};
    use super::super::{Access, Event, Report, Verdict, report};
    use super::*;
    use crate::lock::{Manual, State};

    const CLOSED: &str = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n";

    fn unlocked(table: &str, is_changing: bool) -> Report {
        let plan = plan("usrpolicy=strict");
        let mut seen = machine(&plan, table);
        seen.now = 5_000_000;
        seen.clock = Some(1_700_000_000_999_999);
        seen.is_changing = is_changing;
        seen.state = State {
            manual: Manual::Unlock {
                until: Some(65_000_000),
            },
            ..State::default()
        };
        report(&plan, &seen)
    }

    const OPEN: &str = "open for another 60 s, until 2023-11-14T22:14:20Z, by usr-policy unlock";

    #[test]
    fn what_is_open_says_until_when() {
        let report = unlocked("1 0 0:1 / / rw - ext4 a rw\n", false);
        says(&report, Verdict::Warning, "/usr", OPEN);
        says(&report, Verdict::Warning, "/var/lib/pacman", OPEN);
    }

    #[test]
    fn what_an_unlock_has_on_record_and_is_closed_is_said() {
        let report = unlocked(&format!("{CLOSED}{PACMAN}"), false);
        for (path, what) in [("/usr", "read-only"), ("/var/lib/pacman", "locked")] {
            let what = format!("{what}, although the lock table says {OPEN}");
            says(&report, Verdict::Warning, path, &what);
        }
    }

    #[test]
    fn what_an_unlock_does_not_open_and_what_it_is_about_to_open_is_not_said() {
        let erofs = format!("1 0 0:1 / / rw - ext4 a rw\n2 1 0:5 / /usr ro - erofs b ro\n{PACMAN}");
        let root = "1 0 0:1 / / ro - ext4 a ro\n2 1 0:1 /usr /usr ro - ext4 a ro\n";
        let merged =
            format!("{CLOSED}{PACMAN}3 2 0:3 / /usr ro - overlay sysext ro,lowerdir=/usr\n");
        let cases = [
            (format!("{CLOSED}{PACMAN}"), true),
            (erofs, false),
            (root.to_string(), false),
            (merged, false),
        ];
        for (table, is_changing) in cases {
            let report = unlocked(&table, is_changing);
            let says_it = report.findings.iter().any(|finding| {
                finding.subject == "/usr" && finding.what.contains("although the lock table")
            });
            assert!(!says_it, "{table}{report:#?}");
        }
    }

    #[test]
    fn only_what_an_unlock_has_left_open_is_waited_for_and_only_where_somebody_waits() {
        let plan = plan("usrpolicy=strict");
        for (last, follower, verdict) in [
            (Done::Unlocked, Follower::Alive, Verdict::Warning),
            (Done::Unlocked, Follower::Unknown, Verdict::Warning),
            (Done::Unlocked, Follower::Dead, Verdict::Broken),
            // Somebody else has opened it, and a package manager runs.
            (Done::Opened, Follower::Alive, Verdict::Broken),
            (Done::ReadOnly, Follower::Alive, Verdict::Broken),
        ] {
            let mut seen = machine(&plan, "1 0 0:1 / / rw - ext4 a rw\n");
            seen.at_work = Some("pacman (pid 7)".to_string());
            seen.follower = follower;
            seen.events = [Event {
                boottime: 1,
                stage: "unlock".to_string(),
                path: "/usr".to_string(),
                result: last,
            }]
            .into();
            let report = report(&plan, &seen);
            for path in ["/usr", "/var/lib/pacman"] {
                let found = report.findings.iter().find(|found| found.subject == path);
                let found = found.map(|found| found.verdict);
                assert_eq!(found, Some(verdict), "{path} {last} {follower:?}");
            }
        }
    }

    #[test]
    fn a_subvolume_that_is_read_only_by_its_property_is_not_closed_by_an_unlock_that_failed() {
        let plan = plan("usrpolicy=strict");
        let mut seen = machine(&plan, "1 0 0:1 / / rw - btrfs a rw\n");
        seen.state.manual = Manual::Unlock { until: None };
        for place in &mut seen.places {
            place.access = Access::ReadOnly;
        }
        let report = report(&plan, &seen);
        says(&report, Verdict::Holds, "/usr", "read-only");
    }

    #[test]
    fn a_point_in_time_is_that_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (YEAR_10_000 - 1, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Utc(seconds).to_string(), text);
        }
        assert_eq!(Utc::new(YEAR_10_000), None);
    }
}
