//! Whether a verdict is true: each path that it speaks of is written to.

use std::io::ErrorKind;

use nix::mount::{MntFlags, umount2};
use serde_json::Value;
use usr_policy_tests::system::System;

/// What a finding claims, and a write can show.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Claim {
    /// A write there fails, for it is read-only.
    ReadOnly(String),
    /// A write there succeeds.
    Writable(String),
    /// The top mount there is a tmpfs, or none.
    InMemory(String, bool),
    /// Without the extensions over `/usr` a write there succeeds, or fails.
    Beneath(bool),
}

/// What is said of a system and is not so. Takes merged extensions away where they are spoken of.
pub(crate) fn disagreements(system: &System, object: &Value) -> Vec<String> {
    let findings = object["findings"].as_array().unwrap();
    let mut complaints = Vec::new();
    let mut claims = Vec::new();
    for finding in findings {
        match claims_of(finding, findings) {
            Some(some) => claims.extend(some),
            None => complaints.push(format!(
                "{finding} says nothing that can be tried; tests/states/judge.rs must know the words"
            )),
        }
    }
    claims.sort_by_key(|claim| matches!(claim, Claim::Beneath(_)));
    claims.dedup();
    complaints.extend(claims.iter().filter_map(|claim| denied(system, claim)));
    complaints.extend(unsaid(system, object, findings));
    complaints
}

/// What is so and not said: the pair in its dangerous row, and a policy that is said to hold where nothing does.
fn unsaid(system: &System, object: &Value, findings: &[Value]) -> Option<String> {
    let database = findings
        .iter()
        .find(|finding| finding["topic"] == "database" && finding["verdict"] != "not-applicable");
    let path = database?["subject"].as_str()?;
    let is_read_only = |path| write(system, path) == Some(false);
    let is_dangerous = is_read_only("/usr") && write(system, path) == Some(true);
    let is_said = findings.iter().any(|finding| finding["topic"] == "pair");
    // In other words, and under audit, nothing is locked, and nobody is told.
    (object["mode"] == "strict" && is_dangerous != is_said)
        .then(|| format!("the pair: dangerous {is_dangerous}, said {is_said}"))
}

/// Whether a write succeeds; `None` where there is nothing to write to.
fn write(system: &System, path: &str) -> Option<bool> {
    match system.write_in(path) {
        Ok(()) => Some(true),
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => Some(false),
        Err(_) => None,
    }
}

fn denied(system: &System, claim: &Claim) -> Option<String> {
    let written = |path: &str, is_claimed: bool| match write(system, path) {
        Some(succeeds) if succeeds == is_claimed => None,
        Some(true) => Some(format!("{path}: a write succeeds, against {claim:?}")),
        Some(false) => Some(format!("{path}: a write fails, against {claim:?}")),
        None => Some(format!("{path}: cannot be tried, against {claim:?}")),
    };
    match claim {
        Claim::ReadOnly(path) => written(path, false),
        Claim::Writable(path) => written(path, true),
        Claim::InMemory(path, is_claimed) => {
            let mounts = system.mounts();
            // The longest one that the path is in or at; of several there the last one.
            let holds = mounts
                .iter()
                .filter(|line| {
                    let below = path.strip_prefix(line.mount_point.trim_end_matches('/'));
                    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
                .max_by_key(|line| line.mount_point.len());
            let is_one = holds.is_some_and(|line| line.fs_type == "tmpfs");
            (is_one != *is_claimed).then(|| {
                let what = if is_one { "a tmpfs" } else { "no tmpfs" };
                format!("{path}: {what}, against {claim:?}")
            })
        }
        Claim::Beneath(is_claimed) => {
            let is_sysext = || {
                let stack = system.mounts_at("/usr");
                stack.last().is_some_and(|line| line.source == "sysext")
            };
            if !is_sysext() {
                return Some(format!("/usr: nothing is merged, against {claim:?}"));
            }
            while is_sysext() {
                umount2(&system.path("/usr"), MntFlags::MNT_DETACH).unwrap();
            }
            written("/usr", *is_claimed)
        }
    }
}

/// What a finding claims, by its topic and first words; `None` where it must claim something and these words are not known.
fn claims_of(finding: &Value, all: &[Value]) -> Option<Vec<Claim>> {
    let text = |key: &str| finding[key].as_str().unwrap();
    let (what, path) = (text("what"), text("subject").to_owned());
    let says = |words: &str| what.starts_with(words);
    let read_only = || Claim::ReadOnly(path.clone());
    let writable = || Claim::Writable(path.clone());
    let claims = match (text("topic"), text("verdict")) {
        // What could not be told, or does not apply, is no claim.
        (_, "unknown" | "not-applicable") => Vec::new(),
        ("usr", _) if says("read-only while extensions are merged, but writable beneath") => {
            vec![read_only(), Claim::Beneath(true)]
        }
        ("usr", _) if says("read-only") && what.contains("merged over it") => {
            vec![read_only(), Claim::Beneath(false)]
        }
        ("usr" | "path" | "writable", _) if says("read-only") => vec![read_only()],
        ("usr", _) if says("extensions are merged with a writable layer") => vec![writable()],
        ("usr", _) if says("the overlay of systemd-sysext is mounted more than once") => {
            vec![read_only()]
        }
        ("usr" | "database" | "path" | "writable", _) if says("writable") => vec![writable()],
        ("usr" | "database", _) if says("open") => vec![writable()],
        ("database", _) if says("locked, but ") => {
            let hole = what.strip_prefix("locked, but ")?.split(" is a ").next()?;
            vec![read_only(), Claim::Writable(hole.to_owned())]
        }
        ("database", _) if says("locked") => vec![read_only()],
        ("hole", _) if says("a writable mount") => vec![writable()],
        ("memory", _) if what.contains("no write access") => vec![read_only()],
        ("memory", _) if says("no tmpfs") || says("open") => vec![Claim::InMemory(path, false)],
        ("memory", _) if says("tmpfs") || says("a tmpfs") || says("in memory") => {
            vec![writable(), Claim::InMemory(path, true)]
        }
        ("pair", _) => {
            let database = all.iter().find(|other| other["topic"] == "database")?;
            let database = database["subject"].as_str()?;
            vec![
                Claim::ReadOnly("/usr".to_owned()),
                Claim::Writable(database.to_owned()),
            ]
        }
        ("usr" | "database" | "path" | "writable" | "memory" | "hole", "holds" | "broken") => {
            return None;
        }
        _ => Vec::new(),
    };
    Some(claims)
}
