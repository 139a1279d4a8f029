//! `usr-policy verify`: the plan, what is there, and the difference.

mod json;
mod metrics;
mod text;

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use usr_policy_plan::lock::Wanted;
use usr_policy_plan::plan::Plan;
use usr_policy_plan::policy::{Mode, Origin};
use usr_policy_plan::text::Shown as Escaped;
use usr_policy_plan::verify::{
    Blind, Caller, Fill, Finding, Observed, Report, Topic, Verdict, YEAR_10_000, report, wanted,
};
use usr_policy_system::facts::{gather, running_cmdline};
use usr_policy_system::failure::Failure;
use usr_policy_system::root::Root;

use crate::arguments::{Format, Verify};
use crate::container::in_container;
use crate::journal::record;
use crate::observe::hidden::Depth;
use crate::observe::{ROOT, caller, observe, root_of_the_promise};
use crate::terminal::Page;
use crate::{Outcome, Shown};
use text::Detail;

pub(crate) fn run(how: &Verify) -> Outcome {
    let mut complaints = Vec::new();
    let depth = if how.deep {
        Depth::Deep
    } else {
        Depth::Shallow
    };
    let verified = match verified(depth) {
        Ok(verified) => verified,
        Err(failure) if how.format() == Format::Text && !how.journal => return Err(failure),
        // A program that reads an object or metrics learns it from them; an empty file would be no news at all.
        Err(failure) => {
            complaints.push(failure.to_string());
            Verified::unread(&failure)
        }
    };
    let exit_code = verified.report.exit_code();
    if how.journal {
        match record(&text::summary(&verified.report), &verified.report).send() {
            Ok(()) => {
                return Ok(Shown {
                    text: Vec::new(),
                    complaints,
                    exit_code,
                });
            }
            // Whoever reads standard output shall have it then.
            Err(failure) => complaints.push(failure.to_string()),
        }
    }
    let text = match how.format() {
        Format::Text => {
            let detail = match (how.quiet, how.all) {
                (true, _) => Detail::Quiet,
                (_, true) => Detail::All,
                (false, false) => Detail::Normal,
            };
            text::show(&verified, detail, &Page::of_stdout())
        }
        Format::Json => json::show(&verified),
        Format::Metrics => metrics::show(&verified),
    };
    Ok(Shown {
        text: text.into_bytes(),
        complaints,
        exit_code,
    })
}

/// A verdict, and what belongs to it: the same for every way to show it.
struct Verified {
    asked: Asked,
    report: Report,
    /// `None` where nothing is locked: under `audit` and `off`, and in a container.
    lock: Option<Locked>,
    fills: Vec<Fill>,
    boot_id: Option<String>,
    time: SystemTime,
}

/// What is asked for, and where.
enum Asked {
    Policy(Mode, Origin),
    /// In a container.
    Nothing,
    /// It could not be read.
    Unread,
}

impl Asked {
    fn mode(&self) -> Option<Mode> {
        match self {
            Asked::Policy(mode, _) => Some(*mode),
            Asked::Nothing => Some(Mode::Off),
            Asked::Unread => None,
        }
    }

    fn origin(&self) -> Option<String> {
        match self {
            Asked::Policy(_, origin) => Some(origin.to_string()),
            Asked::Nothing => Some("in a container".to_owned()),
            Asked::Unread => None,
        }
    }
}

/// The row of the lock table.
struct Locked {
    wanted: Wanted,
    /// When it ends although nothing happens.
    until: Option<SystemTime>,
}

impl Locked {
    fn new(plan: &Plan, observed: &Observed, time: SystemTime) -> Self {
        let wanted = wanted(plan, observed);
        let until = wanted.until.and_then(|until| {
            time.checked_add(Duration::from_micros(until.saturating_sub(observed.now)))
        });
        // What RFC 3339 has no words for ends the program that asks humantime for them.
        let until = until.filter(|until| *until < UNIX_EPOCH + Duration::from_secs(YEAR_10_000));
        Locked { wanted, until }
    }

    fn state(&self) -> &'static str {
        if self.wanted.is_locked {
            "locked"
        } else {
            "open"
        }
    }
}

impl Verified {
    fn new(asked: Asked, report: Report) -> Self {
        Verified {
            asked,
            report,
            lock: None,
            fills: Vec::new(),
            boot_id: boot_id(),
            time: SystemTime::now(),
        }
    }

    /// Nothing was seen, for this reason.
    fn unread(failure: &Failure) -> Self {
        let remedy = if failure.remedy.is_empty() {
            "mend that, then run usr-policy verify again"
        } else {
            failure.remedy
        };
        let finding = Finding {
            verdict: Verdict::Unknown,
            topic: Topic::Witness,
            subject: Escaped(failure.path.as_os_str().as_bytes()).to_string(),
            what: failure.what(),
            remedy: remedy.to_owned(),
            layers: None,
        };
        let report = Report {
            mode: Mode::Off,
            findings: vec![finding],
        };
        Self::new(Asked::Unread, report)
    }
}

/// Random, and another one at each boot. Source: random(4).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn boot_id() -> Option<String> {
    // Without it a reader knows the time.
    let text = std::fs::read_to_string(BOOT_ID).ok()?;
    Some(text.trim_end().to_owned())
}

fn verified(depth: Depth) -> Result<Verified, Failure> {
    if in_container() {
        let report = Report {
            mode: Mode::Off,
            findings: Vec::new(),
        };
        return Ok(Verified::new(Asked::Nothing, report));
    }
    let cmdline = running_cmdline(&Root::open("/")?)?;
    let (facts, failures) = gather(&root_of_the_promise()?, &cmdline);
    let plan = Plan::new(&facts);
    let mut observed = if plan.mode == Mode::Off {
        // Nothing is promised, so nothing is compared, and a file system that does not answer is no matter of ours.
        Observed {
            caller: caller(),
            ..Observed::default()
        }
    } else {
        observe(&plan, depth)?
    };
    observed.unread = failures
        .iter()
        .map(|failure| unread(observed.caller, failure))
        .collect();
    let report = report(&plan, &observed);
    let asked = Asked::Policy(plan.mode, plan.mode_origin.clone());
    let mut verified = Verified::new(asked, report);
    if plan.is_strict() {
        verified.lock = Some(Locked::new(&plan, &observed, verified.time));
    }
    verified.fills = observed.fills;
    Ok(verified)
}

/// A file that a plan is made from, and that could not be read.
fn unread(caller: Caller, failure: &Failure) -> Blind {
    // As the machine has it, and not by the way on which it was looked at.
    let path = failure.path.strip_prefix(ROOT);
    let path = path.map_or(failure.path.clone(), |path| Path::new("/").join(path));
    let remedy = match failure.error.kind() {
        ErrorKind::PermissionDenied => caller.way_to_see(),
        _ if failure.remedy.is_empty() => "mend or remove it; nothing in it counts until then",
        _ => failure.remedy,
    };
    Blind {
        subject: Escaped(path.as_os_str().as_bytes()).to_string(),
        what: failure.what(),
        remedy: remedy.to_owned(),
    }
}
