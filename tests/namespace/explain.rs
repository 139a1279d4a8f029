//! What explain says of a path, beside what a write says.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use usr_policy_tests::privilege::has_other_users;
use usr_policy_tests::system::System;

use crate::STRICT;
use crate::apply::merge;
use crate::lock::{does, sync};

/// What is said of a path: a key and the answer, in order.
struct Told {
    lines: Vec<(String, String)>,
    text: String,
}

impl Told {
    /// Asks, and tries in the same state whether a directory can be written: neither may say what the other denies.
    fn of(system: &System, path: &str) -> Self {
        let told = Self::from(does(system, &["explain", path]));
        let mut directory = system.path(path);
        while !directory.is_dir() {
            assert!(directory.pop());
        }
        let inside = directory.strip_prefix(system.root()).unwrap();
        let inside = format!("/{}", inside.display());
        let word = if system.is_read_only(&inside) {
            "no"
        } else {
            "yes"
        };
        let write = told.about("write").unwrap();
        assert!(write.starts_with(word), "{inside}:\n{}", told.text);
        told
    }

    fn from(text: String) -> Self {
        let lines = text.lines().map(|line| {
            let (key, what) = line.split_once("  ").unwrap();
            (key.trim_end().to_owned(), what.trim_start().to_owned())
        });
        Told {
            lines: lines.collect(),
            text,
        }
    }

    fn about(&self, key: &str) -> Option<&str> {
        let mut lines = self.lines.iter();
        let found = lines.find(|(of, _)| of == key);
        found.map(|(_, what)| what.as_str())
    }

    #[track_caller]
    fn says(&self, key: &str, what: &str) {
        assert_eq!(self.about(key), Some(what), "{key}:\n{}", self.text);
    }

    #[track_caller]
    fn is_silent_about(&self, key: &str) {
        assert_eq!(self.about(key), None, "{}", self.text);
    }
}

/// Does what a boot does, as far as these tests look.
fn closed(system: &System) {
    assert_eq!(system.early().0, 0);
    sync(system);
    let options = "mode=1777,size=25%,nosuid,nodev";
    system.does(&["mount", "-t", "tmpfs", "-o", options, "tmpfs", "/var/tmp"]);
}

fn merge_named(system: &System, names: &str) {
    merge(system, None);
    let mark = system.base().join("extension/.systemd-sysext/extensions");
    fs::write(mark, names).unwrap();
    sync(system);
}

const UNLOCK: &str = "usr-policy unlock, change it, and usr-policy lock";

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a path below usr, and one that does not exist yet", || {
        System::with(STRICT, |system| {
            closed(system);
            let told = Told::of(system, "/usr/bin/x");
            told.says("path", "/usr/bin/x, which does not exist; /usr/bin does");
            told.says(
                "mount",
                "/usr: overlay of root, a bind of the directory on itself, read-only by its own flag, on a writable file system (ro,relatime)",
            );
            told.says(
                "rule",
                "/usr read-only, by default under strict (/proc/cmdline): system image; it changes only through systemd-sysext",
            );
            told.says("write", "no, not even by root: the mount is read-only");
            told.says(
                "change",
                &format!("put it in an extension, as /var/lib/extensions/NAME/usr/bin/x, then run systemd-sysext merge; or {UNLOCK}"),
            );
            for key in ["extension", "package", "reboot", "note", "beneath"] {
                told.is_silent_about(key);
            }
            let told = Told::of(system, "/usr/local/bin");
            told.says("path", "/usr/local/bin");
            told.says("package", "in the list of no package of pacman");
            assert!(
                told.about("change")
                    .unwrap()
                    .starts_with("give /usr/local a line in /etc/fstab")
            );
        });
    }),
    (
        "what is in memory is gone at reboot, and what is logged stays",
        || {
            System::with(STRICT, |system| {
                closed(system);
                let told = Told::of(system, "/var/tmp/x");
                told.says(
                    "mount",
                    "/var/tmp: tmpfs of tmpfs, writable (rw,nosuid,nodev,relatime)",
                );
                told.says("write", "yes");
                told.says(
                    "reboot",
                    "what is written there is gone: tmpfs is in memory",
                );
                let told = Told::of(system, "/var/log/x");
                told.says(
                    "rule",
                    "/var/log writable, by default under strict (/proc/cmdline): logging",
                );
                told.says("change", "nothing of usr-policy is in the way");
                told.is_silent_about("reboot");
                let told = Told::of(system, "/var/cache/pacman/pkg");
                assert!(
                    told.about("rule")
                        .unwrap()
                        .ends_with("it is not so now, and usr-policy verify says why")
                );
            });
        },
    ),
    ("what is outside the policy says who decides", || {
        System::with(STRICT, |system| {
            closed(system);
            let told = Told::of(system, "/etc/fstab");
            told.says(
                "rule",
                "none: usr-policy leaves it to what mounts the root file system",
            );
            told.says("change", "nothing of usr-policy is in the way");
            system.write("/etc/fstab", "/dev/vda4 /home ext4 defaults 0 2\n");
            fs::create_dir_all(system.path("/home")).unwrap();
            system.does(&["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/home"]);
            let told = Told::of(system, "/home");
            told.says("rule", "none: usr-policy leaves it to /etc/fstab:1");
            told.says(
                "change",
                "not by usr-policy, which does not close it: /etc/fstab:1 decides",
            );
        });
    }),
    ("the database says why it is locked", || {
        System::with(STRICT, |system| {
            closed(system);
            let told = Told::of(system, "/var/lib/pacman/local");
            assert!(
                told.about("rule").unwrap().ends_with(
                    "; locked: locked from boot until extensions were merged and unmerged"
                )
            );
            told.says(
                "change",
                "usr-policy unlock, run pacman, and usr-policy lock",
            );
            does(system, &["unlock"]);
            for path in ["/var/lib/pacman/local", "/usr/bin"] {
                let told = Told::of(system, path);
                assert!(
                    told.about("rule")
                        .unwrap()
                        .ends_with("; open now: unlocked by hand"),
                    "{}",
                    told.text
                );
                told.says("change", "nothing of usr-policy is in the way");
            }
        });
    }),
    (
        "a merged extension is named with its tree, and the base is told from it",
        || {
            System::with(STRICT, |system| {
                closed(system);
                system.extension("hello");
                // An image, one that is not merged, and what is no extension at all.
                system.write("/run/extensions/picture.raw", "");
                system.extension("idle");
                system.write("/etc/extensions/notes.txt", "");
                merge_named(system, "hello\npicture\n");
                let shared = system.base().join("extension/share");
                fs::create_dir_all(&shared).unwrap();
                fs::write(shared.join("hello"), "").unwrap();
                let told = Told::of(system, "/usr/share/hello");
                told.says("extension", "shipped by hello (/var/lib/extensions/hello)");
                told.says(
                    "change",
                    "change it in /var/lib/extensions/hello, then run systemd-sysext refresh",
                );
                told.says(
                "beneath",
                "/usr: overlay of root, read-only by its own flag, on a writable file system (ro,relatime)",
            );
                Told::of(system, "/usr/bin/mount").says(
                "extension",
                "may be shipped by picture (/run/extensions/picture.raw), into which this does not look; else it is of the base",
            );
                // Of several versions systemd picks one, and does not say which.
                fs::create_dir(system.path("/etc/extensions/picture.raw.v")).unwrap();
                Told::of(system, "/usr/bin/mount").says(
                "extension",
                "may be shipped by picture (/etc/extensions/picture.raw.v), into which this does not look; else it is of the base",
            );
                fs::remove_dir(system.path("/etc/extensions/picture.raw.v")).unwrap();
                fs::remove_file(system.path("/run/extensions/picture.raw")).unwrap();
                Told::of(system, "/usr/bin/mount").says(
                "extension",
                "may be shipped by picture (its source is gone), into which this does not look; else it is of the base",
            );
                let told = Told::of(system, "/usr");
                assert!(
                    told.about("change")
                        .unwrap()
                        .ends_with("and systemd-sysext merge"),
                    "{}",
                    told.text
                );
                let told = Told::of(system, "/var/lib/pacman/local");
                assert!(
                    told.about("rule")
                        .unwrap()
                        .ends_with("; locked: extensions are merged")
                );
                told.says(
                "change",
                "systemd-sysext unmerge, then usr-policy unlock, run pacman, and usr-policy lock",
            );
            });
        },
    ),
    (
        "an extension that has a path and is not merged is named",
        || {
            System::with(STRICT, |system| {
                closed(system);
                system.extension("idle");
                // The first name wins: what is in /run hides what is in /var.
                Told::of(system, "/usr/share/idle").says(
                    "extension",
                    "idle (/var/lib/extensions/idle) has it, and is not merged here",
                );
                system.write("/run/extensions/idle/usr/share/other", "");
                Told::of(system, "/usr/share/idle").is_silent_about("extension");
            });
        },
    ),
    (
        "the package that owns a file is the one whose list has it",
        || {
            System::with(STRICT, |system| {
                let package = |name: &str, files: &str| {
                    system.write(&format!("/var/lib/pacman/local/{name}/files"), files);
                };
                package(
                    "mine-1.0-1",
                    "%FILES%\nusr/\nusr/bin/\nusr/bin/mount\n\n%BACKUP%\netc/mine\tabc\n",
                );
                package(
                    "other-2-1",
                    "%FILES%\nusr/\nusr/bin/\nusr/bin/mount.other\n",
                );
                package("third-2-1", "%FILES%\nusr/\nusr/bin/\n");
                package("fourth-2-1", "%FILES%\nusr/\nusr/bin/\n");
                system.write("/var/lib/pacman/local/ALPM_DB_VERSION", "9\n");
                closed(system);
                let told = Told::of(system, "/usr/bin/mount");
                told.says("package", "mine-1.0-1 of pacman");
                told.says(
                    "change",
                    "usr-policy unlock, let pacman change mine-1.0-1, and usr-policy lock",
                );
                Told::of(system, "/usr/bin").says(
                    "package",
                    "fourth-2-1, mine-1.0-1, other-2-1 and 1 more of pacman",
                );
            });
        },
    ),
    (
        "links, a way up and the current directory lead where the kernel goes",
        || {
            System::with(STRICT, |system| {
                closed(system);
                let directory = system.path("/var/links");
                fs::create_dir_all(&directory).unwrap();
                symlink("/usr/bin", directory.join("absolute")).unwrap();
                symlink("../../usr/../usr/lib", directory.join("relative")).unwrap();
                symlink("/usr/nowhere", directory.join("dangling")).unwrap();
                symlink("loop", directory.join("loop")).unwrap();
                // The test itself would follow links in this machine's root.
                let path = |asked: &str, what: &str| {
                    Told::from(does(system, &["explain", asked])).says("path", what);
                };
                path(
                    "/var/links/absolute/x",
                    "/var/links/absolute/x leads to /usr/bin/x, which does not exist; /usr/bin does",
                );
                path(
                    "/var/links/relative",
                    "/var/links/relative leads to /usr/lib",
                );
                path(
                    "/var/links/dangling",
                    "/var/links/dangling leads to /usr/nowhere, which does not exist; /usr does",
                );
                path("/var/links/../tmp/./", "/var/tmp");
                path(
                    "/etc/fstab/x",
                    "/etc/fstab/x, which does not exist; /etc/fstab does",
                );
                let ran = system.command(&["sh", "-c", "cd /usr/lib && usr-policy explain ../bin"]);
                let told = Told::from(output(ran, 0).0);
                told.says("path", "/usr/bin");
                let (exit, text, complaint) = system.program(&["explain", "/var/links/loop"]);
                assert_eq!(
                    (exit, text.as_str(), complaint.as_str()),
                    (
                        3,
                        "",
                        "usr-policy: /var/links/loop: cannot be looked up: Too many levels of symbolic links\n"
                    )
                );
            });
        },
    ),
    (
        "off, audit and a container promise nothing, and explain says so",
        || {
            for (cmdline, mode) in [
                ("rw", "off (by default)"),
                ("usrpolicy=audit", "audit (/proc/cmdline)"),
            ] {
                System::with(cmdline, |system| {
                    let told = Told::of(system, "/usr/bin");
                    told.says(
                    "rule",
                    &format!("/usr read-only, by default: system image; it changes only through systemd-sysext; not carried out: usrpolicy is {mode}"),
                );
                    told.says("change", "nothing of usr-policy is in the way");
                });
            }
            System::with(STRICT, |system| {
                system.write("/run/host/container-manager", "toy");
                Told::of(system, "/usr/bin").says(
                    "note",
                    "in a container: nothing is promised; its mounts are its manager's",
                );
            });
            System::with("usrpolicy=strikt", |system| {
                Told::of(system, "/usr/bin").says(
                "note",
                "not every word could be understood; usr-policy verify names those that count for nothing",
            );
            });
        },
    ),
    (
        "a process with mounts of its own is told that they are",
        || {
            System::with(STRICT, |system| {
                closed(system);
                let ran = system.command(&[
                    "unshare",
                    "--mount",
                    "sh",
                    "-c",
                    "umount -l /var/tmp && usr-policy explain /var/tmp",
                ]);
                let told = Told::from(output(ran, 0).0);
                told.says(
                    "note",
                    "this process has mounts of its own; PID 1 and its services may see others",
                );
                told.is_silent_about("beneath");
            });
        },
    ),
    (
        "a user without rights is told what he can see, and what root would",
        || {
            if !has_other_users() {
                return;
            }
            System::with(STRICT, |system| {
                closed(system);
                let nobody = |path| system.as_nobody(&["/usr/bin/usr-policy", "explain", path]);
                let told = Told::from(output(nobody("/usr/bin/x"), 0).0);
                told.says("write", "no, not even by root: the mount is read-only");
                told.is_silent_about("note");
                let told = Told::from(output(nobody("/etc/fstab"), 0).0);
                told.says(
                    "write",
                    "the mount is writable; whether you may, owner and mode decide",
                );
                told.says(
                    "change",
                    "nothing of usr-policy is in the way; see ls -ld for owner and mode",
                );
                fs::create_dir_all(system.path("/var/closed")).unwrap();
                system.does(&["chmod", "0700", "/var/closed"]);
                let (text, complaint) = output(nobody("/var/closed/x"), 3);
                assert_eq!(
                    (text.as_str(), complaint.as_str()),
                    (
                        "",
                        "usr-policy: /var/closed/x: cannot be looked at: Permission denied; run it as root\n"
                    )
                );
            });
        },
    ),
];

/// Runs a command, which must exit so: what it prints, and what it complains of.
fn output(mut command: Command, exit: i32) -> (String, String) {
    let ran = command.output().unwrap();
    assert_eq!(ran.status.code(), Some(exit), "{ran:?}");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(ran.stdout), text(ran.stderr))
}
