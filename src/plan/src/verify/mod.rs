//! [`Report`]: whether the running system is what the [`Plan`] promises. The same rules, read backwards.

#[cfg(test)]
mod advice_tests;
mod below_var;
mod events;
mod fill;
mod initramfs;
mod judge;
mod layers;
#[cfg(test)]
mod layouts;
mod mutable;
mod next_boot;
mod observed;
mod open;
mod shell;
mod stack;
mod sysext;
mod system;
#[cfg(test)]
mod tests;
mod topic;
mod undone;
mod usr;
mod ways;
#[cfg(test)]
mod witness_tests;
mod witnesses;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt;

pub use events::{Done, Event};
pub use fill::Fill;
pub use initramfs::Builders;
pub use layers::{BeneathExtensions, Layers, Process, SecondMount, SecondReading, Standing};
pub use next_boot::{SYSEXT_SERVICE, Unit, UnitPart, units_to_look_at};
pub use observed::{Access, Blind, Caller, Follower, Kind, Observed, Place, PreInit};
pub use open::YEAR_10_000;
pub use stack::{Flag, Stack};
pub use sysext::{
    ByName, Content, EXTENSION_DIRECTORIES, Extension, SearchDirectory, Sysext, considered,
};
pub use system::{Beneath, Generator, Hidden, OUTSIDE, STORES, SystemFacts};
pub use topic::Topic;
pub use ways::{Way, Ways};

use crate::lock::Wanted;
use crate::mount_index::MountIndex;
use crate::mount_point::MountPoint;
use crate::mountinfo::MountInfo;
use crate::plan::Plan;
use crate::policy::{Mode, Role, Rule};
use judge::Judge;

/// How a promise fares, the most serious last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It does not apply here.
    NotApplicable,
    /// It holds.
    Holds,
    /// It holds, but not as well as it could.
    Warning,
    /// It could not be told.
    Unknown,
    /// It does not hold.
    Broken,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 5] = [
        Verdict::NotApplicable,
        Verdict::Holds,
        Verdict::Warning,
        Verdict::Unknown,
        Verdict::Broken,
    ];

    /// Its name for programs, which does not change.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Verdict::NotApplicable => "not-applicable",
            Verdict::Holds => "holds",
            Verdict::Warning => "warning",
            Verdict::Unknown => "unknown",
            Verdict::Broken => "broken",
        }
    }
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
    /// What it is about, for a program, and why it matters.
    pub topic: Topic,
    /// What it is about: a path, or where a word stands.
    pub subject: String,
    /// What was found.
    pub what: String,
    /// What to do; empty where there is nothing to do.
    pub remedy: String,
    /// The layers at the path of a rule; `None` for what is no rule, and where they are not in the mount table.
    pub layers: Option<Box<Stack>>,
}

/// The whole verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the plan asks for.
    pub mode: Mode,
    /// The findings: the most serious first, the pair before all others that are broken, and those that are alike in the order
    /// of the plan.
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

    /// How everything together fares. Where nothing applies, nothing is broken.
    #[must_use]
    pub fn worst(&self) -> Verdict {
        self.findings
            .iter()
            .map(|finding| finding.verdict)
            .fold(Verdict::Holds, Verdict::max)
    }
}

/// Paths that the policy never changes, and that a machine needs writable.
const ALWAYS_WRITABLE: [&str; 3] = ["/var", "/etc", "/run"];

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
pub(crate) fn rule_of(plan: &Plan, role: Role) -> Option<&Rule> {
    let carried_out = plan.mounts.iter().map(|mount| &mount.rule);
    let left_out = plan.left_out.iter().map(|left_out| &left_out.rule);
    carried_out.chain(left_out).find(|rule| rule.role == role)
}

/// Whether extensions are merged over `/usr`.
#[must_use]
pub fn is_merged(plan: &Plan, observed: &Observed) -> bool {
    let usr = rule_of(plan, Role::Usr);
    let place = usr.and_then(|usr| {
        let mut places = observed.places.iter();
        places.find(|place| place.path == usr.mount_point)
    });
    let top = place.and_then(|place| observed.mount_at(place));
    top.is_some_and(MountInfo::is_sysext)
}

/// What the lock table says now. What is remembered may be older than what is merged: then it is brought up to date first.
#[must_use]
pub fn wanted(plan: &Plan, observed: &Observed) -> Wanted {
    let state = observed
        .state
        .after(is_merged(plan, observed), observed.now);
    state.wanted(plan.lock, observed.is_guarded, observed.now)
}

/// Whether what has this role is open on purpose.
pub(crate) fn is_open(wanted: &Wanted, role: Role) -> bool {
    match role {
        Role::Usr | Role::Cache => wanted.usr_is_open,
        Role::Database => !wanted.is_locked,
        Role::Path => false,
    }
}

/// Compares what was seen with the plan.
#[must_use]
pub fn report(plan: &Plan, observed: &Observed) -> Report {
    let mut judge = Judge {
        plan,
        observed,
        index: MountIndex::new(&observed.mounts),
        findings: Vec::new(),
    };
    judge.words();
    judge.unread();
    if plan.mode != Mode::Off {
        judge.follower();
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
    // Nothing is worse than the pair in its dangerous row: packages are lost while somebody mends another line.
    findings.sort_by_key(|finding| {
        let is_worst = finding.topic == Topic::Pair && finding.verdict == Verdict::Broken;
        Reverse((finding.verdict, is_worst))
    });
    Report {
        mode: plan.mode,
        findings,
    }
}
