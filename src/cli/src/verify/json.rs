//! A verdict for programs: one object, as `share/verify.schema.json` describes it.

use humantime::format_rfc3339_seconds;
use serde::Serialize;
use usr_policy_plan::verify::Finding;

use super::text::why;
use super::{Locked, Verified};

/// Goes up when a key goes away or changes its meaning; a new one is no other version.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    time: String,
    boot_id: Option<&'a str>,
    mode: Option<String>,
    mode_origin: Option<String>,
    verdict: &'static str,
    exit_code: u8,
    lock: Option<Lock>,
    findings: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Lock {
    state: &'static str,
    row: &'static str,
    why: String,
    until: Option<String>,
}

#[derive(Serialize)]
struct Row<'a> {
    verdict: &'static str,
    topic: &'static str,
    subject: &'a str,
    what: &'a str,
    why: Option<&'static str>,
    remedy: Option<&'a str>,
}

pub(super) fn show(verified: &Verified) -> String {
    let report = &verified.report;
    let document = Document {
        version: VERSION,
        time: format_rfc3339_seconds(verified.time).to_string(),
        boot_id: verified.boot_id.as_deref(),
        mode: verified.asked.mode().map(|mode| mode.to_string()),
        mode_origin: verified.asked.origin(),
        verdict: report.worst().id(),
        exit_code: report.exit_code(),
        lock: verified.lock.as_ref().map(lock),
        findings: report.findings.iter().map(row).collect(),
    };
    // Texts and numbers under names that are texts: there is nothing in it that JSON has no form for.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

fn lock(lock: &Locked) -> Lock {
    Lock {
        state: lock.state(),
        row: lock.wanted.why.id(),
        why: lock.wanted.why.to_string(),
        until: lock
            .until
            .map(|until| format_rfc3339_seconds(until).to_string()),
    }
}

fn row(finding: &Finding) -> Row<'_> {
    Row {
        verdict: finding.verdict.id(),
        topic: finding.topic.id(),
        subject: &finding.subject,
        what: &finding.what,
        why: why(finding),
        remedy: Some(finding.remedy.as_str()).filter(|remedy| !remedy.is_empty()),
    }
}
