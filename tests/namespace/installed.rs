//! What is running when the installed files change: the package is removed, or replaced by another version.

use std::fs::{copy, read_link, read_to_string, remove_file, rename};
use std::process::Child;

use usr_policy_tests::privilege::tmpfs;
use usr_policy_tests::system::{GENERATOR, System, becomes};

use crate::STRICT;
use crate::apply::{merge, usr_of_its_own};
use crate::lock::{does, is_closed, seen, sync};

/// The follower that was removed ends with it, and is not started again.
const NOT_INSTALLED: i32 = 5;

/// The follower, as its unit starts it.
fn follow(system: &System) -> Child {
    let follower = system.command(&[GENERATOR, "follow"]).spawn().unwrap();
    becomes("it follows", || system.is_followed());
    follower
}

/// Whether it has nothing to do: it sleeps in poll(2) or ppoll(2). Source: proc_pid_syscall(5).
fn waits(follower: &Child) -> bool {
    let call = read_to_string(format!("/proc/{}/syscall", follower.id())).unwrap();
    POLL.iter().any(|poll| call.starts_with(poll))
}

/// Their numbers on amd64, where the tests run.
const POLL: [&str; 2] = ["7 ", "271 "];

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a follower whose program was removed closes nothing that nobody could open, and is not started again",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let mut follower = follow(system);
                does(system, &["unlock"]);
                becomes("it has seen that", || waits(&follower));
                remove_file(system.path(GENERATOR)).unwrap();
                // It closes everything, and ends the unlock.
                merge(system, None);
                let mut exit = None;
                becomes("it ends", || {
                    exit = follower.try_wait().unwrap();
                    exit.is_some()
                });
                assert_eq!(exit.unwrap().code(), Some(NOT_INSTALLED));
                assert!(!system.is_read_only("/var/lib/pacman"), "{}", system.log());
                let said = "]: /usr/lib/usr-policy/usr-policy-generator: was removed, so merges are not followed any more; what is closed stays so until the next boot\n";
                assert_eq!(system.log().matches(said).count(), 1, "{}", system.log());
                let unit = system.path("/usr/lib/systemd/system/usr-policy-follow.service");
                let unit = read_to_string(unit).unwrap();
                for line in [
                    "Restart=always".to_owned(),
                    format!("RestartPreventExitStatus={NOT_INSTALLED}"),
                    format!("SuccessExitStatus={NOT_INSTALLED}"),
                ] {
                    assert!(unit.lines().any(|one| one == line), "{unit}");
                }
            });
        },
    ),
    (
        "what a removed package has left closed is opened by the three lines of the readme",
        || {
            let readme = include_str!("../../README.md");
            let script = readme.split_once("    systemctl stop usr-policy-follow.service\n");
            let script: String = script
                .unwrap()
                .1
                .lines()
                .take(2)
                .map(|line| format!("{line}\n"))
                .collect();
            System::with(STRICT, |system| {
                sync(system);
                assert_eq!(is_closed(system), [true, true]);
                system.does(&["sh", "-e", "-c", &script]);
                assert_eq!(is_closed(system), [false, false], "{script}");
            });
            System::with(STRICT, |system| {
                usr_of_its_own(system);
                sync(system);
                assert_eq!(is_closed(system), [true, true]);
                let (_, of_its_own) = script.split_once("mount -o").unwrap();
                let (remount, rest) = of_its_own.split_once('\n').unwrap();
                system.does(&["sh", "-e", "-c", &format!("mount -o{remount}\n{rest}")]);
                assert_eq!(is_closed(system), [false, false], "{script}");
            });
        },
    ),
    (
        "a follower whose program was replaced becomes the new one, and loses neither merge nor unlock",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let mut follower = follow(system);
                does(system, &["unlock", "--for", "1h"]);
                becomes("the unlock is seen", || {
                    seen(system, "unlock") && system.is_followed()
                });
                let program = system.path(GENERATOR);
                let new = program.with_extension("new");
                copy(&program, &new).unwrap();
                rename(&new, &program).unwrap();
                let exe = format!("/proc/{}/exe", follower.id());
                let is_old = || {
                    let path = read_link(&exe).unwrap();
                    path.to_str().unwrap().ends_with(" (deleted)")
                };
                assert!(is_old());
                // Any mount wakes it up.
                tmpfs(&system.path("/mnt"), "mode=0755");
                becomes("it is the new one", || !is_old());
                becomes("it follows", || system.is_followed());
                assert_eq!(is_closed(system), [false, false]);
                let (_, text, _) = system.program(&["status"]);
                assert!(text.contains("the next change in 59"), "{text}");
                merge(system, None);
                becomes("the merge is seen", || seen(system, "extensions merged"));
                becomes("the database is locked", || is_closed(system)[0]);
                assert!(follower.try_wait().unwrap().is_none());
                follower.kill().unwrap();
                follower.wait().unwrap();
            });
        },
    ),
];
