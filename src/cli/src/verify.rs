//! `usr-policy verify`: the plan, what is there, and the difference.

use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;

use usr_policy_plan::plan::Plan;
use usr_policy_plan::policy::Mode;
use usr_policy_plan::text;
use usr_policy_plan::verify::{Blind, Caller, Report, Verdict, report};
use usr_policy_system::container::in_container;
use usr_policy_system::facts::{gather, running_cmdline};
use usr_policy_system::failure::Failure;
use usr_policy_system::root::Root;

use crate::observe::observe;
use crate::{Outcome, Shown};

pub(crate) fn run() -> Outcome {
    if in_container() {
        return Ok(Shown::nothing_promised());
    }
    let root = Root::open("/")?;
    let (facts, failures) = gather(&root, &running_cmdline(&root)?);
    let plan = Plan::new(&facts);
    let mut observed = observe(&plan)?;
    observed.unread = failures
        .iter()
        .map(|failure| unread(observed.caller, failure))
        .collect();
    let report = report(&plan, &observed);
    let mut text = Vec::new();
    show(&mut text, &plan, &report)
        .map_err(|error| Failure::new("report", "cannot be shown", error))?;
    Ok(Shown {
        text,
        complaints: Vec::new(),
        exit_code: report.exit_code(),
    })
}

/// A file that a plan is made from, and that could not be read.
fn unread(caller: Caller, failure: &Failure) -> Blind {
    let remedy = match failure.error.kind() {
        ErrorKind::PermissionDenied => caller.way_to_see(),
        _ if failure.remedy.is_empty() => "mend or remove it; nothing in it counts until then",
        _ => failure.remedy,
    };
    Blind {
        subject: text::Shown(failure.path.as_os_str().as_bytes()).to_string(),
        what: failure.what(),
        remedy: remedy.to_owned(),
    }
}

fn show(out: &mut impl Write, plan: &Plan, report: &Report) -> io::Result<()> {
    writeln!(out, "usr-policy: {} ({})", plan.mode, plan.mode_origin)?;
    let width = report
        .findings
        .iter()
        .map(|finding| finding.subject.chars().count())
        .max()
        .unwrap_or(0);
    for finding in &report.findings {
        writeln!(
            out,
            "  {:7}  {:width$}  {}",
            finding.verdict, finding.subject, finding.what
        )?;
        if !finding.remedy.is_empty() {
            writeln!(out, "  {:7}  {:width$}  -> {}", "", "", finding.remedy)?;
        }
    }
    writeln!(out, "{}", summary(plan.mode, report))
}

fn summary(mode: Mode, report: &Report) -> String {
    let broken = report.count(Verdict::Broken);
    let unknown = report.count(Verdict::Unknown);
    let warnings = report.count(Verdict::Warning);
    match (mode, broken, unknown) {
        (Mode::Off, 0, 0) => "Nothing is promised.".to_owned(),
        (Mode::Audit, 0, 0) => {
            format!("Nothing is promised; strict would find {warnings} to mend.")
        }
        (Mode::Strict, 0, 0) if warnings == 0 => "Everything that is promised holds.".to_owned(),
        (Mode::Strict, 0, 0) => format!("Everything that is promised holds; warnings: {warnings}."),
        (_, 0, _) => format!("It could not be told whether everything holds; unknown: {unknown}."),
        _ => format!("Not everything that is promised holds; broken: {broken}."),
    }
}
