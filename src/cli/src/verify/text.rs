//! A verdict for people. It may change; programs read [`super::json`].

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use humantime::format_rfc3339_seconds;
use usr_policy_plan::policy::Mode;
use usr_policy_plan::verify::{Finding, Report, Verdict};

use super::{Asked, Verified};
use crate::terminal::{Page, columns, padded};

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// What is broken or could not be told.
    Quiet,
    /// All that applies here.
    Normal,
    /// All of it, and what is no finding.
    All,
}

impl Detail {
    fn shows(self, finding: &Finding) -> bool {
        match self {
            Detail::Quiet => finding.verdict >= Verdict::Unknown,
            Detail::Normal => finding.verdict != Verdict::NotApplicable,
            Detail::All => true,
        }
    }
}

pub(super) fn show(verified: &Verified, detail: Detail, page: &Page) -> String {
    let mut out = String::new();
    let report = &verified.report;
    let mut line = |text: &str| page.add(&mut out, "", "  ", text);
    match &verified.asked {
        _ if detail == Detail::Quiet => {}
        Asked::Nothing => {
            line("usr-policy: in a container: nothing is promised; its mounts are its manager's");
            return out;
        }
        Asked::Unread => line("usr-policy: it is not known what is promised"),
        Asked::Policy(mode, origin) => line(&format!("usr-policy: {mode} ({origin})")),
    }
    if detail == Detail::All {
        line(&details(verified));
    }
    findings(&mut out, report, detail, page);
    if detail != Detail::Quiet {
        page.add(&mut out, "", "  ", &summary(report));
    }
    out
}

/// What is no finding.
fn details(verified: &Verified) -> String {
    let mut text = String::new();
    if let Some(lock) = &verified.lock {
        let _ = write!(text, "lock: {} ({})", lock.state(), lock.wanted.why);
        if let Some(until) = lock.until {
            let _ = write!(text, ", until {}", format_rfc3339_seconds(until));
        }
        text += "; ";
    }
    let time = format_rfc3339_seconds(verified.time);
    let _ = write!(text, "looked at {time}");
    if let Some(id) = &verified.boot_id {
        let _ = write!(text, " in boot {id}");
    }
    text
}

/// The columns before a subject: a verdict with two blanks on either side.
const HEAD: usize = 11;

/// What is found stands beside its subject where so many columns are left for it, below it where not: the longest word of our
/// own is the path of the boot program, after the arrow of a remedy.
const BESIDE: usize = 44;

fn findings(out: &mut String, report: &Report, detail: Detail, page: &Page) {
    let shown = || {
        let findings = report.findings.iter();
        findings.filter(|finding| detail.shows(finding))
    };
    let widest = shown().map(|finding| columns(&finding.subject)).max();
    let widest = widest.unwrap_or_default();
    let is_beside = page
        .width
        .is_none_or(|width| width >= HEAD + widest + 2 + BESIDE);
    let column = if is_beside { widest } else { 0 };
    let indent = if is_beside { HEAD + widest + 2 } else { HEAD };
    let indent = " ".repeat(indent);
    for finding in shown() {
        let verdict = page.styled(style(finding.verdict), &format!("{:7}", finding.verdict));
        if is_beside {
            let subject = padded(&finding.subject, column);
            let first = format!("  {verdict}  {subject}  ");
            page.add(out, &first, &indent, &finding.what);
        } else {
            let text = format!("{}  {}", finding.subject, finding.what);
            page.add(out, &format!("  {verdict}  "), &indent, &text);
        }
        if detail == Detail::All
            && let Some(layers) = layers(finding)
        {
            page.add(out, &indent, &indent, &layers);
        }
        if let Some(why) = why(finding) {
            page.add(out, &indent, &indent, why);
        }
        if !finding.remedy.is_empty() {
            let text = format!("-> {}", finding.remedy);
            page.add(out, &indent, &format!("{indent}   "), &text);
        }
    }
}

/// The layers of a rule, where what was found does not name them already.
fn layers(finding: &Finding) -> Option<String> {
    let layers = finding.layers.as_ref()?.to_string();
    (!finding.what.contains(&layers)).then_some(layers)
}

/// Why a finding matters, where it is one to mend.
pub(super) fn why(finding: &Finding) -> Option<&'static str> {
    (finding.verdict >= Verdict::Warning).then(|| finding.topic.why())
}

fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Broken => AnsiColor::Red.on_default().bold(),
        Verdict::Unknown => AnsiColor::Magenta.on_default().bold(),
        Verdict::Warning => AnsiColor::Yellow.on_default(),
        Verdict::Holds => AnsiColor::Green.on_default(),
        Verdict::NotApplicable => Style::new().dimmed(),
    }
}

pub(super) fn summary(report: &Report) -> String {
    let broken = report.count(Verdict::Broken);
    let unknown = report.count(Verdict::Unknown);
    let warnings = report.count(Verdict::Warning);
    match (report.mode, broken, unknown) {
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
