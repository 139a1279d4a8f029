use alloc::format;

use super::*;
use crate::cmdline::Cmdline;
use crate::mountinfo::MountTable;
use crate::plan::Facts;

pub(super) fn plan(cmdline: &str) -> Plan {
    Plan::new(&Facts {
        cmdline: Cmdline::parse(cmdline.as_bytes()),
        ..Facts::default()
    })
}

/// A machine on which the mount table is the one witness, and every path is a directory.
pub(super) fn machine(plan: &Plan, table: &str) -> Observed {
    let mounts = MountTable::parse(table.as_bytes());
    let places = paths(plan).into_iter().map(|path| Place {
        mount_id: mounts.holding(&path).map(|mount| mount.mount_id),
        path,
        kind: Kind::Directory,
        access: Access::NoWitness,
        statvfs_read_only: None,
    });
    Observed {
        places: places.collect(),
        mounts,
        ..Observed::default()
    }
}

#[track_caller]
pub(super) fn says(report: &Report, verdict: Verdict, subject: &str, what: &str) {
    assert!(
        report.findings.iter().any(|finding| {
            finding.verdict == verdict && finding.subject == subject && finding.what.contains(what)
        }),
        "not {verdict} {subject} {what}: {report:#?}"
    );
}

const PAIR: &str = "/usr and the package database";

#[test]
fn a_read_only_usr_with_a_writable_database_is_broken_whatever_the_word_for_the_lock() {
    let table = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n";
    for lock in ["always", "merged", "off"] {
        let plan = plan(&format!("usrpolicy=strict usrpolicy.lock={lock}"));
        let report = report(&plan, &machine(&plan, table));
        assert_eq!(report.exit_code(), 1);
        says(&report, Verdict::Broken, PAIR, "the database is writable");
        let names_the_word = report
            .findings
            .iter()
            .any(|finding| finding.remedy.contains("take usrpolicy.lock=off away"));
        assert_eq!(names_the_word, lock == "off", "{report:#?}");
    }
}

#[test]
fn without_a_database_there_is_no_pair() {
    let plan = plan("usrpolicy=strict usrpolicy.lock=off");
    let mut seen = machine(&plan, "1 0 0:1 / / ro - ext4 a rw\n");
    for place in &mut seen.places {
        if place.path.as_bytes() == b"/var/lib/pacman" {
            place.kind = Kind::Missing;
        }
    }
    let report = report(&plan, &seen);
    assert!(
        report
            .findings
            .iter()
            .all(|finding| finding.subject != PAIR)
    );
}

#[test]
fn a_file_that_could_not_be_read_leaves_open_what_is_promised() {
    for (cmdline, code, verdict) in [
        ("", 3, Verdict::Unknown),
        ("usrpolicy=strict", 3, Verdict::Unknown),
        ("usrpolicy=audit", 0, Verdict::Warning),
        ("usrpolicy=off", 0, Verdict::NotApplicable),
    ] {
        let plan = plan(cmdline);
        let mut seen = machine(&plan, "1 0 0:1 / / ro - ext4 a rw\n");
        for place in &mut seen.places {
            place.kind = Kind::Missing;
        }
        seen.unread = [Blind {
            subject: "/etc/usr-policy.conf".into(),
            what: "cannot read: Permission denied".into(),
            remedy: "run usr-policy verify as root".into(),
        }]
        .into();
        let report = report(&plan, &seen);
        assert_eq!(report.exit_code(), code, "{cmdline}: {report:#?}");
        says(&report, verdict, "/etc/usr-policy.conf", "cannot read");
    }
}

pub(super) const PACMAN: &str = "4 1 0:2 / /var/lib/pacman ro - tmpfs t rw\n";
const OVERLAY: &str = "3 1 0:3 / /usr ro - overlay sysext ro,lowerdir=/usr\n";

#[test]
fn a_usr_in_a_root_that_cannot_be_written_holds_before_a_merge_and_after_it() {
    let plan = plan("usrpolicy=strict");
    for fs_type in ["erofs", "squashfs"] {
        let root = format!("1 0 0:1 / / ro - {fs_type} a ro\n{PACMAN}");
        let by = format!("read-only by its file system, {fs_type}");
        let before = report(&plan, &machine(&plan, &root));
        says(&before, Verdict::Holds, "/usr", &by);
        let merged = report(&plan, &machine(&plan, &format!("{root}{OVERLAY}")));
        says(
            &merged,
            Verdict::Holds,
            "/usr",
            &format!("{by}, extensions merged over it"),
        );
    }
}

#[test]
fn what_a_lock_closes_after_an_unlock_is_neither_late_nor_a_repair() {
    let plan = plan("usrpolicy=strict");
    let table = format!("1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n{PACMAN}");
    for (events, verdict, what) in [
        (
            "1 early /usr read-only",
            Verdict::Holds,
            "read-only since the initramfs",
        ),
        (
            "1 early /usr read-only\n2 unlock /usr open\n3 sync /usr read-only",
            Verdict::Holds,
            "read-only since the initramfs, but for an unlock by hand",
        ),
        // A merge over it, and the unmerge.
        (
            "1 early /usr read-only\n2 unlock /usr open\n3 follow /usr closed\n4 follow /usr opened\n5 sync /usr read-only\n6 unlock /usr open\n7 sync /usr read-only",
            Verdict::Holds,
            "but for 2 unlocks by hand",
        ),
        (
            "1 early /usr read-only\n2 unlock /usr open\n3 sync /usr read-only\n4 follow /usr opened\n5 sync /usr read-only",
            Verdict::Warning,
            "something had opened it again",
        ),
        (
            "1 host /usr read-only\n2 unlock /usr open\n3 sync /usr read-only",
            Verdict::Warning,
            "read-only, but late,",
        ),
    ] {
        let mut seen = machine(&plan, &table);
        seen.events = Event::parse(events.as_bytes());
        says(&report(&plan, &seen), verdict, "/usr", what);
    }
}

#[test]
fn what_is_open_says_since_when_where_that_was_seen() {
    let plan = plan("usrpolicy=strict");
    let table = "1 0 0:1 / / rw - ext4 a rw\n";
    let mut seen = machine(&plan, table);
    seen.events = Event::parse(
        b"1 early /usr read-only\n2500000 follow /usr opened\n3 sync /var/lib/pacman read-only",
    );
    let report = report(&plan, &seen);
    says(
        &report,
        Verdict::Broken,
        "/usr",
        "writable, since something opened it 2.500 s after the kernel started",
    );
    let database = report
        .findings
        .iter()
        .find(|finding| finding.subject == "/var/lib/pacman");
    assert_eq!(
        database.unwrap().what,
        "writable, although it is to be locked; the mount that closed it is gone, by whom is not known"
    );
}

#[test]
fn a_path_of_the_record_may_hold_blanks() {
    let events = Event::parse(br"7 sync /srv/my\040db failed");
    assert_eq!(events[0].path, "/srv/my db");
    assert_eq!(events[0].result, Done::Failed);
}

#[test]
fn a_line_of_another_version_is_left_out_of_the_record_and_hides_no_other() {
    let events =
        Event::parse(b"7 sync /usr failed for now\n8 sync /usr melted\n9 sync /usr read-only\n");
    let results: Vec<_> = events.iter().map(|event| event.result).collect();
    assert_eq!(results, [Done::ReadOnly]);
}

#[test]
fn a_usr_in_a_root_that_can_be_written_is_broken_beneath_extensions() {
    let plan = plan("usrpolicy=strict");
    let table = format!("1 0 0:1 / / rw - ext4 a rw\n{PACMAN}{OVERLAY}");
    let report = report(&plan, &machine(&plan, &table));
    says(&report, Verdict::Broken, "/usr", "writable beneath them");
}

#[test]
fn a_path_on_a_tmpfs_of_somebody_else_is_in_memory_all_the_same() {
    let plan = plan("usrpolicy=strict");
    let table = format!(
        "1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n{PACMAN}9 1 0:9 / /var rw - tmpfs tmpfs rw,mode=755\n"
    );
    let seen = machine(&plan, &table);
    says(
        &report(&plan, &seen),
        Verdict::Warning,
        "/var/tmp",
        "in memory, on the tmpfs at /var; size and options are of that",
    );
}

#[test]
fn what_was_recorded_before_a_soft_reboot_is_no_news_after_it() {
    const EARLY: &str = "1 early /usr read-only\n";
    const START: &str = "2 host - start\n";
    const CLOSED: &str = "3 host /usr read-only\n";
    let plan = plan("usrpolicy=strict");
    let table = format!("1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n{PACMAN}");
    for (lines, verdict, what) in [
        (
            [EARLY, START].as_slice(),
            Verdict::Holds,
            "since the initramfs",
        ),
        (&[EARLY, START, CLOSED], Verdict::Warning, "opened it again"),
        (
            &[CLOSED, START],
            Verdict::Warning,
            "read-only, but late, since",
        ),
        (
            &[EARLY, START, START],
            Verdict::Holds,
            "since the soft-reboot",
        ),
        (
            &[EARLY, START, CLOSED, START],
            Verdict::Holds,
            "since the soft-reboot",
        ),
        (
            &[EARLY, START, START, START],
            Verdict::Holds,
            "since the soft-reboot",
        ),
        (
            &[EARLY, START, START, CLOSED],
            Verdict::Warning,
            "opened it again",
        ),
        (
            &[START, START],
            Verdict::Holds,
            "by a mount that is not usr-policy's",
        ),
    ] {
        let mut seen = machine(&plan, &table);
        seen.events = Event::parse(lines.concat().as_bytes());
        says(&report(&plan, &seen), verdict, "/usr", what);
    }
}

#[test]
fn a_share_of_the_memory_was_counted_when_it_was_mounted_and_a_number_stays_what_it_is() {
    let tmpfs = |size: &str, memory: u64| {
        let plan = plan(&format!(
            "usrpolicy=strict usrpolicy.path=/var/tmp:tmpfs,size={size}"
        ));
        let table = "1 0 0:1 / / ro - ext4 a rw\n\
            2 1 0:2 / /var/tmp rw,nosuid,nodev - tmpfs tmpfs rw,size=1048576k\n";
        let mut seen = machine(&plan, table);
        seen.memory = Some(memory << 30);
        report(&plan, &seen)
    };
    says(&tmpfs("25%", 4), Verdict::Holds, "/var/tmp", "size=25%");
    for memory in [2, 8] {
        says(
            &tmpfs("25%", memory),
            Verdict::Warning,
            "/var/tmp",
            "size=1048576k, and 25% of the memory would be",
        );
        says(&tmpfs("1g", memory), Verdict::Holds, "/var/tmp", "size=1g");
        says(
            &tmpfs("2g", memory),
            Verdict::Broken,
            "/var/tmp",
            "size=1048576k",
        );
    }
}

#[test]
fn only_who_is_not_root_is_told_to_be() {
    let plan = plan("usrpolicy=strict");
    for caller in [Caller::Root, Caller::Other] {
        let mut seen = machine(&plan, "");
        seen.caller = caller;
        seen.places[0].kind = Kind::Unknown;
        let report = report(&plan, &seen);
        assert_eq!(report.exit_code(), 3);
        let is_told = |finding: &Finding| finding.remedy.contains("as root");
        assert_eq!(report.findings.iter().any(is_told), caller == Caller::Other);
    }
}
