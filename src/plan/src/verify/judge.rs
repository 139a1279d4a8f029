//! What all rules have in common: places, witnesses and findings.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::undone::with;
use super::{
    ALWAYS_WRITABLE, Access, Finding, Follower, Kind, Observed, Place, PreInit, Topic, Verdict,
    rule_of, wanted,
};
use crate::lock::Wanted;
use crate::mount_index::MountIndex;
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::plan::{Plan, Reason};
use crate::policy::{Lock, Mode, Origin, Role, Rule, Treatment};
use crate::pre_init::PRE_INIT;
use crate::text::Shown;
use crate::unit::{BOOT_PROGRAM, FOLLOW_SERVICE, SYNC};

/// Names come from anywhere: none of them may look like a line of ours.
fn shown(text: &str) -> String {
    Shown(text.as_bytes()).to_string()
}

/// What all witnesses together say of a place.
pub(super) enum Writability {
    ReadOnly(Layer),
    Writable,
    Contradiction(String),
}

/// What makes a place read-only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Mount,
    FileSystem,
}

pub(super) struct Judge<'a> {
    pub(super) plan: &'a Plan,
    pub(super) observed: &'a Observed,
    /// What is seen of its mount table.
    pub(super) index: MountIndex<'a>,
    pub(super) findings: Vec<Finding>,
}

impl<'a> Judge<'a> {
    pub(super) fn find(
        &mut self,
        verdict: Verdict,
        topic: Topic,
        subject: &dyn fmt::Display,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let finding = Finding {
            verdict,
            topic,
            subject: shown(&subject.to_string()),
            what: shown(&what.into()),
            remedy: shown(&remedy.into()),
            layers: None,
        };
        self.findings.push(finding);
    }

    pub(super) fn words(&mut self) {
        for problem in &self.plan.problems {
            // A message is `what; what to do`.
            let text = problem.complaint.to_string();
            let (what, remedy) = text.rsplit_once("; ").unwrap_or((&text, ""));
            self.find(Verdict::Broken, Topic::Word, &problem.origin, what, remedy);
        }
    }

    pub(super) fn unread(&mut self) {
        // No file can make a promise where the command line says that there is none.
        let verdict = match (self.plan.mode, &self.plan.mode_origin) {
            (Mode::Off, Origin::CommandLine) => Verdict::NotApplicable,
            (Mode::Audit, Origin::CommandLine) => Verdict::Warning,
            _ => Verdict::Unknown,
        };
        for file in &self.observed.unread {
            self.find(
                verdict,
                Topic::File,
                &file.subject,
                &*file.what,
                &*file.remedy,
            );
        }
    }

    pub(super) fn rules(&mut self) {
        let plan = self.plan;
        for blind in &self.observed.blind {
            self.find(
                Verdict::Unknown,
                Topic::Witness,
                &blind.subject,
                &*blind.what,
                &*blind.remedy,
            );
        }
        if self.observed.pre_init == PreInit::Different {
            self.find(
                Verdict::Warning,
                Topic::PreInit,
                &PRE_INIT,
                "is not the boot program that is installed",
                format!("install -m755 {BOOT_PROGRAM} {PRE_INIT}"),
            );
        }
        for mount in &plan.mounts {
            self.with_layers(&mount.rule.mount_point, |judge| {
                match (mount.rule.role, mount.rule.treatment) {
                    (Role::Usr, _) => judge.usr(mount),
                    (Role::Database, _) => judge.database(&mount.rule),
                    (_, Treatment::Tmpfs(options)) => judge.tmpfs(mount, options),
                    _ => judge.read_only(mount),
                }
            });
        }
        for rule in &plan.writable {
            let path = &rule.mount_point;
            self.with_layers(path, |judge| judge.writable(path, Verdict::Broken));
        }
        self.below_usr();
        self.layers();
        for path in ALWAYS_WRITABLE {
            if let Ok(path) = MountPoint::new(path.as_bytes())
                && !self.is_said_below(&path)
            {
                self.with_layers(&path, |judge| judge.writable(&path, Verdict::Warning));
            }
        }
        for left_out in &plan.left_out {
            // Left open at boot, and locked when extensions are merged all the same.
            if left_out.reason == Reason::LockOff && self.wanted().is_locked {
                let rule = &left_out.rule;
                self.with_layers(&rule.mount_point, |judge| judge.database(rule));
                continue;
            }
            self.find(
                Verdict::NotApplicable,
                Topic::of(&left_out.rule),
                &left_out.rule.mount_point,
                left_out.to_string(),
                "",
            );
        }
        self.pair();
        self.covered();
        self.sysext();
        self.layout();
        self.hidden();
        self.fills();
        self.witnesses();
        self.next_boot();
    }

    pub(super) fn place(&self, path: &MountPoint) -> Option<&'a Place> {
        self.observed
            .places
            .iter()
            .find(|place| place.path == *path)
    }

    /// Puts the witnesses together. The table speaks first; the others may only agree.
    pub(super) fn writability(&self, place: &Place) -> Option<Writability> {
        let mount = self.observed.mount_at(place)?;
        let by_mount = mount.mount_options.has("ro");
        let read_only = mount.is_read_only();
        let disagrees = |witness: &str, says: bool| {
            let word = |read_only| if read_only { "read-only" } else { "writable" };
            Writability::Contradiction(format!(
                "the mount table says {}, {witness} says {}",
                word(read_only),
                word(says)
            ))
        };
        if let Some(says) = place.statvfs_read_only.filter(|&says| says != read_only) {
            return Some(disagrees("statvfs", says));
        }
        match (place.access, read_only) {
            (Access::Writable, true) => Some(disagrees("faccessat", false)),
            // No table shows what a file system decides by itself: the property of a btrfs subvolume, a snapshot, a server
            // that exports read-only. EROFS while both flags are rw is the file system's own word.
            (Access::ReadOnly, false) => Some(Writability::ReadOnly(Layer::FileSystem)),
            (_, true) => Some(Writability::ReadOnly(if by_mount {
                Layer::Mount
            } else {
                Layer::FileSystem
            })),
            (_, false) => Some(Writability::Writable),
        }
    }

    /// Whether nothing can be written at a place, and no witness says otherwise.
    pub(super) fn closes(&self, place: &Place) -> bool {
        matches!(self.writability(place), Some(Writability::ReadOnly(_)))
    }

    pub(super) fn is_read_only(&self, role: Role) -> Option<bool> {
        let place = self.place(&rule_of(self.plan, role)?.mount_point)?;
        match (place.kind, self.writability(place)?) {
            (Kind::Missing | Kind::Other | Kind::Unknown, _)
            | (_, Writability::Contradiction(_)) => None,
            (_, Writability::ReadOnly(_)) => Some(true),
            (_, Writability::Writable) => Some(false),
        }
    }

    /// What can be said before a rule is judged: a place that is not there, or cannot be seen.
    pub(super) fn seen(&mut self, rule: &Rule) -> Option<&'a Place> {
        let path = &rule.mount_point;
        let topic = Topic::of(rule);
        match self.place(path).map(|place| (place.kind, place)) {
            Some((Kind::Directory | Kind::Linked, place)) => Some(place),
            Some((Kind::Missing, _)) => {
                self.find(
                    Verdict::NotApplicable,
                    topic,
                    path,
                    "there is no such directory",
                    "",
                );
                None
            }
            Some((Kind::Other, _)) => {
                self.find(
                    Verdict::Warning,
                    topic,
                    path,
                    "is no directory, so nothing is mounted there",
                    "make it a directory",
                );
                None
            }
            Some((Kind::Unknown, _)) | None => {
                self.find(
                    Verdict::Unknown,
                    topic,
                    path,
                    "could not be looked at",
                    self.observed.caller.way_to_see(),
                );
                None
            }
        }
    }

    /// A place that can be judged, and what makes it read-only; `None` in the second where nothing does.
    pub(super) fn judged(&mut self, rule: &Rule) -> Option<(&'a Place, Option<Layer>)> {
        let place = self.seen(rule)?;
        match self.writability(place) {
            Some(Writability::ReadOnly(layer)) => return Some((place, Some(layer))),
            Some(Writability::Writable) => return Some((place, None)),
            Some(Writability::Contradiction(what)) => self.contradiction(&place.path, what),
            None => self.not_in_table(&place.path),
        }
        None
    }

    pub(super) fn wanted(&self) -> Wanted {
        wanted(self.plan, self.observed)
    }

    /// Without it a merge by hand locks nothing, and no unlock ends by its time.
    pub(super) fn follower(&mut self) {
        if self.observed.follower == Follower::Dead && self.plan.is_strict() {
            self.find(
                Verdict::Warning,
                Topic::Database,
                &FOLLOW_SERVICE,
                "is not running: a merge by hand would not lock the database, and no unlock would end by its time",
                format!("systemctl restart {FOLLOW_SERVICE}"),
            );
        }
    }

    /// Judges a path that must be writable; `otherwise` is how much it matters.
    pub(super) fn writable(&mut self, path: &MountPoint, otherwise: Verdict) {
        let Some(place) = self.place(path) else {
            return;
        };
        match place.kind {
            Kind::Directory | Kind::Linked => {}
            Kind::Missing | Kind::Other => return,
            Kind::Unknown => {
                let remedy = self.observed.caller.way_to_see();
                let topic = Topic::Writable;
                return self.find(
                    Verdict::Unknown,
                    topic,
                    path,
                    "could not be looked at",
                    remedy,
                );
            }
        }
        match self.writability(place) {
            Some(Writability::Writable) => {
                self.find(Verdict::Holds, Topic::Writable, path, "writable", "");
            }
            Some(Writability::ReadOnly(_)) => {
                let remedy = if path.is_below_usr() {
                    "give it a mount of its own in /etc/fstab"
                } else {
                    "this is not usr-policy's doing: see findmnt for who mounts it"
                };
                self.find(
                    otherwise,
                    Topic::Writable,
                    path,
                    "read-only, although it must be writable",
                    remedy,
                );
            }
            Some(Writability::Contradiction(what)) => self.contradiction(path, what),
            None => self.not_in_table(path),
        }
    }

    /// Whether a rule for a path below it has told already what is to be told of its mount: that it cannot be written.
    fn is_said_below(&self, path: &MountPoint) -> bool {
        let is_closed = |place: &&Place| {
            matches!(place.kind, Kind::Directory | Kind::Linked)
                && !matches!(self.writability(place), Some(Writability::Writable))
        };
        let mount_of = |place| self.observed.mount_at(place).map(|mount| mount.mount_id);
        let Some(place) = self.place(path).filter(is_closed) else {
            return false;
        };
        let mut below = self.plan.writable.iter().filter_map(|rule| {
            let is_below = rule.mount_point.is_at_or_below(path);
            self.place(&rule.mount_point).filter(|_| is_below)
        });
        below.any(|below| is_closed(&below) && mount_of(below) == mount_of(place))
    }

    /// Mounts below `/usr` keep their own flags; one that nobody asked for is a hole.
    pub(super) fn below_usr(&mut self) {
        let Some(usr) = rule_of(self.plan, Role::Usr) else {
            return;
        };
        let holes: Vec<&MountInfo> = self.index.holes_below(&usr.mount_point).collect();
        for hole in holes {
            let path = &hole.mount_point;
            let mut asked_for = self.plan.writable.iter();
            if asked_for.any(|rule| rule.mount_point == *path) {
                continue;
            }
            let remedy =
                format!("mount it read-only, or say that it is meant: usrpolicy.path={path}:rw");
            self.find(
                Verdict::Warning,
                Topic::Hole,
                path,
                "a writable mount of its own below /usr",
                remedy,
            );
        }
    }

    /// The statement that everything else serves: the database describes `/usr`.
    pub(super) fn pair(&mut self) {
        if (
            self.is_read_only(Role::Usr),
            self.is_read_only(Role::Database),
        ) == (Some(true), Some(false))
        {
            if self.observed.is_guarded && !self.wanted().is_locked {
                return self.find(
                    Verdict::Warning, Topic::Pair,
                    &"/usr and the package database",
                    "/usr is read-only and the database is writable; only the hook of usr-policy keeps pacman from forgetting packages",
                    "usr-policy unlock before packages are changed",
                );
            }
            // With lock=off nobody locks the database, and /usr is closed all the same.
            let (cause, remedy) = if self.plan.lock == Lock::Off {
                (
                    ", as usrpolicy.lock=off asks",
                    "take usrpolicy.lock=off away, in the configuration Lock=off, and boot again"
                        .to_string(),
                )
            } else {
                ("", format!("lock the database with {SYNC}"))
            };
            self.find(
                Verdict::Broken,
                Topic::Pair,
                &"/usr and the package database",
                format!("/usr is read-only and the database is writable{cause}"),
                format!("do not run pacman; {remedy}"),
            );
        }
    }

    /// What the database says and `/usr` does not have, or the other way round.
    pub(super) fn covered(&mut self) {
        if self.observed.covered.is_empty() {
            return;
        }
        let names = self.observed.covered.join(", ");
        self.find(
            Verdict::Broken, Topic::Packages,
            &"packages",
            format!("changed while extensions covered /usr, so their files there may be missing or left over: {names}"),
            "usr-policy unlock, install them again, usr-policy lock; where nothing is missing or left over, remove /var/lib/usr-policy/covered",
        );
    }

    pub(super) fn not_mounted(&mut self, topic: Topic, place: &Place, found: &str) {
        let path = &place.path;
        if place.kind == Kind::Linked {
            let what = format!(
                "{found}: a symbolic link leads there, and systemd mounts nothing over one"
            );
            self.find(
                Verdict::Warning,
                topic,
                path,
                what,
                "use the path that the link leads to",
            );
        } else {
            let undone = self.who_left_out(path);
            let remedy = "see systemctl status for its mount unit; a directory that was made after the boot is covered from the next one on".into();
            self.find(
                Verdict::Broken,
                topic,
                path,
                with(found, &undone),
                undone.remedy.unwrap_or(remedy),
            );
        }
    }

    pub(super) fn contradiction(&mut self, path: &MountPoint, what: String) {
        self.find(
            Verdict::Unknown,
            Topic::Witness,
            path,
            what,
            "the witnesses disagree; report this with /proc/1/mountinfo",
        );
    }

    pub(super) fn not_in_table(&mut self, path: &MountPoint) {
        self.find(
            Verdict::Unknown,
            Topic::Witness,
            path,
            "its mount is not in the mount table of PID 1",
            self.observed.caller.way_to_see(),
        );
    }
}

/// A point in time as the kernel log shows it.
pub(super) struct Seconds(pub(super) u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}
