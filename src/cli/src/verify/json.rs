//! A verdict for programs: one object, as `share/verify.schema.json` describes it.

use humantime::format_rfc3339_seconds;
use serde::Serialize;
use usr_policy_plan::text::Shown as Escaped;
use usr_policy_plan::verify::{Access, Fill, Finding, Flag, Stack};

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
    tmpfs: Vec<Tmpfs>,
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
struct Tmpfs {
    path: String,
    size_bytes: u64,
    used_bytes: u64,
    inodes: u64,
    used_inodes: u64,
}

#[derive(Serialize)]
struct Row<'a> {
    verdict: &'static str,
    topic: &'static str,
    subject: &'a str,
    what: &'a str,
    why: Option<&'static str>,
    remedy: Option<&'a str>,
    layers: Option<Layer<'a>>,
}

#[derive(Serialize)]
struct Layer<'a> {
    mount_id: u64,
    mount_point: &'a str,
    fs_type: &'a str,
    mount: &'static str,
    superblock: &'static str,
    subvolume: Option<&'a str>,
    upperdir: Option<&'a str>,
    sysext: bool,
    access: Option<&'static str>,
    statvfs: Option<&'static str>,
    immutable: Option<bool>,
    beneath: Option<Box<Layer<'a>>>,
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
        tmpfs: verified.fills.iter().map(tmpfs).collect(),
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

fn tmpfs(fill: &Fill) -> Tmpfs {
    Tmpfs {
        path: Escaped(fill.path.as_bytes()).to_string(),
        size_bytes: fill.size,
        used_bytes: fill.used,
        inodes: fill.inodes,
        used_inodes: fill.used_inodes,
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
        layers: finding.layers.as_deref().map(layer),
    }
}

fn layer(stack: &Stack) -> Layer<'_> {
    Layer {
        mount_id: stack.mount_id,
        mount_point: &stack.mount_point,
        fs_type: &stack.fs_type,
        mount: stack.mount.id(),
        superblock: stack.superblock.id(),
        subvolume: stack.subvolume.as_deref(),
        upperdir: stack.upperdir.as_deref(),
        sysext: stack.is_sysext,
        access: match stack.access {
            Access::ReadOnly => Some(Flag::ReadOnly.id()),
            Access::Writable => Some(Flag::Writable.id()),
            Access::NoWitness => None,
        },
        statvfs: stack.statvfs.map(Flag::id),
        immutable: stack.is_immutable,
        beneath: stack.beneath.as_deref().map(|stack| Box::new(layer(stack))),
    }
}
