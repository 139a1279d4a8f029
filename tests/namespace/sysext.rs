//! What verify says of extensions that systemd-sysext(8) itself merges.

use std::fs;
use std::os::unix::fs::symlink;

use usr_policy_tests::privilege::bind;
use usr_policy_tests::system::System;

use crate::STRICT;
use crate::verify::{Report, changed, closed};

const LINK: &str = "/etc/systemd/system/sysinit.target.wants/systemd-sysext.service";

fn enable(system: &System) {
    let link = system.path(LINK);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink("/usr/lib/systemd/system/systemd-sysext.service", link).unwrap();
}

fn merge(system: &System) {
    system.does(&["systemd-sysext", "merge"]);
    assert_eq!(system.generator(&["sync"]).0, 0);
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a directory that is merged and can be written is a warning, and a write in it is one to usr",
        || {
            changed(
                |system| {
                    system.extension("hello");
                    merge(system);
                },
                |system, report| {
                    report.exits(0);
                    report.says("/usr", "holds", "extensions merged over it");
                    report.says(
                        "hello",
                        "warning",
                        "merged from /var/lib/extensions/hello: a directory that can be written",
                    );
                    system.write("/var/lib/extensions/hello/usr/share/sneaked-in", "");
                    assert!(system.path("/usr/share/sneaked-in").exists());
                },
            );
        },
    ),
    (
        "a link is followed to where the extension is, and a read-only directory holds",
        || {
            changed(
                |system| {
                    system.extension("hello");
                    let away = system.path("/srv/hello");
                    fs::rename(system.path("/var/lib/extensions/hello"), &away).unwrap();
                    bind(&away, &away);
                    system.does(&["mount", "-o", "remount,bind,ro", "/srv/hello"]);
                    fs::create_dir_all(system.path("/run/extensions")).unwrap();
                    symlink("/srv/hello", system.path("/run/extensions/hello")).unwrap();
                    merge(system);
                },
                |system, report| {
                    report.exits(0);
                    report.says(
                        "hello",
                        "holds",
                        "merged from /run/extensions/hello, a link to /srv/hello: a read-only directory",
                    );
                    assert!(system.is_read_only("/srv/hello"));
                    fs::remove_file(system.path("/run/extensions/hello")).unwrap();
                    Report::of(system).says("hello", "warning", "lies in none of the directories");
                },
            );
        },
    ),
    (
        "an extension that suits and is not merged is a warning where the service is enabled, and only there",
        || {
            changed(
                |system| system.extension("hello"),
                |system, report| {
                    assert!(!report.text.contains("warning"), "{}", report.text);
                    enable(system);
                    let report = Report::of(system);
                    report.exits(0);
                    let what = format!(
                        "hello: not merged, although systemd-sysext.service is enabled ({LINK})"
                    );
                    report.says("extensions", "warning", &what);
                    // One for another system is nothing to expect, and systemd-sysext says the same.
                    let release = "/var/lib/extensions/hello/usr/lib/extension-release.d/extension-release.hello";
                    system.write(release, "ID=other\n");
                    let report = Report::of(system);
                    report.says(
                        "/var/lib/extensions/hello",
                        "-",
                        "not merged: its ID=other is another",
                    );
                    assert!(!report.text.contains("warning"), "{}", report.text);
                    let _ = system.command(&["systemd-sysext", "merge"]).output();
                    assert!(
                        system
                            .mounts_at("/usr")
                            .iter()
                            .all(|line| line.source != "sysext")
                    );
                },
            );
        },
    ),
    (
        "a mutable mode is named where it stands, unless something else beats it",
        || {
            changed(
                |system| {
                    system.write(
                        "/etc/systemd/sysext.conf.d/x.conf",
                        "[SysExt]\nMutable=yes\n",
                    )
                },
                |system, report| {
                    report.exits(0);
                    report.says(
                        "/etc/systemd/sysext.conf.d/x.conf",
                        "warning",
                        "mutable mode yes",
                    );
                    let drop_in = "/etc/systemd/system/systemd-sysext.service.d/x.conf";
                    system.write(
                        drop_in,
                        "[Service]\nEnvironment=SYSTEMD_SYSEXT_MUTABLE_MODE=ephemeral\n",
                    );
                    Report::of(system).says(drop_in, "warning", "mutable mode ephemeral");
                    system.write(
                        drop_in,
                        "[Service]\nEnvironment=SYSTEMD_SYSEXT_MUTABLE_MODE=no\n",
                    );
                    Report::of(system).says(
                        "/etc/systemd/sysext.conf.d/x.conf",
                        "warning",
                        "lets a merge by hand put a writable layer over /usr",
                    );
                },
            );
        },
    ),
    (
        "what systemd-sysext passes over without a word is said",
        || {
            changed(
                |system| {
                    fs::create_dir_all(system.path("/etc/extensions")).unwrap();
                    symlink("/srv/gone", system.path("/etc/extensions/gone")).unwrap();
                    symlink("/srv/gone.raw", system.path("/etc/extensions/gone2.raw")).unwrap();
                    system.write("/run/extensions", "");
                },
                |_, report| {
                    report.exits(0);
                    report.says("/etc/extensions/gone", "warning", "leads nowhere");
                    report.says("/etc/extensions/gone2.raw", "warning", "leads nowhere");
                    report.says("/run/extensions", "warning", "is no directory");
                },
            );
        },
    ),
    ("what stops every merge is said, and stops it", || {
        for (name, file, what) in [
            ("a:1", "share/x", "with this name every merge fails"),
            ("a,1", "share/x", "with this name every merge fails"),
            (
                "a",
                "lib/os-release",
                "it has a usr/lib/os-release, so every merge fails",
            ),
        ] {
            changed(
                |system| {
                    system.extension("good");
                    system.extension(name);
                    system.write(&format!("/var/lib/extensions/{name}/usr/{file}"), "");
                },
                |system, report| {
                    report.exits(0);
                    let path = format!("/var/lib/extensions/{name}");
                    report.says(&path, "warning", what);
                    // Its exit code is 0 up to v252 all the same.
                    let _ = system.command(&["systemd-sysext", "merge"]).output();
                    assert!(!system.path("/usr/share/good").exists());
                    fs::remove_dir_all(system.path(&path)).unwrap();
                    merge(system);
                    assert!(system.path("/usr/share/good").exists());
                },
            );
        }
    }),
    (
        "extensions that were merged before the lock are said, where the kernel numbers its mounts",
        || {
            let is_said = |lock_first: bool| {
                System::with(STRICT, |system| {
                    system.extension("hello");
                    assert_eq!(system.early().0, 0);
                    if lock_first {
                        closed_after_early(system);
                        merge(system);
                    } else {
                        merge(system);
                        closed_after_early(system);
                    }
                    let report = Report::of(system);
                    report.exits(0);
                    report
                        .text
                        .contains("extensions were merged at this boot before")
                })
            };
            assert!(!is_said(true));
            if has_numbers() {
                assert!(is_said(false));
            } else {
                eprintln!("skipped: a kernel before 6.8 does not say which mount is the older one");
            }
        },
    ),
    (
        "a system without extensions has nothing to say of them",
        || {
            changed(
                |_| {},
                |_, report| {
                    // The row of the lock table speaks of them.
                    let mut lines = report
                        .text
                        .lines()
                        .filter(|line| !line.starts_with("lock: "));
                    let is_about =
                        |line: &str| line.contains("sysext") || line.contains("extension");
                    assert!(!lines.any(is_about), "{}", report.text);
                },
            );
        },
    ),
    (
        "who is not root is told of a directory that root can write",
        || {
            changed(
                |system| {
                    system.extension("hello");
                    merge(system);
                },
                |system, _| {
                    if usr_policy_tests::privilege::has_other_users() {
                        let report = Report::for_nobody(system);
                        report.says("hello", "warning", "a directory that can be written");
                    }
                },
            );
        },
    ),
];

fn closed_after_early(system: &System) {
    // The early stage is idempotent.
    closed(system);
}

/// Whether statx(2) knows `STATX_MNT_ID_UNIQUE`.
fn has_numbers() -> bool {
    let release = nix::sys::utsname::uname().unwrap();
    let release = release.release().to_str().unwrap().to_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().unwrap().parse::<u32>().unwrap();
    (number(), number()) >= (6, 8)
}
