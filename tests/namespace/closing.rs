//! Closing at run time, beside others and where something is in the way.

use std::fs::{self, File};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use usr_policy_tests::privilege::tmpfs;
use usr_policy_tests::system::{Follower, GENERATOR, System, Writer, becomes};

use crate::STRICT;
use crate::apply::{merge, usr_of_its_own};
use crate::lock::{DATABASE, STATE, does, is_closed, seen, sync};

/// The number of `CLOCK_BOOTTIME`, which goes on while the machine sleeps. Source: linux/time.h.
const BOOTTIME: &str = "clockid: 7";

/// `sync`, with some seconds before each time that it attaches a mount.
fn slow_sync(system: &System, seconds: u32) -> Command {
    let delay = format!("delay_enter={seconds}000000");
    system.with_call("move_mount", &delay, &[GENERATOR, "sync"])
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "usr that somebody makes read-only during an unlock takes the database with it",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let _follower = Follower::start(system);
                does(system, &["unlock"]);
                assert_eq!(is_closed(system), [false, false]);
                // Until the follower has seen that.
                sleep(Duration::from_millis(500));
                system.does(&["mount", "--bind", "/usr", "/usr"]);
                assert!(!system.is_read_only(DATABASE));
                system.does(&["mount", "-o", "remount,bind,ro", "/usr"]);
                becomes("the database is closed", || system.is_read_only(DATABASE));
                becomes("the unlock is over", || !seen(system, "manual unlock"));
                let what =
                    "/usr: is read-only, so what usr-policy unlock opened is closed; run it again";
                assert!(system.log().contains(what));
                let events = fs::read_to_string(system.path("/run/usr-policy/events")).unwrap();
                assert!(events.contains(" follow /usr closed\n"), "{events}");
            });
        },
    ),
    (
        "the host stage waits for an unlock that is not done, and closes nothing that it opens",
        || {
            System::with(STRICT, |system| {
                sync(system);
                umount2(&system.path("/usr"), MntFlags::MNT_DETACH).unwrap();
                let turn = File::create(system.path("/run/usr-policy/turn")).unwrap();
                turn.lock().unwrap();
                let words = [GENERATOR, "apply", "--root", "/", "--stage", "host"];
                let mut host = system.command(&words).spawn().unwrap();
                // Time enough for one that does not wait.
                sleep(Duration::from_millis(500));
                system.write(STATE, "manual unlock\n");
                turn.unlock().unwrap();
                assert!(host.wait().unwrap().success());
                assert!(!system.is_read_only("/usr"));
                assert!(system.log().contains("/usr: left open"));
            });
        },
    ),
    (
        "who writes below usr when it is closed at run time is named, and at boot nobody looks",
        || {
            System::with(STRICT, |system| {
                let writer = Writer::of(system, "/usr/lib/being-written");
                let made = "<6> /var/lib/pacman: made read-only\n<6> /usr: made read-only\n";
                assert_eq!(sync(system), made);
                does(system, &["unlock"]);
                writer.end();
                let writer = Writer::of(system, "/usr/lib/being-written");
                system.write(STATE, "manual unlock 1\n");
                let log = sync(system);
                assert!(
                    log.contains("<4> /usr: sh (pid ")
                        && log.contains(
                            "has /usr/lib/being-written open for writing, and can go on until it ends\n"
                        ),
                    "{log}"
                );
                assert_eq!(is_closed(system), [true, true]);
                writer.end();
                // The same after an unmerge.
                does(system, &["unlock"]);
                let writer = Writer::of(system, "/usr/lib/being-written");
                merge(system, None);
                let log = sync(system);
                assert!(!log.contains("open for writing"), "{log}");
                umount2(&system.path("/usr"), MntFlags::MNT_DETACH).unwrap();
                let log = sync(system);
                assert!(log.contains("open for writing"), "{log}");
                assert_eq!(is_closed(system), [true, true]);
                writer.end();
            });
        },
    ),
    (
        "an unlock that a merge has ended stays ended where run is full",
        || {
            System::with(STRICT, |system| {
                let state = system.path("/run/usr-policy");
                fs::create_dir_all(&state).unwrap();
                tmpfs(&state, "size=64k");
                sync(system);
                does(system, &["unlock"]);
                // As much as there is room for.
                assert!(fs::write(state.join("full"), vec![0; 1 << 20]).is_err());
                merge(system, None);
                let log = sync(system);
                assert!(
                    log.contains(
                        "<4> /run/usr-policy/state/lock: cannot replace: No space left on device"
                    ),
                    "{log}"
                );
                assert!(system.is_read_only(DATABASE));
                assert!(!system.path(STATE).exists());
                umount2(&system.path("/usr"), MntFlags::MNT_DETACH).unwrap();
                let (_, _) = system.generator(&["sync"]);
                assert_eq!(is_closed(system), [true, true]);
            });
        },
    ),
    (
        "no package manager begins while usr is closed and the database stays open",
        || {
            System::with(&format!("{STRICT} usrpolicy.lock=off"), |system| {
                sync(system);
                does(system, &["unlock"]);
                system.write(STATE, "manual unlock 1\n");
                let lock_file = system.path(&format!("{DATABASE}/db.lck"));
                let mut slow = slow_sync(system, 3).spawn().unwrap();
                becomes("the lock of packages is taken", || lock_file.exists());
                assert!(!system.is_read_only("/usr"));
                assert!(slow.wait().unwrap().success());
                assert_eq!(is_closed(system), [false, true]);
                assert!(!lock_file.exists());
            });
        },
    ),
    (
        "a lock of packages that a killed sync has left in an open database is taken away",
        || {
            System::with(&format!("{STRICT} usrpolicy.lock=off"), |system| {
                sync(system);
                does(system, &["unlock"]);
                system.write(STATE, "manual unlock 1\n");
                let words = [GENERATOR, "sync"];
                let mut killed = system.with_call("unlinkat", "signal=KILL:when=1", &words);
                assert!(!killed.status().unwrap().success());
                let lock_file = system.path(&format!("{DATABASE}/db.lck"));
                assert!(lock_file.exists());
                assert_eq!(is_closed(system), [false, true]);
                sync(system);
                assert!(!lock_file.exists());
            });
        },
    ),
    (
        "who locks the database at the same moment is no error, and it is locked once",
        || {
            System::with(STRICT, |system| {
                let mut late = slow_sync(system, 2).spawn().unwrap();
                let lock_file = system.path(&format!("{DATABASE}/db.lck"));
                becomes("the lock of packages is taken", || lock_file.exists());
                // As PID 1 does for our unit.
                system.does(&["mount", "-o", "bind,ro", DATABASE, DATABASE]);
                assert!(late.wait().unwrap().success());
                assert_eq!(is_closed(system), [true, true]);
                assert_eq!(system.mounts_at(DATABASE).len(), 1);
                assert!(!system.log().contains("cannot lock"), "{}", system.log());
            });
        },
    ),
    (
        "a merge at the same moment is not covered by the bind that closes usr",
        || {
            System::with(STRICT, |system| {
                sync(system);
                does(system, &["unlock"]);
                system.write(STATE, "manual unlock 1\n");
                // Between the look at /usr and its bind there is time for a merge.
                let mut late = slow_sync(system, 2).spawn().unwrap();
                becomes("the database is closed", || system.is_read_only(DATABASE));
                sleep(Duration::from_millis(500));
                merge(system, None);
                assert!(late.wait().unwrap().success());
                // The order of the table does not tell what lies on top.
                let marker = system.path("/usr/.systemd-sysext/dev");
                assert!(marker.exists(), "{:?}", system.mounts_at("/usr"));
                // As after any other merge, it is closed with the unmerge.
                umount2(&system.path("/usr"), MntFlags::MNT_DETACH).unwrap();
                sync(system);
                assert_eq!(is_closed(system), [true, true]);
                assert_eq!(system.mounts_at("/usr").len(), 1);
            });
        },
    ),
    (
        "where the table has no line for usr the database is locked all the same",
        || {
            System::with(STRICT, |system| {
                usr_of_its_own(system);
                // As where a merge comes between two looks, each time.
                let script = format!(
                    "grep -v ' /usr ' /proc/self/mountinfo >/run/table
                    mount --bind /run/table /proc/$$/mountinfo && exec {GENERATOR} sync"
                );
                let (exit, log) = system.logged(&mut system.command(&["sh", "-c", &script]));
                assert_eq!(exit, 1, "{log}");
                assert!(
                    log.contains(
                        "<3> /proc/self/mountinfo: no line has the mount id that was asked for"
                    ),
                    "{log}"
                );
                assert!(system.is_read_only(DATABASE), "{log}");
            });
        },
    ),
    (
        "the time of an unlock goes on while the machine sleeps",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let follower = Follower::start(system);
                let directory = format!("/proc/{}/fdinfo", follower.pid());
                let timers = || {
                    let files = fs::read_dir(&directory).unwrap().filter_map(Result::ok);
                    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
                    texts
                        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
                        .filter(|line| line.starts_with("clockid:"))
                        .collect::<Vec<_>>()
                };
                assert_eq!(timers(), [BOOTTIME]);
                // For a process that lives in another time it is later by ten days, and only by this clock.
                let later = ["unshare", "--time", "--boottime=864000", GENERATOR, "sync"];
                does(system, &["unlock", "--for", "5days"]);
                drop(follower);
                let (exit, log) = system.logged(&mut system.command(&later));
                assert_eq!(exit, 0, "{log}");
                assert_eq!(is_closed(system), [true, true], "{log}");
                assert!(!seen(system, "manual"));
            });
        },
    ),
    (
        "what somebody takes away of what the policy keeps elsewhere is on record, with its time",
        || {
            let cmdline = format!("{STRICT} usrpolicy.path=/var/own:ro");
            System::with(&cmdline, |system| {
                let own = system.path("/var/own");
                fs::create_dir(&own).unwrap();
                system.does(&["mount", "--bind", "/var/own", "/var/own"]);
                system.does(&["mount", "-o", "remount,bind,ro", "/var/own"]);
                tmpfs(&system.path("/var/tmp"), "mode=1777");
                sync(system);
                let _follower = Follower::start(system);
                // Until it has looked for the first time.
                sleep(Duration::from_millis(500));
                let recorded = |line: &str| {
                    let events = fs::read_to_string(system.path("/run/usr-policy/events"));
                    events.is_ok_and(|events| events.contains(line))
                };
                umount2(&system.path("/var/tmp"), MntFlags::MNT_DETACH).unwrap();
                becomes("it is on record", || recorded(" follow /var/tmp gone\n"));
                system.does(&["mount", "-o", "remount,bind,rw", "/var/own"]);
                becomes("it is on record", || recorded(" follow /var/own opened\n"));
                let (exit, report, _) = system.program(&["verify"]);
                assert_eq!(exit, 1, "{report}");
                let told = |path: &str, what: &str| {
                    let mut lines = report.lines().map(str::trim);
                    lines.any(|line| {
                        line.starts_with(&format!("BROKEN   {path} ")) && line.contains(what)
                    })
                };
                assert!(
                    told("/var/tmp", "no tmpfs, since something took it away ")
                        && told("/var/own", "writable, since something opened it "),
                    "{report}"
                );
                let status = does(system, &["status"]);
                let mut lines = status.lines();
                assert!(
                    lines.any(|line| line.contains("/var/tmp: ") && line.contains(", for ")),
                    "{status}"
                );
                tmpfs(&system.path("/var/tmp"), "mode=1777");
                becomes("it is on record", || recorded(" follow /var/tmp tmpfs\n"));
            });
        },
    ),
];
