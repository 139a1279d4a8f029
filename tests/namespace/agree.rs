//! What the verbs say of one and the same state: none may say what another one denies.

use std::fs;
use std::os::unix::fs::symlink;

use nix::mount::{MntFlags, umount2};
use usr_policy_tests::privilege::{has_fuse, hung};
use usr_policy_tests::system::System;

use crate::STRICT;
use crate::apply::merge;
use crate::lock::{DATABASE, does, sync};
use crate::verify::{Report, closed};

/// What explain says about a path, by key.
fn explained(system: &System, path: &str, key: &str) -> Option<String> {
    let text = does(system, &["explain", path]);
    let mut lines = text.lines().filter_map(|line| line.split_once("  "));
    let found = lines.find(|(of, _)| of.trim_end() == key);
    found.map(|(_, what)| what.trim_start().to_owned())
}

#[track_caller]
fn says(system: &System, path: &str, key: &str, what: &str) {
    let told = explained(system, path, key);
    assert_eq!(told.as_deref(), Some(what), "{path}, {key}");
}

/// Merges, and lets nobody know.
fn merged(system: &System, names: &str) {
    merge(system, None);
    let mark = system.base().join("extension/.systemd-sysext/extensions");
    fs::write(mark, names).unwrap();
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a merge that nobody has followed ends an unlock for every verb",
        || {
            System::with(STRICT, |system| {
                closed(system);
                does(system, &["unlock"]);
                merged(system, "hello\n");
                Report::of(system).says(DATABASE, "BROKEN", "writable");
                let rule = explained(system, "/var/lib/pacman/local", "rule").unwrap();
                assert!(
                    rule.ends_with(
                        "; locked: extensions are merged; it is not so now, and usr-policy verify says why"
                    ),
                    "{rule}"
                );
                let (exit, text, _) = system.program(&["plan", "--diff"]);
                assert_eq!(exit, 1, "{text}");
                let lines = format!("-{DATABASE}: writable\n+{DATABASE}: read-only\n");
                assert!(text.contains(&lines), "{text}");
            });
        },
    ),
    (
        "an extension on a file system that does not answer does not hold explain",
        || {
            if !has_fuse() {
                return;
            }
            System::with(STRICT, |system| {
                closed(system);
                let at = system.path("/var/hung");
                for directory in ["/var/hung", "/var/lib/extensions"] {
                    fs::create_dir_all(system.path(directory)).unwrap();
                }
                symlink("/var/hung/x", system.path("/var/lib/extensions/dead")).unwrap();
                hung(&at);
                assert_eq!(explained(system, "/usr/share/zz", "extension"), None);
                merged(system, "dead\n");
                says(
                    system,
                    "/usr/share/zz",
                    "extension",
                    "may be shipped by dead (/var/lib/extensions/dead), into which this does not look",
                );
                umount2(&at, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).unwrap();

                let at = system.path("/run/extensions");
                fs::create_dir_all(&at).unwrap();
                hung(&at);
                says(
                    system,
                    "/usr/share/zz",
                    "note",
                    "extensions could not be looked at: a file system that one of them lies on does not answer",
                );
                umount2(&at, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).unwrap();
            });
        },
    ),
    (
        "explain takes for an extension what systemd-sysext takes for one",
        || {
            System::with(STRICT, |system| {
                for tree in [
                    "/usr/lib/extensions/old",
                    "/var/lib/extensions/.hidden",
                    "/var/lib/extensions/foo.v/foo_1",
                ] {
                    system.write(&format!("{tree}/usr/share/zz"), "");
                }
                // An image with its class in its name.
                system.write("/var/lib/extensions/bar.sysext.raw", "x");
                closed(system);
                assert_eq!(explained(system, "/usr/share/zz", "extension"), None);
                merged(system, "bar\nfoo_1\n");
                says(
                    system,
                    "/usr/share/zz",
                    "extension",
                    "may be shipped by bar (/var/lib/extensions/bar.sysext.raw), foo_1 (/var/lib/extensions/foo.v), into which this does not look",
                );
            });
        },
    ),
    (
        "status names the extensions of PID 1, whatever is merged for its caller",
        || {
            System::with(STRICT, |system| {
                closed(system);
                let status = |script: &str| {
                    let script = format!("{script}exec /usr/bin/usr-policy status");
                    let sandbox = ["unshare", "--mount", "sh", "-c", &script];
                    let ran = system.command(&sandbox).output().unwrap();
                    assert!(ran.status.success(), "{ran:?}");
                    String::from_utf8(ran.stdout).unwrap()
                };
                let alone = status("");
                assert!(alone.contains("\nextensions  none are merged\n"), "{alone}");
                merged(system, "secret\n");
                sync(system);
                let own = status("umount -l /usr && ");
                assert!(own.contains("\nextensions  secret\n"), "{own}");
                if !has_fuse() {
                    return;
                }
                let at = system.path("/run/extensions");
                fs::create_dir_all(&at).unwrap();
                hung(&at);
                let unseen = does(system, &["status"]);
                let line = "\nextensions  merged, and could not be looked at\n";
                assert!(unseen.contains(line), "{unseen}");
                umount2(&at, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).unwrap();
            });
        },
    ),
    ("a mask of the generator is named wherever it lies", || {
        System::with(STRICT, |system| {
            sync(system);
            for directory in ["/etc", "/run"] {
                let mask = format!("{directory}/systemd/system-generators/usr-policy-generator");
                let at = system.path(&mask);
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                symlink("/dev/null", &at).unwrap();
                let report = Report::of(system);
                report.says(
                    "/var/tmp",
                    "BROKEN",
                    &format!("systemd finds no generator of usr-policy: {mask} is no program"),
                );
                report.says(&mask, "warning", "is no program");
                fs::remove_file(&at).unwrap();
            }
        });
    }),
    (
        "off promises nothing, and nothing is looked at for it",
        || {
            if !has_fuse() {
                return;
            }
            System::with("rw usrpolicy=off", |system| {
                // Units and extensions are looked for there.
                let at = system.path("/etc/systemd");
                fs::create_dir_all(&at).unwrap();
                hung(&at);
                let report = Report::of(system);
                report.exits(0);
                assert!(report.findings.is_empty(), "{}", report.text);
                umount2(&at, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).unwrap();
            });
        },
    ),
];
