//! The follower: wakes up when something is mounted or unmounted, when a person asks for something, and when a time is
//! over; then it does what sync does. Between that it sleeps.

use usr_policy_plan::verify::Done;
use usr_policy_system::seen::{how_closed, mounted_usr};
use usr_policy_system::state::{self, now};
use usr_policy_system::wakers::Wakers;

use crate::Failed;
use crate::apply::{Planned, record};
use crate::installed;
use crate::sync::{By, Left, once, say_pending};

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
    let mut is_pending = false;
    // When, and how long after it had failed.
    let mut retry: Option<(u64, u64)> = None;
    // What the policy is counts when something is done: a mount of somebody is no reason to read it again.
    let mut planned = Planned::read("/".into())?;
    loop {
        let mut looked = Looked::at(&planned);
        if installed::is_removed(looked.is_merged) {
            return Ok(());
        }
        if is_asked || known != Some(looked.is_merged) {
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
            if let Some(holder) = left.pending.as_ref().filter(|_| !is_pending) {
                say_pending(holder);
            }
            is_pending = left.pending.is_some();
            let soon = is_pending.then(|| now().saturating_add(PENDING));
            wakers.wake_at(soon.or(left.until))?;
            // What is written down, and not what is so by now: that may be news already.
            known = left.is_merged;
            // Not what was found at first: this process itself may have closed it since.
            looked = Looked::at(&planned);
        } else if let Some(seen) = &seen {
            looked.record_changes(seen);
        }
        seen = Some(looked);
        installed::become_new_one();
        is_asked = wakers.wait()?;
    }
}

/// What a mount or unmount may have changed.
#[derive(PartialEq, Eq)]
struct Looked {
    is_merged: bool,
    usr_is_read_only: Option<bool>,
    database: Option<String>,
    database_is_read_only: Option<bool>,
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
        Looked {
            is_merged: usr.as_ref().is_some_and(|usr| usr.is_sysext),
            usr_is_read_only: usr.map(|usr| usr.mount.is_read_only()),
            database: path,
            database_is_read_only: database.map(|found| found.itself == Some(true) && found.below),
        }
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
    }
}
