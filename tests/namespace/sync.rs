//! Closing what the policy wants closed, at any time.

use std::fs;
use std::os::unix::fs::symlink;

use nix::mount::MsFlags;
use usr_policy_tests::privilege::tmpfs;
use usr_policy_tests::system::{GENERATOR, System, Writer};

use crate::STRICT;
use crate::apply::{merge, usr_of_its_own};
use crate::lock::does;

const DATABASE: &str = "/var/lib/pacman";

/// Runs sync, which must succeed; its log.
fn sync(system: &System) -> String {
    let (exit, log) = system.generator(&["sync"]);
    assert_eq!(exit, 0, "{log}");
    log
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "the database is closed before usr, each once, and nothing else is",
        || {
            System::with(STRICT, |system| {
                let before = system.mounts().len();
                assert_eq!(
                    sync(system),
                    "<6> /var/lib/pacman: made read-only\n<6> /usr: made read-only\n"
                );
                assert!(
                    system.is_read_only(DATABASE) && system.is_read_only("/var/lib/pacman/local")
                );
                assert!(system.is_read_only("/usr"));
                assert!(
                    !system.is_read_only("/var/lib") && !system.is_read_only("/var/cache/pacman")
                );
                assert_eq!(system.mounts().len(), before + 2);
                let root = &system.mounts_at("/")[0];
                for path in [DATABASE, "/usr"] {
                    let mount = &system.mounts_at(path)[0];
                    assert!(
                        mount.peer_group.is_some() && mount.peer_group != root.peer_group,
                        "{mount:?}"
                    );
                }
                let events = fs::read_to_string(system.path("/run/usr-policy/events")).unwrap();
                let events: Vec<&str> = events
                    .lines()
                    .map(|line| line.split_once(' ').unwrap().1)
                    .collect();
                assert_eq!(
                    events,
                    ["sync /var/lib/pacman read-only", "sync /usr read-only"]
                );
            });
        },
    ),
    (
        "without systemd what its units mount elsewhere is mounted as well, once",
        || {
            System::with(STRICT, |system| {
                fs::remove_dir_all(system.path("/run/systemd")).unwrap();
                let before = system.mounts().len();
                assert_eq!(
                    sync(system),
                    "<6> /var/lib/pacman: made read-only\n<6> /usr: made read-only\n\
                    <6> /var/cache/pacman: made a tmpfs\n<6> /var/tmp: made a tmpfs\n"
                );
                assert_eq!(system.mounts().len(), before + 4);
                let (_, report, _) = system.program(&["verify"]);
                for line in [
                    "  holds    /var/cache/pacman  tmpfs mode=0755,size=25%,nosuid,nodev,noexec, 0 of ",
                    "  holds    /var/tmp           tmpfs mode=1777,size=25%,nosuid,nodev, 0 of ",
                ] {
                    assert!(report.contains(line), "{report}");
                }
                assert_eq!(sync(system), "");
                assert_eq!(system.mounts().len(), before + 4);
            });
        },
    ),
    (
        "without systemd a link to another directory gets no tmpfs either",
        || {
            System::with(STRICT, |system| {
                fs::remove_dir_all(system.path("/run/systemd")).unwrap();
                fs::remove_dir_all(system.path("/var/tmp")).unwrap();
                symlink("../tmp", system.path("/var/tmp")).unwrap();
                assert!(!sync(system).contains("/var/tmp"));
                assert!(system.mounts_at("/tmp").is_empty());
            });
        },
    ),
    (
        "without systemd a link on the way to a path of somebody's own leads nowhere",
        || {
            let words = format!(
                "{STRICT} usrpolicy.path=/var/elsewhere:ro usrpolicy.path=/var/elsewhere/below:tmpfs"
            );
            System::with(&words, |system| {
                fs::remove_dir_all(system.path("/run/systemd")).unwrap();
                fs::create_dir_all(system.path("/run/below")).unwrap();
                symlink("/run", system.path("/var/elsewhere")).unwrap();
                let log = sync(system);
                assert!(!log.contains("elsewhere"), "{log}");
                assert!(!system.is_read_only("/run"));
                assert!(system.mounts_at("/run/below").is_empty());
            });
        },
    ),
    ("repeats change nothing and say nothing", || {
        System::with(STRICT, |system| {
            sync(system);
            let after = system.mounts();
            for _ in 0..5 {
                assert_eq!(sync(system), "");
                assert_eq!(system.mounts(), after);
            }
        });
    }),
    ("usr that somebody opened again is closed again", || {
        System::with(STRICT, |system| {
            sync(system);
            let after = system.mounts();
            system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
            assert!(!system.is_read_only("/usr"));
            assert_eq!(sync(system), "<6> /usr: made read-only\n");
            assert!(system.is_read_only("/usr"));
            assert_eq!(system.mounts(), after);
            system.does(&["umount", "--lazy", "/usr"]);
            assert!(!system.is_read_only("/usr"));
            sync(system);
            assert!(system.is_read_only("/usr"));
            assert_eq!(system.mounts().len(), after.len());
        });
    }),
    (
        "usr on a file system of its own is closed again after a remount",
        || {
            System::with(STRICT, |system| {
                usr_of_its_own(system);
                sync(system);
                // What systemd-remount-fs.service does.
                system.does(&["mount", "-o", "remount,rw", "/usr"]);
                assert!(!system.is_read_only("/usr"));
                assert_eq!(sync(system), "<6> /usr: made read-only\n");
                assert!(system.is_read_only("/usr"));
                assert_eq!(system.mounts_at("/usr").len(), 1);
            });
        },
    ),
    (
        "a database that somebody opened again is closed again",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let after = system.mounts();
                system.does(&["mount", "-o", "remount,bind,rw", DATABASE]);
                assert_eq!(sync(system), "<6> /var/lib/pacman: made read-only\n");
                assert_eq!(system.mounts(), after);
                system.does(&["umount", DATABASE]);
                assert_eq!(sync(system), "<6> /var/lib/pacman: made read-only\n");
                assert!(system.is_read_only(DATABASE));
                assert_eq!(system.mounts_at(DATABASE).len(), 1);
            });
        },
    ),
    ("a system without a database is closed without one", || {
        System::with(STRICT, |system| {
            fs::remove_dir_all(system.path(DATABASE)).unwrap();
            assert_eq!(sync(system), "<6> /usr: made read-only\n");
            fs::write(system.path(DATABASE), "").unwrap();
            assert_eq!(sync(system), "");
            assert!(system.mounts_at(DATABASE).is_empty());
        });
    }),
    (
        "a database on a disk of its own gets one bind, which reaches every service, and keeps its own flags",
        || {
            System::with(STRICT, |system| {
                tmpfs(&system.path(DATABASE), "");
                sync(system);
                assert!(system.is_read_only(DATABASE));
                assert_eq!(system.mounts_at(DATABASE).len(), 2);
                let before = system.mounts();
                assert_eq!(sync(system), "");
                assert_eq!(system.mounts(), before);
                let (exit, report, _) = system.program(&["verify"]);
                assert!(
                    report.contains("holds    /var/lib/pacman")
                        && report.contains("locked: pacman can read"),
                    "{exit} {report}"
                );
                does(system, &["unlock"]);
                assert!(!system.is_read_only(DATABASE));
                assert_eq!(system.mounts_at(DATABASE).len(), 1);
            });
        },
    ),
    (
        "what is mounted below the database is seen and closed with it",
        || {
            const LOCAL: &str = "/var/lib/pacman/local";
            System::with(STRICT, |system| {
                tmpfs(&system.path(LOCAL), "");
                system.write("/var/lib/pacman/local/package", "");
                assert!(sync(system).contains("<6> /var/lib/pacman: made read-only\n"));
                assert!(system.is_read_only(DATABASE) && system.is_read_only(LOCAL));
                assert!(system.path("/var/lib/pacman/local/package").exists());
                let after = system.mounts();
                assert_eq!(sync(system), "");
                assert_eq!(system.mounts(), after);
                system.does(&["umount", "--recursive", DATABASE]);
                assert!(!system.is_read_only(LOCAL));
            });
            // Mounted after the lock, as from a line of fstab.
            System::with(STRICT, |system| {
                sync(system);
                tmpfs(&system.path(LOCAL), "");
                assert_eq!(sync(system), "<6> /var/lib/pacman: made read-only\n");
                assert!(system.is_read_only(DATABASE) && system.is_read_only(LOCAL));
                assert_eq!(sync(system), "");
            });
        },
    ),
    ("a database behind a link is closed where it is", || {
        System::with(STRICT, |system| {
            fs::rename(system.path(DATABASE), system.path("/var/db")).unwrap();
            std::os::unix::fs::symlink("../db", system.path(DATABASE)).unwrap();
            sync(system);
            assert!(system.is_read_only(DATABASE) && system.is_read_only("/var/db"));
            assert_eq!(system.mounts_at("/var/db").len(), 1);
            assert_eq!(sync(system), "");
        });
    }),
    ("lock off leaves the database open", || {
        System::with("rw usrpolicy=strict usrpolicy.lock=off", |system| {
            assert_eq!(sync(system), "<6> /usr: made read-only\n");
            assert!(!system.is_read_only(DATABASE) && system.is_read_only("/usr"));
        });
    }),
    ("nothing is closed where nothing is asked for", || {
        for cmdline in [
            "rw",
            "rw usrpolicy=off",
            "rw usrpolicy=audit",
            "rw usrpolicy=strikt",
            "rw usrpolicy=off usrpolicy=strict",
        ] {
            System::with(cmdline, |system| {
                let before = system.mounts();
                assert_eq!(sync(system), "", "{cmdline}");
                assert_eq!(system.mounts(), before, "{cmdline}");
                assert!(!system.is_read_only(DATABASE) && !system.is_read_only("/usr"));
            });
        }
    }),
    ("with mounts of one's own it is refused", || {
        System::with(STRICT, |system| {
            let own = ["unshare", "--mount", GENERATOR, "sync"];
            assert_eq!(
                system.logged(&mut system.command(&own)),
                (
                    1,
                    "<3> /proc/self/ns/mnt: these are not the mounts of PID 1, and what is closed here stays open there; run nsenter -t 1 -m /usr/lib/usr-policy/usr-policy-generator sync\n".to_owned()
                )
            );
            assert!(!system.is_read_only(DATABASE) && !system.is_read_only("/usr"));
            // And its root directory, which is none of a namespace here.
            let remedy = [
                "unshare", "--mount", "nsenter", "-t", "1", "-m", "-r", GENERATOR, "sync",
            ];
            let (exit, log) = system.logged(&mut system.command(&remedy));
            assert_eq!(exit, 0, "{log}");
            assert!(system.is_read_only(DATABASE) && system.is_read_only("/usr"));
            system.boot_with("rw usrpolicy=off");
            assert_eq!(system.logged(&mut system.command(&own)), (0, String::new()));
        });
    }),
    ("in a container nothing is closed", || {
        System::with(STRICT, |system| {
            system.write("/run/systemd/container", "podman");
            let before = system.mounts();
            for words in [&["sync"][..], &["apply", "--root", "/", "--stage", "host"]] {
                assert_eq!(
                    system.generator(words),
                    (
                        0,
                        "<6> in a container: its mounts are its manager's, and stay as they are\n"
                            .to_owned()
                    )
                );
            }
            assert_eq!(system.mounts(), before);
            assert!(!system.is_read_only(DATABASE) && !system.is_read_only("/usr"));
        });
    }),
    (
        "usr that cannot be closed is no reason to leave the database open",
        || {
            System::with(STRICT, |system| {
                usr_of_its_own(system);
                let writer = Writer::of(system, "/usr/.open");
                let (exit, log) = system.generator(&["sync"]);
                assert_eq!(exit, 1);
                assert_eq!(
                    log,
                    "<6> /var/lib/pacman: made read-only\n<3> /usr: cannot make read-only: Device or resource busy; stop what has a file there open for writing, then run /usr/lib/usr-policy/usr-policy-generator sync\n"
                );
                assert!(system.is_read_only(DATABASE) && !system.is_read_only("/usr"));
                writer.end();
            });
        },
    ),
    (
        "a database that cannot be closed is said, and is no reason to leave usr open",
        || {
            System::with(STRICT, |system| {
                // A bind that somebody has made writable is closed by its flag, and that is refused.
                sync(system);
                system.does(&["mount", "-o", "remount,bind,rw", DATABASE]);
                system.does(&["umount", "--lazy", "/usr"]);
                let writer = Writer::of(system, "/var/lib/pacman/local/open");
                let (exit, log) = system.generator(&["sync"]);
                assert_eq!(exit, 1);
                assert_eq!(
                    log,
                    "<3> /var/lib/pacman: cannot lock: Device or resource busy; let the package manager end, then run /usr/lib/usr-policy/usr-policy-generator sync\n<6> /usr: made read-only\n"
                );
                assert!(
                    !system.is_read_only("/var/lib/pacman/local") && system.is_read_only("/usr")
                );
                writer.end();
            });
        },
    ),
    (
        "a read-only file system is no lock, for it may be opened",
        || {
            System::with(STRICT, |system| {
                system.does(&["mount", "-o", "remount,ro", "/"]);
                sync(system);
                system.does(&["mount", "-o", "remount,rw", "/"]);
                assert!(system.is_read_only(DATABASE) && system.is_read_only("/usr"));
            });
        },
    ),
    (
        "under merged extensions the database is closed and usr left alone",
        || {
            System::with(STRICT, |system| {
                sync(system);
                merge(system, None);
                let merged = system.mounts();
                assert_eq!(sync(system), "");
                assert_eq!(system.mounts(), merged);
                system.does(&["umount", DATABASE]);
                assert_eq!(sync(system), "<6> /var/lib/pacman: made read-only\n");
                assert!(system.is_read_only(DATABASE));
                system.does(&["umount", "--lazy", "/usr"]);
                assert!(system.is_read_only("/usr"));
            });
        },
    ),
    ("the flags of the root stay on both", || {
        System::mounted_with(STRICT, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, |system| {
            sync(system);
            for path in [DATABASE, "/usr"] {
                let mount = &system.mounts_at(path)[0];
                assert!(
                    ["ro", "nosuid", "nodev"].iter().all(|flag| mount.has(flag)),
                    "{mount:?}"
                );
            }
        });
    }),
    (
        "what cannot be recorded is said and holds nothing up",
        || {
            System::with(STRICT, |system| {
                fs::write(system.path("/run/usr-policy"), "").unwrap();
                let (exit, log) = system.generator(&["sync"]);
                assert_eq!(exit, 0);
                assert!(
                    log.contains("<4> /run/usr-policy/events: cannot add a line: "),
                    "{log}"
                );
                assert!(system.is_read_only(DATABASE) && system.is_read_only("/usr"));
            });
        },
    ),
];
