//! The follower: wakes up when something is mounted or unmounted, when a person asks for something, and when a time is
//! over; then it does what sync does. Between that it sleeps.

use usr_policy_plan::lock::State;
use usr_policy_plan::mountinfo::{MountInfo, MountTable};
use usr_policy_plan::plan::PlannedMount;
use usr_policy_plan::policy::{Role, Treatment};
use usr_policy_plan::verify::Done;
use usr_policy_system::database;
use usr_policy_system::processes::OpenFile;
use usr_policy_system::seen::{how_closed, mount_table, mounted_usr};
use usr_policy_system::state::{self, now};
use usr_policy_system::wakers::Wakers;

use crate::Failed;
use crate::apply::{Planned, record};
use crate::installed;
use crate::sync::{By, Left, database_of, once, say_pending};

/// How often it is looked whether a package manager has ended, in microseconds.
const PENDING: u64 = 200_000;

/// When what has failed is tried again, in microseconds: a second at first, ten minutes in the end.
const FIRST_DELAY: u64 = 1_000_000;
const LAST_DELAY: u64 = 600 * FIRST_DELAY;

pub(crate) fn run() -> Result<(), Failed> {
    let wakers = Wakers::new()?;
    let _following = state::follow()?;
    let mut seen: Option<Looked> = None;
    let mut known = None;
    let mut is_asked = true;
    let mut waiting: Option<Waiting> = None;
    // When, and how long after it had failed.
    let mut retry: Option<(u64, u64)> = None;
    // What the policy is counts when something is done: a mount of somebody is no reason to read it again.
    let mut planned = Planned::read("/".into())?;
    loop {
        let mut looked = Looked::at(&planned);
        if installed::is_removed(looked.is_merged) {
            return Ok(());
        }
        let is_news = known != Some(looked.is_merged);
        // An unlock does not outlive that: the database alone would be open.
        let is_closed = seen
            .as_ref()
            .is_some_and(|seen| looked.is_closed_since(seen));
        let goes_on = waiting.as_ref().filter(|waiting| waiting.goes_on(&planned));
        let is_idle = goes_on.is_some() || !is_asked;
        if let Some(seen) = seen.as_ref().filter(|_| is_idle && !is_news) {
            looked.record_changes(seen);
        }
        if is_idle && !is_news && !is_closed {
            if is_asked {
                wakers.wake_at(Some(now().saturating_add(PENDING)))?;
            }
        } else {
            planned = Planned::read("/".into())?;
            // What failed was logged, and is tried again: not at each mount of a machine with many, and less and less often.
            let left = if let Ok(left) = once(&planned, By::Follower) {
                retry = None;
                left
            } else {
                // News are a reason to try again soon.
                let delay = match retry {
                    Some((at, delay)) if at <= now() => LAST_DELAY.min(2 * delay),
                    _ => FIRST_DELAY,
                };
                let at = now().saturating_add(delay);
                retry = Some((at, delay));
                Left {
                    until: Some(at),
                    is_merged: Some(looked.is_merged),
                    pending: None,
                }
            };
            let holder = left.pending.as_ref();
            if let Some(holder) = holder.filter(|_| waiting.is_none()) {
                say_pending(holder);
            }
            let soon = holder.map(|_| now().saturating_add(PENDING));
            wakers.wake_at(soon.or(left.until))?;
            waiting = left.pending.map(|holder| Waiting {
                holder,
                until: left.until,
                state: state::read().ok(),
            });
            // What is written down, and not what is so by now: that may be news already.
            known = left.is_merged;
            // Not what was found at first: this process itself may have closed it since.
            looked = Looked::at(&planned);
        }
        seen = Some(looked);
        installed::become_new_one();
        is_asked = wakers.wait()?;
    }
}

/// For whose end it is waited.
struct Waiting {
    holder: OpenFile,
    /// When the lock table says something else all the same.
    until: Option<u64>,
    /// What was on record then: another one is a request.
    state: Option<State>,
}

impl Waiting {
    /// Whether nothing but time has passed. That is asked again and again, for as long as somebody waits at a prompt.
    fn goes_on(&self, planned: &Planned) -> bool {
        let path = database_of(planned).map(|rule| rule.mount_point.to_string());
        self.until.is_none_or(|until| now() < until)
            && self.state.is_some()
            && state::read().ok() == self.state
            && path.is_some_and(|path| database::is_held_by(&planned.root, &path, &self.holder))
    }
}

/// What a mount or unmount may have changed.
#[derive(PartialEq, Eq)]
struct Looked {
    is_merged: bool,
    usr_is_read_only: Option<bool>,
    database: Option<String>,
    database_is_read_only: Option<bool>,
    /// What else the policy closes or puts into memory, and whether it is so.
    others: Vec<(String, Kept)>,
}

/// What is kept of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    ReadOnly(bool),
    InMemory(bool),
}

impl Kept {
    /// By the table alone: the path may lead to where nobody answers.
    fn of(mount: &PlannedMount, table: &MountTable) -> Option<Self> {
        let top = table.top_at(&mount.rule.mount_point);
        let top = top.filter(|top| table.is_seen(top));
        match (mount.rule.role, mount.rule.treatment) {
            (Role::Usr | Role::Database, _) | (_, Treatment::ReadWrite) => None,
            (_, Treatment::Tmpfs(_)) => Some(Kept::InMemory(
                top.is_some_and(|top| top.fs_type == b"tmpfs"),
            )),
            (_, Treatment::ReadOnly) => {
                Some(Kept::ReadOnly(top.is_some_and(MountInfo::is_read_only)))
            }
        }
    }

    fn done(self) -> Done {
        match self {
            Kept::ReadOnly(true) => Done::Closed,
            Kept::ReadOnly(false) => Done::Opened,
            Kept::InMemory(true) => Done::Tmpfs,
            Kept::InMemory(false) => Done::Gone,
        }
    }
}

impl Looked {
    fn at(planned: &Planned) -> Self {
        let usr = mounted_usr(&planned.root).unwrap_or_default();
        let path = planned
            .plan
            .database()
            .map(|rule| rule.mount_point.to_string());
        let database = path.as_ref().and_then(|path| {
            let directory = planned.root.directory(path).ok()??;
            how_closed(&directory).ok()
        });
        let others = mount_table().map_or(Vec::new(), |table| {
            let mounts = planned.plan.mounts.iter();
            let kept = mounts.filter_map(|mount| {
                Some((mount.rule.mount_point.to_string(), Kept::of(mount, &table)?))
            });
            kept.collect()
        });
        Looked {
            others,
            is_merged: usr.as_ref().is_some_and(|usr| usr.is_sysext),
            usr_is_read_only: usr.map(|usr| usr.mount.is_read_only()),
            database: path,
            database_is_read_only: database.map(|found| found.itself == Some(true) && found.below),
        }
    }

    /// Whether somebody has made `/usr` read-only.
    fn is_closed_since(&self, before: &Self) -> bool {
        (before.usr_is_read_only, self.usr_is_read_only) == (Some(false), Some(true))
    }

    /// For whoever asks later since when something is not what was promised.
    fn record_changes(&self, before: &Self) {
        let outcome = |is_read_only| {
            if is_read_only {
                Done::Closed
            } else {
                Done::Opened
            }
        };
        for (path, now, before) in [
            ("/usr", self.usr_is_read_only, before.usr_is_read_only),
            (
                self.database.as_deref().unwrap_or_default(),
                self.database_is_read_only,
                before.database_is_read_only,
            ),
        ] {
            if let Some(now) = now.filter(|now| before.is_some_and(|before| before != *now)) {
                record("follow", path, outcome(now));
            }
        }
        for (path, kept) in &self.others {
            let mut others = before.others.iter();
            if others.any(|(other, before)| other == path && before != kept) {
                record("follow", path, kept.done());
            }
        }
    }
}
