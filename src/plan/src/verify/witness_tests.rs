//! What is said where the mount table, statvfs(3) and faccessat(2) do not agree.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::tests::{machine, plan, says};
use super::{Access, Kind, Report, Verdict, report};

/// A rule of each kind, and what is mounted at its path.
const PATHS: [(&str, &str); 5] = [
    ("/usr", "ext4"),
    ("/var/lib/pacman", "ext4"),
    ("/var/opt", "ext4"),
    ("/var/log", "ext4"),
    ("/etc", "ext4"),
];

/// A machine on which all is as it should be, but for one path: what the table, asking and statvfs say of it.
fn asked(path: &str, fs_type: &str, flag: &str, access: Access, statvfs: Option<bool>) -> Report {
    let plan = plan("usrpolicy=strict usrpolicy.path=/var/opt:ro");
    let closed = ["/usr", "/var/lib/pacman", "/var/opt"].into_iter();
    let others = closed.filter(|other| *other != path).zip(2..);
    let others: Vec<String> = others
        .map(|(other, id)| format!("{id} 1 0:1 {other} {other} ro - ext4 a rw\n"))
        .collect();
    let table = format!(
        "1 0 0:1 / / rw - ext4 a rw\n9 1 0:9 / {path} {flag} - {fs_type} b rw\n{}",
        others.concat()
    );
    let mut seen = machine(&plan, &table);
    for place in &mut seen.places {
        // The machine has no paths that the policy has in memory.
        if ["/var/tmp", "/var/cache/pacman"].contains(&&*place.path.to_string()) {
            place.kind = Kind::Missing;
        }
        if place.path.as_bytes() == path.as_bytes() {
            place.access = access;
            place.statvfs_read_only = statvfs;
        }
    }
    report(&plan, &seen)
}

#[test]
fn a_witness_against_the_table_makes_every_kind_of_rule_unknown() {
    for (path, fs_type) in PATHS {
        for (flag, access, statvfs, what) in [
            (
                "ro",
                Access::NoWitness,
                Some(false),
                "the mount table says read-only, statvfs says writable",
            ),
            (
                "rw",
                Access::NoWitness,
                Some(true),
                "the mount table says writable, statvfs says read-only",
            ),
            (
                "rw",
                Access::Writable,
                Some(true),
                "the mount table says writable, statvfs says read-only",
            ),
            (
                "ro",
                Access::Writable,
                None,
                "the mount table says read-only, faccessat says writable",
            ),
            (
                "ro",
                Access::Writable,
                Some(true),
                "the mount table says read-only, faccessat says writable",
            ),
        ] {
            let report = asked(path, fs_type, flag, access, statvfs);
            says(&report, Verdict::Unknown, path, what);
            let of_it = report.findings.iter().filter(|of| of.subject == path);
            assert_eq!(of_it.count(), 1, "{report:#?}");
            assert_eq!(report.exit_code(), 3, "{report:#?}");
        }
    }
}

#[test]
fn witnesses_that_agree_or_say_nothing_are_no_news() {
    for (path, fs_type) in PATHS {
        for (flag, access, is_read_only) in [
            ("ro", Access::ReadOnly, true),
            ("rw", Access::Writable, false),
        ] {
            for access in [access, Access::NoWitness] {
                for statvfs in [Some(is_read_only), None] {
                    let report = asked(path, fs_type, flag, access, statvfs);
                    assert_eq!(report.count(Verdict::Unknown), 0, "{report:#?}");
                }
            }
        }
    }
}

#[test]
fn a_file_system_that_refuses_by_itself_is_read_only_whatever_the_flags_say() {
    for fs_type in ["btrfs", "bcachefs", "fuse.sshfs", "nfs4", "overlay", "ext4"] {
        let by = match fs_type {
            "btrfs" => "read-only by its file system, a read-only btrfs subvolume".into(),
            _ => format!("read-only by its file system, {fs_type}, whatever its flags say"),
        };
        for statvfs in [Some(false), None] {
            let asked = |path| asked(path, fs_type, "rw", Access::ReadOnly, statvfs);
            for (path, verdict, what) in [
                ("/usr", Verdict::Holds, by.as_str()),
                ("/var/lib/pacman", Verdict::Holds, "locked"),
                ("/var/opt", Verdict::Holds, "read-only"),
                (
                    "/etc",
                    Verdict::Warning,
                    "read-only, although it must be writable",
                ),
                (
                    "/run",
                    Verdict::Warning,
                    "read-only, although it must be writable",
                ),
                (
                    "/var/log",
                    Verdict::Broken,
                    "read-only, although it must be writable",
                ),
            ] {
                let report = asked(path);
                says(&report, verdict, path, what);
                assert_eq!(report.count(Verdict::Unknown), 0, "{path}: {report:#?}");
            }
        }
    }
    // A witness that says read-only beside the one that does not stays a contradiction.
    let report = asked("/usr", "btrfs", "rw", Access::ReadOnly, Some(true));
    says(&report, Verdict::Unknown, "/usr", "statvfs says read-only");
}
