//! What verify says of layers, other ways to the same files, and who has undone a rule; beside what a write says.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use nix::mount::{MsFlags, mount};
use usr_policy_tests::privilege::{bind, bind_itself, has_other_users, tmpfs};
use usr_policy_tests::system::System;

use crate::STRICT;
use crate::apply::{merge, usr_of_its_own};
use crate::lock::{does, sync};
use crate::sandboxes::{PRIVATE_TMP, PROTECT_SYSTEM, service};
use crate::verify::{DATABASE, Report, changed, closed, mount_tmpfs};

const HOLDS: &str = "Everything that is promised holds.\n";

#[track_caller]
fn has_nothing_to_say(system: &System) {
    let report = Report::of(system);
    report.exits(0);
    assert!(report.text.ends_with(HOLDS), "{}", report.text);
}

/// Whether what is written at one path is there at the other one.
fn is_the_same(system: &System, one: &str, other: &str) -> bool {
    let file = |directory: &str| system.path(directory).join("written");
    fs::write(file(one), "").unwrap();
    let is_there = file(other).exists();
    fs::remove_file(file(one)).unwrap();
    is_there
}

/// Mounts whose names no parser likes, and fifty on one place.
fn odd_mounts(system: &System) {
    let names: [&[u8]; 9] = [
        b"a b",
        b"a\tb",
        b"a\nb",
        b"a\\b",
        b"a\\040b",
        b"#a",
        b"caf\xc3\xa9",
        b"caf\xe9",
        "no\u{a0}break\u{2003}here\x0b".as_bytes(),
    ];
    for name in names {
        let path = system.path("/srv").join(OsStr::from_bytes(name));
        fs::create_dir_all(&path).unwrap();
        tmpfs(&path, "");
    }
    let stack = system.path("/srv/stack");
    fs::create_dir(&stack).unwrap();
    for _ in 0..50 {
        tmpfs(&stack, "");
    }
    for source in ["", "a b", "/dev/disk/by-label/no-such-label", "#"] {
        let path = system.path("/srv/source");
        fs::create_dir_all(&path).unwrap();
        let read_only = MsFlags::MS_RDONLY;
        mount(Some(source), &path, Some("tmpfs"), read_only, None::<&str>).unwrap();
    }
}

/// Puts another text in place of what the kernel shows of the mounts of PID 1, in the older format.
fn show_other_mounts(system: &System, change: impl Fn(&str) -> String) {
    let ran = system.command(&["cat", "/proc/1/mounts"]).output().unwrap();
    let lines = String::from_utf8_lossy(&ran.stdout).into_owned();
    let lines: String = lines.lines().map(|line| change(line) + "\n").collect();
    let other = system.base().join("other-mounts");
    // The bind itself is a mount.
    let own = "proc /proc/1/mounts tmpfs rw 0 0\n";
    fs::write(&other, lines + own).unwrap();
    bind(&other, &system.path("/proc/1/mounts"));
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a database behind a link is judged where it lies: what is mounted in it, doubled over it, or shows it elsewhere",
        || {
            type Change = fn(&System);
            let changes: [(Change, i32, &str, &str); 5] = [
                (|_| {}, 0, "holds", "locked: pacman can read it"),
                (
                    |system| tmpfs(&system.path("/srv/pacman/local"), ""),
                    1,
                    "BROKEN",
                    "locked, but /srv/pacman/local is a writable mount of its own below it",
                ),
                (
                    |system| bind_itself(&system.path("/srv/pacman"), MsFlags::MS_RDONLY),
                    1,
                    "BROKEN",
                    "locked more than once",
                ),
                (
                    |system| system.does(&["mount", "-o", "remount,bind,rw", "/srv/pacman"]),
                    1,
                    "BROKEN",
                    "the read-only flag of its mount was taken away, by whom is not known",
                ),
                (
                    |system| bind(&system.path("/srv"), &system.path("/mnt")),
                    0,
                    "warning",
                    "the same files can be written at /mnt/pacman",
                ),
            ];
            for (change, exit, verdict, what) in changes {
                System::with(STRICT, |system| {
                    fs::create_dir_all(system.path("/srv/pacman/local")).unwrap();
                    fs::remove_dir_all(system.path(DATABASE)).unwrap();
                    symlink("../../srv/pacman", system.path(DATABASE)).unwrap();
                    closed(system);
                    change(system);
                    let report = Report::of(system);
                    report.exits(exit);
                    report.says(DATABASE, verdict, what);
                });
            }
        },
    ),
    (
        "services with mounts of their own are no news while everything is closed",
        || {
            System::with(STRICT, |system| {
                // One is there before everything is closed.
                let mut early = service(system, PRIVATE_TMP);
                closed(system);
                let mut services = [PRIVATE_TMP, PROTECT_SYSTEM].map(|it| service(system, it));
                has_nothing_to_say(system);
                assert!(!early.can_write("/usr"));
                for service in &mut services {
                    assert!(!service.can_write("/usr") && !service.can_write(DATABASE));
                }
                merge(system, None);
                has_nothing_to_say(system);
            });
        },
    ),
    (
        "a service that is started during an unlock is no news when everything is closed again",
        || {
            System::with(STRICT, |system| {
                closed(system);
                does(system, &["unlock"]);
                let mut services = [PRIVATE_TMP, PROTECT_SYSTEM].map(|it| service(system, it));
                does(system, &["lock"]);
                for service in &mut services {
                    assert!(!service.can_write("/usr") && !service.can_write(DATABASE));
                }
                let report = Report::of(system);
                report.exits(0);
                assert!(
                    !report.text.contains("mount namespaces of their own"),
                    "{}",
                    report.text
                );
            });
        },
    ),
    (
        "a process with a writable copy in a namespace of its own is named",
        || {
            System::with(STRICT, |system| {
                closed(system);
                let mut bad = service(system, "mount -o remount,bind,rw /usr");
                assert!(bad.can_write("/usr") && !bad.can_write(DATABASE));
                let report = Report::of(system);
                report.exits(0);
                report.says(
                    "/usr",
                    "warning",
                    "can be written in mount namespaces of their own by pid ",
                );
                report.says("/usr", "warning", " (sh)");
                report.says("/usr", "holds", "read-only since the initramfs");
                assert!(!report.text.contains("no such file"));
                drop(bad);
                let mut other = service(system, "umount /var/lib/pacman");
                assert!(!other.can_write("/usr") && other.can_write(DATABASE));
                let report = Report::of(system);
                report.says(DATABASE, "warning", "of their own by pid ");
                drop(other);
                has_nothing_to_say(system);
            });
        },
    ),
    (
        "a process whose root directory is elsewhere hides no copy that others of its namespace can write",
        || {
            System::with(STRICT, |system| {
                closed(system);
                // The first process of the namespace sees none of it.
                let mut first = system
                    .command(&["unshare", "--mount", "--propagation", "slave", "sh", "-c"])
                    .arg(
                        "set -e; exec 3<&0
                        mount -o remount,bind,rw /usr
                        mount --bind / /mnt && mount -o remount,bind,ro /mnt
                        sh -c 'read line' <&3 &
                        exec chroot /mnt sh -c 'echo ready; read line'",
                    )
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut line = String::new();
                let output = first.stdout.as_mut().unwrap();
                BufReader::new(output).read_line(&mut line).unwrap();
                let report = Report::of(system);
                drop(first.stdin.take());
                first.wait().unwrap();
                report.exits(0);
                report.says(
                    "/usr",
                    "warning",
                    "can be written in mount namespaces of their own by pid ",
                );
                assert!(!report.text.contains("more"), "{}", report.text);
            });
        },
    ),
    (
        "a copy at another place of another namespace is named with that place",
        || {
            System::with(STRICT, |system| {
                closed(system);
                let mut backup = service(system, "mount --bind / /mnt");
                assert!(backup.can_write("/mnt/usr") && !backup.can_write("/usr"));
                let report = Report::of(system);
                report.exits(0);
                report.says("/usr", "warning", " (sh, at /mnt/usr)");
                report.says(DATABASE, "warning", " (sh, at /mnt/var/lib/pacman)");
                drop(backup);
                let mut whole = service(system, "mount --rbind / /mnt");
                assert!(!whole.can_write("/mnt/usr"));
                has_nothing_to_say(system);
            });
        },
    ),
    (
        "a bind of the root elsewhere is a way to the same files, and one of everything is none",
        || {
            changed(
                |system| system.does(&["mount", "--bind", "/", "/mnt"]),
                |system, report| {
                    report.exits(0);
                    report.says(
                        "/usr",
                        "warning",
                        "the same files can be written at /mnt/usr",
                    );
                    report.says(DATABASE, "warning", "at /mnt/var/lib/pacman");
                    assert!(is_the_same(system, "/mnt/usr", "/usr"));
                    // Others' namespaces have it too, and it is told once.
                    let other = service(system, PRIVATE_TMP);
                    let again = Report::of(system);
                    assert!(!again.text.contains("of their own"), "{}", again.text);
                    drop(other);
                    system.does(&["mount", "-o", "remount,bind,ro", "/mnt"]);
                    has_nothing_to_say(system);
                    system.does(&["umount", "/mnt"]);
                    system.does(&["mount", "--rbind", "/", "/mnt"]);
                    assert!(system.is_read_only("/mnt/usr"));
                    has_nothing_to_say(system);
                },
            );
        },
    ),
    (
        "what is to be done about a way closes it, and takes away nothing that has another use",
        || {
            changed(
                |system| system.does(&["mount", "--bind", "--make-private", "/", "/mnt"]),
                |system, report| {
                    for path in ["/usr", DATABASE] {
                        report.says(path, "warning", "the same files can be written at /mnt");
                        let at = format!("/mnt{path}");
                        let remedy = format!("mount --bind -o ro {at} {at}");
                        let told = format!("-> {remedy} closes it until the next boot; /mnt shows");
                        assert!(report.text.contains(&told), "{}", report.text);
                        system.does(&remedy.split(' ').collect::<Vec<_>>());
                        assert!(system.is_read_only(&at));
                    }
                    has_nothing_to_say(system);
                    assert_eq!(system.mounts_at("/usr").len(), 1);
                },
            );
            // As a line of fstab has it: the mount of the other path is /.
            System::with(STRICT, |system| {
                system.does(&["mkdir", "-p", "/srv/db/local"]);
                system.does(&["mount", "--bind", "--make-private", "/srv/db", DATABASE]);
                closed(system);
                let report = Report::of(system);
                report.exits(0);
                report.says(DATABASE, "warning", "files can be written at /srv/db");
                let remedy = "mount --bind -o ro /srv/db /srv/db";
                let told = format!("-> {remedy} closes it until the next boot; / shows more");
                assert!(report.text.contains(&told), "{}", report.text);
                system.does(&remedy.split(' ').collect::<Vec<_>>());
                assert!(system.is_read_only("/srv/db") && !system.is_read_only("/srv"));
                has_nothing_to_say(system);
            });
            // Where it would appear at the path of the rule, too.
            changed(
                |system| system.does(&["mount", "--bind", "/", "/mnt"]),
                |system, report| {
                    let told = "-> as long as the file system is mounted so, whoever writes to /mnt/usr changes /usr: ";
                    assert!(report.text.contains(told), "{}", report.text);
                    system.does(&["mount", "--bind", "-o", "ro", "/mnt/usr", "/mnt/usr"]);
                    assert_eq!(system.mounts_at("/usr").len(), 2);
                },
            );
        },
    ),
    (
        "a bind of a part of usr is a way, and binds of other directories are none",
        || {
            changed(
                |system| {
                    for path in ["/srv/share", "/srv/data", "/srv/var"] {
                        fs::create_dir_all(system.path(path)).unwrap();
                    }
                    system.does(&["mount", "--bind", "/etc", "/srv/data"]);
                    system.does(&["mount", "--rbind", "/var", "/srv/var"]);
                },
                |system, report| {
                    assert!(report.text.ends_with(HOLDS), "{}", report.text);
                    does(system, &["unlock"]);
                    system.does(&["mount", "--bind", "/usr/share", "/srv/share"]);
                    does(system, &["lock"]);
                    let report = Report::of(system);
                    report.says(
                        "/usr",
                        "warning",
                        "the same files can be written at /srv/share",
                    );
                    assert!(is_the_same(system, "/srv/share", "/usr/share"));
                },
            );
        },
    ),
    (
        "a file system of usr that is mounted elsewhere too is a way",
        || {
            System::with(STRICT, |system| {
                usr_of_its_own(system);
                system.does(&["mount", "--bind", "/usr", "/mnt"]);
                assert_eq!(system.late().0, 0);
                sync(system);
                mount_tmpfs(system, "/var/tmp", "mode=1777,size=25%,nosuid,nodev");
                let report = Report::of(system);
                report.says("/usr", "warning", "the same files can be written at /mnt");
                assert!(is_the_same(system, "/mnt", "/usr"));
            });
        },
    ),
    (
        "without the rights of root it is said once that less was seen",
        || {
            if !has_other_users() {
                return;
            }
            System::with(STRICT, |system| {
                closed(system);
                let _bad = service(system, "mount -o remount,bind,rw /usr");
                let report = Report::for_nobody(system);
                report.exits(0);
                report.says(
                    "processes",
                    "warning",
                    "seen without the rights of root: processes with mounts of their own were not looked at",
                );
                assert_eq!(report.text.matches("rights of root").count(), 1);
                assert!(!report.text.contains("of their own by"), "{}", report.text);
            });
        },
    ),
    (
        "names and sources that no parser likes make no two readings disagree",
        || {
            changed(odd_mounts, |_, report| {
                report.exits(0);
                assert!(report.text.ends_with(HOLDS), "{}", report.text);
            });
        },
    ),
    (
        "a second reading that disagrees makes it unknown, wherever that is",
        || {
            for (change, subject, what) in [
                (
                    (|line: &str| line.replace(" /usr overlay ro", " /usr overlay rw"))
                        as fn(&str) -> String,
                    "/usr",
                    "the mount table says overlay read-only, a second reading says overlay writable",
                ),
                (
                    |line: &str| line.replace(" /var/tmp tmpfs ", " /var/tmp ext4 "),
                    "/var/tmp",
                    "a second reading says ext4 writable",
                ),
                (
                    |line: &str| match line.contains(" /var/lib/pacman ") {
                        true => String::new(),
                        false => line.to_owned(),
                    },
                    DATABASE,
                    "a second reading says nothing",
                ),
            ] {
                changed(
                    |system| show_other_mounts(system, change),
                    |_, report| {
                        report.exits(3);
                        report.says(subject, "unknown", what);
                    },
                );
            }
        },
    ),
    ("an immutable directory is a warning", || {
        System::with(STRICT, |system| {
            closed(system);
            let chattr = |flag| system.command(&["chattr", flag, "/var/tmp"]).output();
            let ran = chattr("+i").unwrap();
            if !ran.status.success() {
                eprintln!("skipped: this kernel's tmpfs has no such attribute: {ran:?}");
                return;
            }
            let report = Report::of(system);
            assert!(chattr("-i").unwrap().status.success());
            report.exits(0);
            report.says("/var/tmp", "warning", "has the immutable attribute");
            has_nothing_to_say(system);
        });
    }),
    (
        "who took the flag or the mount of usr is not known, and the layer is told",
        || {
            changed(
                |system| system.does(&["mount", "-o", "remount,bind,rw", "/usr"]),
                |system, report| {
                    report.exits(1);
                    report.says(
                        "/usr",
                        "BROKEN",
                        "writable; the read-only flag of its mount was taken away, by whom is not known (mount ",
                    );
                    report.says("/usr", "BROKEN", " at /usr is rw, its overlay is rw)");
                    system.does(&["umount", "--lazy", "/usr"]);
                    let report = Report::of(system);
                    report.says("/usr", "BROKEN", "the mount that closed it is gone");
                    report.says("/usr", "BROKEN", " at / is rw, its overlay is rw)");
                },
            );
        },
    ),
    (
        "a line of fstab that systemd-remount-fs applies is named, until a drop-in keeps it from that",
        || {
            System::with(STRICT, |system| {
                system.write("/etc/fstab", "/dev/vda / ext4\n/dev/vdb /usr ext4 rw 0 2\n");
                usr_of_its_own(system);
                assert_eq!(system.late().0, 0);
                sync(system);
                mount_tmpfs(system, "/var/tmp", "mode=1777,size=25%,nosuid,nodev");
                system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
                let report = Report::of(system);
                report.exits(1);
                report.says(
                    "/usr",
                    "BROKEN",
                    "systemd-remount-fs applies /etc/fstab:2, which has no ro: the drop-in",
                );
                let generated = ["/run/systemd/generator", "/run/x", "/run/y"];
                for directory in generated {
                    fs::create_dir_all(system.path(directory)).unwrap();
                }
                assert_eq!(system.generator(&generated).0, 0);
                let report = Report::of(system);
                report.says(
                    "/usr",
                    "BROKEN",
                    "by whom is not known; a remount of /usr without",
                );
                system.write(
                    "/etc/systemd/system/systemd-remount-fs.service.d/50-usr-policy-fstab.conf",
                    "",
                );
                let report = Report::of(system);
                report.says("/usr", "BROKEN", "hides what keeps it from that");
            });
        },
    ),
    (
        "a masked unit, one of the administrator and a drop-in are named where their path is no tmpfs",
        || {
            let unit = "/etc/systemd/system/var-tmp.mount";
            for (path, text, what) in [
                (unit, None, "masks var-tmp.mount"),
                (
                    unit,
                    Some("[Mount]\nWhat=/dev/x\n"),
                    "stands in place of var-tmp.mount",
                ),
                (
                    "/run/systemd/system/var-tmp.mount.d/mine.conf",
                    Some("[Mount]\nType=ext4\n"),
                    "changes var-tmp.mount",
                ),
            ] {
                changed(
                    |system| {
                        system.does(&["umount", "/var/tmp"]);
                        match text {
                            Some(text) => system.write(path, text),
                            None => {
                                let parent = Path::new(path).parent().unwrap();
                                fs::create_dir_all(system.path(parent.to_str().unwrap())).unwrap();
                                system.does(&["ln", "-s", "/dev/null", path]);
                            }
                        }
                    },
                    |_, report| {
                        report.exits(1);
                        report.says("/var/tmp", "BROKEN", &format!("no tmpfs; {path} {what}"));
                    },
                );
            }
        },
    ),
    (
        "a masked lock and a masked generator are named where nothing was ever closed",
        || {
            System::with(STRICT, |system| {
                let report = Report::of(system);
                report.says(
                    "/usr",
                    "BROKEN",
                    "nothing of usr-policy has closed it at this boot",
                );
                let unit = "/etc/systemd/system/var-lib-pacman.mount";
                system.write(unit, "");
                let report = Report::of(system);
                report.says(
                    DATABASE,
                    "BROKEN",
                    &format!("{unit} masks var-lib-pacman.mount"),
                );
                let generators = "/etc/systemd/system-generators";
                fs::create_dir_all(system.path(generators)).unwrap();
                let mask = format!("{generators}/usr-policy-generator");
                system.does(&["ln", "-s", "/dev/null", &mask]);
                let report = Report::of(system);
                report.exits(1);
                report.says("/usr", "BROKEN", "systemd finds no generator of usr-policy");
            });
        },
    ),
    (
        "a writable layer over usr names where it is and who asks for it",
        || {
            changed(
                |system| merge(system, Some("writable")),
                |system, report| {
                    report.exits(1);
                    report.says("/usr", "BROKEN", "/writable; no file asks for it");
                    system.write("/etc/systemd/sysext.conf", "[SysExt]\nMutable=yes\n");
                    let report = Report::of(system);
                    report.says(
                        "/usr",
                        "BROKEN",
                        "/etc/systemd/sysext.conf asks for it, with Mutable=yes",
                    );
                },
            );
        },
    ),
];
