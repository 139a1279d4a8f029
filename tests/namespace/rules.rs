//! The rules that are no mount to be made: what is full, what must stay writable, when it was closed, and what is on record.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use usr_policy_tests::prepare::{CACHE, in_memory};
use usr_policy_tests::privilege::{has_other_users, tmpfs};
use usr_policy_tests::system::System;
use usr_policy_tests::verdict;

use crate::STRICT;
use crate::verify::{DATABASE, Report, changed, closed};

/// What is said of `/usr` and the database where an unlock is on record and they are closed.
const THOUGH: &str = "although the lock table says open by usr-policy unlock, until the next lock";

fn says_though(report: &Report) -> bool {
    report.text.contains("although the lock table says")
}

fn status(system: &System) -> String {
    let (exit, text, log) = system.program(&["status"]);
    assert_eq!(exit, 0, "{log}");
    text
}

/// `/var` in a mount of its own, and everything closed in it.
fn var_of_its_own(system: &System) {
    system.does(&["mount", "--bind", "/var", "/var"]);
    closed(system);
}

/// A point in time in seconds since 1970, as date(1) reads it.
fn seconds(time: &str) -> i64 {
    let ran = Command::new("date").args(["+%s", "-d", time]).output();
    let text = String::from_utf8(ran.unwrap().stdout).unwrap();
    text.trim_end().parse().unwrap()
}

fn close_var(system: &System) {
    system.does(&["mount", "-o", "remount,bind,ro", "/var"]);
    assert!(system.is_read_only("/var"));
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a tmpfs says how full it is, to people and programs, and is a warning when it nearly is",
        || {
            let words = format!("{STRICT} usrpolicy.path=/var/tmp:tmpfs,size=10m");
            System::with(&words, |system| {
                assert_eq!(system.early().0, 0);
                assert_eq!(system.generator(&["sync"]).0, 0);
                system.pretend_to_follow();
                in_memory(system, "/var/tmp", "mode=1777,size=10m,nosuid,nodev");
                in_memory(system, "/var/cache/pacman", CACHE);
                let report = Report::of(system);
                report.exits(0);
                assert!(!report.text.contains("nearly full"), "{}", report.text);
                report.says(
                    "/var/tmp",
                    "holds",
                    "tmpfs mode=1777,size=10m,nosuid,nodev, 0 of 10 MiB used",
                );
                let line = "tmpfs       /var/tmp: 0 of 10 MiB used\n";
                assert!(status(system).contains(line), "{}", status(system));

                let used = 9 * 1024 * 1024 + 512 * 1024;
                fs::write(system.path("/var/tmp/full"), vec![b'x'; used]).unwrap();
                let report = Report::of(system);
                report.exits(0);
                report.says("/var/tmp", "warning", "nearly full: 9 of 10 MiB used");
                for line in [
                    "a program that finds no room there fails",
                    "mount -o remount,size=SIZE /var/tmp",
                ] {
                    assert!(report.text.contains(line), "{}", report.text);
                }
                let line = "tmpfs       /var/tmp: 9 of 10 MiB used\n";
                assert!(status(system).contains(line), "{}", status(system));

                let json = system.program(&["verify", "--json"]).1;
                let object = verdict::object(&json).unwrap();
                let all = object["tmpfs"].as_array().unwrap();
                let one = all.iter().find(|one| one["path"] == "/var/tmp").unwrap();
                assert_eq!(one["size_bytes"], 10 * 1024 * 1024, "{json}");
                assert_eq!(one["used_bytes"], used, "{json}");
                assert_eq!(one["used_inodes"], 2, "{json}");
                assert!(all.iter().any(|one| one["path"] == "/var/cache/pacman"));

                let metrics = system.program(&["verify", "--format=metrics"]).1;
                let samples = verdict::metrics(&metrics).unwrap();
                for (name, number) in [
                    ("usr_policy_tmpfs_size_bytes", 10 * 1024 * 1024),
                    ("usr_policy_tmpfs_used_bytes", used),
                ] {
                    let is_there = samples.iter().any(|sample| {
                        sample.name == name
                            && sample.label("path") == Some("/var/tmp")
                            && (sample.value - number as f64).abs() < 0.5
                    });
                    assert!(is_there, "{name} {number}: {metrics}");
                }
            });
        },
    ),
    (
        "a tmpfs that can hold no more files is nearly full however little is in them",
        || {
            changed(
                |system| {
                    system.does(&["mount", "-o", "remount,nr_inodes=100", "/var/tmp"]);
                    for number in 0..95 {
                        fs::write(system.path(&format!("/var/tmp/{number}")), "").unwrap();
                    }
                },
                |_, report| {
                    report.exits(0);
                    report.says("/var/tmp", "warning", "MiB used, 96 of 100 inodes");
                },
            );
        },
    ),
    (
        "a var that cannot be written is said once, by the rules in it where they tell it",
        || {
            System::with(STRICT, |system| {
                var_of_its_own(system);
                Report::of(system).says("/var", "holds", "writable");
                close_var(system);
                let report = Report::of(system);
                report.exits(1);
                report.says(
                    "/var/log",
                    "BROKEN",
                    "read-only, although it must be writable",
                );
                assert!(report.about("/var").is_none(), "{}", report.text);
            });
            System::with(STRICT, |system| {
                var_of_its_own(system);
                for path in ["/var/log", "/var/lib/systemd"] {
                    tmpfs(&system.path(path), "");
                }
                close_var(system);
                let report = Report::of(system);
                report.exits(0);
                report.says("/var", "warning", "read-only, although it must be writable");
            });
        },
    ),
    (
        "a var that forgets everything can be written, and one that is not there is no news",
        || {
            System::with(STRICT, |system| {
                assert_eq!(system.early().0, 0);
                tmpfs(&system.path("/var"), "mode=0755,size=1m");
                fs::create_dir_all(system.path("/var/tmp")).unwrap();
                system.write("/var/full", &"x".repeat(1 << 20));
                let report = Report::of(system);
                report.says("/var", "holds", "writable");
                // It has no size that the policy asks for.
                assert!(!report.text.contains("nearly full"), "{}", report.text);
            });
            System::with(STRICT, |system| {
                fs::remove_dir_all(system.path("/var")).unwrap();
                assert_eq!(system.early().0, 0);
                assert!(Report::of(system).about("/var").is_none());
            });
        },
    ),
    (
        "when usr became read-only is said with the stage that the record has for it",
        || {
            let host = |system: &System| {
                let words = ["apply", "--root", "/", "--stage", "host"];
                assert_eq!(system.generator(&words).0, 0);
            };
            // As PID 1 does when it starts usr-policy-apply.service.
            let start = |system: &System| {
                fs::create_dir_all(system.path("/run/usr-policy/state")).unwrap();
            };
            type Close<'a> = &'a (dyn Fn(&System) + Sync);
            let cases: [(Close<'_>, &str, &str, &str); 4] = [
                (
                    &|system| assert_eq!(system.early().0, 0),
                    "holds",
                    "read-only since the initramfs (early stage, ",
                    " s after the kernel started)",
                ),
                (
                    &|system| {
                        start(system);
                        host(system);
                    },
                    "warning",
                    "read-only, but late, since ",
                    " s after the kernel started (host stage, before local-fs.target)",
                ),
                // Nobody knows when that was.
                (
                    &|system| host(system),
                    "warning",
                    "read-only, but late, since ",
                    " s after the kernel started (host stage, when services may have been running)",
                ),
                (
                    &|system| assert_eq!(system.generator(&["sync"]).0, 0),
                    "warning",
                    "read-only, but late, since ",
                    " s after the kernel started (sync, when services may have been running)",
                ),
            ];
            for (close, verdict, first, last) in cases {
                System::with(STRICT, |system| {
                    close(system);
                    let report = Report::of(system);
                    let finding = report.about("/usr").unwrap();
                    let between = finding.what.strip_prefix(first);
                    let between = between.and_then(|text| text.strip_suffix(last));
                    let is_number = between.is_some_and(|text| text.parse::<f64>().is_ok());
                    assert!(is_number && finding.verdict == verdict, "{}", report.text);
                });
            }
        },
    ),
    (
        "what an unlock has on record and is closed is a warning, but while one of ours is at work",
        || {
            changed(
                |system| {
                    assert_eq!(system.program(&["unlock"]).0, 0);
                    assert!(!says_though(&Report::of(system)));
                    for path in ["/usr", DATABASE] {
                        system.does(&["mount", "--bind", path, path]);
                        system.does(&["mount", "-o", "remount,bind,ro", path]);
                    }
                },
                |system, report| {
                    report.says("/usr", "warning", &format!("read-only, {THOUGH}"));
                    report.says(DATABASE, "warning", &format!("locked, {THOUGH}"));
                    let remedy =
                        "-> usr-policy lock, to close everything, or usr-policy unlock again";
                    assert!(report.text.contains(remedy), "{}", report.text);

                    // The unlock has made that file: whoever has it locked changes something.
                    let turn = File::open(system.path("/run/usr-policy/turn")).unwrap();
                    turn.try_lock().unwrap();
                    assert!(!says_though(&Report::of(system)));
                    drop(turn);
                    assert!(says_though(&Report::of(system)));

                    assert_eq!(system.program(&["lock"]).0, 0);
                    assert!(!says_though(&Report::of(system)));
                },
            );
        },
    ),
    (
        "while unlock and lock do their work again and again nobody is told that something is closed",
        || {
            System::with(STRICT, |system| {
                closed(system);
                let mut work = system.command(&[
                    "sh",
                    "-c",
                    "for turn in 1 2 3 4 5 6 7 8 9 10; do usr-policy unlock && usr-policy lock || exit 1; done",
                ]);
                let mut work = work.stdout(Stdio::null()).spawn().unwrap();
                let mut looks = 0;
                while work.try_wait().unwrap().is_none() {
                    let report = system.program(&["verify"]).1;
                    assert!(!report.contains("although the lock table says"), "{report}");
                    looks += 1;
                }
                assert!(work.wait().unwrap().success() && looks > 0);
            });
        },
    ),
    (
        "what is open for a time says the point at which that ends",
        || {
            changed(
                |system| assert_eq!(system.program(&["unlock", "--for", "1h"]).0, 0),
                |system, report| {
                    let json = system.program(&["verify", "--json"]).1;
                    let object = verdict::object(&json).unwrap();
                    let until = object["lock"]["until"].as_str().unwrap();
                    for path in ["/usr", DATABASE] {
                        report.says(path, "warning", "open for another 3");
                        let what = &report.about(path).unwrap().what;
                        let said = what
                            .strip_suffix(", by usr-policy unlock")
                            .and_then(|text| text.split_once(" s, until "));
                        // One point, however late it is asked for; only the last second is cut off.
                        let between = seconds(until) - seconds(said.unwrap().1);
                        assert!(between.abs() <= 1, "{what}, {until}");
                    }
                },
            );
        },
    ),
    (
        "a state with a time that no calendar has is open without a point at which that ends",
        || {
            changed(
                |system| {
                    assert_eq!(system.program(&["unlock"]).0, 0);
                    let text = format!("manual unlock {}\n", u64::MAX);
                    system.write("/run/usr-policy/state/lock", &text);
                },
                |system, report| {
                    report.says("/usr", "warning", " s, by usr-policy unlock");
                    let json = system.program(&["verify", "--json"]).1;
                    let object = verdict::object(&json).unwrap();
                    assert!(object["lock"]["until"].is_null(), "{json}");
                },
            );
        },
    ),
    (
        "the witnesses that were not asked are told once, and root has them all",
        || {
            if !has_other_users() {
                return;
            }
            System::with(STRICT, |system| {
                closed(system);
                let report = Report::of(system);
                assert!(report.about("witnesses").is_none(), "{}", report.text);
                let report = Report::for_nobody(system);
                report.says(
                    "processes",
                    "warning",
                    "nor was there an answer from faccessat at /",
                );
                assert_eq!(report.text.matches("faccessat").count(), 1);
            });
        },
    ),
];
