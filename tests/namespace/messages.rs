//! What the verbs say in whole where they refuse, fail or leave something open: the words that the other tests shorten.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use usr_policy_tests::prepare::{Image, in_memory};
use usr_policy_tests::privilege::{bind, ended, has_fuse, has_other_users, tmpfs};
use usr_policy_tests::product;
use usr_policy_tests::system::{Follower, NOBODY, System, Writer, installed};
use usr_policy_tests::verdict;

use crate::STRICT;
use crate::apply::merge;
use crate::journal::Journal;
use crate::lock::{CACHE, DATABASE, NOT_FOLLOWED, STATE, does, is_closed, sync};
use crate::verify::{Report, closed};

/// What a verb prints on standard error, with its exit code; nothing goes to standard output.
#[track_caller]
fn complains(system: &System, words: &[&str], exit: i32, complaint: &str) {
    let ran = system.program(words);
    assert_eq!(
        ran,
        (exit, String::new(), format!("usr-policy: {complaint}\n")),
        "{words:?}"
    );
}

/// The same of another caller, by the command before the words.
#[track_caller]
fn complains_to(system: &System, before: &[&str], verb: &str, complaint: &str) {
    let words = [before, &["/usr/bin/usr-policy", verb]].concat();
    let ran = system.command(&words).output().unwrap();
    assert!(ran.stdout.is_empty() && !ran.status.success(), "{ran:?}");
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(said, format!("usr-policy: {complaint}\n"));
}

/// A `/usr` of its own whose file system nobody can make writable, because its overlay has no upper layer.
fn usr_without_upper(system: &System) {
    let options = format!("lowerdir={}:/usr", installed().join("usr").display());
    mount(
        Some("usr"),
        &system.path("/usr"),
        Some("overlay"),
        MsFlags::MS_RDONLY,
        Some(options.as_str()),
    )
    .unwrap();
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "who may not change the mounts of the machine is told why",
        || {
            System::with(STRICT, |system| {
                closed(system);
                for verb in ["lock", "unlock"] {
                    let complaint = format!(
                        "{verb}: cannot change the mounts of PID 1: Invalid cross-device link; this process has mounts of its own; run it with nsenter -t 1 -m"
                    );
                    complains_to(system, &["unshare", "--mount"], verb, &complaint);
                    let alone = ["unshare", "--pid", "--fork", "--mount-proc"];
                    complains_to(system, &alone, verb, &complaint);
                    // Root who may not ask.
                    let no_ptrace = ["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"];
                    let blind = [&["setpriv"], &no_ptrace[..], &["unshare", "--mount"]].concat();
                    complains_to(system, &blind, verb, &complaint);
                    if has_other_users() {
                        let complaint = format!(
                            "{verb}: cannot change mounts: Operation not permitted; run it as root"
                        );
                        complains_to(system, NOBODY, verb, &complaint);
                    }
                }
                assert_eq!(is_closed(system), [true, true]);
                system.write("/run/systemd/container", "podman");
                let alone = ["unshare", "--pid", "--fork", "--mount-proc"];
                let complaint = "unlock: in a container the mounts are its manager's";
                complains_to(system, &alone, "unlock", complaint);
                complains(
                    system,
                    &["unlock"],
                    4,
                    "unlock: in a container the mounts are its manager's",
                );
            });
            System::with("rw usrpolicy=audit", |system| {
                complains(
                    system,
                    &["lock"],
                    4,
                    "lock: usrpolicy is not strict (/proc/cmdline), so nothing is opened or closed by hand; what was closed at boot stays so until the next one",
                );
            });
        },
    ),
    (
        "an unlock of more than a year is refused with the way out",
        || {
            System::with(STRICT, |system| {
                let (exit, _, complaints) = system.program(&["unlock", "--for", "9000years"]);
                assert_eq!(exit, 2);
                assert!(
                    complaints.contains(": more than a year; leave --for away\n"),
                    "{complaints}"
                );
            });
        },
    ),
    (
        "a usr whose file system cannot be written is told by unlock",
        || {
            System::with(STRICT, |system| {
                usr_without_upper(system);
                sync(system);
                complains(
                    system,
                    &["unlock"],
                    3,
                    "/usr: cannot make writable: Read-only file system",
                );
                assert_eq!(is_closed(system), [true, true]);
            });
            System::with(STRICT, |system| {
                closed(system);
                system.does(&["mount", "-o", "remount,bind,ro", "/"]);
                complains(
                    system,
                    &["unlock"],
                    3,
                    "/usr: is still read-only: Read-only file system; see findmnt /usr for who mounts it; everything is closed again",
                );
                assert_eq!(is_closed(system), [true, true]);
            });
            System::with(STRICT, |system| {
                tmpfs(&system.path(DATABASE), "");
                closed(system);
                system.does(&["mount", "-o", "remount,ro", DATABASE]);
                complains(
                    system,
                    &["unlock"],
                    3,
                    "/var/lib/pacman: is still read-only: Read-only file system; see findmnt for who mounts it so; everything is closed again",
                );
                assert_eq!(is_closed(system), [true, true]);
            });
            System::with(STRICT, |system| {
                closed(system);
                system.does(&["mount", "-o", "remount,ro", "/"]);
                complains(
                    system,
                    &["unlock"],
                    4,
                    "unlock: the file system of /usr (overlay) is read-only, and not by usr-policy; change what provides it",
                );
            });
        },
    ),
    (
        "lock says what keeps it from closing, and what is open all the same",
        || {
            System::with(STRICT, |system| {
                closed(system);
                let without = system.program(&["unlock", "--for", "1h"]);
                assert_eq!(without.0, 0, "{without:?}");
                assert!(
                    without
                        .1
                        .starts_with("/usr and the package database are open for 1h, until "),
                    "{without:?}"
                );
                let writer = Writer::of(system, "/usr/share/written");
                let (exit, _, complaints) = system.program(&["lock"]);
                assert_eq!(exit, 4);
                assert!(
                complaints.ends_with(
                    " has /usr/share/written open for writing; end it, then run usr-policy lock again\n"
                ),
                "{complaints}"
            );
                writer.end();
                let pacman = Writer::of(system, "/var/lib/pacman/db.lck");
                let (exit, _, complaints) = system.program(&["lock"]);
                assert_eq!(exit, 4);
                assert!(
                    complaints.ends_with(
                        " is changing packages; let it end, then run usr-policy lock again\n"
                    ),
                    "{complaints}"
                );
                pacman.end();
                let (exit, text, complaints) = system.program(&["lock"]);
                assert_eq!(
                    (exit, text.as_str(), complaints.as_str()),
                    (
                        0,
                        "/usr and the package database are closed.\n",
                        "usr-policy: /var/lib/pacman/db.lck: no program has it open; where no package manager is at work, usr-policy lock --remove-stale removes it\n"
                    )
                );
                assert_eq!(
                    system.program(&["unlock"]),
                    (
                        0,
                        "/usr and the package database are open until usr-policy lock, the next merge or the next boot.\n".to_owned(),
                        complaints
                    )
                );
                let program = "/usr/lib/usr-policy/usr-policy-generator";
                let aside = "/usr/lib/usr-policy/aside";
                system.does(&["mv", program, aside]);
                complains(
                    system,
                    &["lock"],
                    3,
                    "/usr/lib/usr-policy/usr-policy-generator: cannot run: No such file or directory",
                );
                // One that does nothing, and says that all is well.
                system.does(&["cp", "/usr/bin/true", program]);
                fs::remove_file(system.path("/var/lib/pacman/db.lck")).unwrap();
                complains(
                    system,
                    &["lock"],
                    1,
                    "lock: not everything is closed; usr-policy verify and journalctl -t usr-policy-generator say what",
                );
            });
        },
    ),
    ("a time for an unlock needs somebody who ends it", || {
        System::with(STRICT, |system| {
            sync(system);
            drop(Follower::start(system));
            complains(
                system,
                &["unlock", "--for", "1h"],
                4,
                "unlock: --for is over only where usr-policy-follow.service runs, and it does not; systemctl start it, or unlock without --for",
            );
        });
    }),
    (
        "where nobody follows merges an unlock does not say that one ends it",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let text = "/usr and the package database are open until usr-policy lock or the next boot.\n";
                let said = (0, text.to_owned(), NOT_FOLLOWED.to_owned());
                assert_eq!(system.program(&["unlock"]), said);
                // OpenRC has nothing that could.
                fs::remove_dir(system.path("/run/systemd/system")).unwrap();
                let said = (0, text.to_owned(), String::new());
                assert_eq!(system.program(&["unlock"]), said);
            });
        },
    ),
    ("the guard says what is in the way", || {
        System::with(STRICT, |system| {
            closed(system);
            merge(system, None);
            let names = system.base().join("extension/.systemd-sysext/extensions");
            fs::write(names, "one\ntwo\n").unwrap();
            complains(
                system,
                &["guard"],
                1,
                "/usr is read-only, so packages cannot change it; extensions are merged over it (one, two): run systemd-sysext unmerge, then usr-policy unlock",
            );
        });
        if !Image::Erofs.can_be_mounted() {
            eprintln!("skipped: this kernel mounts no erofs from a file");
            return;
        }
        System::with(STRICT, |system| {
            Image::Erofs.over_usr(system);
            complains(
                system,
                &["guard"],
                1,
                "/usr is read-only, so packages cannot change it; its file system (erofs) cannot be written",
            );
        });
    }),
    (
        "a database that nobody answers for is not said to be open",
        || {
            if !has_fuse() {
                return;
            }
            System::with(STRICT, |system| {
                closed(system);
                ended(&system.path(DATABASE));
                let complaint =
                    "/var/lib/pacman: cannot look at: Transport endpoint is not connected";
                complains(system, &["unlock"], 3, complaint);
                assert!(system.is_read_only("/usr"));
            });
        },
    ),
    ("status says how full a tmpfs is", || {
        System::with(STRICT, |system| {
            closed(system);
            in_memory(system, CACHE, "size=64m");
            let text = does(system, &["status"]);
            assert!(
                text.contains("/var/cache/pacman: 0 of 64 MiB used\n"),
                "{text}"
            );
        });
    }),
    (
        "a line of the mount table that is none is to be reported",
        || {
            System::with(STRICT, |system| {
                closed(system);
                let ran = system.command(&["cat", "/proc/1/mountinfo"]).output();
                let mut table = ran.unwrap().stdout;
                let lines = table.split(|byte| *byte == b'\n').count();
                table.extend_from_slice(b"nonsense\n");
                let other = system.base().join("other-mountinfo");
                fs::write(&other, table).unwrap();
                bind(&other, &system.path("/proc/1/mountinfo"));
                let json = system.program(&["verify", "--json"]).1;
                let object = verdict::object(&json).unwrap();
                let subject = format!("/proc/1/mountinfo:{lines}");
                let findings = object["findings"].as_array().unwrap();
                let finding = findings
                    .iter()
                    .find(|one| one["subject"] == subject.as_str());
                let finding = finding.unwrap_or_else(|| panic!("{json}"));
                assert_eq!(finding["verdict"], "unknown");
                assert_eq!(finding["remedy"], "report this line of the table");
            });
        },
    ),
    (
        "where not even the policy can be read, that is what is said",
        || {
            System::with(STRICT, |system| {
                closed(system);
                // What the machine was asked for leads nowhere.
                let proc = system.path("/proc");
                tmpfs(&proc, "");
                symlink("cmdline", proc.join("cmdline")).unwrap();
                let json = system.program(&["verify", "--json"]);
                assert_eq!(json.0, 3, "{json:?}");
                let object = verdict::object(&json.1).unwrap();
                assert_eq!(
                    object["findings"][0]["remedy"],
                    "mend that, then run usr-policy verify again"
                );
                let (exit, text, _) = system.program(&["verify", "--journal"]);
                assert_eq!(exit, 3);
                assert!(
                    text.starts_with("usr-policy: it is not known what is promised\n"),
                    "{text}"
                );
            });
        },
    ),
    ("each metric is explained by the words of its own", || {
        System::with(STRICT, |system| {
            closed(system);
            does(system, &["unlock", "--for", "1h"]);
            let (_, text, _) = system.program(&["verify", "--format=metrics"]);
            let helps: Vec<&str> = text
                .lines()
                .filter_map(|line| line.strip_prefix("# HELP "))
                .collect();
            assert_eq!(
                helps,
                [
                    "usr_policy_exit_code What usr-policy verify exits with: 0 everything holds, 1 something does not, 3 it could not be told.",
                    "usr_policy_mode The mode that the policy asks for; 0 in all of them where that could not be read.",
                    "usr_policy_verdict The most serious verdict of all findings.",
                    "usr_policy_finding Findings by what they are about, and how that fares.",
                    "usr_policy_tmpfs_size_bytes What a tmpfs of the policy can hold, in bytes; 0 where it has no limit.",
                    "usr_policy_tmpfs_used_bytes What of that is used.",
                    "usr_policy_lock Whether the package database is to be locked now, and by which row of the lock table.",
                    "usr_policy_window Whether /usr is open on purpose, by usr-policy unlock.",
                    "usr_policy_window_end_timestamp_seconds When /usr is closed again, in seconds since 1970; missing where no time was given.",
                ]
            );
            let report = Report::of(system);
            report.exits(0);
        });
    }),
    (
        "the metrics of the README are those that are printed, with their labels",
        || {
            System::with(STRICT, |system| {
                closed(system);
                does(system, &["unlock", "--for", "1h"]);
                let (_, text, _) = system.program(&["verify", "--format=metrics"]);
                let samples = verdict::metrics(&text).unwrap();
                let printed: BTreeSet<String> = samples
                    .iter()
                    .map(|sample| {
                        let labels = sample.labels.iter().map(|(label, _)| label.as_str());
                        let labels: Vec<&str> = labels.collect();
                        match labels.is_empty() {
                            true => sample.name.clone(),
                            false => format!("{}{{{}}}", sample.name, labels.join(",")),
                        }
                    })
                    .collect();
                let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
                let readme = fs::read_to_string(readme).unwrap();
                let documented: BTreeSet<String> = readme
                    .lines()
                    .filter_map(|line| line.strip_prefix("| `usr_policy_"))
                    .map(|row| format!("usr_policy_{}", row.split('`').next().unwrap()))
                    .collect();
                assert_eq!(printed, documented);
            });
        },
    ),
    (
        "the fields of the manual are those of the record in the journal",
        || {
            System::with(STRICT, |system| {
                let journal = Journal::new(system);
                tmpfs(&system.path("/usr/local"), "");
                closed(system);
                // Something is broken, something may be written, and something cannot be told.
                system.does(&["umount", "/var/tmp"]);
                let state = system.path(STATE);
                let _ = fs::remove_file(&state);
                fs::create_dir_all(state.parent().unwrap()).unwrap();
                symlink("lock", &state).unwrap();
                assert_eq!(system.program(&["verify", "--journal"]).0, 1);
                let record = journal.next().unwrap();
                let page = product::stage().join("usr/share/man/man7/usr-policy.7");
                let page = fs::read_to_string(page).unwrap();
                let documented: BTreeSet<&str> = page
                    .lines()
                    .filter_map(|line| line.strip_prefix(".It Va "))
                    .flat_map(|names| names.split(" , "))
                    .collect();
                // What every record of the journal has is in the page of another one.
                let others = ["MESSAGE_ID", "SYSLOG_IDENTIFIER"];
                let sent: BTreeSet<&str> = record
                    .keys()
                    .map(String::as_str)
                    .filter(|name| !others.contains(name))
                    .collect();
                assert_eq!(sent, documented);
                let id = format!("\njournalctl MESSAGE_ID={}\n", record["MESSAGE_ID"]);
                assert!(page.contains(&id));
            });
        },
    ),
    (
        "what was changed under extensions is remembered in the file that the manual names",
        || {
            System::with(STRICT, |system| {
                assert_eq!(system.early().0, 0);
                let pacman = Writer::of(system, "/var/lib/pacman/db.lck");
                merge(system, None);
                sync(system);
                let package = format!("{DATABASE}/local/added-1-1");
                system.write(&format!("{package}/desc"), "");
                let files = "%FILES%\nusr/\nusr/bin/added\n";
                system.write(&format!("{package}/files"), files);
                pacman.end();
                fs::remove_file(system.path("/var/lib/pacman/db.lck")).unwrap();
                sync(system);
                let covered = fs::read_to_string(system.path("/var/lib/usr-policy/covered"));
                assert!(covered.unwrap().contains("added-1-1"));
            });
        },
    ),
];
