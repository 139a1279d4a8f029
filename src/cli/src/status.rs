//! `usr-policy status`: one screen: what is closed, what is open, and why.

use std::fmt::Write;
use std::time::Duration;

use humantime::{FormattedDuration, format_duration};
use usr_policy_plan::plan::Plan;
use usr_policy_plan::policy::{Mode, Treatment};
use usr_policy_plan::verify::{Done, Observed, Verdict, is_merged, report, wanted};
use usr_policy_system::facts::{gather, running_cmdline};
use usr_policy_system::failure::Failure;
use usr_policy_system::root::Root;
use usr_policy_system::state;

use crate::container::in_container;
use crate::observe::hidden::Depth;
use crate::observe::{observe, root_of_the_promise};
use crate::{Outcome, Shown};

pub(crate) fn run() -> Outcome {
    let cmdline = running_cmdline(&Root::open("/")?)?;
    // What could not be understood is verify's to tell.
    let (facts, _) = gather(&root_of_the_promise()?, &cmdline);
    let plan = &Plan::new(&facts);
    let mut text = String::new();
    if in_container() {
        return Ok(Shown::nothing_promised());
    }
    line(
        &mut text,
        "mode",
        &format!("{} ({})", plan.mode, plan.mode_origin),
    );
    if plan.mode != Mode::Off {
        rest(&mut text, plan)?;
    }
    Ok(Shown {
        text: text.into_bytes(),
        complaints: Vec::new(),
        exit_code: 0,
    })
}

fn rest(text: &mut String, plan: &Plan) -> Result<(), Failure> {
    let observed = observe(plan, Depth::Shallow)?;
    let report = report(plan, &observed);
    let about = |subject: &str| {
        let mut findings = report.findings.iter();
        findings
            .find(|finding| finding.subject == subject)
            .map_or("not looked at", |finding| finding.what.as_str())
    };
    let usr = format!("{}{}", about("/usr"), since(&observed, "/usr"));
    line(text, "/usr", &usr);
    if let Some(rule) = plan.database() {
        let path = rule.mount_point.to_string();
        let wanted = wanted(plan, &observed);
        let mut what = about(&path).to_owned();
        if plan.is_strict() {
            // Writing to a String does not fail.
            let _ = write!(what, " ({})", wanted.why);
        }
        what.push_str(&since(&observed, &path));
        if let Some(until) = wanted.until {
            let _ = write!(
                what,
                "; the next change in {}",
                seconds_between(state::now(), until)
            );
        }
        line(text, "database", &format!("{path}: {what}"));
        if let Some(who) = &observed.at_work {
            line(text, "at work", &format!("{who} is changing packages"));
        }
    }
    let sysext = &observed.sysext;
    let extensions = match (is_merged(plan, &observed), &sysext.merged) {
        (false, _) => "none are merged".to_owned(),
        (true, Some(names)) => names.join(", "),
        (true, None) if sysext.has_no_answer => "merged, and could not be looked at".to_owned(),
        (true, None) => "merged, and which they are could not be read".to_owned(),
    };
    line(text, "extensions", &extensions);
    for mount in &plan.mounts {
        if matches!(mount.rule.treatment, Treatment::Tmpfs(_)) {
            let path = mount.rule.mount_point.to_string();
            let mut fills = observed.fills.iter();
            let what = match fills.find(|fill| fill.path == mount.rule.mount_point) {
                Some(fill) => fill.to_string(),
                None => format!("{}{}", about(&path), since(&observed, &path)),
            };
            line(text, "tmpfs", &format!("{path}: {what}"));
        }
    }
    let wrong = |verdict| {
        report
            .findings
            .iter()
            .find(move |finding| finding.verdict == verdict)
    };
    if let Some(finding) = wrong(Verdict::Broken).or_else(|| wrong(Verdict::Unknown)) {
        line(
            text,
            "wrong",
            &format!("{}: {}", finding.subject, finding.what),
        );
        line(text, "next", &finding.remedy);
    }
    Ok(())
}

/// How long it has been so, where that is on record.
fn since(observed: &Observed, path: &str) -> String {
    let mut events = observed.events.iter().rev();
    let is_change = |result| {
        matches!(
            result,
            Done::ReadOnly
                | Done::Closed
                | Done::Opened
                | Done::Unlocked
                | Done::Tmpfs
                | Done::Gone
        )
    };
    let last = events.find(|event| event.path == path && is_change(event.result));
    last.map_or(String::new(), |event| {
        format!(", for {}", seconds_between(event.boottime, observed.now))
    })
}

/// Two points of `CLOCK_BOOTTIME` in microseconds, in whole seconds.
fn seconds_between(earlier: u64, later: u64) -> FormattedDuration {
    format_duration(Duration::from_secs(
        later.saturating_sub(earlier) / 1_000_000,
    ))
}

fn line(text: &mut String, key: &str, what: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{key:10}  {what}");
}
