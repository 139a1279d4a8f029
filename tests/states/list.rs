//! The states, in the order of their subjects.

use std::fs;
use std::os::unix::fs::symlink;

use usr_policy_tests::prepare::{
    CACHE, Image, VAR_TMP, close, in_memory, lock, merge, usr_of_its_own,
};
use usr_policy_tests::privilege::{has_other_users, tmpfs};
use usr_policy_tests::system::{GENERATOR, NOBODY, System, Writer};

/// A state of a system.
pub(crate) struct State {
    /// Its folder, and what it is.
    pub(crate) name: &'static str,
    /// The kernel command line.
    pub(crate) words: &'static str,
    /// What is done before verify is asked.
    pub(crate) prepare: fn(&System),
    /// Who asks.
    pub(crate) caller: Caller,
    /// What this machine lacks to make it; `None` where that is nothing.
    pub(crate) lacks: fn() -> Option<&'static str>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Caller {
    /// Root, with the mounts of PID 1.
    Root,
    /// Another, by this command before the words.
    Other(&'static [&'static str]),
}

const fn state(name: &'static str, words: &'static str, prepare: fn(&System)) -> State {
    State {
        name,
        words,
        prepare,
        caller: Caller::Root,
        lacks: || None,
    }
}

impl State {
    const fn asked_by(mut self, command: &'static [&'static str]) -> Self {
        self.caller = Caller::Other(command);
        self
    }

    const fn unless(mut self, lacks: fn() -> Option<&'static str>) -> Self {
        self.lacks = lacks;
        self
    }
}

const STRICT: &str = "root=/dev/vda2 rw usrpolicy=strict";
const DATABASE: &str = "/var/lib/pacman";
const HOOK: &str = "/usr/share/libalpm/hooks/00-usr-policy-guard.hook";
const STATE: &str = "/run/usr-policy/state/lock";

/// A user without rights, in a sandbox.
const NOBODY_ELSEWHERE: &[&str] = &[
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount -t tmpfs tmpfs /mnt && exec \"$@\"",
    "sh",
    NOBODY[0],
    NOBODY[1],
    NOBODY[2],
    NOBODY[3],
];

fn no_other_users() -> Option<&'static str> {
    (!has_other_users()).then_some("there is no second user in this user namespace")
}

fn no_erofs() -> Option<&'static str> {
    (!Image::Erofs.can_be_mounted()).then_some("this kernel mounts no erofs from a file")
}

fn no_squashfs() -> Option<&'static str> {
    (!Image::Squashfs.can_be_mounted()).then_some("this kernel mounts no squashfs from a file")
}

fn does(system: &System, words: &[&str]) {
    let (exit, text, complaints) = system.program(words);
    assert_eq!(exit, 0, "{words:?}: {text}{complaints}");
}

/// Mounts a path of the policy anew, in another way.
fn remount(system: &System, path: &str, options: &str) {
    system.does(&["umount", path]);
    in_memory(system, path, options);
}

fn bind_read_only(system: &System, path: &str) {
    system.does(&["mount", "--bind", "-o", "ro", path, path]);
}

/// All but `/usr`.
fn close_the_rest(system: &System) {
    lock(system);
    in_memory(system, "/var/tmp", VAR_TMP);
    in_memory(system, "/var/cache/pacman", CACHE);
}

/// Extensions were merged and taken away, long ago, and the follower has opened the database.
fn unmerged(system: &System) {
    system.write(STATE, "extensions unmerged 1\n");
}

fn opened_database(system: &System) {
    close(system);
    unmerged(system);
    system.does(&["umount", DATABASE]);
}

/// `/usr` is an image from the start. It has no mount(8), so the rest is mounted before.
fn close_with(system: &System, image: Image) {
    in_memory(system, "/var/tmp", VAR_TMP);
    in_memory(system, "/var/cache/pacman", CACHE);
    image.over_usr(system);
    lock(system);
}

pub(crate) const STATES: &[State] = &[
    // What is promised.
    state("everything-is-closed", STRICT, close),
    state("nothing-is-closed", STRICT, |_| {}),
    state("off-by-default", "rw", |_| {}),
    state("off-by-a-word", "rw usrpolicy=off", |_| {}),
    state(
        "off-beats-strict",
        "rw usrpolicy=off usrpolicy=strict",
        |_| {},
    ),
    state("audit-of-an-open-system", "rw usrpolicy=audit", |_| {}),
    state("audit-of-a-closed-system", STRICT, |system| {
        close(system);
        system.boot_with("rw usrpolicy=audit");
    }),
    state("strict-by-a-configuration-file", "rw", |system| {
        system.write("/etc/usr-policy.conf", "[Policy]\nMode=strict\n");
        close(system);
    }),
    state("in-a-container", STRICT, |system| {
        system.write("/run/systemd/container", "podman")
    }),
    // What was not understood, or not read.
    state("the-mode-is-misspelt", "rw usrpolicy=strikt", |_| {}),
    state("the-mode-has-no-value", "rw usrpolicy", |_| {}),
    state(
        "the-word-for-the-lock-is-misspelt",
        "rw usrpolicy=strict usrpolicy.lock=x",
        close,
    ),
    state("a-line-of-the-configuration-is-none", STRICT, |system| {
        close(system);
        system.write("/etc/usr-policy.conf", "[Policy]\nnonsense\n");
    }),
    state(
        "a-path-that-must-not-be-touched-is-asked-for",
        "rw usrpolicy=strict usrpolicy.path=/home:ro",
        close,
    ),
    state("the-configuration-cannot-be-read", "rw", |system| {
        symlink("usr-policy.conf", system.path("/etc/usr-policy.conf")).unwrap();
    }),
    state(
        "the-configuration-cannot-be-read-and-off-needs-none",
        "rw usrpolicy=off",
        |system| {
            symlink("usr-policy.conf", system.path("/etc/usr-policy.conf")).unwrap();
        },
    ),
    state("the-configuration-is-for-root-alone", "rw", |system| {
        system.write("/etc/usr-policy.conf", "[Policy]\nMode=strict\n");
        system.does(&["chmod", "0600", "/etc/usr-policy.conf"]);
    })
    .asked_by(NOBODY)
    .unless(no_other_users),
    // /usr.
    state("usr-was-remounted-writable", STRICT, |system| {
        close(system);
        system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
    }),
    state(
        "usr-was-opened-while-the-follower-looked",
        STRICT,
        |system| {
            close(system);
            system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
            let events = system.path("/run/usr-policy/events");
            let text = fs::read_to_string(&events).unwrap() + "2500000 follow /usr opened\n";
            fs::write(events, text).unwrap();
        },
    ),
    state("usr-became-read-only-late", STRICT, close_the_rest),
    state("usr-was-opened-and-closed-again", STRICT, |system| {
        close(system);
        system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
        lock(system);
    }),
    state("usr-was-closed-by-a-soft-reboot", STRICT, |system| {
        let host = ["apply", "--root", "/", "--stage", "host"];
        let state = system.path("/run/usr-policy/state");
        close(system);
        for _ in 0..2 {
            fs::create_dir_all(&state).unwrap();
            assert_eq!(system.generator(&host).0, 0);
            // As PID 1 does when the unit stops.
            fs::remove_dir_all(&state).unwrap();
        }
    }),
    state("usr-of-its-own-is-closed", STRICT, |system| {
        usr_of_its_own(system);
        close(system);
    }),
    state("usr-of-its-own-is-writable", STRICT, |system| {
        close_the_rest(system);
        usr_of_its_own(system);
    }),
    state(
        "usr-of-its-own-is-read-only-as-a-file-system",
        STRICT,
        |system| {
            usr_of_its_own(system);
            system.does(&["mount", "-o", "remount,ro", "/usr"]);
            bind_read_only(system, DATABASE);
            in_memory(system, "/var/tmp", VAR_TMP);
            in_memory(system, "/var/cache/pacman", CACHE);
        },
    ),
    state(
        "usr-of-its-own-has-a-writable-line-in-fstab",
        STRICT,
        |system| {
            system.write("/etc/fstab", "/dev/vda / ext4\n/dev/vdb /usr ext4 rw 0 2\n");
            usr_of_its_own(system);
            assert_eq!(system.late().0, 0);
            close_the_rest(system);
        },
    ),
    state("usr-is-an-erofs", STRICT, |system| {
        close_with(system, Image::Erofs);
    })
    .unless(no_erofs),
    state("usr-is-a-squashfs", STRICT, |system| {
        close_with(system, Image::Squashfs);
    })
    .unless(no_squashfs),
    state("usr-is-an-erofs-under-extensions", STRICT, |system| {
        close_with(system, Image::Erofs);
        merge(system, None);
    })
    .unless(no_erofs),
    state("the-whole-root-is-read-only", STRICT, |system| {
        close(system);
        system.does(&["mount", "-o", "remount,bind,ro", "/"]);
    }),
    state("a-mount-below-usr-can-be-written", STRICT, |system| {
        tmpfs(&system.path("/usr/local"), "");
        close(system);
    }),
    state(
        "a-mount-below-usr-can-be-written-as-asked",
        "rw usrpolicy=strict usrpolicy.path=/usr/local:rw",
        |system| {
            tmpfs(&system.path("/usr/local"), "");
            close(system);
        },
    ),
    state(
        "a-mount-below-usr-has-quotes-in-its-name",
        STRICT,
        |system| {
            let path = system.path("/usr/a \"b\" \\c");
            fs::create_dir(&path).unwrap();
            tmpfs(&path, "");
            close(system);
        },
    ),
    // Extensions.
    state("extensions-are-merged", STRICT, |system| {
        close(system);
        merge(system, None);
        lock(system);
    }),
    state(
        "extensions-are-merged-with-a-writable-layer",
        STRICT,
        |system| {
            close(system);
            merge(system, Some("writable"));
            lock(system);
        },
    ),
    state("extensions-are-merged-twice", STRICT, |system| {
        close(system);
        merge(system, None);
        // What a peer group that is shared with the root brings about.
        system.does(&["mount", "--bind", "/usr", "/usr"]);
        lock(system);
    }),
    state(
        "extensions-are-merged-over-a-writable-usr",
        STRICT,
        |system| {
            merge(system, None);
            close_the_rest(system);
        },
    ),
    state(
        "extensions-are-merged-over-an-unlocked-usr",
        STRICT,
        |system| {
            close(system);
            does(system, &["unlock"]);
            merge(system, None);
            lock(system);
            in_memory(system, "/var/cache/pacman", CACHE);
        },
    ),
    // The package database.
    state("the-database-is-writable", STRICT, |system| {
        close(system);
        system.does(&["umount", DATABASE]);
    }),
    state("usr-and-the-database-are-writable", STRICT, |system| {
        close(system);
        system.does(&["umount", DATABASE]);
        system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
    }),
    state("the-database-is-locked-twice", STRICT, |system| {
        close(system);
        bind_read_only(system, DATABASE);
    }),
    state("the-database-has-a-hole", STRICT, |system| {
        close(system);
        tmpfs(&system.path("/var/lib/pacman/local"), "");
    }),
    state("the-database-is-on-a-disk-of-its-own", STRICT, |system| {
        system.write("/etc/fstab", "/dev/vdb /var/lib/pacman ext4 rw 0 2\n");
        tmpfs(&system.path(DATABASE), "");
        close(system);
    }),
    state("there-is-no-package-manager", STRICT, |system| {
        fs::remove_dir_all(system.path(DATABASE)).unwrap();
        fs::remove_dir_all(system.path("/var/cache/pacman")).unwrap();
        assert_eq!(system.early().0, 0);
        in_memory(system, "/var/tmp", VAR_TMP);
    }),
    state("the-database-is-elsewhere", STRICT, |system| {
        system.write("/etc/pacman.conf", "[options]\nDBPath = /srv/db\n");
        fs::create_dir_all(system.path("/srv/db/local")).unwrap();
        close(system);
    }),
    state("the-database-is-elsewhere-and-writable", STRICT, |system| {
        close(system);
        system.write("/etc/pacman.conf", "[options]\nDBPath = /srv/db\n");
        fs::create_dir_all(system.path("/srv/db/local")).unwrap();
    }),
    state("a-package-manager-is-at-work", STRICT, |system| {
        // A child of the system, and not of the test: it ends with the system, and nobody need wait for it.
        let script = "exec 3>>\"$0\"; sleep infinity >/dev/null 2>&1 </dev/null &";
        system.does(&["sh", "-c", script, "/var/lib/pacman/db.lck"]);
        close(system);
    }),
    state("packages-were-changed-under-extensions", STRICT, |system| {
        let package = |name: &str| {
            system.write(&format!("{DATABASE}/local/{name}/desc"), "");
            let files = format!("%FILES%\nusr/\nusr/bin/{name}\n");
            system.write(&format!("{DATABASE}/local/{name}/files"), &files);
        };
        assert_eq!(system.early().0, 0);
        package("removed-1-1");
        let pacman = Writer::of(system, "/var/lib/pacman/db.lck");
        merge(system, None);
        lock(system);
        fs::remove_dir_all(system.path("/var/lib/pacman/local/removed-1-1")).unwrap();
        package("added-2-1");
        pacman.end();
        fs::remove_file(system.path("/var/lib/pacman/db.lck")).unwrap();
        close_the_rest(system);
    }),
    // The lock table.
    state(
        "lock-always",
        "rw usrpolicy=strict usrpolicy.lock=always",
        close,
    ),
    state(
        "lock-off-with-the-guard",
        "rw usrpolicy=strict usrpolicy.lock=off",
        close,
    ),
    state(
        "lock-off-without-the-guard",
        "rw usrpolicy=strict usrpolicy.lock=off",
        |system| {
            system.does(&["rm", HOOK]);
            close(system);
        },
    ),
    state("unlocked", STRICT, |system| {
        close(system);
        does(system, &["unlock"]);
    }),
    state("unlocked-for-a-time", STRICT, |system| {
        close(system);
        does(system, &["unlock", "--for", "1h"]);
    }),
    state("unlocked-and-locked-again", STRICT, |system| {
        close(system);
        does(system, &["unlock"]);
        does(system, &["lock"]);
        in_memory(system, "/var/cache/pacman", CACHE);
    }),
    state(
        "the-time-of-an-unlock-is-over-and-nobody-has-closed",
        STRICT,
        |system| {
            close(system);
            does(system, &["unlock"]);
            system.write(STATE, "manual unlock 1\n");
        },
    ),
    state("unmerged-with-the-guard", STRICT, opened_database),
    state("unmerged-without-the-guard", STRICT, |system| {
        system.does(&["rm", HOOK]);
        opened_database(system);
    }),
    state("unmerged-without-the-guard-and-locked", STRICT, |system| {
        system.does(&["rm", HOOK]);
        close(system);
        unmerged(system);
    }),
    // What is in memory.
    state("var-tmp-is-on-the-disk", STRICT, |system| {
        close(system);
        system.does(&["umount", "/var/tmp"]);
    }),
    state(
        "var-tmp-has-another-share-of-the-memory",
        STRICT,
        |system| {
            close(system);
            remount(system, "/var/tmp", "mode=1777,size=1m,nosuid,nodev");
        },
    ),
    state(
        "var-tmp-has-another-size",
        "rw usrpolicy=strict usrpolicy.path=/var/tmp:tmpfs,size=2m",
        |system| {
            close(system);
            remount(system, "/var/tmp", "mode=1777,size=1m,nosuid,nodev");
        },
    ),
    state(
        "var-tmp-has-the-size-of-the-kernel",
        "rw usrpolicy=strict usrpolicy.path=/var/tmp:tmpfs,size=50%",
        |system| {
            close(system);
            remount(system, "/var/tmp", "mode=1777,nosuid,nodev");
        },
    ),
    state("var-tmp-has-no-limit-and-no-nosuid", STRICT, |system| {
        close(system);
        remount(system, "/var/tmp", "mode=1777,size=0,nodev");
    }),
    state("var-tmp-is-a-tmpfs-for-root-alone", STRICT, |system| {
        close(system);
        remount(system, "/var/tmp", "mode=0755,size=25%,nosuid,nodev");
    }),
    state("var-tmp-is-a-read-only-tmpfs", STRICT, |system| {
        close(system);
        remount(system, "/var/tmp", "ro,mode=1777,size=25%,nosuid,nodev");
    }),
    state("var-tmp-is-a-link", STRICT, |system| {
        fs::remove_dir(system.path("/var/tmp")).unwrap();
        symlink("../tmp", system.path("/var/tmp")).unwrap();
        assert_eq!(system.early().0, 0);
        lock(system);
        in_memory(system, "/var/cache/pacman", CACHE);
    }),
    state("var-tmp-is-a-file", STRICT, |system| {
        close(system);
        system.does(&["umount", "/var/tmp"]);
        system.does(&["rmdir", "/var/tmp"]);
        system.write("/var/tmp", "");
    }),
    state("the-cache-may-hold-programs", STRICT, |system| {
        close(system);
        remount(
            system,
            "/var/cache/pacman",
            "mode=0755,size=25%,nosuid,nodev",
        );
    }),
    state("all-of-var-is-in-memory", STRICT, |system| {
        tmpfs(&system.path("/var"), "mode=0755");
        for path in [
            "/var/tmp",
            "/var/lib/pacman/local",
            "/var/cache/pacman",
            "/var/log",
        ] {
            fs::create_dir_all(system.path(path)).unwrap();
        }
        assert_eq!(system.early().0, 0);
        lock(system);
    }),
    // What must stay writable, and what a person adds.
    state("etc-is-read-only", STRICT, |system| {
        close(system);
        bind_read_only(system, "/etc");
    }),
    state("run-is-read-only", STRICT, |system| {
        close(system);
        system.does(&["mount", "-o", "remount,bind,ro", "/run"]);
    }),
    state("the-state-of-systemd-is-read-only", STRICT, |system| {
        close(system);
        fs::create_dir_all(system.path("/var/lib/systemd")).unwrap();
        bind_read_only(system, "/var/lib/systemd");
    }),
    state(
        "a-path-of-ones-own-is-read-only",
        "rw usrpolicy=strict usrpolicy.path=/var/opt:ro",
        |system| {
            fs::create_dir_all(system.path("/var/opt")).unwrap();
            close(system);
            bind_read_only(system, "/var/opt");
        },
    ),
    state(
        "a-path-of-ones-own-is-writable",
        "rw usrpolicy=strict usrpolicy.path=/var/opt:ro",
        |system| {
            fs::create_dir_all(system.path("/var/opt")).unwrap();
            close(system);
        },
    ),
    // Pre-init.
    state("pre-init-is-the-installed-program", STRICT, |system| {
        system.does(&["cp", GENERATOR, "/usr-policy-init"]);
        close(system);
    }),
    state("pre-init-is-stale", STRICT, |system| {
        system.write("/usr-policy-init", "older");
        close(system);
    }),
    // Who asks, and what he sees.
    state("everything-is-closed-asked-by-a-user", STRICT, close)
        .asked_by(NOBODY)
        .unless(no_other_users),
    state(
        "usr-was-remounted-writable-asked-by-a-user",
        STRICT,
        |system| {
            close(system);
            system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
        },
    )
    .asked_by(NOBODY)
    .unless(no_other_users),
    state(
        "everything-is-closed-asked-by-a-user-with-other-mounts",
        STRICT,
        close,
    )
    .asked_by(NOBODY_ELSEWHERE)
    .unless(no_other_users),
    state("usr-is-writable-in-the-sandbox-that-asks", STRICT, close).asked_by(&[
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount -o remount,bind,rw /usr && exec \"$@\"",
        "sh",
    ]),
    state(
        "usr-is-read-only-in-the-sandbox-that-asks-alone",
        STRICT,
        |system| {
            close(system);
            system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
        },
    )
    .asked_by(&[
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount -o remount,bind,ro /usr && exec \"$@\"",
        "sh",
    ]),
    state("there-is-no-proc", STRICT, |system| {
        close(system);
        system.does(&["umount", "--lazy", "/proc"]);
    }),
    state("a-mount-point-has-a-newline", STRICT, |system| {
        close(system);
        let path = system.path("/var/a\nb");
        fs::create_dir(&path).unwrap();
        tmpfs(&path, "");
    }),
];
