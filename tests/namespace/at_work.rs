//! A package manager at work while something is to be closed.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use usr_policy_tests::system::{Follower, System, Writer, becomes};

use crate::STRICT;
use crate::apply::merge;
use crate::lock::{DATABASE, STATE, does, is_closed, seen, sync};

const DB_LCK: &str = "/var/lib/pacman/db.lck";

/// Longer than an unmerge takes to settle.
const SETTLED: Duration = Duration::from_millis(2_500);

/// Unmounts what is on top of `/usr`, as systemd-sysext(8) does.
fn unmerge(system: &System) {
    umount2(&system.path("/usr"), MntFlags::MNT_DETACH).unwrap();
}

fn ends(system: &System, pacman: Writer) {
    pacman.end();
    fs::remove_file(system.path(DB_LCK)).unwrap();
}

/// The lines of a report about `/usr`, the database, the pair of them and the cache, without their heads.
fn told(system: &System) -> Vec<String> {
    let (_, report, _) = system.program(&["verify"]);
    let subjects = ["/usr ", "/var/lib/pacman ", "/var/cache/pacman "];
    let lines = report.lines().map(str::trim);
    let about = lines.filter(|line| subjects.iter().any(|subject| line.contains(subject)));
    about
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Whether verify says what is waited for of these, and nothing worse.
fn waits(system: &System, subjects: &[&str]) {
    let told = told(system);
    for subject in subjects {
        let head = format!("warning {subject} still open: usr-policy unlock is over, but sh (pid ");
        let line = told.iter().find(|line| line.starts_with(&head));
        let line = line.unwrap_or_else(|| panic!("{subject}: {told:#?}"));
        assert!(
            line.ends_with("is changing packages; it is closed as soon as that ends"),
            "{line}"
        );
    }
    assert!(
        !told.iter().any(|line| line.starts_with("BROKEN /usr")
            || line.starts_with("BROKEN /var/lib")
            || line.starts_with("BROKEN /var/cache")),
        "{told:#?}"
    );
}

/// An unlock whose time is over while a package manager is at work: nothing is closed before that ends, and then what the
/// row says. `state` is what is on record at that time.
fn is_over(system: &System, state: &str, closed: [bool; 2], subjects: &[&str]) {
    does(system, &["unlock"]);
    let pacman = Writer::of(system, DB_LCK);
    system.write(STATE, state);
    let log = sync(system);
    assert!(
        log.contains("<4> /var/lib/pacman/db.lck: sh (pid ")
            && log.contains("is changing packages; nothing is closed before it ends\n"),
        "{log}"
    );
    assert_eq!(is_closed(system), [false, false], "{log}");
    waits(system, subjects);
    let status = does(system, &["status"]);
    assert!(
        status.contains("/usr        still open: usr-policy unlock is over")
            && status.contains("at work     sh (pid "),
        "{status}"
    );
    ends(system, pacman);
    sync(system);
    assert_eq!(is_closed(system), closed);
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "the time of an unlock that is over closes nothing under a package manager, in whatever row that ends",
        || {
            let all = ["/usr", DATABASE, "/var/cache/pacman"];
            System::with(STRICT, |system| {
                sync(system);
                system.pretend_to_follow();
                is_over(
                    system,
                    "extensions unmerged 1\nmanual unlock 1\n",
                    [false, true],
                    &all,
                );
                is_over(system, "manual unlock 1\n", [true, true], &all);
            });
            System::with(&format!("{STRICT} usrpolicy.lock=off"), |system| {
                sync(system);
                system.pretend_to_follow();
                is_over(system, "manual unlock 1\n", [false, true], &["/usr"]);
            });
        },
    ),
    (
        "a database below usr has its transaction waited for, and verify says so",
        || {
            System::with(STRICT, |system| {
                system.write("/etc/pacman.conf", "[options]\nDBPath = /usr/lib/pacman\n");
                fs::create_dir_all(system.path("/usr/lib/pacman/local")).unwrap();
                sync(system);
                system.pretend_to_follow();
                does(system, &["unlock"]);
                let pacman = Writer::of(system, "/usr/lib/pacman/db.lck");
                system.write(STATE, "manual unlock 1\n");
                assert!(sync(system).contains("is changing packages"));
                assert!(!system.is_read_only("/usr"));
                waits(system, &["/usr"]);
                pacman.end();
                fs::remove_file(system.path("/usr/lib/pacman/db.lck")).unwrap();
                sync(system);
                assert!(system.is_read_only("/usr"));
            });
        },
    ),
    (
        "a package manager that outlives a merge and its unmerge is waited for, also where the guard lifts the lock",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let _follower = Follower::start(system);
                does(system, &["unlock"]);
                let pacman = Writer::of(system, DB_LCK);
                merge(system, None);
                becomes("the merge is seen", || seen(system, "extensions merged"));
                unmerge(system);
                becomes("the unmerge is seen", || {
                    seen(system, "extensions unmerged")
                });
                sleep(SETTLED);
                assert_eq!(is_closed(system), [false, false]);
                waits(system, &["/usr", DATABASE]);
                ends(system, pacman);
                becomes("usr is closed", || system.is_read_only("/usr"));
                // The guard is there.
                assert!(!system.is_read_only(DATABASE));
            });
        },
    ),
    (
        "a package that was unpacked under an overlay is named also where it is written down after the unmerge",
        || {
            for guard_lifts_the_lock in [false, true] {
                System::with(STRICT, |system| {
                    let package = |name: &str| {
                        system.write(&format!("{DATABASE}/local/{name}/desc"), "");
                        let files = format!("{DATABASE}/local/{name}/files");
                        system.write(&files, "%FILES%\nusr/\nusr/bin/tool\n");
                    };
                    sync(system);
                    if guard_lifts_the_lock {
                        // /usr stays closed: what is at work there is stopped where it would change that.
                        umount2(&system.path(DATABASE), MntFlags::MNT_DETACH).unwrap();
                    } else {
                        does(system, &["unlock"]);
                    }
                    let pacman = Writer::of(system, DB_LCK);
                    merge(system, None);
                    assert!(sync(system).contains("is changing packages"));
                    unmerge(system);
                    sync(system);
                    if guard_lifts_the_lock {
                        system.write(STATE, "extensions unmerged 1\n");
                        assert!(sync(system).contains("is changing packages"));
                    }
                    package("added-1-1");
                    sync(system);
                    ends(system, pacman);
                    let log = sync(system);
                    assert!(log.contains(": added-1-1; run usr-policy unlock"), "{log}");
                    let (exit, report, _) = system.program(&["verify"]);
                    assert!(
                        exit == 1 && report.contains("missing or left over: added-1-1"),
                        "{report}"
                    );
                });
            }
        },
    ),
];
