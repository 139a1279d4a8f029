//! What would undo the policy at the next boot, or at the next reload of the service manager.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::judge::Judge;
use super::undone::way_to_unmask;
use super::{Generator, Topic, Verdict, rule_of};
use crate::config;
use crate::fstab::Fstab;
use crate::plan::{FSTAB, Owner, Plan, is_switched_off, read_only_type};
use crate::policy::Role;
use crate::unit::{APPLY_SERVICE, BOOT_PROGRAM, FOLLOW_SERVICE, LOCK_SERVICE, VERIFY_SERVICE};

/// A unit, as the files say that the service manager has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Its fragment, then its drop-ins, in the order in which they apply; what a name in a directory that is searched
    /// earlier hides is left out.
    pub parts: Vec<UnitPart>,
    /// The links that pull it in, from a directory `.wants` or `.requires`.
    pub pulled_in_by: Vec<String>,
}

/// A file of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitPart {
    /// Its path.
    pub path: String,
    /// Its bytes; empty where it masks the unit: an empty file, or a link to /dev/null.
    pub text: Vec<u8>,
    /// Whether it is a drop-in.
    pub is_drop_in: bool,
}

/// One value, and the file that it stands in.
pub(super) struct Setting<'a> {
    pub(super) value: Vec<u8>,
    pub(super) path: &'a str,
    pub(super) line: u32,
}

impl Unit {
    /// The file that masks it.
    #[must_use]
    pub fn mask(&self) -> Option<&UnitPart> {
        self.parts
            .iter()
            .find(|file| !file.is_drop_in && file.text.is_empty())
    }

    /// The file by which a mount can be written; `None` where it cannot, or no file says what is mounted.
    pub(super) fn mounts_writable(&self) -> Option<&UnitPart> {
        let (values, _) = self.values("Mount", "Options");
        let Some(last) = values.last() else {
            // A fragment without options mounts writable; a unit without a fragment is whatever is mounted.
            return self.parts.iter().find(|file| !file.is_drop_in);
        };
        let mut options = last.value.split(|&byte| byte == b',');
        if options.any(|option| option == b"ro") {
            return None;
        }
        self.parts.iter().find(|file| file.path == last.path)
    }

    /// The values of a key that are in force: an empty one takes back those before it. In the second the last file that has
    /// the key at all.
    pub(super) fn values(&self, section: &str, key: &str) -> (Vec<Setting<'_>>, Option<&str>) {
        let mut values = Vec::new();
        let mut last = None;
        for file in &self.parts {
            for assignment in config::parse(&file.text).0 {
                if assignment.section == section.as_bytes() && assignment.key == key.as_bytes() {
                    last = Some(file.path.as_str());
                    if assignment.value.is_empty() {
                        values.clear();
                    } else {
                        values.push(Setting {
                            value: assignment.value,
                            path: &file.path,
                            line: assignment.line,
                        });
                    }
                }
            }
        }
        (values, last)
    }
}

/// The name of the service that merges extensions at boot.
pub const SYSEXT_SERVICE: &str = "systemd-sysext.service";

/// The service that remounts `/` and `/usr` with the options of fstab.
pub(super) const REMOUNT_SERVICE: &str = "systemd-remount-fs.service";

/// What [`VERIFY_SERVICE`] runs.
const VERIFY: &str = "usr-policy verify";

/// Services that run no program of ours: what changes them takes nothing away.
const OF_SYSTEMD: [&str; 2] = [SYSEXT_SERVICE, REMOUNT_SERVICE];

/// The units whose files must be looked at to judge a plan.
#[must_use]
pub fn units_to_look_at(plan: &Plan) -> Vec<String> {
    let mounts = plan.mounts.iter().map(|mount| mount.rule.unit());
    [APPLY_SERVICE, LOCK_SERVICE, FOLLOW_SERVICE, VERIFY_SERVICE]
        .into_iter()
        .chain(OF_SYSTEMD)
        .map(String::from)
        .chain(mounts)
        .collect()
}

/// Who writes a file of a unit, as far as its directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    /// The administrator, or a program at his word.
    Administrator,
    /// A generator, where ours writes and what the administrator writes wins.
    Generator,
    /// A generator that comes before what the administrator writes. Ours does not write there.
    EarlyGenerator,
    /// Whoever packages.
    Vendor,
    /// Nobody who can be told from the directory.
    Other,
}

/// Who writes in which directory. Source: systemd.unit(5), "Unit File Load Path".
const AUTHORS: [(&str, Author); 8] = [
    ("/etc/systemd/system/", Author::Administrator),
    ("/run/systemd/system/", Author::Administrator),
    ("/etc/systemd/system.control/", Author::Administrator),
    ("/run/systemd/system.control/", Author::Administrator),
    ("/run/systemd/generator/", Author::Generator),
    ("/run/systemd/generator.late/", Author::Generator),
    ("/run/systemd/generator.early/", Author::EarlyGenerator),
    ("/usr/", Author::Vendor),
];

impl UnitPart {
    pub(super) fn author(&self) -> Author {
        let mut authors = AUTHORS.into_iter();
        let found = authors.find(|(directory, _)| self.path.starts_with(directory));
        found.map_or(Author::Other, |(_, author)| author)
    }
}

impl Judge<'_> {
    pub(super) fn next_boot(&mut self) {
        self.generator();
        for unit in &self.observed.system.units {
            if !OF_SYSTEMD.contains(&unit.name.as_str()) {
                self.unit(unit);
            }
        }
        self.fstab();
        self.next_image();
    }

    pub(super) fn unit_named(&self, name: &str) -> Option<&Unit> {
        let mut units = self.observed.system.units.iter();
        units.find(|unit| unit.name == name)
    }

    fn generator(&mut self) {
        // Without a generator the boot has other hands: the scripts of OpenRC.
        if let Generator::Masked(path) = &self.observed.system.generator {
            let what = "stands in place of usr-policy's generator, and is no program: after the next boot or reload nothing locks the database";
            let remedy = way_to_unmask(path);
            self.find(Verdict::Warning, Topic::NextBoot, path, what, remedy);
        }
    }

    fn unit(&mut self, unit: &Unit) {
        if let Some(mask) = unit.mask() {
            if let Some(consequence) = self.consequence_of_mask(unit) {
                let what = format!("masks {}: {consequence}", unit.name);
                let remedy = format!("systemctl unmask {}", unit.name);
                self.find(Verdict::Warning, Topic::NextBoot, &mask.path, what, remedy);
            }
            return;
        }
        if unit.parts.is_empty() {
            return;
        }
        if unit.name.ends_with(".service") {
            let (commands, last) = unit.values("Service", "ExecStart");
            let program = match unit.name.as_str() {
                VERIFY_SERVICE => VERIFY,
                _ => BOOT_PROGRAM,
            };
            let runs_ours = commands
                .iter()
                .any(|command| contains(&command.value, program.as_bytes()));
            if let (false, Some(path)) = (runs_ours, last) {
                let what = format!("takes {program} out of {}", unit.name);
                let remedy = "take ExecStart= out of it, then systemctl daemon-reload";
                self.find(Verdict::Warning, Topic::NextBoot, &path, what, remedy);
            }
        } else if self.is_to_be_read_only(&unit.name) {
            let part = unit.mounts_writable();
            let part = part.filter(|part| part.author() == Author::Administrator);
            if let Some(UnitPart { path, .. }) = part {
                let what = format!("makes {} a mount that can be written", unit.name);
                let remedy = "write ro in its Options=, then systemctl daemon-reload";
                self.find(Verdict::Warning, Topic::NextBoot, path, what, remedy);
            }
        }
    }

    /// What is lost with a unit; `None` where something else does the same.
    fn consequence_of_mask(&self, unit: &Unit) -> Option<&'static str> {
        match unit.name.as_str() {
            APPLY_SERVICE => Some("nothing closes /usr where the initramfs does not"),
            LOCK_SERVICE => Some("nothing locks the database before packages can be changed"),
            VERIFY_SERVICE => Some("boot-complete.target is reached without a verdict"),
            FOLLOW_SERVICE => Some("nothing locks the database when extensions are merged"),
            name => self.plan.mounts.iter().find_map(|mount| {
                (mount.rule.unit() == name
                    && mount.owner == Owner::UsrPolicy
                    // These two are mounted by the services, whatever their units say.
                    && !matches!(mount.rule.role, Role::Usr | Role::Database))
                .then_some("nothing is mounted there")
            }),
        }
    }

    fn is_to_be_read_only(&self, unit: &str) -> bool {
        let roles = [Role::Usr, Role::Database].map(|role| self.plan.mount_of(role));
        roles
            .into_iter()
            .flatten()
            .any(|mount| mount.rule.unit() == unit)
    }

    /// Lines of fstab that mount something writable in what is to be closed, and are not mounted now: what is mounted is
    /// judged by its mount.
    fn fstab(&mut self) {
        let plan = self.plan;
        let system = &self.observed.system;
        if is_switched_off(&system.cmdline, "fstab") {
            return;
        }
        for entry in Fstab::parse(&system.fstab).entries {
            let is_closed = [Role::Usr, Role::Database].into_iter().any(|role| {
                rule_of(plan, role).is_some_and(|rule| entry.file.is_below(&rule.mount_point))
            });
            let is_meant = plan
                .writable
                .iter()
                .any(|rule| rule.mount_point == entry.file)
                || plan
                    .mounts
                    .iter()
                    .any(|mount| mount.rule.mount_point == entry.file);
            if !is_closed
                || is_meant
                || entry.has_option("ro")
                || entry.has_option("noauto")
                || read_only_type(&entry.vfstype).is_some()
                || self.index.top_at(&entry.file).is_some()
            {
                continue;
            }
            let what = format!("mounts {} writable at the next boot", entry.file);
            let remedy = if entry.file.is_below_usr() {
                format!(
                    "write ro in its options, or say that it is meant: usrpolicy.path={}:rw",
                    entry.file
                )
            } else {
                "write ro in its options, or take the line out".to_string()
            };
            let line = format_args!("{FSTAB}:{}", entry.line);
            self.find(Verdict::Warning, Topic::NextBoot, &line, what, remedy);
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{machine, plan, says};
    use super::super::{Observed, Report, report};
    use super::*;

    const TABLE: &str = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n";

    fn of(prepare: impl FnOnce(&mut Observed)) -> Report {
        let plan = plan("usrpolicy=strict");
        let mut seen = machine(&plan, TABLE);
        prepare(&mut seen);
        report(&plan, &seen)
    }

    fn file(path: &str, text: &str) -> UnitPart {
        UnitPart {
            path: path.into(),
            text: text.into(),
            is_drop_in: path.contains(".d/"),
        }
    }

    fn of_unit(name: &str, files: &[(&str, &str)]) -> Report {
        of(|seen| {
            seen.system.units.push(Unit {
                name: name.into(),
                parts: files.iter().map(|(path, text)| file(path, text)).collect(),
                pulled_in_by: Vec::new(),
            });
        })
    }

    #[track_caller]
    fn says_nothing(report: &Report) {
        let mut findings = report.findings.iter();
        assert!(
            findings.all(|finding| finding.topic != Topic::NextBoot),
            "{report:#?}"
        );
    }

    #[test]
    fn the_units_of_the_plan_are_looked_at() {
        let names = units_to_look_at(&plan("usrpolicy=strict"));
        for name in [
            "usr-policy-apply.service",
            "usr-policy-lock.service",
            "usr-policy-follow.service",
            "usr-policy-verify.service",
            "systemd-sysext.service",
            "systemd-remount-fs.service",
            "usr.mount",
            "var-lib-pacman.mount",
            "var-tmp.mount",
        ] {
            assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
        }
    }

    #[test]
    fn a_masked_unit_of_ours_says_what_is_lost() {
        for (name, what) in [
            (
                APPLY_SERVICE,
                "nothing closes /usr where the initramfs does not",
            ),
            (LOCK_SERVICE, "nothing locks the database before packages"),
            (FOLLOW_SERVICE, "nothing locks the database when extensions"),
            (
                VERIFY_SERVICE,
                "boot-complete.target is reached without a verdict",
            ),
            ("var-tmp.mount", "nothing is mounted there"),
        ] {
            let path = format!("/etc/systemd/system/{name}");
            let what = format!("masks {name}: {what}");
            says(
                &of_unit(name, &[(&path, "")]),
                Verdict::Warning,
                &path,
                &what,
            );
        }
        // The services mount these, whatever their units say.
        for name in ["usr.mount", "var-lib-pacman.mount"] {
            says_nothing(&of_unit(name, &[("/etc/systemd/system/x", "")]));
        }
    }

    #[test]
    fn a_drop_in_that_takes_our_program_away_is_a_warning() {
        const OWN: (&str, &str) = (
            "/usr/lib/systemd/system/usr-policy-lock.service",
            "[Service]\nExecStart=/usr/lib/usr-policy/usr-policy-generator sync\n",
        );
        const PATH: &str = "/etc/systemd/system/usr-policy-lock.service.d/x.conf";
        for (text, is_lost) in [
            ("[Service]\nExecStart=\n", true),
            ("[Service]\nExecStart=\nExecStart=/bin/true\n", true),
            ("[Service]\nExecStart=/bin/true\n", false),
            ("[Service]\nTimeoutStartSec=1\n", false),
            ("[Unit]\nExecStart=\n", false),
        ] {
            let report = of_unit(LOCK_SERVICE, &[OWN, (PATH, text)]);
            if is_lost {
                let what =
                    "takes /usr/lib/usr-policy/usr-policy-generator out of usr-policy-lock.service";
                says(&report, Verdict::Warning, PATH, what);
            } else {
                says_nothing(&report);
            }
        }
        says_nothing(&of_unit(LOCK_SERVICE, &[]));
        let own = "[Service]\nExecStart=/usr/bin/usr-policy verify --journal\n";
        says_nothing(&of_unit(VERIFY_SERVICE, &[("/usr/x", own)]));
        let own_and_other = [("/usr/x", own), ("/etc/x.d/y", "[Service]\nExecStart=\n")];
        let what = "takes usr-policy verify out of usr-policy-verify.service";
        let report = of_unit(VERIFY_SERVICE, &own_and_other);
        says(&report, Verdict::Warning, "/etc/x.d/y", what);
        // Theirs are other programs.
        for name in OF_SYSTEMD {
            says_nothing(&of_unit(name, &[("x", "[Service]\nExecStart=/bin/x\n")]));
        }
    }

    #[test]
    fn a_mount_unit_of_the_administrator_that_can_be_written_is_a_warning() {
        const ETC: &str = "/etc/systemd/system/usr.mount";
        const DROP_IN: &str = "/etc/systemd/system/usr.mount.d/x.conf";
        const LATE: &str = "/run/systemd/generator.late/usr.mount";
        for (path, text, is_writable) in [
            (ETC, "[Mount]\nWhat=/dev/sda3\n", true),
            (ETC, "[Mount]\nOptions=rw,noatime\n", true),
            (ETC, "[Mount]\nOptions=errors=remount-ro\n", true),
            (ETC, "[Mount]\nOptions=noatime,ro\n", false),
            (DROP_IN, "[Mount]\nOptions=defaults\n", true),
            (DROP_IN, "[Unit]\nDescription=x\n", false),
            // fstab's own: its line is judged.
            (LATE, "[Mount]\nOptions=rw\n", false),
        ] {
            let report = of_unit("usr.mount", &[(path, text)]);
            if is_writable {
                let what = "makes usr.mount a mount that can be written";
                says(&report, Verdict::Warning, path, what);
            } else {
                says_nothing(&report);
            }
        }
    }

    #[test]
    fn a_generator_that_is_no_program_is_a_warning() {
        const PATH: &str = "/etc/systemd/system-generators/usr-policy-generator";
        let report = of(|seen| seen.system.generator = Generator::Masked(PATH.into()));
        says(
            &report,
            Verdict::Warning,
            PATH,
            "nothing locks the database",
        );
    }

    #[test]
    fn a_line_of_fstab_that_opens_a_part_at_the_next_boot_is_a_warning() {
        for (line, what) in [
            (
                "/dev/sdb /usr/local ext4 rw 0 2",
                Some("mounts /usr/local writable"),
            ),
            (
                "/dev/sdb /usr/local ext4 defaults 0 2",
                Some("mounts /usr/local"),
            ),
            (
                "t /var/lib/pacman/sync tmpfs rw 0 0",
                Some("mounts /var/lib/pacman/sync"),
            ),
            ("/dev/sdb /usr/local ext4 ro 0 2", None),
            ("/dev/sdb /usr/local ext4 noauto 0 2", None),
            ("/dev/sdb /usr/local erofs defaults 0 2", None),
            ("/dev/sdb /srv ext4 defaults 0 2", None),
            ("/dev/sdb /var/tmp ext4 defaults 0 2", None),
            ("/dev/sdb / ext4 rw 0 1", None),
        ] {
            let report = of(|seen| seen.system.fstab = format!("# first\n{line}\n").into());
            match what {
                Some(what) => says(&report, Verdict::Warning, "/etc/fstab:2", what),
                None => says_nothing(&report),
            }
            says_nothing(&of(|seen| {
                seen.system.fstab = line.into();
                seen.system.cmdline = crate::cmdline::Cmdline::parse(b"fstab=no");
            }));
        }
    }

    #[test]
    fn a_line_of_fstab_that_is_meant_or_mounted_is_none_of_it() {
        let line = "/dev/sdb /usr/local ext4 rw 0 2\n";
        let meant = plan("usrpolicy=strict usrpolicy.path=/usr/local:rw");
        let mut seen = machine(&meant, TABLE);
        seen.system.fstab = line.into();
        says_nothing(&report(&meant, &seen));
        let mounted = plan("usrpolicy=strict");
        let table = format!("{TABLE}7 2 0:7 / /usr/local rw - ext4 b rw\n");
        let mut seen = machine(&mounted, &table);
        seen.system.fstab = line.into();
        let report = report(&mounted, &seen);
        says_nothing(&report);
        says(
            &report,
            Verdict::Warning,
            "/usr/local",
            "a writable mount of its own",
        );
    }
}
