//! Making `/usr` of a root read-only.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use nix::mount::MsFlags;
pub(crate) use usr_policy_tests::prepare::{merge, usr_of_its_own};
use usr_policy_tests::privilege::{bind, tmpfs};
use usr_policy_tests::product;
use usr_policy_tests::system::{System, Writer, installed};

use crate::STRICT;

const MADE: (i32, &str) = (0, "<6> ROOT/usr: made read-only\n");
const NOTHING: (i32, &str) = (0, "");

fn said((exit, log): &(i32, String)) -> (i32, &str) {
    (*exit, log)
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "before the switch to the real root usr becomes read-only and nothing else does",
        || {
            System::with(STRICT, |system| {
                let before = system.mounts().len();
                assert!(!system.is_read_only("/usr"));
                assert_eq!(said(&system.early()), MADE);
                assert!(system.is_read_only("/usr") && system.is_read_only("/usr/lib"));
                for path in ["/", "/etc", "/var", "/run", "/var/lib/pacman"] {
                    assert!(!system.is_read_only(path), "{path}");
                }
                assert_eq!(system.mounts().len(), before + 1);
                let events = fs::read_to_string(system.path("/run/usr-policy/events")).unwrap();
                assert!(
                    events.ends_with(" early /usr read-only\n") && events.lines().count() == 1,
                    "{events}"
                );
            });
        },
    ),
    ("the other flags of the mount stay", || {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
        System::mounted_with(STRICT, flags, |system| {
            assert_eq!(said(&system.early()), MADE);
            let usr = &system.mounts_at("/usr")[0];
            for flag in ["ro", "nosuid", "nodev", "noatime"] {
                assert!(usr.has(flag), "{flag}: {usr:?}");
            }
            assert!(system.mounts_at("/")[0].has("rw"));
        });
    }),
    (
        "it is shared, in a peer group of its own, so that an overlay over it comes once",
        || {
            System::with(STRICT, |system| {
                assert_eq!(said(&system.early()), MADE);
                let (root, usr) = (&system.mounts_at("/")[0], &system.mounts_at("/usr")[0]);
                assert!(
                    usr.peer_group.is_some() && usr.peer_group != root.peer_group,
                    "{root:?} {usr:?}"
                );
                let before = system.mounts().len();
                system.does(&["mount", "-t", "tmpfs", "over", "/usr"]);
                assert_eq!(system.mounts().len(), before + 1);
            });
        },
    ),
    (
        "a sandboxed service that was there before sees usr read-only at once",
        || {
            System::with(STRICT, |system| {
                let script =
                    "echo ready; read go; touch /usr/.probe && echo writable || echo read-only";
                let mut sandbox = system
                    .command(&[
                        "unshare",
                        "--mount",
                        "--propagation",
                        "slave",
                        "sh",
                        "-c",
                        script,
                    ])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                let mut lines = BufReader::new(sandbox.stdout.take().unwrap()).lines();
                assert_eq!(lines.next().unwrap().unwrap(), "ready");
                assert_eq!(said(&system.early()), MADE);
                sandbox.stdin.take().unwrap().write_all(b"go\n").unwrap();
                assert_eq!(lines.next().unwrap().unwrap(), "read-only");
                sandbox.wait().unwrap();
            });
        },
    ),
    (
        "every further stage finds it read-only and changes nothing",
        || {
            System::with(STRICT, |system| {
                assert_eq!(said(&system.early()), MADE);
                let after = system.mounts();
                for _ in 0..2 {
                    assert_eq!(said(&system.early()), NOTHING);
                    assert_eq!(said(&system.late()), NOTHING);
                    let host = system.generator(&["apply", "--root", "/", "--stage", "host"]);
                    assert_eq!(said(&host), NOTHING);
                    assert_eq!(system.mounts(), after);
                }
                let events = fs::read_to_string(system.path("/run/usr-policy/events")).unwrap();
                assert_eq!(events.lines().count(), 1, "{events}");
            });
        },
    ),
    ("the real root does it where no initramfs did", || {
        System::with(STRICT, |system| {
            let host = system.generator(&["apply", "--root", "/", "--stage", "host"]);
            assert_eq!(said(&host), (0, "<6> /usr: made read-only\n"));
            assert!(system.is_read_only("/usr") && !system.is_read_only("/"));
        });
    }),
    (
        "a bind of somebody else in the peer group of the root gets one of its own, once",
        || {
            const SAID: (i32, &str) = (0, "<6> /usr: given a peer group of its own\n");
            System::with(STRICT, |system| {
                let groups = || {
                    let of = |path| system.mounts_at(path)[0].peer_group;
                    (of("/"), of("/usr"))
                };
                // As PID 1 does it with ProtectSystem=yes.
                system.does(&["mount", "--bind", "/usr", "/usr"]);
                system.does(&["mount", "-o", "remount,bind,ro", "/usr"]);
                assert_eq!(groups().0, groups().1);
                let host = || system.generator(&["apply", "--root", "/", "--stage", "host"]);
                assert_eq!(said(&host()), SAID);
                assert!(groups().1.is_some() && groups().0 != groups().1);
                assert_eq!(said(&host()), NOTHING);
                let before = system.mounts().len();
                system.does(&["mount", "-t", "tmpfs", "over", "/usr"]);
                assert_eq!(system.mounts().len(), before + 1);
            });
            System::with(STRICT, |system| {
                system.does(&["mount", "--bind", "/usr", "/usr"]);
                let host = system.generator(&["apply", "--root", "/", "--stage", "host"]);
                assert_eq!(said(&host), (0, "<6> /usr: made read-only\n"));
                assert!(system.is_read_only("/usr") && !system.is_read_only("/"));
                assert_ne!(
                    system.mounts_at("/usr")[0].peer_group,
                    system.mounts_at("/")[0].peer_group
                );
            });
        },
    ),
    (
        "usr on a file system of its own gets the flag and no second mount",
        || {
            System::with(STRICT, |system| {
                usr_of_its_own(system);
                let before = system.mounts().len();
                assert_eq!(said(&system.early()), MADE);
                assert!(system.is_read_only("/usr"));
                assert_eq!(system.mounts().len(), before);
                // The flag is the mount's alone: another mount of the file system can still be written.
                let elsewhere = system.base().join("usr-upper/.probe");
                fs::write(&elsewhere, "").unwrap();
            });
        },
    ),
    (
        "a root that the kernel mounted read-only is no substitute, for it is opened later",
        || {
            System::with(STRICT, |system| {
                system.does(&["mount", "-o", "remount,ro", "/"]);
                assert!(system.is_read_only("/etc"));
                assert_eq!(said(&system.early()), MADE);
                system.does(&["mount", "-o", "remount,rw", "/"]);
                assert!(system.is_read_only("/usr") && !system.is_read_only("/etc"));
            });
        },
    ),
    (
        "what is mounted below usr stays there with its own flags",
        || {
            System::with(STRICT, |system| {
                tmpfs(&system.path("/usr/local"), "");
                system.write("/usr/local/mine", "");
                assert_eq!(said(&system.early()), MADE);
                assert!(system.is_read_only("/usr"));
                assert!(
                    system.path("/usr/local/mine").exists() && !system.is_read_only("/usr/local")
                );
                let usr = &system.mounts_at("/usr")[0];
                let local = system.mounts_at("/usr/local");
                assert!(
                    local.iter().all(|line| line.peer_group != usr.peer_group),
                    "{local:?}"
                );
            });
        },
    ),
    ("nothing is done where nothing is asked for", || {
        for cmdline in [
            "rw",
            "rw usrpolicy=off",
            "rw usrpolicy=audit",
            "rw usrpolicy=strikt",
            "rw usrpolicy",
            "rw usrpolicy=strict usrpolicy=off",
        ] {
            System::with(cmdline, |system| {
                nothing_is_done(system, &["early", "late"], NOTHING)
            });
        }
    }),
    (
        "off on the command line beats the configuration of the root",
        || {
            System::with("rw usrpolicy=off", |system| {
                system.write("/etc/usr-policy.conf", "[Policy]\nMode=strict\n");
                nothing_is_done(system, &["early", "late"], NOTHING);
                system.boot_with("rw");
                assert_eq!(said(&system.early()), MADE);
            });
        },
    ),
    (
        "the configuration is that of the root and not that of the initramfs",
        || {
            System::with("rw", |system| {
                let here = system.base().join("etc");
                fs::create_dir_all(&here).unwrap();
                fs::write(here.join("usr-policy.conf"), "[Policy]\nMode=strict\n").unwrap();
                bind(&here, std::path::Path::new("/etc"));
                nothing_is_done(system, &["early", "late"], NOTHING);
            });
        },
    ),
    (
        "a link to dev null masks the configuration in the initramfs too",
        || {
            System::with("rw", |system| {
                system.write("/usr/lib/usr-policy.conf", "[Policy]\nMode=strict\n");
                system.does(&["umount", "--lazy", "/dev"]);
                symlink("/dev/null", system.path("/etc/usr-policy.conf")).unwrap();
                nothing_is_done(system, &["early", "late"], NOTHING);
                fs::remove_file(system.path("/etc/usr-policy.conf")).unwrap();
                assert_eq!(said(&system.early()), MADE);
            });
        },
    ),
    ("nothing is done where no root is mounted yet", || {
        System::with(STRICT, |system| {
            let before = system.mounts();
            for stage in ["early", "late"] {
                let plain = system.base().join("plain");
                fs::create_dir_all(plain.join("usr")).unwrap();
                assert_eq!(said(&system.initramfs(&plain, stage)), NOTHING);
            }
            assert_eq!(system.mounts(), before);
        });
    }),
    ("a root without a directory usr is said", || {
        System::with(STRICT, |system| {
            let empty = system.base().join("plain");
            tmpfs(&empty, "");
            let (exit, log) = system.initramfs(&empty, "early");
            assert_eq!(exit, 1);
            assert!(
                log.ends_with("/usr: there is no such directory\n") && log.starts_with("<3> "),
                "{log}"
            );
        });
    }),
    ("a directory that is not there is said", || {
        System::with(STRICT, |system| {
            let (exit, log) = system.initramfs("/nowhere", "early");
            let expected =
                "<3> /nowhere: cannot open as root directory: No such file or directory\n";
            assert_eq!((exit, log.as_str()), (1, expected));
        });
    }),
    (
        "a root without the boot program is left writable, and the log says why",
        || {
            const SAID: &str = "<3> ROOT/usr: left writable: the root has no /usr/lib/usr-policy/usr-policy-generator, and nobody would lock the package database; install usr-policy there, or rebuild the initramfs without it\n";
            System::with(STRICT, |system| {
                let program = system.path("/usr/lib/usr-policy/usr-policy-generator");
                let bytes = fs::read(&program).unwrap();
                fs::remove_file(&program).unwrap();
                not_installed(system, SAID);
                fs::write(&program, "").unwrap();
                not_installed(system, SAID);
                // Not executable.
                fs::write(&program, bytes).unwrap();
                not_installed(system, SAID);
                system.does(&["chmod", "755", "/usr/lib/usr-policy/usr-policy-generator"]);
                assert_eq!(said(&system.early()), MADE);
            });
        },
    ),
    (
        "a root whose generator is masked or missing is left writable, and the log says why",
        || {
            const SAID: &str = "<3> ROOT/usr: left writable: usr-policy-generator is missing from the root's system-generators or masked there, and nobody would lock the package database; unmask it, or boot with usrpolicy=off\n";
            System::with(STRICT, |system| {
                let mask = system.path("/etc/systemd/system-generators/usr-policy-generator");
                fs::create_dir_all(mask.parent().unwrap()).unwrap();
                symlink("/dev/null", &mask).unwrap();
                not_installed(system, SAID);
                fs::remove_file(&mask).unwrap();
                fs::write(&mask, "").unwrap();
                not_installed(system, SAID);
                fs::remove_file(&mask).unwrap();
                let link = system.path("/usr/lib/systemd/system-generators/usr-policy-generator");
                fs::remove_file(&link).unwrap();
                not_installed(system, SAID);
                // Where the administrator put it is as good.
                symlink("/usr/lib/usr-policy/usr-policy-generator", &mask).unwrap();
                assert_eq!(said(&system.early()), MADE);
            });
        },
    ),
    (
        "a root that nobody would lock is left writable, and the log says why",
        || {
            const SAID: &str = "<3> ROOT/usr: left writable: the root has no systemd, and no runlevel of OpenRC has the script usr-policy, so nobody would lock the package database; add it with rc-update add usr-policy boot\n";
            System::with(STRICT, |system| {
                fs::remove_file(system.path("/usr/lib/systemd/systemd")).unwrap();
                not_installed(system, SAID);
                let runlevel = system.path("/etc/runlevels/boot");
                fs::create_dir_all(&runlevel).unwrap();
                not_installed(system, SAID);
                // As rc-update(8) makes it.
                symlink("/etc/init.d/usr-policy", runlevel.join("usr-policy")).unwrap();
                assert_eq!(said(&system.early()), MADE);
            });
        },
    ),
    (
        "usr that somebody else mounts later is not bound before, which would hide it for good",
        || {
            System::with(STRICT, |system| {
                system.write("/etc/fstab", "/srv/usr /usr none bind 0 0\n");
                nothing_is_done(system, &["early", "late"], NOTHING);
                let host = ["apply", "--root", "/", "--stage", "host"];
                let before = system.mounts();
                assert_eq!(system.generator(&host), (0, String::new()));
                assert_eq!(system.mounts(), before);
                usr_of_its_own(system);
                assert_eq!(system.generator(&host).0, 0);
                assert!(system.is_read_only("/usr") && system.mounts_at("/usr").len() == 1);
            });
            // After its time has come, nobody is waited for any more.
            System::with(STRICT, |system| {
                system.write("/etc/fstab", "/srv/usr /usr none bind 0 0\n");
                assert_eq!(system.generator(&["sync"]).0, 0);
                assert!(system.is_read_only("/usr"));
            });
        },
    ),
    (
        "usr that fstab or the command line mounts is the late stage's",
        || {
            for cmdline in [STRICT, "rw usrpolicy=strict mount.usr=/dev/vdb"] {
                System::with(cmdline, |system| {
                    if cmdline == STRICT {
                        system.write("/etc/fstab", "/dev/vdb /usr ext4 rw 0 2\n");
                    }
                    nothing_is_done(system, &["early"], NOTHING);
                    usr_of_its_own(system);
                    assert_eq!(said(&system.late()), MADE);
                    assert!(system.is_read_only("/usr") && system.mounts_at("/usr").len() == 1);
                });
            }
        },
    ),
    (
        "usr that fstab or the command line mounts and that is not there is said to be missing, not uninstalled",
        || {
            const SAID: &str = "<3> ROOT/usr: not mounted, although fstab or the kernel command line wants a file system there; the log has the failed mount before this line\n";
            for cmdline in [STRICT, "rw usrpolicy=strict mount.usr=/dev/vdb"] {
                System::with(cmdline, |system| {
                    if cmdline == STRICT {
                        system.write("/etc/fstab", "192.0.2.1:/usr /usr nfs rw 0 0\n");
                    }
                    // What a root has whose /usr is elsewhere.
                    system.does(&["rm", "-r", "/usr/lib/usr-policy"]);
                    nothing_is_done(system, &["late"], (1, SAID));
                });
            }
        },
    ),
    (
        "an overlay root that dracut mounts again is left alone until the real root",
        || {
            System::with("rw usrpolicy=strict rd.overlay=1", |system| {
                const SAID: &str = "<4> ROOT/usr: the root is an overlay that is mounted again later; it becomes read-only in the real root\n";
                nothing_is_done(system, &["early", "late"], (0, SAID));
                let host = system.generator(&["apply", "--root", "/", "--stage", "host"]);
                assert_eq!(said(&host), (0, "<6> /usr: made read-only\n"));
            });
        },
    ),
    (
        "a file that is open for writing keeps writing under a bind and holds nothing up",
        || {
            System::with(STRICT, |system| {
                let mut file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(system.path("/usr/.open"))
                    .unwrap();
                assert_eq!(said(&system.early()), MADE);
                assert!(system.is_read_only("/usr"));
                file.write_all(b"x").unwrap();
            });
        },
    ),
    (
        "a file that is open for writing keeps a usr of its own open, and the message has the remedy",
        || {
            System::with(STRICT, |system| {
                usr_of_its_own(system);
                let writer = Writer::of(system, "/usr/.open");
                let expected = "<3> ROOT/usr: cannot make read-only: Device or resource busy; stop what has a file there open for writing, then run /usr/lib/usr-policy/usr-policy-generator sync\n";
                assert_eq!(said(&system.late()), (1, expected));
                assert!(!system.is_read_only("/usr"));
                let events = fs::read_to_string(system.path("/run/usr-policy/events")).unwrap();
                assert!(events.ends_with(" late /usr failed\n"), "{events}");
                writer.end();
                let (exit, log) = system.generator(&["sync"]);
                assert_eq!(exit, 0, "{log}");
                assert!(system.is_read_only("/usr"));
            });
        },
    ),
    (
        "only where a file is open for writing the message says to stop what has it open",
        || {
            System::with(STRICT, |system| {
                let expected = "<3> ROOT/usr: cannot make read-only: Operation not permitted\n";
                assert_eq!(
                    said(&with_failing_syscall(system, "mount_setattr", "EPERM")),
                    (1, expected)
                );
            });
        },
    ),
    (
        "without proc nothing is done and the log says what is missing",
        || {
            System::with(STRICT, |system| {
                system.does(&["umount", "--lazy", "/proc"]);
                let before = system.mounts();
                let expected = "<3> /proc/cmdline: cannot read: No such file or directory; mount proc on /proc\n";
                for words in [&["apply", "--root", "/", "--stage", "host"][..], &["sync"]] {
                    assert_eq!(said(&system.generator(words)), (1, expected));
                }
                assert_eq!(system.mounts(), before);
            });
        },
    ),
    ("extensions that are merged are left alone", || {
        System::with(STRICT, |system| {
            assert_eq!(said(&system.early()), MADE);
            merge(system, None);
            let merged = system.mounts();
            let host = system.generator(&["apply", "--root", "/", "--stage", "host"]);
            assert_eq!(said(&host), NOTHING);
            assert_eq!(system.mounts(), merged);
        });
    }),
    (
        "a kernel before 5.12 gets the same in two steps, and the log says so",
        || {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
            System::mounted_with(STRICT, flags, |system| {
                let before = system.mounts().len();
                assert_eq!(
                    said(&without_syscall(system, "mount_setattr")),
                    (0, TWO_STEPS)
                );
                assert!(system.is_read_only("/usr") && !system.is_read_only("/"));
                assert_eq!(system.mounts().len(), before + 1);
                let (root, usr) = (&system.mounts_at("/")[0], &system.mounts_at("/usr")[0]);
                for flag in ["ro", "nosuid", "nodev", "noatime"] {
                    assert!(usr.has(flag), "{usr:?}");
                }
                assert!(usr.peer_group.is_some() && usr.peer_group != root.peer_group);
                assert_eq!(said(&system.early()), NOTHING);
            });
        },
    ),
    (
        "a kernel before 5.12 sets the flag of a usr of its own",
        || {
            System::with(STRICT, |system| {
                usr_of_its_own(system);
                let before = system.mounts().len();
                assert_eq!(
                    said(&without_syscall(system, "mount_setattr")),
                    (0, TWO_STEPS)
                );
                assert!(system.is_read_only("/usr"));
                assert_eq!(system.mounts().len(), before);
            });
        },
    ),
    (
        "a kernel before 5.12 takes along what is mounted below usr",
        || {
            System::with(STRICT, |system| {
                tmpfs(&system.path("/usr/local"), "");
                system.write("/usr/local/mine", "");
                assert_eq!(
                    said(&without_syscall(system, "mount_setattr")),
                    (0, TWO_STEPS)
                );
                assert!(system.is_read_only("/usr"));
                assert!(
                    system.path("/usr/local/mine").exists() && !system.is_read_only("/usr/local")
                );
                let usr = &system.mounts_at("/usr")[0];
                let local = system.mounts_at("/usr/local");
                assert!(
                    local.iter().all(|line| line.peer_group != usr.peer_group),
                    "{local:?}"
                );
            });
        },
    ),
];

const TWO_STEPS: &str = "<4> ROOT/usr: made read-only in two steps; this kernel is older than 5.12 and cannot do it in one\n";

/// The early stage on a kernel that answers ENOSYS to a syscall.
fn without_syscall(system: &System, syscall: &str) -> (i32, String) {
    with_failing_syscall(system, syscall, "ENOSYS")
}

/// The early stage where a syscall fails.
fn with_failing_syscall(system: &System, syscall: &str, errno: &str) -> (i32, String) {
    let mut command = Command::new("strace");
    command
        .args(["-qqq", "-o", "/dev/null"])
        .arg(format!("--inject={syscall}:error={errno}"))
        .arg(format!("--trace={syscall}"))
        .arg(installed().join(product::BOOT_PROGRAM))
        .args(["apply", "--root"])
        .arg(system.root())
        .args(["--stage", "early"]);
    system.logged(&mut command)
}

/// Runs stages that must leave every mount as it is, and say this.
fn nothing_is_done(system: &System, stages: &[&str], expected: (i32, &str)) {
    let before = system.mounts();
    for stage in stages {
        assert_eq!(
            said(&system.initramfs(system.root(), stage)),
            expected,
            "{stage}"
        );
        assert_eq!(system.mounts(), before, "{stage}");
        assert!(!system.is_read_only("/usr"), "{stage}");
    }
    assert!(!system.path("/run/usr-policy").exists());
}

/// The early stage leaves it to the late one to say that something is missing, so that it is said once.
fn not_installed(system: &System, said: &str) {
    nothing_is_done(system, &["early"], NOTHING);
    nothing_is_done(system, &["late"], (1, said));
}
