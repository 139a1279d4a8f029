//! How full what is in memory is.

use alloc::format;
use core::fmt;

use super::judge::Judge;
use super::{Topic, Verdict};
use crate::mount_point::MountPoint;

/// From this share on, in percent, there is hardly room left.
const NEARLY_FULL: u64 = 90;

/// What a tmpfs can hold, and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// The path of the rule.
    pub path: MountPoint,
    /// Its upper bound, in bytes; 0 where it has none.
    pub size: u64,
    /// What of that is used, in bytes.
    pub used: u64,
    /// How many files and directories it may hold; 0 where it has no bound.
    pub inodes: u64,
    /// How many it holds.
    pub used_inodes: u64,
}

impl Fill {
    fn is_nearly_full(&self) -> bool {
        is_most(self.used, self.size) || is_most(self.used_inodes, self.inodes)
    }
}

fn is_most(used: u64, of: u64) -> bool {
    of != 0 && u128::from(used) * 100 >= u128::from(of) * u128::from(NEARLY_FULL)
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes / (1024 * 1024);
        match self.size {
            0 => write!(f, "{} MiB used", mebibytes(self.used))?,
            size => write!(
                f,
                "{} of {} MiB used",
                mebibytes(self.used),
                mebibytes(size)
            )?,
        }
        // Nobody thinks of them before they are missing.
        if is_most(self.used_inodes, self.inodes) {
            write!(f, ", {} of {} inodes", self.used_inodes, self.inodes)?;
        }
        Ok(())
    }
}

impl<'a> Judge<'a> {
    pub(super) fn fill_of(&self, path: &MountPoint) -> Option<&'a Fill> {
        let mut fills = self.observed.fills.iter();
        fills.find(|fill| fill.path == *path)
    }

    pub(super) fn fills(&mut self) {
        for fill in &self.observed.fills {
            if !fill.is_nearly_full() {
                continue;
            }
            let path = &fill.path;
            self.find(
                Verdict::Warning,
                Topic::Fill,
                path,
                format!("nearly full: {fill}"),
                format!(
                    "remove what is not needed there, or give it more: size= in its rule, and mount -o remount,size=SIZE {path} until the next boot"
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::super::tests::{machine, plan, says};
    use super::super::{Report, report};
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn fill(used: u64, size: u64, used_inodes: u64, inodes: u64) -> Fill {
        Fill {
            path: MountPoint::new(b"/var/tmp").unwrap(),
            size,
            used,
            inodes,
            used_inodes,
        }
    }

    fn judged(fill: Fill) -> Report {
        let plan = plan("usrpolicy=strict usrpolicy.path=/var/tmp:tmpfs,size=100m");
        let table = "1 0 0:1 / / ro - ext4 a rw\n\
            2 1 0:2 / /var/tmp rw,nosuid,nodev - tmpfs tmpfs rw,size=102400k\n";
        let mut seen = machine(&plan, table);
        seen.fills = [fill].into();
        report(&plan, &seen)
    }

    #[test]
    fn a_tmpfs_says_how_much_of_it_is_used() {
        says(
            &judged(fill(3 * MIB + 5, 100 * MIB, 2, 1000)),
            Verdict::Holds,
            "/var/tmp",
            "tmpfs mode=1777,size=100m,nosuid,nodev, 3 of 100 MiB used",
        );
    }

    #[test]
    fn a_tmpfs_is_nearly_full_from_nine_tenths_of_its_bytes_or_inodes_on() {
        for (fill, what) in [
            (fill(89 * MIB, 100 * MIB, 899, 1000), None),
            (
                fill(90 * MIB, 100 * MIB, 1, 1000),
                Some("90 of 100 MiB used"),
            ),
            (
                fill(100 * MIB, 100 * MIB, 1, 0),
                Some("100 of 100 MiB used"),
            ),
            (
                fill(0, 100 * MIB, 900, 1000),
                Some("0 of 100 MiB used, 900 of 1000 inodes"),
            ),
            // Without a bound nothing is full.
            (fill(MIB, 0, 1, 0), None),
        ] {
            let report = judged(fill);
            let mut findings = report.findings.iter();
            let found = findings.find(|finding| finding.topic == Topic::Fill);
            assert_eq!(
                found.map(|finding| (finding.verdict, finding.what.as_str())),
                what.map(|what| format!("nearly full: {what}"))
                    .as_deref()
                    .map(|what| (Verdict::Warning, what)),
                "{report:#?}"
            );
        }
    }

    #[test]
    fn what_has_no_bound_says_what_is_used() {
        assert_eq!(fill(7 * MIB, 0, 1, 0).to_string(), "7 MiB used");
    }
}
