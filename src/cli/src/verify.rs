//! `usr-policy verify`: the plan, what is there, and the difference.

use std::io::{self, Write};

use usr_policy_plan::plan::Plan;
use usr_policy_plan::policy::Mode;
use usr_policy_plan::verify::{Report, Verdict, report};
use usr_policy_system::facts::{gather, running_cmdline};
use usr_policy_system::failure::Failure;
use usr_policy_system::root::Root;

use crate::observe::observe;
use crate::{Outcome, Shown};

pub(crate) fn run() -> Outcome {
    let root = Root::open("/")?;
    let (facts, failures) = gather(&root, &running_cmdline(&root)?);
    let plan = Plan::new(&facts);
    let observed = observe(&plan)?;
    let report = report(&plan, &observed);
    let mut text = Vec::new();
    show(&mut text, &plan, &report)
        .map_err(|error| Failure::new("report", "cannot be shown", error))?;
    let complaints = failures.iter().map(ToString::to_string).collect();
    Ok(Shown {
        text,
        complaints,
        exit_code: report.exit_code(),
    })
}

fn show(out: &mut impl Write, plan: &Plan, report: &Report) -> io::Result<()> {
    let mode = match plan.mode {
        Mode::Off => "off",
        Mode::Audit => "audit",
        Mode::Strict => "strict",
    };
    writeln!(out, "usr-policy: {mode} ({})", plan.mode_origin)?;
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
