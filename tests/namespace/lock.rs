//! Opening and closing on purpose, and what the follower closes by itself.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use usr_policy_tests::privilege::{bind, has_fuse, has_other_users, hung, tmpfs};
use usr_policy_tests::system::{Follower, GENERATOR, System, Writer, becomes};

use crate::STRICT;
use crate::apply::{merge, usr_of_its_own};

pub(crate) const DATABASE: &str = "/var/lib/pacman";
pub(crate) const CACHE: &str = "/var/cache/pacman";
pub(crate) const STATE: &str = "/run/usr-policy/state/lock";

/// Runs sync, which must succeed; its log.
pub(crate) fn sync(system: &System) -> String {
    let (exit, log) = system.generator(&["sync"]);
    assert_eq!(exit, 0, "{log}");
    log
}

/// What unlock says where no follower runs, which most tests do not need.
pub(crate) const NOT_FOLLOWED: &str = "usr-policy: unlock: nobody follows merges, so a merge does not end it; systemctl start usr-policy-follow.service, or run usr-policy lock before a merge\n";

/// A verb that must succeed; what it prints.
pub(crate) fn does(system: &System, words: &[&str]) -> String {
    let (exit, text, complaints) = system.program(words);
    let complaints = complaints.replace(NOT_FOLLOWED, "");
    assert_eq!((exit, complaints.as_str()), (0, ""), "{words:?}: {text}");
    text
}

/// A verb that is refused; why.
fn refused(system: &System, words: &[&str]) -> String {
    let before = (system.mounts(), fs::read(system.path(STATE)).ok());
    let (exit, text, complaints) = system.program(words);
    assert_eq!((exit, text.as_str()), (4, ""), "{words:?}: {complaints}");
    let after = (system.mounts(), fs::read(system.path(STATE)).ok());
    assert_eq!(before, after, "{words:?} has changed something");
    complaints
}

pub(crate) fn is_closed(system: &System) -> [bool; 2] {
    [DATABASE, "/usr"].map(|path| system.is_read_only(path))
}

fn opened(system: &System, unit: &str) -> bool {
    system.path("/run/usr-policy/open").join(unit).exists()
}

/// Unmounts what is on top of `/usr`, as systemd-sysext(8) does.
fn unmerge(system: &System) {
    umount2(&system.path("/usr"), MntFlags::MNT_DETACH).unwrap();
}

pub(crate) fn seen(system: &System, what: &str) -> bool {
    fs::read_to_string(system.path(STATE)).is_ok_and(|text| text.contains(what))
}

/// Where the guard hook is installed.
const HOOK: &str = "/usr/share/libalpm/hooks/00-usr-policy-guard.hook";

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "unlock opens usr and the database and lifts the cache, and lock closes them as they were",
        || {
            System::with(STRICT, |system| {
                sync(system);
                tmpfs(&system.path(CACHE), "mode=0755");
                let closed = system.mounts();
                assert_eq!(
                    does(system, &["unlock"]),
                    "/usr and the package database are open until usr-policy lock or the next boot.\n"
                );
                assert_eq!(is_closed(system), [false, false]);
                assert!(system.mounts_at(CACHE).is_empty());
                for unit in [
                    "usr.mount",
                    "var-lib-pacman.mount",
                    "var-cache-pacman.mount",
                ] {
                    assert!(opened(system, unit), "{unit}");
                }
                // Neither sync nor the host stage takes it back, and verify knows.
                assert_eq!(sync(system), "");
                let host = system.generator(&["apply", "--root", "/", "--stage", "host"]);
                assert_eq!(
                    host,
                    (
                        0,
                        "<6> /usr: left open, as usr-policy unlock asked\n".into()
                    )
                );
                let (exit, report, _) = system.program(&["verify"]);
                assert!(
                    report.contains("warning  /usr")
                        && report.contains("open by usr-policy unlock, until the next lock"),
                    "{exit} {report}"
                );
                assert!(!report.contains("BROKEN   /usr") && !report.contains("BROKEN   /var/lib"));

                assert_eq!(
                    does(system, &["lock"]),
                    "/usr and the package database are closed.\n"
                );
                assert_eq!(is_closed(system), [true, true]);
                for unit in [
                    "usr.mount",
                    "var-lib-pacman.mount",
                    "var-cache-pacman.mount",
                ] {
                    assert!(!opened(system, unit), "{unit}");
                }
                let points = |mounts: &[usr_policy_tests::system::Line]| {
                    let mut points: Vec<_> =
                        mounts.iter().map(|line| line.mount_point.clone()).collect();
                    points.sort();
                    points
                };
                assert_eq!(points(&system.mounts()), points(&closed));
            });
        },
    ),
    (
        "usr on a file system of its own is opened by its flag and closed by that and a bind, which reaches every service",
        || {
            System::with(STRICT, |system| {
                usr_of_its_own(system);
                sync(system);
                let closed = system.mounts();
                does(system, &["unlock"]);
                assert_eq!(is_closed(system), [false, false]);
                does(system, &["lock"]);
                assert_eq!(is_closed(system), [true, true]);
                let stack = system.mounts_at("/usr");
                assert_eq!(stack.len(), 2);
                for line in stack {
                    assert!(line.options.contains(&"ro".to_owned()), "{line:?}");
                }
                assert_eq!(system.mounts().len(), closed.len() + 1);
                // A second time nothing is doubled.
                does(system, &["unlock"]);
                assert_eq!(system.mounts_at("/usr").len(), 1);
                does(system, &["lock"]);
                assert_eq!(system.mounts_at("/usr").len(), 2);
                let (_, report, _) = system.program(&["verify"]);
                assert!(report.contains(", but for 2 unlocks by hand"), "{report}");
            });
        },
    ),
    (
        "usr that fstab mounts read-only as a whole is opened, and closed without its file system",
        || {
            System::with(STRICT, |system| {
                usr_of_its_own(system);
                system.does(&["mount", "-o", "remount,ro", "/usr"]);
                sync(system);
                does(system, &["unlock"]);
                assert_eq!(is_closed(system), [false, false]);
                does(system, &["lock"]);
                assert_eq!(is_closed(system), [true, true]);
            });
        },
    ),
    (
        "a program that writes to usr of its own does not keep it open when the time of an unlock is over",
        || {
            System::with(STRICT, |system| {
                usr_of_its_own(system);
                sync(system);
                system.pretend_to_follow();
                does(system, &["unlock", "--for", "1ms"]);
                let writer = Writer::of(system, "/usr/lib/being-written");
                let (exit, log) = system.generator(&["sync"]);
                assert_eq!(exit, 1);
                assert!(
                    log.contains("<3> /usr: cannot make read-only: Device or resource busy; see fuser -vm /usr"),
                    "{log}"
                );
                assert_eq!(is_closed(system), [true, true]);
                writer.end();
            });
        },
    ),
    (
        "unlock is refused where it must be, and says the way out",
        || {
            System::with("rw", |system| {
                assert!(refused(system, &["unlock"]).contains("usrpolicy is not strict"));
                assert!(refused(system, &["lock"]).contains("usrpolicy is not strict"));
            });
            System::with(&format!("{STRICT} usrpolicy.lock=always"), |system| {
                sync(system);
                assert_eq!(
                    refused(system, &["unlock"]),
                    "usr-policy: unlock: usrpolicy.lock=always opens nothing by hand: only a maintenance window may, which this version does not have; boot with usrpolicy=off to change the system\n"
                );
            });
            System::with(STRICT, |system| {
                sync(system);
                merge(system, None);
                let names = system.base().join("extension/.systemd-sysext/extensions");
                fs::write(names, "hello\nworld\n").unwrap();
                assert_eq!(
                    refused(system, &["unlock"]),
                    "usr-policy: unlock: extensions are merged over /usr (hello, world); run systemd-sysext unmerge first\n"
                );
            });
        },
    ),
    (
        "lock names who writes below usr, and waits for nobody",
        || {
            System::with(STRICT, |system| {
                sync(system);
                does(system, &["unlock"]);
                let writer = Writer::of(system, "/usr/lib/being-written");
                let complaint = refused(system, &["lock"]);
                assert!(
                    complaint.contains("lock: sh (pid ")
                        && complaint.contains("has /usr/lib/being-written open for writing"),
                    "{complaint}"
                );
                writer.end();
                does(system, &["lock"]);
                assert_eq!(is_closed(system), [true, true]);
            });
        },
    ),
    (
        "a package manager at work is named and its lock not broken",
        || {
            System::with(STRICT, |system| {
                let pacman = Writer::of(system, "/var/lib/pacman/db.lck");
                let log = sync(system);
                assert!(
                    log.starts_with("<4> /var/lib/pacman/db.lck: sh (pid ")
                        && log
                            .ends_with("is changing packages; nothing is closed before it ends\n"),
                    "{log}"
                );
                assert_eq!(is_closed(system), [false, false]);
                assert!(refused(system, &["lock"]).contains("is changing packages"));
                pacman.end();
                fs::remove_file(system.path("/var/lib/pacman/db.lck")).unwrap();
                sync(system);
                assert_eq!(is_closed(system), [true, true]);
            });
        },
    ),
    (
        "packages that are changed while a merge covers usr are named until they are installed again",
        || {
            System::with(STRICT, |system| {
                let package = |name: &str, files: &str| {
                    system.write(&format!("{DATABASE}/local/{name}/desc"), "");
                    let files = format!("%FILES%\n{files}");
                    system.write(&format!("{DATABASE}/local/{name}/files"), &files);
                };
                sync(system);
                does(system, &["unlock"]);
                package("removed-1-1", "usr/\nusr/bin/removed\n");
                package("kept-1-1", "usr/\nusr/bin/kept\n");
                package("of-etc-1-1", "etc/\netc/of-etc\n");
                let pacman = Writer::of(system, "/var/lib/pacman/db.lck");
                merge(system, None);
                assert!(sync(system).contains("is changing packages"));
                let (exit, report, _) = system.program(&["verify"]);
                assert!(
                    exit == 1
                        && report.contains("BROKEN   /var/lib/pacman")
                        && report.contains("writable: sh (pid "),
                    "{report}"
                );
                for gone in ["removed-1-1", "of-etc-1-1"] {
                    fs::remove_dir_all(system.path(DATABASE).join("local").join(gone)).unwrap();
                }
                package("added-2-1", "etc/\nusr/\nusr/bin/added\n");
                package("of-opt-2-1", "opt/\nopt/of-opt\n");
                // What is looked at on the way changes nothing of what it began with.
                sync(system);
                pacman.end();
                fs::remove_file(system.path("/var/lib/pacman/db.lck")).unwrap();
                let names =
                    ": added-2-1, removed-1-1; run usr-policy unlock and install them again\n";
                assert!(sync(system).contains(names));
                assert_eq!(sync(system), "");
                let named = || {
                    let (exit, report, _) = system.program(&["verify"]);
                    let line = report
                        .lines()
                        .find(|line| line.contains("changed while extensions"));
                    (
                        exit,
                        line.map(|line| line.rsplit(": ").next().unwrap().to_owned()),
                    )
                };
                assert_eq!(named(), (1, Some("added-2-1, removed-1-1".to_owned())));
                unmerge(system);
                sync(system);
                does(system, &["unlock"]);
                package("removed-1-1", "usr/\nusr/bin/removed\n");
                assert_eq!(named().1, Some("added-2-1".to_owned()));
                package("added-2-1", "etc/\nusr/\nusr/bin/added\n");
                assert_eq!(named().1, None);
            });
        },
    ),
    (
        "a package that is upgraded while a merge covers usr is named until any of its versions is installed again",
        || {
            System::with(STRICT, |system| {
                let local = system.path(DATABASE).join("local");
                let upgrade = |from: &str, to: &str| {
                    if !from.is_empty() {
                        fs::remove_dir_all(local.join(from)).unwrap();
                    }
                    system.write(&format!("{DATABASE}/local/{to}/desc"), "");
                    let files = format!("{DATABASE}/local/{to}/files");
                    system.write(&files, "%FILES%\nusr/\nusr/bin/tool\n");
                };
                let named = || {
                    let (_, report, _) = system.program(&["verify"]);
                    let line = report
                        .lines()
                        .find(|line| line.contains("changed while extensions"));
                    line.map(|line| line.rsplit(": ").next().unwrap().to_owned())
                };
                sync(system);
                does(system, &["unlock"]);
                upgrade("", "a-tool-1-1");
                upgrade("", "a-tool-box-1-1");
                let pacman = Writer::of(system, "/var/lib/pacman/db.lck");
                merge(system, None);
                assert!(sync(system).contains("is changing packages"));
                upgrade("a-tool-1-1", "a-tool-2-1");
                fs::remove_dir_all(local.join("a-tool-box-1-1")).unwrap();
                pacman.end();
                fs::remove_file(system.path("/var/lib/pacman/db.lck")).unwrap();
                // The name alone is no version: what was removed is another package.
                assert!(sync(system).contains(": a-tool-2-1, a-tool-box-1-1; run"));
                unmerge(system);
                sync(system);
                does(system, &["unlock"]);
                upgrade("", "a-tool-box-2-1");
                assert_eq!(named(), Some("a-tool-2-1".to_owned()));
                upgrade("a-tool-2-1", "a-tool-3-1");
                assert_eq!(named(), None);
            });
        },
    ),
    (
        "a mount on the package cache is still there after unlock and lock, and the cache beneath it stays in memory",
        || {
            System::with(STRICT, |system| {
                sync(system);
                tmpfs(&system.path(CACHE), "mode=0755");
                let packages = format!("{CACHE}/pkg");
                fs::create_dir(system.path(&packages)).unwrap();
                tmpfs(&system.path(&packages), "");
                system.write(&format!("{packages}/here"), "");
                for verb in ["unlock", "lock"] {
                    does(system, &[verb]);
                    assert!(system.path(&packages).join("here").exists(), "{verb}");
                    assert_eq!(system.mounts_at(CACHE).len(), 1, "{verb}");
                }
            });
        },
    ),
    (
        "a package cache of somebody's own is not unmounted by unlock",
        || {
            System::with(STRICT, |system| {
                sync(system);
                system.write("/srv/cache/here", "");
                bind(&system.path("/srv/cache"), &system.path(CACHE));
                for verb in ["unlock", "lock"] {
                    does(system, &[verb]);
                    assert!(system.path(CACHE).join("here").exists(), "{verb}");
                    assert_eq!(system.mounts_at(CACHE).len(), 1, "{verb}");
                    assert!(!opened(system, "var-cache-pacman.mount"));
                }
            });
        },
    ),
    (
        "a merge at the same moment is not unmounted by unlock",
        || {
            System::with(STRICT, |system| {
                sync(system);
                // What is kept is looked at before the bind goes, and there is time for a merge.
                fs::create_dir_all(system.path("/usr/local")).unwrap();
                tmpfs(&system.path("/usr/local"), "");
                let words = ["usr-policy", "unlock"];
                let mut command = system.with_call("open_tree", "delay_exit=3000000", &words);
                let unlock = command.stderr(Stdio::piped()).spawn().unwrap();
                becomes("it has begun", || seen(system, "manual unlock"));
                sleep(Duration::from_millis(300));
                merge(system, None);
                let ran = unlock.wait_with_output().unwrap();
                assert_eq!(ran.status.code(), Some(3));
                assert_eq!(
                    String::from_utf8(ran.stderr).unwrap(),
                    "usr-policy: /usr: cannot unmount: Device or resource busy; somebody has mounted there at the same moment; see findmnt, and try again\n"
                );
                let top = system.mounts_at("/usr").pop().unwrap();
                assert_eq!(top.source, "sysext");
                assert!(system.is_read_only(DATABASE) && seen(system, "extensions merged"));
                assert!(!opened(system, "var-lib-pacman.mount"));
            });
        },
    ),
    (
        "nobody but root can hold up a lock or pass for the follower",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let _follower = Follower::start(system);
                for name in ["turn", "following"] {
                    let path = format!("/run/usr-policy/{name}");
                    let mode = || fs::metadata(system.path(&path)).unwrap().mode() & 0o777;
                    assert_eq!(mode(), 0o600, "{path}");
                    if has_other_users() {
                        let words = ["flock", "--nonblock", &path, "true"];
                        let held = system.as_nobody(&words).output().unwrap();
                        assert!(!held.status.success(), "{path}: {held:?}");
                    }
                }
                // As an older version has left it.
                let turn = system.path("/run/usr-policy/turn");
                fs::set_permissions(&turn, Permissions::from_mode(0o644)).unwrap();
                sync(system);
                assert_eq!(fs::metadata(turn).unwrap().mode() & 0o777, 0o600);
            });
        },
    ),
    (
        "what others mount below what is closed stays mounted when that is opened and closed",
        || {
            System::with(STRICT, |system| {
                sync(system);
                // As at a boot: the initramfs has closed /usr, and fstab has more.
                for path in ["/usr/local", "/var/lib/pacman/sync"] {
                    fs::create_dir_all(system.path(path)).ok();
                }
                tmpfs(&system.path("/usr/local"), "");
                system.write("/usr/local/here", "");
                // A bind of /usr takes along what is mounted below it.
                for (words, mounts) in [(&["unlock"][..], 1), (&["lock"], 2), (&["unlock"], 1)] {
                    does(system, words);
                    assert!(system.path("/usr/local/here").exists(), "{words:?}");
                    assert_eq!(system.mounts_at("/usr/local").len(), mounts, "{words:?}");
                    assert!(!system.is_read_only("/usr/local"), "{words:?}");
                }
                fs::create_dir_all(system.path("/var/lib/pacman/sync")).unwrap();
                does(system, &["lock"]);
                tmpfs(&system.path("/var/lib/pacman/sync"), "");
                system.write("/var/lib/pacman/sync/here", "");
                does(system, &["unlock"]);
                assert!(system.path("/var/lib/pacman/sync/here").exists());
                umount2(&system.path("/var/lib/pacman/sync"), MntFlags::empty()).unwrap();
                // What closes them is ours, and their own flags stay; also of what lies deeper, and of a file.
                let deep = "/var/lib/pacman/sync/deep";
                let paths = [DATABASE, "/var/lib/pacman/sync", deep];
                let file = "/var/lib/pacman/ALPM_DB_VERSION";
                system.write(file, "");
                let may_append = || {
                    let mut options = fs::File::options();
                    options.append(true).open(system.path(file)).is_ok()
                };
                does(system, &["lock"]);
                tmpfs(&system.path(paths[1]), "");
                fs::create_dir(system.path(deep)).unwrap();
                tmpfs(&system.path(deep), "");
                bind(&system.base().join("cmdline"), &system.path(file));
                // The first time others have mounted it since, the second time it was there.
                for _ in 0..2 {
                    for _ in 0..2 {
                        sync(system);
                        for path in paths {
                            assert!(system.is_read_only(path), "{path}");
                        }
                        assert!(!may_append());
                        assert_eq!(system.mounts_at(DATABASE).len(), 1);
                    }
                    let (_, report, _) = system.program(&["verify"]);
                    assert!(report.contains("holds    /var/lib/pacman"), "{report}");
                    does(system, &["unlock"]);
                    for path in paths {
                        assert!(!system.is_read_only(path), "{path}");
                    }
                    assert!(may_append());
                    let at = |path| system.mounts_at(path).len();
                    assert_eq!([DATABASE, paths[1], deep, file].map(at), [0, 1, 1, 1]);
                    does(system, &["lock"]);
                }
            });
        },
    ),
    (
        "an unmerge that nobody has seen yet does not end an unlock or a lock that comes after it",
        || {
            System::with(STRICT, |system| {
                sync(system);
                merge(system, None);
                sync(system);
                unmerge(system);
                does(system, &["unlock"]);
                sync(system);
                assert_eq!(is_closed(system), [false, false]);
                merge(system, None);
                sync(system);
                unmerge(system);
                does(system, &["lock"]);
                sync(system);
                assert!(seen(system, "manual lock"));
            });
        },
    ),
    (
        "verify judges by what is merged, not by what was remembered, and says that nobody follows",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let follower = Follower::start(system);
                merge(system, None);
                becomes("the merge is seen", || seen(system, "extensions merged"));
                unmerge(system);
                becomes("the database is open", || !system.is_read_only(DATABASE));
                drop(follower);
                merge(system, None);
                let (exit, report, _) = system.program(&["verify"]);
                assert_eq!(exit, 1, "{report}");
                assert!(
                    report.contains("BROKEN   /var/lib/pacman")
                        && report.contains("warning  usr-policy-follow.service"),
                    "{report}"
                );
            });
        },
    ),
    (
        "what another root has at a path below usr is no writer, and a name cannot forge a line",
        || {
            System::with(STRICT, |system| {
                sync(system);
                does(system, &["unlock"]);
                // As a container that has a /usr of its own in another place.
                let own = system.path("/srv/own");
                fs::create_dir_all(own.join("usr/lib")).unwrap();
                fs::copy("/bin/busybox", own.join("busybox")).unwrap();
                let writer = Writer::in_root(system, "/srv/own", "/usr/lib/x");
                does(system, &["lock"]);
                writer.end();
                does(system, &["unlock"]);
                let writer = Writer::of(system, "/usr/lib/x\u{1b}[2J\nusr-policy: all is well");
                let complaint = refused(system, &["lock"]);
                assert!(
                    complaint.contains(
                        r"has /usr/lib/x\x1b[2J\x0ausr-policy: all is well open for writing"
                    ) && complaint.lines().count() == 1,
                    "{complaint}"
                );
                writer.end();
            });
        },
    ),
    (
        "a full disk does not break the transaction of a package manager at work",
        || {
            System::with(STRICT, |system| {
                tmpfs(&system.path(DATABASE), "nr_inodes=2");
                let pacman = Writer::of(system, "/var/lib/pacman/db.lck");
                assert!(sync(system).contains("is changing packages"));
                assert_eq!(system.mounts_at(DATABASE).len(), 1);
                pacman.end();
            });
        },
    ),
    (
        "a database that leads to where more lies is said and not locked",
        || {
            System::with(STRICT, |system| {
                fs::remove_dir_all(system.path(DATABASE)).unwrap();
                symlink("../../var", system.path(DATABASE)).unwrap();
                let (exit, log) = system.generator(&["sync"]);
                assert_eq!(exit, 1);
                assert!(
                    log.contains("<3> /var/lib/pacman: leads to /var, and is not locked: it would change /var/lib"),
                    "{log}"
                );
                assert!(!system.is_read_only("/var"));
            });
        },
    ),
    (
        "without a lock at boot a refresh locks the database and does not open it",
        || {
            System::with(&format!("{STRICT} usrpolicy.lock=off"), |system| {
                sync(system);
                assert_eq!(is_closed(system), [false, true]);
                let _follower = Follower::start(system);
                merge(system, None);
                becomes("the database is closed", || system.is_read_only(DATABASE));
                let (_, report, _) = system.program(&["verify"]);
                assert!(report.contains("holds    /var/lib/pacman"), "{report}");
                unmerge(system);
                becomes("the unmerge is seen", || {
                    seen(system, "extensions unmerged")
                });
                assert!(system.is_read_only(DATABASE));
                becomes("the database is open", || !system.is_read_only(DATABASE));
            });
        },
    ),
    (
        "the follower begins anew where its directory was taken away",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let mut follower = Follower::start(system);
                fs::remove_dir_all(system.path("/run/usr-policy/state")).unwrap();
                becomes("it has ended", || follower.has_ended());
            });
        },
    ),
    (
        "in a container nothing is opened, closed or claimed",
        || {
            System::with(STRICT, |system| {
                system.write("/run/systemd/container", "podman");
                assert!(refused(system, &["unlock"]).contains("in a container"));
                assert!(refused(system, &["lock"]).contains("in a container"));
                assert!(does(system, &["status"]).contains("in a container"));
            });
        },
    ),
    (
        "what a container with the host's run leaves behind there makes the host no container",
        || {
            System::with(STRICT, |system| {
                system.write("/run/.containerenv", "");
                sync(system);
                assert_eq!(is_closed(system), [true, true]);
                does(system, &["unlock"]);
                does(system, &["lock"]);
                // In a container it is a mount.
                let mark = system.path("/run/.containerenv");
                bind(&mark, &mark);
                assert!(refused(system, &["unlock"]).contains("in a container"));
            });
        },
    ),
    (
        "lock says what it cannot close yet, and removes a lock file of nobody where all is closed",
        || {
            System::with(STRICT, |system| {
                sync(system);
                does(system, &["unlock"]);
                merge(system, None);
                assert_eq!(
                    does(system, &["lock"]),
                    "The package database is closed, and /usr when the extensions over it are unmerged.\n"
                );
                unmerge(system);
                sync(system);
                does(system, &["unlock"]);
                fs::write(system.path("/var/lib/pacman/db.lck"), "").unwrap();
                assert_eq!(system.program(&["lock"]).0, 0);
                does(system, &["lock", "--remove-stale"]);
                assert!(!system.path("/var/lib/pacman/db.lck").exists());
                let (exit, _, complaints) = system.program(&["unlock", "--for", "9000years"]);
                assert!(
                    exit == 2 && complaints.contains("more than a year"),
                    "{complaints}"
                );
            });
        },
    ),
    (
        "a lock file of nobody is said, and removed only where that is asked for",
        || {
            System::with(STRICT, |system| {
                let stale = system.path("/var/lib/pacman/db.lck");
                fs::write(&stale, "").unwrap();
                let said = "/var/lib/pacman/db.lck: no program has it open; where no package manager is at work, usr-policy lock --remove-stale removes it\n";
                assert!(sync(system).contains(said));
                assert_eq!(is_closed(system), [true, true]);
                for verb in ["unlock", "lock"] {
                    let (exit, _, complaints) = system.program(&[verb]);
                    assert!(exit == 0 && complaints.ends_with(said), "{complaints}");
                }
                assert!(stale.exists());
                does(system, &["lock", "--remove-stale"]);
                assert!(!stale.exists());
                assert_eq!(is_closed(system), [true, true]);
            });
        },
    ),
    ("a lock file that one of us has left is taken away", || {
        System::with(STRICT, |system| {
            let ours = system.path("/var/lib/pacman/db.lck");
            fs::write(&ours, "usr-policy 1\n").unwrap();
            assert_eq!(
                sync(system),
                "<6> /var/lib/pacman: made read-only\n<6> /usr: made read-only\n"
            );
            assert!(!ours.exists());
        });
    }),
    (
        "a merge ends an unlock, and usr is closed after the unmerge",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let closed = system.mounts();
                does(system, &["unlock"]);
                merge(system, None);
                sync(system);
                assert!(system.is_read_only(DATABASE));
                unmerge(system);
                assert!(!system.is_read_only("/usr"));
                sync(system);
                assert_eq!(is_closed(system), [true, true]);
                assert_eq!(system.mounts().len(), closed.len());
            });
        },
    ),
    (
        "what was merged over an open usr is unmerged by a soft-reboot, and usr is closed",
        || {
            let host =
                |system: &System| system.generator(&["apply", "--root", "/", "--stage", "host"]);
            System::with(STRICT, |system| {
                // As PID 1 makes it for usr-policy-apply.service, and removes it when that stops.
                let state = system.path("/run/usr-policy/state");
                fs::create_dir_all(&state).unwrap();
                assert_eq!(host(system).0, 0);
                sync(system);
                let closed = system.mounts().len();
                does(system, &["unlock"]);
                merge(system, None);
                sync(system);
                // systemd-remount-fs.service runs it too, and is no soft-reboot.
                assert_eq!(host(system), (0, String::new()));
                fs::remove_dir_all(&state).unwrap();
                fs::create_dir_all(&state).unwrap();
                fs::remove_dir_all(system.path("/run/usr-policy/open")).unwrap();
                let (exit, log) = host(system);
                assert_eq!(
                    (exit, log.as_str()),
                    (
                        0,
                        "<4> /usr: extensions were merged while it was open, before the soft-reboot; unmerging them, to close it\n<6> /usr: made read-only\n"
                    )
                );
                sync(system);
                assert_eq!(is_closed(system), [true, true]);
                assert_eq!(system.mounts().len(), closed);
            });
            // Merged over a /usr that was closed they stay, and so they do at a boot by the kernel.
            for is_closed_before in [true, false] {
                System::with(STRICT, |system| {
                    let state = system.path("/run/usr-policy/state");
                    if is_closed_before {
                        fs::create_dir_all(&state).unwrap();
                        assert_eq!(host(system).0, 0);
                        fs::remove_dir_all(&state).unwrap();
                    }
                    merge(system, None);
                    fs::create_dir_all(&state).unwrap();
                    assert_eq!(host(system), (0, String::new()));
                });
            }
        },
    ),
    (
        "the follower closes at a merge, at an unmerge and when the time of an unlock is over",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let closed = system.mounts().len();
                let follower = Follower::start(system);
                does(system, &["unlock"]);
                assert_eq!(is_closed(system), [false, false]);
                merge(system, None);
                becomes("the database is closed", || system.is_read_only(DATABASE));
                unmerge(system);
                becomes("usr is closed", || system.is_read_only("/usr"));
                assert!(does(system, &["unlock", "--for", "1s"]).contains(" for 1s, until "));
                assert_eq!(is_closed(system), [false, false]);
                becomes("both are closed", || is_closed(system) == [true, true]);
                becomes("nothing is left over", || system.mounts().len() == closed);
                // What is missed while none runs is made good by the next one.
                does(system, &["unlock", "--for", "1s"]);
                drop(follower);
                assert!(
                    refused(system, &["unlock", "--for", "1s"])
                        .contains("--for is over only where usr-policy-follow.service runs")
                );
                let _follower = Follower::start(system);
                becomes("usr is closed again", || system.is_read_only("/usr"));
            });
        },
    ),
    (
        "the follower waits for a package manager, and for nobody else",
        || {
            System::with(STRICT, |system| {
                sync(system);
                does(system, &["unlock"]);
                let _follower = Follower::start(system);
                let pacman = Writer::of(system, "/var/lib/pacman/db.lck");
                merge(system, None);
                becomes("the merge is seen", || {
                    fs::read_to_string(system.path(STATE)).is_ok_and(|text| text.contains("merged"))
                });
                assert!(!system.is_read_only(DATABASE));
                // As pacman does it, and soon after: what was closed before that could not be removed.
                pacman.end();
                sleep(Duration::from_millis(30));
                fs::remove_file(system.path("/var/lib/pacman/db.lck")).unwrap();
                becomes("the database is closed", || system.is_read_only(DATABASE));
            });
        },
    ),
    ("status says in one screen what is open and why", || {
        System::with(STRICT, |system| {
            sync(system);
            let text = does(system, &["status"]);
            for line in [
                "mode        strict (/proc/cmdline)\n",
                "/usr        read-only, but late, since ",
                "database    /var/lib/pacman: locked: pacman can read it and change nothing (locked from boot until extensions were merged and unmerged), for 0s\n",
                "extensions  none are merged\n",
            ] {
                assert!(text.contains(line), "{text}");
            }
            system.pretend_to_follow();
            does(system, &["unlock", "--for", "1h"]);
            let text = does(system, &["status"]);
            assert!(
                text.contains("(unlocked by hand), for 0s; the next change in 59m "),
                "{text}"
            );
            assert!(text.lines().count() < 24);
        });
        System::with("rw", |system| {
            assert_eq!(does(system, &["status"]), "mode        off (by default)\n");
        });
    }),
    (
        "with the guard the database is open from two seconds after an unmerge to the next merge",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let _follower = Follower::start(system);
                merge(system, None);
                becomes("the merge is seen", || seen(system, "extensions merged"));
                assert!(system.is_read_only(DATABASE));
                unmerge(system);
                becomes("the database is open", || !system.is_read_only(DATABASE));
                assert!(system.is_read_only("/usr"));
                let (exit, report, _) = system.program(&["verify"]);
                let missing = report.lines().filter(|line| line.contains("BROKEN"));
                assert!(
                    missing.clone().all(|line| line.contains("no tmpfs")) && exit == 1,
                    "{report}"
                );
                assert!(
                    report.contains("only the hook of usr-policy keeps pacman"),
                    "{report}"
                );
                assert_eq!(
                    system.program(&["guard"]),
                    (
                        1,
                        String::new(),
                        "usr-policy: /usr is read-only, so packages cannot change it; run usr-policy unlock, change the packages, then run usr-policy lock\n".to_owned()
                    )
                );
                does(system, &["unlock"]);
                assert_eq!(does(system, &["guard"]), "");
                merge(system, None);
                becomes("the database is closed", || system.is_read_only(DATABASE));
            });
        },
    ),
    (
        "what pacman.conf includes from where nobody answers holds nothing up, and the rest is read",
        || {
            if !has_fuse() {
                return;
            }
            System::with(STRICT, |system| {
                let at = system.path("/run/hung");
                fs::create_dir_all(&at).unwrap();
                fs::create_dir_all(system.path("/srv/packages")).unwrap();
                hung(&at);
                for include in ["/run/hung/x", "/run/hung/*.conf"] {
                    let conf = format!("[options]\nInclude = {include}\nDBPath = /srv/packages\n");
                    system.write("/etc/pacman.conf", &conf);
                    let words = ["timeout", "--signal=KILL", "20", GENERATOR, "sync"];
                    let (exit, log) = system.logged(&mut system.command(&words));
                    assert_eq!(exit, 0, "{include}: {log}");
                    assert!(system.is_read_only("/srv/packages"), "{include}: {log}");
                    umount2(&system.path("/srv/packages"), MntFlags::MNT_DETACH).unwrap();
                }
                umount2(&at, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).unwrap();
            });
        },
    ),
    (
        "without a guard that pacman would run the database stays locked after an unmerge",
        || {
            type Spoil = fn(&System);
            let ways: [Spoil; 4] = [
                |system| fs::remove_file(system.path(HOOK)).unwrap(),
                |system| system.write(HOOK, "[Trigger]\n"),
                |system| {
                    let mask = system.path("/etc/pacman.d/hooks");
                    fs::create_dir_all(&mask).unwrap();
                    symlink("/dev/null", mask.join("00-usr-policy-guard.hook")).unwrap();
                },
                |system| {
                    system.write(
                        "/etc/pacman.conf",
                        "[options]\nInclude = /etc/pacman.d/o*.conf\n",
                    );
                    system.write("/etc/pacman.d/own.conf", "HookDir = /srv/hooks\n");
                    system.write("/srv/hooks/00-usr-policy-guard.hook", "");
                },
            ];
            for spoil in ways {
                System::with(STRICT, |system| {
                    spoil(system);
                    sync(system);
                    let _follower = Follower::start(system);
                    merge(system, None);
                    becomes("the merge is seen", || seen(system, "extensions merged"));
                    unmerge(system);
                    becomes("the unmerge is seen", || {
                        seen(system, "extensions unmerged")
                    });
                    assert!(does(system, &["status"]).contains("no guard hook would stop"));
                    // Longer than an unmerge takes to settle.
                    sleep(Duration::from_millis(2_500));
                    assert!(system.is_read_only(DATABASE));
                });
            }
        },
    ),
];
