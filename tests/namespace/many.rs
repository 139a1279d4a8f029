//! A machine with ten thousand mounts. What a verdict on it costs is for `make bench` to say.

use std::fs;

use nix::mount::{MsFlags, mount};
use usr_policy_tests::system::System;

use crate::STRICT;
use crate::verify::{Report, closed};

const MOUNTS: usize = 10_000;

/// Fills the mount table, as many containers do: a tmpfs each, and a quarter of them elsewhere again.
fn fill(system: &System) {
    for number in 0..MOUNTS {
        let path = system.path(&format!("/srv/many/{}/{number}", number % 100));
        fs::create_dir_all(&path).unwrap();
        let flags = MsFlags::MS_NOSUID;
        if number % 4 == 3 {
            let other = system.path(&format!("/srv/many/{}/{}", (number - 1) % 100, number - 1));
            let flags = MsFlags::MS_BIND;
            mount(Some(&other), &path, None::<&str>, flags, None::<&str>).unwrap();
        } else {
            mount(Some("many"), &path, Some("tmpfs"), flags, None::<&str>).unwrap();
        }
    }
}

pub(crate) const TESTS: &[(&str, fn())] = &[(
    "among ten thousand mounts verify finds what holds, and the one that does not",
    || {
        System::with(STRICT, |system| {
            closed(system);
            fill(system);
            assert!(system.mounts().len() > MOUNTS);
            let report = Report::of(system);
            report.exits(0);
            assert!(
                report
                    .text
                    .ends_with("Everything that is promised holds.\n")
            );
            // The last of the table, and one of its first.
            system.does(&["mount", "-t", "tmpfs", "last", "/usr/local"]);
            let report = Report::of(system);
            report.exits(0);
            report.says(
                "/usr/local",
                "warning",
                "a writable mount of its own below /usr",
            );
            system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
            let report = Report::of(system);
            report.exits(1);
            report.says("/usr", "BROKEN", "writable");
        });
    },
)];
