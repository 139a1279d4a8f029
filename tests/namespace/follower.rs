//! The follower at rest, and while extensions are refreshed again and again.

use std::env;
use std::fs::{File, create_dir_all, remove_dir_all, remove_file};
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use usr_policy_tests::system::{Follower, System, becomes};

use crate::STRICT;
use crate::apply::merge;
use crate::lock::{DATABASE, seen, sync};

/// For so many seconds it must not wake up.
pub(crate) const IDLE: &str = "USR_POLICY_IDLE";

/// What of the memory is its own or its program's, in KiB.
const MEMORY: u64 = 1_536;

/// Begins as pacman does, again and again, until it is told to end; how often, and a line for each time that it could.
const MANAGER: &str = "set -o noclobber
    number=0
    while [ ! -e /run/end ]; do
        number=$((number + 1))
        { command : >/var/lib/pacman/db.lck; } 2>/dev/null && echo made
    done
    echo $number";

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "in two hundred refreshes there is no moment for a package manager to begin",
        || {
            System::with(STRICT, |system| {
                system.extension("hello");
                sync(system);
                let _follower = Follower::start(system);
                system.does(&["systemd-sysext", "merge"]);
                becomes("the merge is seen", || seen(system, "extensions merged"));
                let manager = system
                    .command(&["sh", "-c", MANAGER])
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                for number in 0..200 {
                    refresh(system, number);
                }
                system.write("/run/end", "");
                let output = manager.wait_with_output().unwrap();
                let attempts = String::from_utf8(output.stdout).unwrap();
                let number = attempts.trim().parse::<u32>();
                assert!(number.is_ok_and(|number| number > 200), "{attempts}");
                assert_eq!(system.mounts_at(DATABASE).len(), 1);
                assert_eq!(system.mounts_at("/usr").len(), 2);
            });
        },
    ),
    (
        "the follower needs little memory, and none more the longer it runs",
        || {
            System::with(STRICT, |system| {
                system.extension("hello");
                sync(system);
                let follower = Follower::start(system);
                let used = |times| {
                    for _ in 0..times {
                        system.does(&["systemd-sysext", "merge"]);
                        becomes("the merge is seen", || seen(system, "extensions merged"));
                        system.does(&["systemd-sysext", "unmerge"]);
                        becomes("the unmerge is seen", || {
                            seen(system, "extensions unmerged")
                        });
                    }
                    follower.status("VmRSS")
                };
                let (first, last) = (used(10), used(50));
                assert!(last <= MEMORY, "{last} KiB");
                // The kernel counts by pages, and not always at once.
                assert!(last <= first + 64, "{first} KiB, then {last} KiB");
            });
        },
    ),
    (
        "what cannot be closed is said again from time to time, not at each mount of somebody",
        || {
            System::with(STRICT, |system| {
                // Where no database may be.
                let database = system.path(DATABASE);
                remove_dir_all(&database).unwrap();
                symlink("/opt", &database).unwrap();
                create_dir_all(system.path("/opt")).unwrap();
                let _follower = Follower::start(system);
                let complaints = || system.log().matches("and is not locked").count();
                becomes("it is said", || complaints() > 0);
                let mount = [
                    "sh",
                    "-c",
                    "for i in $(seq 50); do mount -t tmpfs x /mnt && umount /mnt; done",
                ];
                system.does(&mount);
                sleep(Duration::from_millis(200));
                assert!((1..=3).contains(&complaints()), "{}", complaints());
                becomes("it is tried again", || complaints() >= 2);
                // News are a reason to try again soon, however often it has failed.
                for _ in 0..8 {
                    merge(system, None);
                    becomes("the merge is seen", || seen(system, "extensions merged"));
                    umount2(&system.path("/usr"), MntFlags::MNT_DETACH).unwrap();
                    becomes("the unmerge is seen", || {
                        seen(system, "extensions unmerged")
                    });
                }
                merge(system, None);
                becomes("the merge is seen", || seen(system, "extensions merged"));
                remove_file(&database).unwrap();
                create_dir_all(database.join("local")).unwrap();
                becomes("it is locked", || system.is_read_only(DATABASE));
            });
        },
    ),
    ("the follower does not wake up when nothing happens", || {
        let seconds = env::var(IDLE).map_or(5, |text| text.parse().expect(IDLE));
        System::with(STRICT, |system| {
            system.extension("hello");
            sync(system);
            let follower = Follower::start(system);
            system.does(&["systemd-sysext", "merge"]);
            becomes("the merge is seen", || seen(system, "extensions merged"));
            system.does(&["systemd-sysext", "unmerge"]);
            // What it waits for last, after an unmerge.
            becomes("the database is open", || !system.is_read_only(DATABASE));
            let wake_ups = || follower.status("voluntary_ctxt_switches");
            // Its own mounts and records wake it up once more.
            sleep(Duration::from_secs(1));
            let before = wake_ups();
            sleep(Duration::from_secs(seconds));
            assert_eq!(wake_ups(), before, "in {seconds} seconds");
            system.does(&["systemd-sysext", "merge"]);
            becomes("it wakes up for a merge", || wake_ups() > before);
        });
    }),
];

/// Refreshes the extensions, with one more or one less: where nothing is new, systemd-sysext(8) may leave the mount.
fn refresh(system: &System, number: u32) {
    if number.is_multiple_of(2) {
        system.extension("world");
    } else {
        remove_dir_all(system.path("/var/lib/extensions/world")).unwrap();
    }
    // As long as somebody has it open, its number is no other mount's.
    let _before = File::open(system.path("/usr")).unwrap();
    let id = || {
        let mounts = system.mounts_at("/usr");
        let merged = mounts.iter().find(|line| line.source == "sysext");
        merged.expect("nothing is merged").id
    };
    let before = id();
    system.does(&["systemd-sysext", "refresh"]);
    assert_ne!(id(), before, "refresh {number}");
}
