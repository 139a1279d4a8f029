//! [`Report`]: whether the running system is what the [`Plan`] promises. The same rules, read backwards.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::lock::{State, Wanted};
use crate::mount_point::MountPoint;
use crate::mountinfo::{MountInfo, MountTable};
use crate::octal;
use crate::plan::{FSTAB, Owner, Plan, PlannedMount, Stage, read_only_by_nature};
use crate::policy::{Lock, Mode, Origin, Role, Rule, Tmpfs, Treatment};
use crate::pre_init::PRE_INIT;
use crate::unit::BOOT_PROGRAM;

/// What was seen of the running system, in the mount namespace of PID 1.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The mount table of PID 1.
    pub mounts: MountTable,
    /// What is at each path that [`paths`] names.
    pub places: Vec<Place>,
    /// Physical memory, in bytes; `None` where it could not be read.
    pub memory: Option<u64>,
    /// What our own stages recorded at this boot, in order.
    pub events: Vec<Event>,
    /// What the lock table remembers.
    pub state: State,
    /// When it was looked, `CLOCK_BOOTTIME` in microseconds.
    pub now: u64,
    /// Whether pacman would run our hook, which stops what a read-only `/usr` would break.
    pub is_guarded: bool,
    /// A package manager at work: its name, and its process. Only root sees who it is.
    pub at_work: Option<(String, u32)>,
    /// The packages that were changed while extensions covered `/usr`, and not again since.
    pub covered: Vec<String>,
    /// The copy of the boot program outside `/usr`.
    pub pre_init: PreInit,
    /// Who looked.
    pub caller: Caller,
    /// Configuration and fstab that could not be read: what is promised may be more than the plan says.
    pub unread: Vec<Blind>,
    /// What of the machine could not be looked at.
    pub blind: Vec<Blind>,
}

/// Who looks, as far as rights go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Caller {
    /// Root.
    #[default]
    Root,
    /// Anybody else.
    Other,
}

impl Caller {
    /// What to do about something that this caller could not see.
    #[must_use]
    pub fn way_to_see(self) -> &'static str {
        match self {
            Caller::Root => {
                "run usr-policy verify outside any sandbox; report it where that says the same"
            }
            Caller::Other => "run usr-policy verify as root",
        }
    }
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blind {
    /// A file, or a line of one.
    pub subject: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// What is at a path.
#[derive(Debug, Clone)]
pub struct Place {
    /// The path.
    pub path: MountPoint,
    /// What it is.
    pub kind: Kind,
    /// The mount that holds it, as the kernel says (statx(2)); `None` where it could not be asked.
    pub mount_id: Option<u64>,
    /// What asking for write access said.
    pub access: Access,
    /// The read-only flag of statvfs(3), which is the mount's or the file system's; `None` where it could not be asked.
    pub statvfs_read_only: Option<bool>,
}

/// What is at [`PRE_INIT`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PreInit {
    /// Nothing, or it could not be read.
    #[default]
    Missing,
    /// The boot program that is installed.
    Installed,
    /// Another one.
    Different,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Missing,
    /// A directory, by a path without symbolic links.
    Directory,
    /// A directory, by way of a symbolic link.
    Linked,
    /// Something else.
    Other,
    /// It could not be looked at.
    Unknown,
}

/// The answer to faccessat(2) with `W_OK`, which changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It could be written.
    Writable,
    /// `EROFS`.
    ReadOnly,
    /// The caller may not write there, or not look: no witness.
    NoWitness,
}

/// A line of `/run/usr-policy/events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Microseconds since the kernel started, suspend included (`CLOCK_BOOTTIME`).
    pub boottime: u64,
    /// Which of our stages did it.
    pub stage: String,
    /// To which path.
    pub path: String,
    /// What came of it.
    pub result: String,
}

/// The result in the line with which the host stage ends its first run at boot, and after each soft-reboot.
pub const START: &str = "start";

/// The result in the line of `usr-policy unlock`.
pub const UNLOCKED: &str = "open";

/// The result in a line of the follower: somebody else has made the path writable.
pub const OPENED: &str = "opened";

impl Event {
    /// Reads the lines of the record: `boottime-µs stage path result`. What is no such line is left out: the record only
    /// explains.
    #[must_use]
    pub fn parse(text: &[u8]) -> Vec<Self> {
        String::from_utf8_lossy(text)
            .lines()
            .filter_map(|line| {
                let mut words = line.splitn(4, ' ');
                Some(Event {
                    boottime: words.next()?.parse().ok()?,
                    stage: words.next()?.into(),
                    path: String::from_utf8_lossy(&octal::decode(words.next()?.as_bytes()))
                        .into_owned(),
                    result: words.next()?.into(),
                })
            })
            .collect()
    }
}

/// How a promise fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not apply here.
    NotApplicable,
    /// It holds, but not as well as it could.
    Warning,
    /// It could not be told.
    Unknown,
    /// It does not hold.
    Broken,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Holds => "holds",
            Verdict::NotApplicable => "-",
            Verdict::Warning => "warning",
            Verdict::Unknown => "unknown",
            Verdict::Broken => "BROKEN",
        })
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it fares.
    pub verdict: Verdict,
    /// What it is about: a path, or where a word stands.
    pub subject: String,
    /// What was found.
    pub what: String,
    /// What to do; empty where there is nothing to do.
    pub remedy: String,
}

/// The whole verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the plan asks for.
    pub mode: Mode,
    /// The findings, in the order of the plan.
    pub findings: Vec<Finding>,
}

impl Report {
    /// 0: everything holds. 1: something promised does not. 3: it could not be told. Under `audit` nothing is promised; a word
    /// that could not be understood counts in every mode.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.worst() {
            Verdict::Broken => 1,
            Verdict::Unknown => 3,
            _ => 0,
        }
    }

    /// How many findings have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    }

    fn worst(&self) -> Verdict {
        self.findings
            .iter()
            .map(|finding| finding.verdict)
            .max()
            .unwrap_or(Verdict::Holds)
    }
}

/// Paths that the policy never changes, and that a machine needs writable.
const ALWAYS_WRITABLE: [&str; 2] = ["/etc", "/run"];

/// The paths that must be looked at to judge a plan.
#[must_use]
pub fn paths(plan: &Plan) -> Vec<MountPoint> {
    let ours = plan
        .mounts
        .iter()
        .map(|mount| &mount.rule)
        .chain(&plan.writable)
        .chain(rule_of(plan, Role::Database))
        .map(|rule| rule.mount_point.clone());
    let always = ALWAYS_WRITABLE
        .iter()
        .filter_map(|path| MountPoint::new(path.as_bytes()).ok());
    ours.chain(always).collect()
}

/// The rule with this role, whether it is carried out or left out.
fn rule_of(plan: &Plan, role: Role) -> Option<&Rule> {
    let carried_out = plan.mounts.iter().map(|mount| &mount.rule);
    let left_out = plan.left_out.iter().map(|left_out| &left_out.rule);
    carried_out.chain(left_out).find(|rule| rule.role == role)
}

/// Compares what was seen with the plan.
#[must_use]
pub fn report(plan: &Plan, observed: &Observed) -> Report {
    let mut judge = Judge {
        plan,
        observed,
        findings: Vec::new(),
    };
    judge.words();
    judge.unread();
    if plan.mode != Mode::Off {
        judge.rules();
    }
    let mut findings = judge.findings;
    if plan.mode == Mode::Audit {
        // Nothing was promised, so nothing can be broken, but for what stands at the head.
        let head = plan.problems.len() + observed.unread.len();
        for finding in findings.iter_mut().skip(head) {
            finding.verdict = finding.verdict.min(Verdict::Warning);
        }
    }
    Report {
        mode: plan.mode,
        findings,
    }
}

/// What all witnesses together say of a place.
enum Writability {
    ReadOnly(Layer),
    Writable,
    Contradiction(String),
}

/// What makes a place read-only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Mount,
    FileSystem,
}

struct Judge<'a> {
    plan: &'a Plan,
    observed: &'a Observed,
    findings: Vec<Finding>,
}

impl<'a> Judge<'a> {
    fn find(
        &mut self,
        verdict: Verdict,
        subject: &dyn fmt::Display,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let finding = Finding {
            verdict,
            subject: subject.to_string(),
            what: what.into(),
            remedy: remedy.into(),
        };
        self.findings.push(finding);
    }

    fn words(&mut self) {
        for problem in &self.plan.problems {
            // A message is `what; what to do`.
            let text = problem.complaint.to_string();
            let (what, remedy) = text.rsplit_once("; ").unwrap_or((&text, ""));
            self.find(Verdict::Broken, &problem.origin, what, remedy);
        }
    }

    fn unread(&mut self) {
        // No file can make a promise where the command line says that there is none.
        let verdict = match (self.plan.mode, &self.plan.mode_origin) {
            (Mode::Off, Origin::CommandLine) => Verdict::NotApplicable,
            (Mode::Audit, Origin::CommandLine) => Verdict::Warning,
            _ => Verdict::Unknown,
        };
        for file in &self.observed.unread {
            self.find(verdict, &file.subject, &*file.what, &*file.remedy);
        }
    }

    fn rules(&mut self) {
        let plan = self.plan;
        for blind in &self.observed.blind {
            self.find(
                Verdict::Unknown,
                &blind.subject,
                &*blind.what,
                &*blind.remedy,
            );
        }
        if self.observed.pre_init == PreInit::Different {
            self.find(
                Verdict::Warning,
                &PRE_INIT,
                "is not the boot program that is installed",
                format!("install -m755 {BOOT_PROGRAM} {PRE_INIT}"),
            );
        }
        for mount in &plan.mounts {
            match (mount.rule.role, mount.rule.treatment) {
                (Role::Usr, _) => self.usr(mount),
                (Role::Database, _) => self.database(mount),
                (_, Treatment::Tmpfs(options)) => self.tmpfs(mount, options),
                _ => self.read_only(mount),
            }
        }
        for rule in &plan.writable {
            self.writable(&rule.mount_point, Verdict::Broken);
        }
        self.below_usr();
        for path in ALWAYS_WRITABLE {
            if let Ok(path) = MountPoint::new(path.as_bytes()) {
                self.writable(&path, Verdict::Warning);
            }
        }
        for left_out in &plan.left_out {
            self.find(
                Verdict::NotApplicable,
                &left_out.rule.mount_point,
                left_out.to_string(),
                "",
            );
        }
        self.pair();
        self.covered();
    }

    fn place(&self, path: &MountPoint) -> Option<&'a Place> {
        self.observed
            .places
            .iter()
            .find(|place| place.path == *path)
    }

    /// The mount that holds a place: the kernel's answer, else by walking the table.
    fn mount_at(&self, place: &Place) -> Option<&'a MountInfo> {
        match place.mount_id {
            Some(id) => self.observed.mounts.by_id(id),
            None => self.observed.mounts.holding(&place.path),
        }
    }

    /// Puts the witnesses together. The table speaks first; the others may only agree.
    fn writability(&self, place: &Place) -> Option<Writability> {
        let mount = self.mount_at(place)?;
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
            // A btrfs subvolume can be read-only by a property that no table shows.
            (Access::ReadOnly, false) if mount.fs_type == b"btrfs" => {
                Some(Writability::ReadOnly(Layer::FileSystem))
            }
            (Access::ReadOnly, false) => Some(disagrees("faccessat", true)),
            (_, true) => Some(Writability::ReadOnly(if by_mount {
                Layer::Mount
            } else {
                Layer::FileSystem
            })),
            (_, false) => Some(Writability::Writable),
        }
    }

    fn is_read_only(&self, role: Role) -> Option<bool> {
        let place = self.place(&rule_of(self.plan, role)?.mount_point)?;
        match (place.kind, self.writability(place)?) {
            (Kind::Missing | Kind::Other | Kind::Unknown, _)
            | (_, Writability::Contradiction(_)) => None,
            (_, Writability::ReadOnly(_)) => Some(true),
            (_, Writability::Writable) => Some(false),
        }
    }

    /// What can be said before a rule is judged: a place that is not there, or cannot be seen.
    fn seen(&mut self, mount: &PlannedMount) -> Option<&'a Place> {
        let path = &mount.rule.mount_point;
        match self.place(path).map(|place| (place.kind, place)) {
            Some((Kind::Directory | Kind::Linked, place)) => Some(place),
            Some((Kind::Missing, _)) => {
                self.find(
                    Verdict::NotApplicable,
                    path,
                    "there is no such directory",
                    "",
                );
                None
            }
            Some((Kind::Other, _)) => {
                self.find(
                    Verdict::Warning,
                    path,
                    "is no directory, so nothing is mounted there",
                    "make it a directory",
                );
                None
            }
            Some((Kind::Unknown, _)) | None => {
                self.find(
                    Verdict::Unknown,
                    path,
                    "could not be looked at",
                    self.observed.caller.way_to_see(),
                );
                None
            }
        }
    }

    /// A place that can be judged, and what makes it read-only; `None` in the second where nothing does.
    fn judged(&mut self, mount: &PlannedMount) -> Option<(&'a Place, Option<Layer>)> {
        let place = self.seen(mount)?;
        match self.writability(place) {
            Some(Writability::ReadOnly(layer)) => return Some((place, Some(layer))),
            Some(Writability::Writable) => return Some((place, None)),
            Some(Writability::Contradiction(what)) => self.contradiction(&place.path, what),
            None => self.not_in_table(&place.path),
        }
        None
    }

    fn wanted(&self) -> Wanted {
        let Observed {
            state,
            now,
            is_guarded,
            ..
        } = self.observed;
        state.wanted(self.plan.lock, *is_guarded, *now)
    }

    /// What is open on purpose, and until when.
    fn open(&self) -> String {
        match self.wanted().until {
            Some(until) => format!(
                "open for another {} s, by usr-policy unlock",
                until.saturating_sub(self.observed.now) / 1_000_000
            ),
            None => "open by usr-policy unlock, until the next lock, merge or boot".into(),
        }
    }

    fn usr(&mut self, mount: &PlannedMount) {
        let Some((place, read_only)) = self.judged(mount) else {
            return;
        };
        let path = &mount.rule.mount_point;
        let Some(top) = self.mount_at(place) else {
            return self.not_in_table(path);
        };
        let sysext = top.fs_type == b"overlay" && top.mount_source == b"sysext";
        if sysext && top.super_options.value("upperdir").is_some() {
            let what = "extensions are merged with a writable layer over it";
            self.find(
                Verdict::Broken,
                path,
                what,
                "systemd-sysext unmerge, then merge with --mutable=no",
            );
            return;
        }
        if let Some(layer) = read_only {
            self.usr_is_read_only(path, top, layer, sysext);
        } else if self.wanted().usr_is_open {
            self.find(Verdict::Warning, path, self.open(), "usr-policy lock");
        } else {
            let remedy = "run /usr/lib/usr-policy/usr-policy-generator sync, or boot again";
            let what = format!("writable{}", self.since_opened(path));
            self.find(Verdict::Broken, path, what, remedy);
        }
        if let Owner::Fstab { line } = mount.owner
            && self.plan.usr_line_is_writable
        {
            self.find(
                Verdict::Warning,
                &format_args!("{FSTAB}:{line}"),
                "mounts /usr writable; only a drop-in keeps systemd-remount-fs from it",
                "write ro in its options",
            );
        }
    }

    fn usr_is_read_only(&mut self, path: &MountPoint, top: &MountInfo, layer: Layer, sysext: bool) {
        let stack = self.observed.mounts.stack_at(path);
        // What an unmerge would bring back: another mount at /usr, or the one in which it lies.
        let beneath = self.observed.mounts.by_id(top.parent_id);
        if sysext {
            if !beneath.is_some_and(MountInfo::is_read_only) {
                let what = "read-only while extensions are merged, but writable beneath them";
                self.find(
                    Verdict::Broken,
                    path,
                    what,
                    "systemd-sysext unmerge, then usr-policy-generator sync",
                );
                return;
            }
            if stack
                .iter()
                .filter(|mount| mount.mount_source == b"sysext")
                .count()
                > 1
            {
                let what = "the overlay of systemd-sysext is mounted more than once";
                self.find(
                    Verdict::Broken,
                    path,
                    what,
                    "systemd-sysext unmerge until it is gone, then merge again",
                );
                return;
            }
        }
        let merged = if sysext {
            ", extensions merged over it"
        } else {
            ""
        };
        let (earlier, events) = self.since_soft_reboot();
        let is_made = |event: &&Event| event.path == "/usr" && event.result == "read-only";
        let is_unlock = |event: &&Event| event.path == "/usr" && event.result == UNLOCKED;
        let was_made = earlier.iter().any(|event| is_made(&event));
        // What closes after an unlock is neither late nor a repair.
        let mut was_unlocked = false;
        let mut made = events.iter().filter(|event| {
            let closes_it = was_unlocked;
            was_unlocked = !is_made(event) && (was_unlocked || is_unlock(event));
            is_made(event) && !closes_it
        });
        let first = made.next();
        let last = made.last();
        let unlocks = match events.iter().filter(is_unlock).count() {
            0 => String::new(),
            1 => ", but for an unlock by hand".into(),
            several => format!(", but for {several} unlocks by hand"),
        };
        let merged = format!("{unlocks}{merged}");
        let is = |event: &Event, stage: Stage| event.stage == stage.to_string();
        let before_switch = |event: &Event| is(event, Stage::Early) || is(event, Stage::Late);
        if let Some(event) = last
            .or(first)
            .filter(|event| is(event, Stage::Host) || is(event, Stage::Sync))
        {
            let since = Seconds(event.boottime);
            let was_closed = was_made
                || first.is_some_and(|first| before_switch(first) || is(first, Stage::Init));
            let (before, remedy) = if was_closed {
                (
                    ": something had opened it again, and it is closed",
                    "find what mounts it writable: a remount by hand, or a line in fstab without ro",
                )
            } else {
                (",", "add usr-policy to the initramfs and rebuild it")
            };
            let what = format!(
                "read-only, but late{before} since {since} after the kernel started{merged}"
            );
            self.find(Verdict::Warning, path, what, remedy);
        } else if was_made {
            let what = format!("read-only since the soft-reboot{merged}");
            self.find(Verdict::Holds, path, what, "");
        } else if first.is_some_and(before_switch) {
            self.find(
                Verdict::Holds,
                path,
                format!("read-only since the initramfs{merged}"),
                "",
            );
        } else if first.is_some_and(|event| is(event, Stage::Init)) {
            self.find(
                Verdict::Holds,
                path,
                format!("read-only since pre-init{merged}"),
                "",
            );
        } else {
            let holds = if sysext { beneath } else { Some(top) };
            let mut those = stack.into_iter().chain(holds);
            let by = match (those.find_map(read_only_by_nature), layer) {
                (Some(fs_type), _) => format!("by its file system, {fs_type}"),
                (None, Layer::Mount) => "by a mount that is not usr-policy's".into(),
                (None, Layer::FileSystem) => "by its file system".into(),
            };
            self.find(Verdict::Holds, path, format!("read-only {by}{merged}"), "");
        }
    }

    /// What was recorded up to the last soft-reboot, and after it; without one everything is after it.
    fn since_soft_reboot(&self) -> (&'a [Event], &'a [Event]) {
        let events = &self.observed.events;
        let mut starts = events
            .iter()
            .enumerate()
            .filter(|(_, event)| event.result == START);
        match (starts.next(), starts.next_back()) {
            (Some(_), Some((last, _))) => events.split_at(last + 1),
            _ => (&[], events),
        }
    }

    /// Since when a path is open, where that was seen.
    fn since_opened(&self, path: &MountPoint) -> String {
        let path = path.to_string();
        let events = self.observed.events.iter();
        match events.rev().find(|event| event.path == path) {
            Some(event) if event.result == OPENED => {
                let since = Seconds(event.boottime);
                format!(", since something opened it {since} after the kernel started")
            }
            _ => String::new(),
        }
    }

    fn database(&mut self, mount: &PlannedMount) {
        let Some((_, read_only)) = self.judged(mount) else {
            return;
        };
        let path = &mount.rule.mount_point;
        if read_only.is_none() && self.wanted().usr_is_open {
            return self.find(Verdict::Warning, path, self.open(), "usr-policy lock");
        }
        if read_only.is_none() && !self.wanted().is_locked {
            // The pair says more of it.
            let what = format!("open: {}", self.wanted().why);
            return self.find(Verdict::Holds, path, what, "");
        }
        if read_only.is_none() {
            let (what, remedy) = match &self.observed.at_work {
                Some((program, pid)) => (
                    format!(
                        "writable: {program} (pid {pid}) is changing packages; it is locked as soon as that ends"
                    ),
                    "let it end",
                ),
                None => (
                    format!(
                        "writable, although it is to be locked{}",
                        self.since_opened(path)
                    ),
                    "run /usr/lib/usr-policy/usr-policy-generator sync",
                ),
            };
            self.find(Verdict::Broken, path, what, remedy);
        } else if self.observed.mounts.is_doubled(path) {
            self.find(
                Verdict::Broken,
                path,
                "locked more than once; one unlock would not open it",
                "umount it once for each lock too many",
            );
        } else if let Some(hole) = self.hole_in(path) {
            self.find(
                Verdict::Broken,
                path,
                format!("locked, but {hole} is a writable mount of its own below it"),
                "run /usr/lib/usr-policy/usr-policy-generator sync, and write ro in its line of /etc/fstab",
            );
        } else {
            self.find(
                Verdict::Holds,
                path,
                "locked: pacman can read it and change nothing",
                "",
            );
        }
    }

    /// A mount below a path that can be written and is seen.
    fn hole_in(&self, path: &MountPoint) -> Option<&'a MountPoint> {
        let mut holes = self.observed.mounts.holes_below(path);
        holes.next().map(|mount| &mount.mount_point)
    }

    fn read_only(&mut self, mount: &PlannedMount) {
        match self.judged(mount) {
            None => {}
            Some((place, Some(_))) => self.find(Verdict::Holds, &place.path, "read-only", ""),
            Some((place, None)) => self.not_mounted(place, "writable"),
        }
    }

    fn tmpfs(&mut self, mount: &PlannedMount, options: Tmpfs) {
        let Some(place) = self.seen(mount) else {
            return;
        };
        let path = &mount.rule.mount_point;
        let Some(top) = self.mount_at(place) else {
            return self.not_in_table(path);
        };
        if top.fs_type == b"tmpfs" && top.mount_point != *path {
            // A volatile /var, for instance: it was empty when the unit was to be started.
            let what = format!(
                "in memory, on the tmpfs at {}; size and options are of that",
                top.mount_point
            );
            return self.find(Verdict::Warning, path, what, "");
        }
        if top.fs_type != b"tmpfs" {
            if mount.rule.role == Role::Cache && self.wanted().usr_is_open {
                return self.find(Verdict::Warning, path, self.open(), "usr-policy lock");
            }
            return self.not_mounted(place, "no tmpfs");
        }
        let (differences, other_share) = self.tmpfs_differences(top, options);
        if differences.is_empty() {
            match other_share {
                None => self.find(Verdict::Holds, path, format!("tmpfs {options}"), ""),
                Some(what) => {
                    let remedy = format!("mount -o remount,size={} {path}", options.size);
                    self.find(Verdict::Warning, path, what, remedy);
                }
            }
        } else {
            let what = format!("a tmpfs, but with {}", differences.join(", "));
            self.find(
                Verdict::Broken,
                path,
                what,
                format!("find who mounted it; it should have {options}"),
            );
        }
    }

    /// The options that are not as they should be; in the second a size that is another share of today's memory.
    fn tmpfs_differences(&self, top: &MountInfo, options: Tmpfs) -> (Vec<String>, Option<String>) {
        let mut differences = Vec::new();
        let flags = [
            ("nosuid", true),
            ("nodev", true),
            ("noexec", options.noexec),
        ];
        for (flag, wanted) in flags {
            if wanted && !top.mount_options.has(flag) {
                differences.push(format!("no {flag}"));
            }
        }
        if top.is_read_only() {
            differences.push("no write access".into());
        }
        // The kernel leaves out what is its own default: mode=1777, half of the memory. Source: mm/shmem.c
        // (shmem_show_options, shmem_default_max_blocks).
        let mode = top
            .super_options
            .value("mode")
            .map_or(Some(0o1777), |text| {
                u16::from_str_radix(core::str::from_utf8(text).ok()?, 8).ok()
            });
        if mode != Some(options.mode) {
            differences.push(format!("mode={:04o}", mode.unwrap_or_default()));
        }
        let wanted = self
            .observed
            .memory
            .and_then(|memory| options.size.bytes(memory));
        let actual = match top.super_options.value("size") {
            None => self.observed.memory.map(|memory| memory / 2),
            Some(text) => core::str::from_utf8(text)
                .ok()
                .and_then(|text| text.strip_suffix('k')?.parse::<u64>().ok())
                .and_then(|number| number.checked_mul(1024)),
        };
        let mut other_share = None;
        match (wanted, actual) {
            (Some(_), Some(0)) => differences.push("no size limit".into()),
            // A percentage counts the memory of the moment of mounting, in whole pages; /proc/meminfo counts it now.
            (Some(wanted), Some(actual)) if wanted.abs_diff(actual) > wanted / 50 + 4096 => {
                let (wanted, actual) = (wanted / 1024, actual / 1024);
                if options.size.is_share() {
                    other_share = Some(format!(
                        "a tmpfs with size={actual}k, and {} of the memory would be {wanted}k: the memory has changed since, or somebody else mounted it",
                        options.size
                    ));
                } else {
                    differences.push(format!("size={actual}k"));
                }
            }
            _ => {}
        }
        (differences, other_share)
    }

    /// Judges a path that must be writable; `otherwise` is how much it matters.
    fn writable(&mut self, path: &MountPoint, otherwise: Verdict) {
        let Some(place) = self.place(path) else {
            return;
        };
        if !matches!(place.kind, Kind::Directory | Kind::Linked) {
            return;
        }
        match self.writability(place) {
            Some(Writability::Writable) => self.find(Verdict::Holds, path, "writable", ""),
            Some(Writability::ReadOnly(_)) => {
                let remedy = if path.is_below_usr() {
                    "give it a mount of its own in /etc/fstab"
                } else {
                    "this is not usr-policy's doing: see findmnt for who mounts it"
                };
                self.find(
                    otherwise,
                    path,
                    "read-only, although it must be writable",
                    remedy,
                );
            }
            Some(Writability::Contradiction(what)) => self.contradiction(path, what),
            None => self.not_in_table(path),
        }
    }

    /// Mounts below `/usr` keep their own flags; one that nobody asked for is a hole.
    fn below_usr(&mut self) {
        let Some(usr) = rule_of(self.plan, Role::Usr) else {
            return;
        };
        for hole in self.observed.mounts.holes_below(&usr.mount_point) {
            let path = &hole.mount_point;
            let mut asked_for = self.plan.writable.iter();
            if asked_for.any(|rule| rule.mount_point == *path) {
                continue;
            }
            let remedy =
                format!("mount it read-only, or say that it is meant: usrpolicy.path={path}:rw");
            self.find(
                Verdict::Warning,
                path,
                "a writable mount of its own below /usr",
                remedy,
            );
        }
    }

    /// The statement that everything else serves: the database describes `/usr`.
    fn pair(&mut self) {
        if (
            self.is_read_only(Role::Usr),
            self.is_read_only(Role::Database),
        ) == (Some(true), Some(false))
        {
            if self.observed.is_guarded && !self.wanted().is_locked {
                return self.find(
                    Verdict::Warning,
                    &"/usr and the package database",
                    "/usr is read-only and the database is writable; only the hook of usr-policy keeps pacman from forgetting packages",
                    "usr-policy unlock before packages are changed",
                );
            }
            // With lock=off nobody locks the database, and /usr is closed all the same.
            let (cause, remedy) = if self.plan.lock == Lock::Off {
                (
                    ", as usrpolicy.lock=off asks",
                    "take usrpolicy.lock=off away, in the configuration Lock=off, and boot again",
                )
            } else {
                (
                    "",
                    "lock the database with /usr/lib/usr-policy/usr-policy-generator sync",
                )
            };
            self.find(
                Verdict::Broken,
                &"/usr and the package database",
                format!(
                    "/usr is read-only and the database is writable{cause}: pacman -R would report success, forget the package and leave its files"
                ),
                format!("do not run pacman; {remedy}"),
            );
        }
    }

    /// What the database says and `/usr` does not have, or the other way round.
    fn covered(&mut self) {
        if self.observed.covered.is_empty() {
            return;
        }
        let names = self.observed.covered.join(", ");
        self.find(
            Verdict::Broken,
            &"packages",
            format!("changed while extensions covered /usr, so their files there may be missing or left over: {names}"),
            "usr-policy unlock, install them again, usr-policy lock",
        );
    }

    fn not_mounted(&mut self, place: &Place, found: &str) {
        let path = &place.path;
        if place.kind == Kind::Linked {
            let what = format!(
                "{found}: a symbolic link leads there, and systemd mounts nothing over one"
            );
            self.find(
                Verdict::Warning,
                path,
                what,
                "use the path that the link leads to",
            );
        } else {
            self.find(
                Verdict::Broken,
                path,
                found,
                "see systemctl status for its mount unit; a directory that was made after the boot is covered from the next one on",
            );
        }
    }

    fn contradiction(&mut self, path: &MountPoint, what: String) {
        self.find(
            Verdict::Unknown,
            path,
            what,
            "the witnesses disagree; report this with /proc/1/mountinfo",
        );
    }

    fn not_in_table(&mut self, path: &MountPoint) {
        self.find(
            Verdict::Unknown,
            path,
            "its mount is not in the mount table of PID 1",
            self.observed.caller.way_to_see(),
        );
    }
}

/// A point in time as the kernel log shows it.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::Cmdline;
    use crate::plan::Facts;

    fn plan(cmdline: &str) -> Plan {
        Plan::new(&Facts {
            cmdline: Cmdline::parse(cmdline.as_bytes()),
            ..Facts::default()
        })
    }

    /// A machine on which the mount table is the one witness, and every path is a directory.
    fn machine(plan: &Plan, table: &str) -> Observed {
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
    fn says(report: &Report, verdict: Verdict, subject: &str, what: &str) {
        assert!(
            report.findings.iter().any(|finding| {
                finding.verdict == verdict
                    && finding.subject == subject
                    && finding.what.contains(what)
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

    const PACMAN: &str = "4 1 0:2 / /var/lib/pacman ro - tmpfs t rw\n";
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
        let table =
            format!("1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n{PACMAN}");
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
            "writable, although it is to be locked"
        );
    }

    #[test]
    fn a_path_of_the_record_may_hold_blanks() {
        let events = Event::parse(br"7 sync /srv/my\040db failed for now");
        assert_eq!(events[0].path, "/srv/my db");
        assert_eq!(events[0].result, "failed for now");
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
        let table =
            format!("1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n{PACMAN}");
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
}
