use alloc::vec;

use super::super::tests::{PACMAN, machine, plan, says};
use super::super::{Caller, Observed, Report, report};
use super::*;
use crate::mountinfo::MountTable;

const ROOT: &str = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n";

fn point(path: &str) -> MountPoint {
    MountPoint::new(path.as_bytes()).unwrap()
}

/// What is said of a machine where everything that matters here holds, after a change.
fn changed(cmdline: &str, table: &str, change: impl FnOnce(&mut Observed)) -> Report {
    let plan = plan(cmdline);
    let mut seen = machine(&plan, &[table, PACMAN].concat());
    change(&mut seen);
    report(&plan, &seen)
}

fn strict(change: impl FnOnce(&mut Observed)) -> Report {
    changed("usrpolicy=strict", ROOT, change)
}

fn has(report: &Report, topic: Topic) -> bool {
    report.findings.iter().any(|finding| finding.topic == topic)
}

/// Whether a witness has said anything; that there was none is no news here.
fn is_doubted(report: &Report) -> bool {
    let mut findings = report.findings.iter();
    findings
        .any(|finding| finding.topic == Topic::Witness && finding.verdict != Verdict::NotApplicable)
}

fn second(mounts: &[(&str, &str, bool)], unreadable: usize) -> SecondReading {
    let mounts = mounts
        .iter()
        .map(|(path, fs_type, is_read_only)| SecondMount {
            mount_point: point(path),
            fs_type: fs_type.as_bytes().to_vec(),
            is_read_only: *is_read_only,
        });
    SecondReading {
        mounts: mounts.collect(),
        unreadable,
    }
}

const SAME: [(&str, &str, bool); 3] = [
    ("/", "ext4", false),
    ("/usr", "ext4", true),
    ("/var/lib/pacman", "tmpfs", true),
];

#[test]
fn two_readings_that_agree_are_no_news() {
    for second in [
        None,
        Some(second(&SAME, 0)),
        // A line that only the second parser cannot read.
        Some(second(&SAME[1..], 1)),
        Some(second(&SAME[..1], 2)),
    ] {
        let report = strict(|seen| seen.layers.second = second);
        assert!(!is_doubted(&report), "{report:#?}");
    }
}

#[test]
fn two_readings_that_disagree_are_unknown_and_each_is_told() {
    let with = |index: usize, mount| {
        let mut mounts = SAME;
        mounts[index] = mount;
        second(&mounts, 0)
    };
    for (reading, path, what) in [
        (
            with(1, ("/usr", "ext4", false)),
            "/usr",
            "the mount table says ext4 read-only, a second reading says ext4 writable",
        ),
        (
            with(1, ("/usr", "overlay", true)),
            "/usr",
            "the mount table says ext4 read-only, a second reading says overlay read-only",
        ),
        (
            with(2, ("/var", "tmpfs", true)),
            "/var",
            "the mount table says nothing, a second reading says tmpfs read-only",
        ),
        (
            second(&SAME[..2], 0),
            "/var/lib/pacman",
            "the mount table says tmpfs read-only, a second reading says nothing",
        ),
        // One line that could not be read explains one mount that is missing.
        (
            second(&SAME[..1], 1),
            "/var/lib/pacman",
            "a second reading says nothing",
        ),
    ] {
        let report = strict(|seen| seen.layers.second = Some(reading));
        says(&report, Verdict::Unknown, path, what);
    }
    let stacked = second(&[SAME[0], SAME[1], SAME[1], SAME[2]], 0);
    let report = strict(|seen| seen.layers.second = Some(stacked));
    says(
        &report,
        Verdict::Unknown,
        "/usr",
        "a second reading says ext4 read-only, ext4 read-only",
    );
}

#[test]
fn many_disagreements_are_counted() {
    let table: Vec<String> = (10..20)
        .map(|id| format!("{id} 1 0:1 / /m{id} rw - tmpfs t rw\n"))
        .collect();
    let report = changed(
        "usrpolicy=strict",
        &[ROOT, &table.concat()].concat(),
        |seen| {
            seen.layers.second = Some(second(&SAME, 0));
        },
    );
    assert_eq!(report.count(Verdict::Unknown), 4, "{report:#?}");
    says(
        &report,
        Verdict::Unknown,
        "/proc/1/mounts",
        "the two readings of the mount table differ in 7 more places",
    );
}

#[test]
fn a_table_with_a_line_that_is_none_is_not_blamed_on_the_second_reading() {
    let report = changed(
        "usrpolicy=strict",
        &[ROOT, "truncated li\n"].concat(),
        |seen| {
            seen.layers.second = Some(second(&[SAME[0]], 0));
        },
    );
    assert!(!is_doubted(&report), "{report:#?}");
}

#[test]
fn an_immutable_directory_is_a_warning_with_its_remedy() {
    let report = strict(|seen| seen.layers.immutable = vec![point("/usr")]);
    says(
        &report,
        Verdict::Warning,
        "/usr",
        "has the immutable attribute, which usr-policy never sets",
    );
    let mut findings = report.findings.iter();
    let finding = findings.find(|finding| finding.topic == Topic::Attribute);
    assert_eq!(finding.unwrap().remedy, "chattr -i /usr, while it is open");
}

fn way(of: &str, at: &str) -> Way {
    Way {
        of: point(of),
        at: point(at),
    }
}

#[test]
fn another_way_to_the_files_is_a_warning_that_names_it() {
    let mounts = "9 1 0:1 / /mnt rw - ext4 a rw\n";
    let say = |access| {
        changed("usrpolicy=strict", &[ROOT, mounts].concat(), |seen| {
            seen.layers.elsewhere = vec![(way("/usr", "/mnt/usr"), access)];
        })
    };
    for access in [Access::Writable, Access::NoWitness] {
        let report = say(access);
        says(
            &report,
            Verdict::Warning,
            "/usr",
            "the same files can be written at /mnt/usr",
        );
        let mut findings = report.findings.iter();
        let finding = findings
            .find(|finding| finding.topic == Topic::Way)
            .unwrap();
        assert_eq!(
            finding.remedy,
            "mount --bind -o ro /mnt/usr /mnt/usr closes it until the next boot; /mnt shows more than that, and stays as it is"
        );
    }
    // The property of a subvolume closes it, and nobody but the kernel can tell.
    assert!(!has(&say(Access::ReadOnly), Topic::Way));
    let btrfs = mounts.replace("ext4", "btrfs");
    let report = changed("usrpolicy=strict", &[ROOT, &btrfs].concat(), |seen| {
        seen.layers.elsewhere = vec![(way("/usr", "/mnt/usr"), Access::NoWitness)];
    });
    assert!(!has(&report, Topic::Way));
    let many = changed("usrpolicy=strict", &[ROOT, mounts].concat(), |seen| {
        let ways = (0..5).map(|n| (way("/usr", &format!("/m{n}")), Access::Writable));
        seen.layers.elsewhere = ways.collect();
    });
    says(
        &many,
        Verdict::Warning,
        "/usr",
        "at /m0, /m1, /m2 and 2 more",
    );
}

#[test]
fn no_remedy_takes_a_mount_away_that_shows_more_than_the_rules_files() {
    let data = "1 0 0:1 / / rw shared:1 - ext4 a rw\n\
        2 1 0:1 /data/usr /usr rw shared:1 - ext4 a rw\n3 2 0:1 /data/usr /usr ro shared:2 - ext4 a rw\n";
    let top = "1 0 0:1 / / rw shared:1 - btrfs a rw,subvol=/\n\
        2 1 0:1 /@usr /usr ro shared:2 - btrfs a rw,subvol=/@usr\n";
    let home = "1 0 0:1 / / ro - ext4 a rw\n5 1 0:2 / /home rw - tmpfs t rw\n";
    let exact = "5 1 0:1 /usr /srv/usr rw - ext4 a rw\n";
    let part = "5 1 0:1 /usr/share /srv/share rw - ext4 a rw\n";
    let keep = |at: &str, of: &str| {
        format!(
            "as long as the file system is mounted so, whoever writes to {at} changes {of}: write there only what is meant for it, or give {of} a file system or subvolume of its own that is mounted nowhere else"
        )
    };
    let cover = |at: &str, mount: &str| {
        format!(
            "mount --bind -o ro {at} {at} closes it until the next boot; {mount} shows more than that, and stays as it is"
        )
    };
    let take_away = |at: &str| format!("umount {at}, or mount -o remount,bind,ro {at}");
    for (table, of, at, remedy) in [
        // The peers of / are shown what is mounted in it, the bind at /usr among them.
        (data, "/usr", "/data/usr", keep("/data/usr", "/usr")),
        (top, "/usr", "/@usr", cover("/@usr", "/")),
        (home, "/var/lib/pacman", "/home", take_away("/home")),
        (
            home,
            "/var/lib/pacman",
            "/home/db",
            cover("/home/db", "/home"),
        ),
        (
            &[ROOT, exact].concat(),
            "/usr",
            "/srv/usr",
            take_away("/srv/usr"),
        ),
        (
            &[ROOT, part].concat(),
            "/usr",
            "/srv/share",
            take_away("/srv/share"),
        ),
        // The root directory itself.
        (ROOT, "/usr", "/", keep("/", "/usr")),
    ] {
        let report = changed("usrpolicy=strict", table, |seen| {
            seen.layers.elsewhere = vec![(way(of, at), Access::Writable)];
        });
        let mut findings = report.findings.iter();
        let finding = findings
            .find(|finding| finding.topic == Topic::Way)
            .unwrap_or_else(|| panic!("{at}: {report:#?}"));
        assert_eq!((finding.subject.as_str(), &finding.remedy), (of, &remedy));
    }
}

fn process(pid: u32, of: &str, at: &str) -> Process {
    Process {
        pid,
        program: "backup\n".into(),
        way: way(of, at),
    }
}

#[test]
fn a_process_with_a_writable_copy_is_a_warning_with_its_number_and_name() {
    let report = strict(|seen| {
        seen.layers.processes = vec![
            process(812, "/usr", "/usr"),
            process(9, "/usr", "/host/usr"),
        ];
    });
    says(
        &report,
        Verdict::Warning,
        "/usr",
        "can be written in mount namespaces of their own by pid 812 (backup\\x0a), pid 9 (backup\\x0a, at /host/usr)",
    );
    let mut findings = report.findings.iter();
    let finding = findings
        .find(|finding| finding.topic == Topic::Way)
        .unwrap();
    assert_eq!(
        finding.remedy,
        "restart what they belong to: systemctl status 812 names its unit"
    );
    let many = strict(|seen| {
        let processes = (1..=9).map(|pid| process(pid, "/var/lib/pacman", "/var/lib/pacman"));
        seen.layers.processes = processes.collect();
    });
    says(&many, Verdict::Warning, "/var/lib/pacman", "and 6 more");
}

#[test]
fn where_a_rule_is_open_anyway_no_other_way_to_it_is_news() {
    let opened = ROOT.replace("/usr /usr ro", "/usr /usr rw");
    let report = changed("usrpolicy=strict", &opened, |seen| {
        seen.layers.processes = vec![process(812, "/usr", "/usr")];
        seen.layers.elsewhere = vec![(way("/usr", "/mnt/usr"), Access::Writable)];
    });
    assert!(!has(&report, Topic::Way), "{report:#?}");
    let linked = strict(|seen| {
        seen.places[0].kind = Kind::Linked;
        seen.layers.processes = vec![process(812, "/usr", "/usr")];
    });
    assert!(!has(&linked, Topic::Way), "{linked:#?}");
}

#[test]
fn what_was_not_looked_at_is_said_once() {
    for (caller, what) in [
        (
            Caller::Other,
            "seen without the rights of root: processes with mounts of their own were not looked at",
        ),
        (
            Caller::Root,
            "some processes with mounts of their own could not be looked at",
        ),
    ] {
        let report = strict(|seen| {
            seen.caller = caller;
            seen.layers.has_unseen_processes = true;
        });
        says(&report, Verdict::Warning, "processes", what);
        assert_eq!(report.count(Verdict::Unknown), 0);
    }
}

#[test]
fn a_subvolume_beneath_extensions_is_judged_by_its_property_or_not_at_all() {
    const MERGED: &str = "3 1 0:3 / /usr ro - overlay sysext ro,lowerdir=/usr\n";
    let in_root = "1 0 0:1 /@ / rw - btrfs a rw\n";
    let own = "1 0 0:1 /@ / rw - btrfs a rw\n2 1 0:1 /@usr /usr rw - btrfs a rw\n";
    let cannot_be_seen = "what lies beneath them cannot be seen, and may be writable";
    for (table, merged, root, verdict, what) in [
        (
            in_root,
            MERGED,
            Access::ReadOnly,
            Verdict::Holds,
            "extensions merged over it",
        ),
        (
            in_root,
            MERGED,
            Access::Writable,
            Verdict::Broken,
            "writable beneath them",
        ),
        (
            in_root,
            MERGED,
            Access::NoWitness,
            Verdict::Unknown,
            cannot_be_seen,
        ),
        (
            own,
            "3 2 0:3 / /usr ro - overlay sysext ro\n",
            Access::ReadOnly,
            Verdict::Unknown,
            cannot_be_seen,
        ),
    ] {
        let report = changed("usrpolicy=strict", &[table, merged].concat(), |seen| {
            seen.layers.root = Some(root);
        });
        says(&report, verdict, "/usr", what);
    }
}

fn beneath(access: Access, is_immutable: Option<bool>) -> Vec<BeneathExtensions> {
    vec![BeneathExtensions {
        path: point("/usr"),
        access,
        is_immutable,
    }]
}

#[test]
fn what_a_look_beneath_extensions_says_decides_where_the_flags_say_rw() {
    let sysext = "3 2 0:3 / /usr ro - overlay sysext ro\n";
    let own = |fs_type: &str, flag: &str| {
        format!("1 0 0:1 / / rw - ext4 a rw\n2 1 0:5 / /usr {flag} - {fs_type} b rw\n{sysext}")
    };
    let holds = "read-only by its file system";
    for (table, access, verdict, what) in [
        (
            own("btrfs", "rw"),
            Access::ReadOnly,
            Verdict::Holds,
            "read-only by its file system, a read-only btrfs subvolume, extensions merged over it",
        ),
        (own("fuse.x", "rw"), Access::ReadOnly, Verdict::Holds, holds),
        (own("ext4", "rw"), Access::ReadOnly, Verdict::Holds, holds),
        (
            own("btrfs", "rw"),
            Access::Writable,
            Verdict::Broken,
            "writable beneath them",
        ),
        (
            own("btrfs", "rw"),
            Access::NoWitness,
            Verdict::Unknown,
            "cannot be seen",
        ),
        (
            own("nfs4", "rw"),
            Access::NoWitness,
            Verdict::Unknown,
            "cannot be seen",
        ),
        (
            own("fuse.x", "rw"),
            Access::NoWitness,
            Verdict::Unknown,
            "cannot be seen",
        ),
        // Its flags say all there is.
        (
            own("ext4", "rw"),
            Access::NoWitness,
            Verdict::Broken,
            "writable beneath them",
        ),
        (
            own("btrfs", "ro"),
            Access::NoWitness,
            Verdict::Holds,
            "merged over it",
        ),
        (
            own("btrfs", "ro"),
            Access::ReadOnly,
            Verdict::Holds,
            "merged over it",
        ),
        (
            own("ext4", "ro"),
            Access::Writable,
            Verdict::Unknown,
            "the mount table says read-only beneath the extensions, faccessat says writable",
        ),
    ] {
        let report = changed("usrpolicy=strict", &table, |seen| {
            seen.layers.beneath = beneath(access, None);
        });
        says(&report, verdict, "/usr", what);
    }
    // The root directory is another subvolume than what lies beneath them: the nearer witness counts.
    let nested = "1 0 0:1 /@ / rw - btrfs a rw\n3 1 0:3 / /usr ro - overlay sysext ro\n";
    let report = changed("usrpolicy=strict", nested, |seen| {
        seen.layers.root = Some(Access::Writable);
        seen.layers.beneath = beneath(Access::ReadOnly, Some(false));
    });
    says(
        &report,
        Verdict::Holds,
        "/usr",
        "read-only by its root, a read-only btrfs subvolume",
    );
    assert!(!has(&report, Topic::Attribute), "{report:#?}");
}

#[test]
fn only_who_is_not_root_is_told_to_look_beneath_extensions_as_root() {
    let own = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:5 / /usr rw - btrfs b rw\n\
        3 2 0:3 / /usr ro - overlay sysext ro\n";
    for (caller, remedy) in [
        (Caller::Root, "systemd-sysext unmerge, and ask again"),
        (Caller::Other, "run usr-policy verify as root"),
    ] {
        let report = changed("usrpolicy=strict", own, |seen| seen.caller = caller);
        let mut findings = report.findings.iter();
        let finding = findings.find(|finding| finding.topic == Topic::Usr);
        let finding = finding.unwrap();
        assert_eq!(
            (finding.verdict, finding.remedy.as_str()),
            (Verdict::Unknown, remedy)
        );
    }
}

#[test]
fn extensions_over_a_mount_that_the_table_lacks_leave_open_what_is_beneath_them() {
    let table = "1 0 0:1 / / rw - ext4 a rw\n3 99 0:3 / /usr ro - overlay sysext ro\n";
    let report = changed("usrpolicy=strict", table, |seen| {
        seen.places[0].mount_id = Some(3);
    });
    says(
        &report,
        Verdict::Unknown,
        "/usr",
        "what lies beneath them is not in the mount table of PID 1, and may be writable",
    );
}

#[test]
fn what_a_file_system_says_of_everything_is_no_attribute() {
    for table in [
        "1 0 0:1 / / rw - ext4 a rw\n2 1 0:5 / /usr ro - erofs b ro\n",
        "1 0 0:1 / / rw - overlay a rw,lowerdir=/image,upperdir=/x\n2 1 0:1 /usr /usr ro - overlay a rw\n",
        // In an image of erofs, too.
        "1 0 0:1 / / ro - erofs a ro\n3 1 0:3 / /usr ro - overlay sysext ro\n",
    ] {
        let report = changed("usrpolicy=strict", table, |seen| {
            seen.layers.immutable = vec![point("/usr")];
            if table.contains("sysext") {
                seen.layers.beneath = beneath(Access::ReadOnly, Some(true));
            }
        });
        assert!(!has(&report, Topic::Attribute), "{table}: {report:#?}");
    }
}

#[test]
fn an_immutable_directory_beneath_extensions_is_told_once_with_the_way_to_it() {
    let merged = [ROOT, "3 2 0:3 / /usr ro - overlay sysext ro\n"].concat();
    let report = changed("usrpolicy=strict", &merged, |seen| {
        seen.layers.immutable = vec![point("/usr")];
        seen.layers.beneath = beneath(Access::ReadOnly, Some(true));
    });
    let mut findings = report.findings.iter();
    let findings: Vec<_> = findings
        .by_ref()
        .filter(|finding| finding.topic == Topic::Attribute)
        .collect();
    let [finding] = findings.as_slice() else {
        panic!("{report:#?}");
    };
    assert_eq!(
        (finding.what.as_str(), finding.remedy.as_str()),
        (
            "beneath the extensions it has the immutable attribute, which usr-policy never sets",
            "systemd-sysext unmerge, then chattr -i /usr, while it is open"
        )
    );
}

#[test]
fn ten_thousand_mounts_are_judged_in_steps_that_grow_as_n_log_n() {
    let work = |mounts: usize| {
        let plan = plan("usrpolicy=strict");
        // Holes below /usr, ways around it, fifty on one place, and names in every order.
        let lines: Vec<String> = (10..mounts)
            .map(|id| match id % 4 {
                0 => format!(
                    "{id} 2 0:9 / /usr/m{:x} rw - tmpfs t rw\n",
                    id * 7919 % 65536
                ),
                1 => format!("{id} 1 0:1 / /mnt/{id} rw - ext4 a rw\n"),
                2 if id < 200 => format!(
                    "{id} {} 0:9 / /srv rw - tmpfs t rw\n",
                    if id == 10 { 1 } else { id - 4 }
                ),
                _ => format!("{id} 1 0:9 / /var/lib/m{id}/a/b/c rw - tmpfs t rw\n"),
            })
            .collect();
        let mut seen = machine(&plan, &[ROOT, PACMAN, &lines.concat()].concat());
        assert_eq!(seen.mounts.bad_lines, []);
        // As many lines of fstab: every second one is mounted.
        let fstab = (10..mounts).map(|id| match id % 8 {
            0 => format!("t /usr/m{:x} tmpfs rw\n", id * 7919 % 65536),
            4 => format!("t /usr/x{id}/y tmpfs rw\n"),
            _ => format!("t /var/lib/pacman/{id} tmpfs rw,noauto\n"),
        });
        seen.system.fstab = fstab.collect::<String>().into();
        let read_again = seen.mounts.mounts.iter().map(|mount| SecondMount {
            mount_point: mount.mount_point.clone(),
            fs_type: mount.fs_type.clone(),
            is_read_only: mount.is_read_only(),
        });
        seen.layers.second = Some(SecondReading {
            mounts: read_again.collect(),
            unreadable: 0,
        });
        let before = crate::mount_index::comparisons();
        let ways = super::super::Ways::new(&plan, &seen.mounts, None);
        assert_eq!(
            ways.elsewhere().count(),
            (10..mounts).filter(|id| id % 4 == 1).count()
        );
        let report = report(&plan, &seen);
        assert!(report.findings.len() > mounts / 5);
        assert!(!is_doubted(&report));
        let at_boot = report.findings.iter();
        let at_boot = at_boot.filter(|finding| finding.topic == Topic::NextBoot);
        assert_eq!(
            at_boot.count(),
            (10..mounts).filter(|id| id % 8 == 4).count()
        );
        crate::mount_index::comparisons() - before
    };
    let (small, large) = (work(1_000), work(10_000));
    assert!(small > 1_000, "{small}: nothing was counted");
    // Ten times as many: n log n is 13 times as much, n² a hundred times.
    assert!(large < small * 16, "{small} and {large}");
}

#[test]
fn tables_of_hostile_shapes_end_in_a_verdict() {
    let plan = plan("usrpolicy=strict");
    let loops: Vec<String> = (1..3_000)
        .map(|id| format!("{id} {} 0:1 /usr /usr ro - ext4 a rw\n", id % 2_999 + 1))
        .collect();
    let stacked: Vec<String> = (2..3_000)
        .map(|id| format!("{id} {} 0:3 / /usr ro - overlay sysext ro\n", id - 1))
        .collect();
    let stacked = ["1 0 0:1 / / rw - ext4 a rw\n", &stacked.concat()].concat();
    for (table, exit_code) in [
        ("", 3),
        ("\n\n", 3),
        ("1 0 0:1 / / rw", 3),
        (&loops.concat(), 3),
        (&stacked, 1),
        (
            "1 1 0:1 / / rw - ext4 a rw\n1 1 0:1 / / ro - ext4 a rw\n",
            1,
        ),
        ("1 0 0:1 / /usr ro - ext4 a rw\n", 3),
    ] {
        let mut seen = machine(&plan, table);
        for bad in seen.mounts.bad_lines.clone() {
            seen.blind.push(super::super::Blind {
                subject: format!("/proc/1/mountinfo:{}", bad.line),
                what: bad.what(),
                remedy: String::new(),
            });
        }
        let report = report(&plan, &seen);
        let start = table.get(..20).unwrap_or(table);
        assert_eq!(report.exit_code(), exit_code, "{start}: {report:#?}");
        let holds = report.findings.iter().any(|finding| {
            finding.subject == "/var/lib/pacman" && finding.verdict == Verdict::Holds
        });
        assert!(!holds, "{start}: {report:#?}");
    }
    assert!(MountTable::parse(b"\xff\x00 1").mounts.is_empty());
}
