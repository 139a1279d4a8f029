use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::super::tests::{PACMAN, machine, plan, says};
use super::super::{Finding, Observed, Report, Unit, Verdict, report};
use super::*;
use crate::cmdline::Cmdline;
use crate::config::ConfigFile;
use crate::plan::{Facts, Plan};

/// A bind that was opened, one that is gone, and a file system of its own.
const OPENED_BIND: &str = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr rw - ext4 a rw\n";
const NO_BIND: &str = "1 0 0:1 / / rw - ext4 a rw\n";
const OWN: &str = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:5 / /usr rw - ext4 b rw\n";

/// The units of some files, those that win first.
fn units(files: &[(&str, &str)]) -> Vec<Unit> {
    let mut parts: BTreeMap<&str, Vec<UnitPart>> = BTreeMap::new();
    for (path, text) in files {
        let (directory, name) = path.rsplit_once('/').unwrap();
        let drop_in = directory
            .strip_suffix(".d")
            .and_then(|directory| directory.rsplit('/').next());
        let unit = parts.entry(drop_in.unwrap_or(name)).or_default();
        unit.push(UnitPart {
            path: (*path).to_owned(),
            is_drop_in: drop_in.is_some(),
            text: text.as_bytes().to_vec(),
        });
    }
    let units = parts.into_iter().map(|(name, mut parts)| {
        let key = |part: &UnitPart| {
            let name = part.path.rsplit('/').next().unwrap();
            (part.is_drop_in, name.to_owned())
        };
        parts.sort_by_key(key);
        parts.dedup_by_key(|part| key(part));
        Unit {
            name: name.to_owned(),
            parts,
            ..Unit::default()
        }
    });
    units.collect()
}

struct Undoing<'a> {
    fstab: &'a str,
    table: &'a str,
    events: &'a str,
    units: &'a [(&'a str, &'a str)],
}

impl Undoing<'_> {
    fn seen(&self, mode: &str) -> (Plan, Observed) {
        let plan = Plan::new(&Facts {
            cmdline: Cmdline::parse(mode.as_bytes()),
            fstab: Some(self.fstab.as_bytes().to_vec()),
            ..Facts::default()
        });
        let mut seen = machine(&plan, &[self.table, PACMAN].concat());
        seen.events = Event::parse(self.events.as_bytes());
        seen.system.generator = Generator::Ours;
        seen.system.units = units(self.units);
        (plan, seen)
    }

    fn report(&self) -> Report {
        let (plan, seen) = self.seen("usrpolicy=strict");
        report(&plan, &seen)
    }
}

fn about<'a>(report: &'a Report, subject: &str) -> &'a Finding {
    let mut findings = report.findings.iter();
    findings.find(|finding| finding.subject == subject).unwrap()
}

const NOTHING: Undoing<'_> = Undoing {
    fstab: "",
    table: NO_BIND,
    events: "1 early /usr read-only",
    units: &[],
};

const KEPT: (&str, &str) = (
    "/run/systemd/generator/systemd-remount-fs.service.d/50-usr-policy-fstab.conf",
    "[Service]\nEnvironment=\"SYSTEMD_FSTAB=/run/systemd/generator/usr-policy.fstab\"\n",
);

#[test]
fn a_layer_that_is_gone_is_named_where_nobody_knows_who_took_it() {
    for (table, what) in [
        (
            NO_BIND,
            "writable; the mount that closed it is gone, by whom is not known (mount 1 at / is rw, its ext4 is rw)",
        ),
        (
            OPENED_BIND,
            "writable; the read-only flag of its mount was taken away, by whom is not known (mount 2 at /usr is rw, its ext4 is rw)",
        ),
    ] {
        let report = Undoing { table, ..NOTHING }.report();
        assert_eq!(about(&report, "/usr").what, what);
    }
    let events = "1 early /usr read-only\n2500000 follow /usr opened";
    let report = Undoing { events, ..NOTHING }.report();
    assert!(
        about(&report, "/usr").what.starts_with(
            "writable, since something opened it 2.500 s after the kernel started; the mount that closed it is gone, by whom is not known"
        ),
        "{report:#?}"
    );
}

#[test]
fn a_usr_that_nothing_has_closed_names_what_kept_it_from_that() {
    let masked = ("/etc/systemd/system/usr-policy-apply.service", "");
    let replaced = (
        "/run/systemd/system/usr-policy-apply.service",
        "[Service]\nExecStart=/bin/true\n",
    );
    for (units, events, what, remedy) in [
        (
            &[masked][..],
            "",
            "/etc/systemd/system/usr-policy-apply.service masks usr-policy-apply.service",
            "systemctl unmask usr-policy-apply.service",
        ),
        (
            &[replaced],
            "",
            "/run/systemd/system/usr-policy-apply.service stands in place of usr-policy-apply.service",
            "remove /run/systemd/system/usr-policy-apply.service",
        ),
        (
            &[],
            "5 host /usr failed",
            "usr-policy could not close it (host)",
            "journalctl -b -t usr-policy-generator",
        ),
        (
            &[],
            "",
            "nothing of usr-policy has closed it at this boot",
            "usr-policy-generator sync",
        ),
        // What was closed, and then opened, was not kept from it.
        (
            &[masked],
            "1 early /usr read-only",
            "by whom is not known",
            "usr-policy-generator sync",
        ),
    ] {
        let report = Undoing {
            events,
            units,
            ..NOTHING
        }
        .report();
        says(&report, Verdict::Broken, "/usr", what);
        let finding = about(&report, "/usr");
        assert!(finding.remedy.contains(remedy), "{finding:#?}");
    }
    let (plan, mut seen) = Undoing {
        events: "",
        ..NOTHING
    }
    .seen("usrpolicy=strict");
    seen.system.generator = Generator::Missing;
    let report = report(&plan, &seen);
    says(
        &report,
        Verdict::Broken,
        "/usr",
        "systemd finds no generator of usr-policy",
    );
    assert!(about(&report, "/usr").remedy.contains("make install"));
}

#[test]
fn remount_fs_is_named_with_its_line_where_nothing_keeps_it_from_it() {
    let fstab = "/dev/a / ext4\n/dev/b /usr ext4 defaults 0 2\n";
    let reported = |units: &[(&str, &str)]| {
        Undoing {
            fstab,
            table: OWN,
            units,
            ..NOTHING
        }
        .report()
    };
    let applies = "systemd-remount-fs applies /etc/fstab:2, which has no ro: ";
    let report = reported(&[]);
    let missing = [applies, "the drop-in that keeps it from that is missing"].concat();
    says(&report, Verdict::Broken, "/usr", &missing);
    assert!(about(&report, "/usr").remedy.contains("write ro"));

    let hides = (
        "/etc/systemd/system/systemd-remount-fs.service.d/50-usr-policy-fstab.conf",
        "",
    );
    let report = reported(&[hides, KEPT]);
    let hidden = [applies, hides.0, " hides what keeps it from that"].concat();
    says(&report, Verdict::Broken, "/usr", &hidden);
    assert!(about(&report, "/usr").remedy.starts_with("remove /etc"));

    let alone = Undoing {
        fstab,
        table: OWN,
        units: &[hides],
        ..NOTHING
    };
    let (plan, mut seen) = alone.seen("usrpolicy=strict");
    seen.system.generator = Generator::Missing;
    let unwritten = super::super::report(&plan, &seen);
    let what = "systemd-remount-fs applies /etc/fstab:2, which has no ro, and nothing keeps it from that: systemd finds no generator of usr-policy";
    says(&unwritten, Verdict::Broken, "/usr", what);
    assert!(about(&unwritten, "/usr").remedy.contains("make install"));

    let other = (
        "/etc/systemd/system/systemd-remount-fs.service.d/10-mine.conf",
        "[Service]\nNice=1\n",
    );
    let report = reported(&[other, KEPT]);
    says(
        &report,
        Verdict::Broken,
        "/usr",
        "by whom is not known; a remount of /usr without options of its own applies /etc/fstab:2, which has no ro",
    );
    // A bind in the root is no mount of that line, and a line with ro opens nothing.
    let read_only = Undoing {
        fstab: "/dev/b /usr ext4 ro 0 2\n",
        table: OWN,
        ..NOTHING
    };
    for undoing in [Undoing { fstab, ..NOTHING }, read_only] {
        let report = undoing.report();
        let finding = about(&report, "/usr");
        assert!(!finding.what.contains("fstab"), "{finding:#?}");
    }
}

#[test]
fn remount_fs_is_not_named_where_it_cannot_have_been() {
    let fstab = "/dev/a / ext4\n/dev/b /usr ext4 defaults 0 2\n";
    let masked = ("/etc/systemd/system/systemd-remount-fs.service", "");
    let what = |events, units, prepare: &dyn Fn(&mut Observed)| {
        let undoing = Undoing {
            fstab,
            table: OWN,
            events,
            units,
        };
        let (plan, mut seen) = undoing.seen("usrpolicy=strict");
        prepare(&mut seen);
        let report = report(&plan, &seen);
        about(&report, "/usr").what.clone()
    };
    let no_generator = |seen: &mut Observed| seen.system.generator = Generator::Missing;
    let without_systemd = |seen: &mut Observed| {
        seen.system.generator = Generator::Missing;
        seen.system.runs_systemd = Some(false);
    };
    let closed = NOTHING.events;
    let nothing = "nothing of usr-policy has closed it at this boot";
    let by_anybody = "by whom is not known; a remount of /usr without options of its own applies /etc/fstab:2, which has no ro";
    for (what, expected) in [
        (
            what("", &[], &no_generator),
            "systemd finds no generator of usr-policy",
        ),
        (what("", &[], &|_| {}), nothing),
        (what("", &[], &without_systemd), nothing),
        (what("", &[masked], &without_systemd), nothing),
        (what(closed, &[], &without_systemd), by_anybody),
        (what(closed, &[masked], &|_| {}), by_anybody),
        (
            what("1 early /usr failed", &[], &without_systemd),
            "usr-policy could not close it (early)",
        ),
    ] {
        assert!(what.contains(expected), "{expected}: {what}");
        assert!(!what.contains("remount-fs"), "{expected}: {what}");
    }
}

#[test]
fn a_unit_of_the_administrator_that_mounts_usr_writable_is_named() {
    let path = "/etc/systemd/system/usr.mount";
    let drop_in = "/etc/systemd/system/usr.mount.d/90-mine.conf";
    let generated = ("/run/systemd/generator/usr.mount", "[Mount]\nOptions=rw\n");
    let late = "/run/systemd/generator.late/usr.mount";
    for (path, text, is_named) in [
        (path, "[Mount]\nWhat=/dev/b\nOptions=rw,noatime\n", true),
        (drop_in, "[Mount]\nOptions=defaults\n", true),
        (path, "[Mount]\nOptions=noatime,ro\n", false),
        (drop_in, "[Unit]\nAfter=x.service\n", false),
        // The vendor's and what is made of other files is nobody's doing.
        (
            "/usr/lib/systemd/system/usr.mount",
            "[Mount]\nOptions=rw\n",
            false,
        ),
        (late, "[Mount]\nOptions=rw\n", false),
    ] {
        let report = Undoing {
            table: OWN,
            units: &[(path, text), generated],
            ..NOTHING
        }
        .report();
        let finding = about(&report, "/usr");
        let what = format!("writable; {path} mounts it without ro");
        assert_eq!(finding.what.contains(&what), is_named, "{finding:#?}");
        let remedy = "write ro in its Options=, then systemctl daemon-reload";
        assert_eq!(finding.remedy == remedy, is_named, "{finding:#?}");
    }
    // What another one takes back has mounted nothing.
    let overridden = "/etc/systemd/system/usr.mount.d/10-mine.conf";
    let report = Undoing {
        table: OWN,
        units: &[
            (overridden, "[Mount]\nOptions=rw\n"),
            (drop_in, "[Mount]\nOptions=ro\n"),
            generated,
        ],
        ..NOTHING
    }
    .report();
    assert!(!about(&report, "/usr").what.contains("mounts it without ro"));
}

#[test]
fn a_database_that_is_open_names_what_has_opened_it() {
    let seen = |files: &[(&str, &str)], events: &str| {
        let (plan, mut seen) = NOTHING.seen("usrpolicy=strict");
        seen.mounts = crate::mountinfo::MountTable::parse(
            b"1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n",
        );
        for place in &mut seen.places {
            place.mount_id = None;
        }
        seen.events = Event::parse(events.as_bytes());
        seen.system.units = units(files);
        report(&plan, &seen)
    };
    let masked = ("/etc/systemd/system/var-lib-pacman.mount", "");
    let no_lock = ("/run/systemd/system/usr-policy-lock.service", "");
    let ours = (
        "/run/systemd/generator/var-lib-pacman.mount",
        "[Mount]\nWhat=/x\n",
    );
    for (units, events, what) in [
        (
            &[masked, ours][..],
            "",
            "/etc/systemd/system/var-lib-pacman.mount masks var-lib-pacman.mount",
        ),
        (
            &[ours, no_lock],
            "",
            "/run/systemd/system/usr-policy-lock.service masks usr-policy-lock.service",
        ),
        (
            &[ours],
            "",
            "nothing of usr-policy has closed it at this boot",
        ),
        (
            &[ours],
            "1 sync /var/lib/pacman read-only",
            "the mount that closed it is gone, by whom is not known",
        ),
    ] {
        let report = seen(units, events);
        says(
            &report,
            Verdict::Broken,
            "/var/lib/pacman",
            &["writable, although it is to be locked; ", what].concat(),
        );
    }
}

#[test]
fn a_path_that_is_not_in_memory_names_the_unit_that_is_another_one() {
    for (path, text, what) in [
        (
            "/etc/systemd/system/var-tmp.mount",
            "",
            "no tmpfs; /etc/systemd/system/var-tmp.mount masks var-tmp.mount",
        ),
        (
            "/etc/systemd/system/var-tmp.mount",
            "[Mount]\nWhat=/dev/c\n",
            "no tmpfs; /etc/systemd/system/var-tmp.mount stands in place of var-tmp.mount",
        ),
        (
            "/etc/systemd/system/var-tmp.mount.d/mine.conf",
            "[Mount]\nType=ext4\n",
            "no tmpfs; /etc/systemd/system/var-tmp.mount.d/mine.conf changes var-tmp.mount",
        ),
        (
            "/run/systemd/generator/var-tmp.mount",
            "[Mount]\nWhat=tmpfs\n",
            "no tmpfs; by whom is not known",
        ),
    ] {
        let units = &[(path, text)];
        let report = Undoing { units, ..NOTHING }.report();
        says(&report, Verdict::Broken, "/var/tmp", what);
        let table = format!("{NO_BIND}9 1 0:9 / /var/tmp rw,nosuid - tmpfs tmpfs rw\n");
        let other_options = Undoing {
            units,
            table: &table,
            ..NOTHING
        };
        let (_, undone) = what.split_once("; ").unwrap();
        says(&other_options.report(), Verdict::Broken, "/var/tmp", undone);
    }
}

#[test]
fn a_writable_layer_names_who_asks_for_it() {
    let table = format!(
        "{OPENED_BIND}3 2 0:3 / /usr rw - overlay sysext rw,lowerdir=/usr,upperdir=/var/lib/extensions.mutable/usr\n{PACMAN}"
    );
    let plan = plan("usrpolicy=strict");
    let seen = |unit: Option<(&str, &str)>, conf: &[(&str, &str)]| {
        let mut seen = machine(&plan, &table);
        seen.system.units = units(unit.as_slice());
        let conf = conf.iter().map(|(path, text)| ConfigFile {
            path: path.as_bytes().to_vec(),
            text: text.as_bytes().to_vec(),
        });
        seen.sysext.configuration = conf.collect();
        report(&plan, &seen)
    };
    let drop_in = "/etc/systemd/system/systemd-sysext.service.d/mine.conf";
    let main = ("/etc/systemd/sysext.conf", "[SysExt]\nMutable=auto\n");
    let later = (
        "/run/systemd/sysext.conf.d/9.conf",
        "[SysExt]\nMutable=no\n",
    );
    let nobody =
        "no file asks for it: whoever merged them gave --mutable or SYSTEMD_SYSEXT_MUTABLE_MODE";
    for (unit, conf, what) in [
        (None, &[][..], nobody),
        (
            None,
            &[main],
            "/etc/systemd/sysext.conf asks for it, with Mutable=auto",
        ),
        (None, &[main, later], nobody),
        (
            Some((
                drop_in,
                "[Service]\nEnvironment=\"SYSTEMD_SYSEXT_MUTABLE_MODE=yes\" A=b\n",
            )),
            &[main],
            "/etc/systemd/system/systemd-sysext.service.d/mine.conf:2 asks for it, with yes",
        ),
        (
            Some((
                drop_in,
                "[Service]\nEnvironment=SYSTEMD_SYSEXT_MUTABLE_MODE=no\n",
            )),
            &[],
            nobody,
        ),
        // The last one counts, and an empty one takes back those before it.
        (
            Some((
                drop_in,
                "[Service]\nEnvironment=SYSTEMD_SYSEXT_MUTABLE_MODE=yes\nEnvironment=SYSTEMD_SYSEXT_MUTABLE_MODE=no\n",
            )),
            &[],
            nobody,
        ),
        (
            Some((
                drop_in,
                "[Service]\nEnvironment=SYSTEMD_SYSEXT_MUTABLE_MODE=yes\nEnvironment=\n",
            )),
            &[],
            nobody,
        ),
        (
            Some((
                drop_in,
                "[Unit]\nEnvironment=SYSTEMD_SYSEXT_MUTABLE_MODE=yes\n",
            )),
            &[],
            nobody,
        ),
        (
            Some((
                drop_in,
                "[Service]\nExecStart=\nExecStart=systemd-sysext refresh --mutable=yes\n",
            )),
            &[],
            "/etc/systemd/system/systemd-sysext.service.d/mine.conf:3 asks for it, with yes",
        ),
    ] {
        let report = seen(unit, conf);
        let merged = "extensions are merged with a writable layer over it, /var/lib/extensions.mutable/usr; ";
        says(&report, Verdict::Broken, "/usr", &[merged, what].concat());
        assert!(!about(&report, "/usr").remedy.is_empty());
    }
    let mut unseen = machine(&plan, &table);
    unseen.sysext.has_no_answer = true;
    let what = "/var/lib/extensions.mutable/usr; by whom is not known";
    says(&report(&plan, &unseen), Verdict::Broken, "/usr", what);
}

#[test]
fn nobody_is_blamed_where_nothing_was_promised() {
    let masked = [("/etc/systemd/system/var-tmp.mount", "")];
    let undoing = Undoing {
        fstab: "/dev/b /usr ext4 defaults 0 2\n",
        table: OWN,
        units: &masked,
        ..NOTHING
    };
    let (plan, seen) = undoing.seen("usrpolicy=audit");
    let report = report(&plan, &seen);
    assert!(about(&report, "/usr").what.starts_with("writable ("));
    assert_eq!(about(&report, "/var/tmp").what, "no tmpfs");
}

#[test]
fn what_usr_policy_has_opened_itself_is_not_somebody_elses_doing() {
    use crate::lock::{Extensions, Manual, State};
    let opened = "1 early /usr read-only\n2 sync /var/lib/pacman read-only\n";
    let over = Manual::Unlock { until: Some(5) };
    for (path, stage, manual, follower, what) in [
        (
            "/usr",
            "unlock",
            over,
            Follower::Dead,
            Some("usr-policy unlock opened it, its time is over and nobody follows"),
        ),
        (
            "/var/lib/pacman",
            "unlock",
            over,
            Follower::Dead,
            Some("usr-policy unlock opened it, its time is over and nobody follows"),
        ),
        (
            "/usr",
            "unlock",
            over,
            Follower::Alive,
            Some("usr-policy unlock opened it, and its time is over"),
        ),
        (
            "/usr",
            "unlock",
            Manual::Nothing,
            Follower::Alive,
            Some("usr-policy unlock opened it, and nothing has closed it since"),
        ),
        (
            "/var/lib/pacman",
            "follow",
            Manual::Nothing,
            Follower::Alive,
            Some(
                "usr-policy opened it after an unmerge, while the guard hook was there; it is no longer",
            ),
        ),
        // Locked by hand for another reason than a guard that is gone.
        (
            "/var/lib/pacman",
            "follow",
            Manual::Lock,
            Follower::Alive,
            None,
        ),
    ] {
        let events = format!("{opened}3 {stage} {path} open\n");
        let (plan, mut seen) = Undoing {
            events: &events,
            ..NOTHING
        }
        .seen("usrpolicy=strict");
        seen.mounts = crate::mountinfo::MountTable::parse(NO_BIND.as_bytes());
        for place in &mut seen.places {
            place.mount_id = None;
        }
        seen.now = 9;
        seen.follower = follower;
        seen.is_guarded = false;
        seen.state = State {
            extensions: Extensions::Unmerged { since: 2 },
            manual,
        };
        let told = super::super::report(&plan, &seen);
        let finding = about(&told, path);
        assert_eq!(finding.verdict, Verdict::Broken, "{finding:#?}");
        match what {
            Some(what) => assert!(finding.what.contains(what), "{what}: {finding:#?}"),
            None => assert!(
                finding.what.contains("by whom is not known"),
                "{finding:#?}"
            ),
        }
        assert!(
            finding
                .remedy
                .starts_with("run /usr/lib/usr-policy/usr-policy-generator sync"),
            "{finding:#?}"
        );
        // What has closed it since is undone by somebody else.
        seen.events.push(Event {
            boottime: 4,
            stage: "sync".into(),
            path: path.into(),
            result: Done::ReadOnly,
        });
        let finding = about(&super::super::report(&plan, &seen), path).clone();
        assert!(
            finding.what.contains("by whom is not known"),
            "{finding:#?}"
        );
    }
}

#[test]
fn a_generator_that_is_no_program_is_named_with_the_way_out() {
    for (path, remedy) in [
        (
            "/run/systemd/system-generators/usr-policy-generator",
            "rm /run/systemd/system-generators/usr-policy-generator, then boot again",
        ),
        (
            "/usr/lib/systemd/system-generators/usr-policy-generator",
            "make install, then boot again",
        ),
    ] {
        let (plan, mut seen) = Undoing {
            events: "",
            ..NOTHING
        }
        .seen("usrpolicy=strict");
        seen.system.generator = Generator::Masked(path.to_owned());
        let report = report(&plan, &seen);
        let what = format!("systemd finds no generator of usr-policy: {path} is no program");
        says(&report, Verdict::Broken, "/usr", &what);
        assert_eq!(about(&report, "/usr").remedy, remedy);
    }
}

#[test]
fn what_an_early_generator_writes_is_nothing_to_remove_by_hand() {
    let early = "/run/systemd/generator.early/usr-policy-apply.service";
    let report = Undoing {
        events: "",
        units: &[(early, "[Service]\nExecStart=/bin/true\n")],
        ..NOTHING
    }
    .report();
    let what = format!("{early} stands in place of usr-policy-apply.service");
    says(&report, Verdict::Broken, "/usr", &what);
    let remedy = format!(
        "find the generator that writes {early}, and mask it in /etc/systemd/system-generators; then systemctl daemon-reload"
    );
    assert_eq!(about(&report, "/usr").remedy, remedy);
}
