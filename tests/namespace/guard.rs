//! A guard that nobody can run, and what status says where something is wrong.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::Duration;

use usr_policy_tests::system::{Follower, System, becomes};

use crate::STRICT;
use crate::apply::merge;
use crate::lock::{DATABASE, does, seen, sync};
use crate::plan::mount_in_memory;

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "without a guard whose program can be run the database stays locked after an unmerge",
        || {
            System::with(STRICT, |system| {
                let program = system.path("/usr/bin/usr-policy");
                // To ask it all the same.
                system.does(&["cp", "-p", "/usr/bin/usr-policy", "/srv/usr-policy"]);
                fs::set_permissions(program, Permissions::from_mode(0o644)).unwrap();
                sync(system);
                let _follower = Follower::start(system);
                merge(system, None);
                becomes("the merge is seen", || seen(system, "extensions merged"));
                system.does(&["umount", "--lazy", "/usr"]);
                becomes("the unmerge is seen", || {
                    seen(system, "extensions unmerged")
                });
                let status = ["/srv/usr-policy", "status"];
                let ran = system.command(&status).output().unwrap();
                let text = String::from_utf8(ran.stdout).unwrap();
                assert!(text.contains("no guard hook would stop"), "{text}");
                // Longer than an unmerge takes to settle.
                sleep(Duration::from_millis(2_500));
                assert!(system.is_read_only(DATABASE));
            });
        },
    ),
    (
        "status says what is wrong and what to do next, and nothing of that where all holds",
        || {
            System::with(STRICT, |system| {
                sync(system);
                mount_in_memory(system);
                let wrong = || {
                    let text = does(system, &["status"]);
                    let keys = ["wrong ", "next "];
                    let lines = text
                        .lines()
                        .filter(|line| keys.iter().any(|key| line.starts_with(key)));
                    lines.map(str::to_owned).collect::<Vec<_>>()
                };
                assert!(wrong().is_empty(), "{:?}", wrong());
                system.does(&["umount", "--lazy", DATABASE]);
                assert_eq!(
                    wrong(),
                    [
                        "wrong       /usr and the package database: /usr is read-only and the database is writable",
                        "next        do not run pacman; lock the database with /usr/lib/usr-policy/usr-policy-generator sync",
                    ]
                );
                // As it says.
                sync(system);
                assert!(wrong().is_empty(), "{:?}", wrong());
                system.does(&["umount", "/var/tmp"]);
                let said = wrong();
                assert!(
                    said.len() == 2
                        && said[0].starts_with("wrong       /var/tmp: no tmpfs")
                        && said[1].starts_with("next        see systemctl status"),
                    "{said:?}"
                );
            });
        },
    ),
];
