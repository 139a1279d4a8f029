//! Prepared states: what `usr-policy verify` says of each, word by word, and what a real write meets there.
//!
//! ```text
//! tests/states/NAME/report         verify --all: standard output, standard error, exit code
//! tests/states/NAME/report.json    verify --json
//! ```
//!
//! `UPDATE_GOLDEN=1` records what is there; read the difference before you commit it. A new state is an entry in
//! `tests/states/list.rs`, recorded once. What two runs differ in (times, numbers of processes, sizes of memory) has a word in
//! its place.

#[path = "states/judge.rs"]
mod judge;
#[path = "states/list.rs"]
mod list;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use regex::Regex;
use serde_json::Value;
use similar::TextDiff;
use usr_policy_tests::machine::namespace::become_root;
use usr_policy_tests::system::{Installed, System};
use usr_policy_tests::verdict;

use list::{Caller, STATES, State};

fn main() -> ExitCode {
    // The root of a user namespace may not take this machine's root for a layer of an overlay: mounts below it are locked.
    become_root(&["USR_POLICY_STAGE", "UPDATE_GOLDEN", "CARGO", "HOME", "PATH"]).unwrap();
    let _installed = Installed::new();
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = STATES
        .iter()
        .map(|state| Trial::test(state.name, || run(state)))
        .collect();
    trials.extend(OTHERS.iter().map(|(name, test)| {
        Trial::test(*name, || {
            test();
            Ok(())
        })
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

const OTHERS: &[(&str, fn())] = &[
    ("each recorded state is still tried", || {
        let names: BTreeSet<&str> = STATES.iter().map(|state| state.name).collect();
        assert_eq!(names.len(), STATES.len(), "a name comes twice");
        assert!(STATES.len() >= 40);
        for entry in fs::read_dir(folder("")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(
                path.is_file() || names.contains(name),
                "{}: no such state",
                path.display()
            );
        }
    }),
    (
        "a verdict that is not true is noticed, whichever way it is wrong",
        || {
            let state = |name| STATES.iter().find(|state| state.name == name).unwrap();
            let lies: [(&str, &[&str], &str); 5] = [
                (
                    "everything-is-closed",
                    &["mount", "-o", "remount,bind,rw", "/usr"],
                    "/usr: a write succeeds",
                ),
                (
                    "everything-is-closed",
                    &["umount", "/var/lib/pacman"],
                    "/var/lib/pacman: a write succeeds",
                ),
                (
                    "everything-is-closed",
                    &["umount", "/var/tmp"],
                    "/var/tmp: no tmpfs",
                ),
                (
                    "usr-was-remounted-writable",
                    &["mount", "-o", "remount,bind,ro", "/usr"],
                    "/usr: a write fails",
                ),
                (
                    "extensions-are-merged",
                    &["mount", "-o", "remount,bind,rw", "/"],
                    "",
                ),
            ];
            for (name, lie, complaint) in lies {
                let state = state(name);
                System::with(state.words, |system| {
                    (state.prepare)(system);
                    let object = verdict::object(&ask(system, state, "--json").stdout).unwrap();
                    system.does(lie);
                    let complaints = judge::disagreements(system, &object);
                    let is_said = complaints.iter().any(|text| text.starts_with(complaint));
                    // The last one changes nothing that is judged, so nothing may be said.
                    assert_eq!(
                        (is_said, complaints.is_empty()),
                        (!complaint.is_empty(), complaint.is_empty()),
                        "{name}, {lie:?}: {complaints:#?}"
                    );
                });
            }
        },
    ),
    (
        "a verdict without words that can be tried is noticed",
        || {
            System::with("rw", |system| {
                let object: Value = serde_json::from_str(
                r#"{"findings": [{"topic": "usr", "subject": "/usr", "verdict": "holds", "what": "fine"}]}"#,
            )
            .unwrap();
                let complaints = judge::disagreements(system, &object);
                assert!(complaints[0].contains("nothing that can be tried"));
            });
        },
    ),
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("states")
        .join(name)
}

/// What one run of verify has printed.
struct Said {
    stdout: String,
    stderr: String,
    exit: i32,
}

fn ask(system: &System, state: &State, option: &str) -> Said {
    let verify = ["/usr/bin/usr-policy", "verify", option];
    let words: Vec<&str> = match state.caller {
        Caller::Root => verify.to_vec(),
        Caller::Other(before) => before.iter().copied().chain(verify).collect(),
    };
    let ran = system.command(&words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said {
        stdout: text(ran.stdout),
        stderr: text(ran.stderr),
        exit: ran.status.code().unwrap(),
    }
}

fn run(state: &State) -> Result<(), Failed> {
    if let Some(why) = (state.lacks)() {
        eprintln!("{}: skipped: {why}", state.name);
        return Ok(());
    }
    System::with(state.words, |system| {
        (state.prepare)(system);
        let before = system.mounts();
        let all = ask(system, state, "--all");
        let json = ask(system, state, "--json");
        let object = verdict::object(&json.stdout)?;
        let exits = [&all, &json].map(|said| said.exit);
        if exits.map(Value::from) != [&object["exit_code"]; 2].map(Clone::clone) {
            return Err(format!("exits {exits:?}, but says {}", json.stdout).into());
        }
        shorter_forms(system, state, &all)?;
        metrics(system, state, &object)?;
        assert_eq!(system.mounts(), before, "verify has changed a mount");

        let report = format!("{}{}exit code {}\n", all.stdout, all.stderr, all.exit);
        let same = |text: &str| without_chance(system, text);
        let mut complaints: Vec<String> = Vec::new();
        complaints.extend(recorded(state, "report", &same(&report)));
        complaints.extend(recorded(state, "report.json", &same(&json.stdout)));
        // Last: what lies beneath merged extensions is tried by taking them away.
        complaints.extend(judge::disagreements(system, &object));
        if complaints.is_empty() {
            Ok(())
        } else {
            Err(complaints.join("\n").into())
        }
    })
}

/// What the other options print is a part of the whole.
fn shorter_forms(system: &System, state: &State, all: &Said) -> Result<(), Failed> {
    let normal = ask(system, state, "--format=text");
    let quiet = ask(system, state, "--quiet");
    if [normal.exit, quiet.exit] != [all.exit; 2] {
        return Err("--all changes the exit code".into());
    }
    // Another width of the column is no difference, nor is what another moment has another of.
    let lines = |said: &Said| -> Vec<String> {
        let text = without_chance(system, &said.stdout);
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    let whole = lines(all);
    for said in [&normal, &quiet] {
        if let Some(line) = lines(said).iter().find(|line| !whole.contains(line)) {
            return Err(format!("--all does not say: {line}").into());
        }
    }
    let says_nothing = quiet.stdout.is_empty() && quiet.stderr.is_empty();
    if says_nothing != (all.exit == 0) {
        return Err(format!("exit code {}, and --quiet says: {}", all.exit, quiet.stdout).into());
    }
    match lines(&normal)
        .into_iter()
        .chain(lines(&quiet))
        .find(|line| line.starts_with("- "))
    {
        Some(line) => Err(format!("only --all says what does not apply: {line}").into()),
        None => Ok(()),
    }
}

/// The metrics are by the grammar, and say what the object says.
fn metrics(system: &System, state: &State, object: &Value) -> Result<(), Failed> {
    let said = ask(system, state, "--format=metrics");
    let samples = verdict::metrics(&said.stdout)?;
    let one = |name: &str, label: Option<(&str, &Value)>, value: &Value| {
        let found = samples.iter().find(|sample| {
            sample.name == name
                && label.is_none_or(|(label, is)| is.as_str() == sample.label(label))
        });
        let number = found.map(|sample| sample.value);
        if number == value.as_f64() {
            Ok(())
        } else {
            Err(Failed::from(format!("{name}: {number:?}: {}", said.stdout)))
        }
    };
    one("usr_policy_exit_code", None, &object["exit_code"])?;
    one(
        "usr_policy_verdict",
        Some(("verdict", &object["verdict"])),
        &1.into(),
    )?;
    if !object["mode"].is_null() {
        one(
            "usr_policy_mode",
            Some(("mode", &object["mode"])),
            &1.into(),
        )?;
    }
    let lock = &object["lock"];
    if !lock.is_null() {
        let is_locked = u8::from(lock["state"] == "locked");
        one(
            "usr_policy_lock",
            Some(("row", &lock["row"])),
            &is_locked.into(),
        )?;
        let is_open = u8::from(lock["row"] == "unlocked");
        one("usr_policy_window", None, &is_open.into())?;
    }
    for finding in object["findings"].as_array().unwrap() {
        let is_there = samples.iter().any(|sample| {
            sample.name == "usr_policy_finding"
                && ["topic", "subject", "verdict"]
                    .iter()
                    .all(|label| sample.label(label) == finding[label].as_str())
        });
        if !is_there {
            return Err(format!("the metrics lack {finding}: {}", said.stdout).into());
        }
    }
    Ok(())
}

/// The text with a word in place of what another run has another of.
fn without_chance(system: &System, text: &str) -> String {
    let mut text = text.replace(system.base().to_str().unwrap(), "BASE");
    for (what, word) in [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
        (r"\bmount \d+ at\b", "mount ID at"),
        (r#""mount_id": \d+"#, "\"mount_id\": ID"),
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "BOOT"),
        (r"\d+\.\d{3} s after", "SECONDS s after"),
        (r"another \d+ s", "another SECONDS s"),
        (r"pid \d+", "pid PID"),
        (
            r#""(size_bytes|used_bytes|inodes|used_inodes)": \d+"#,
            "\"$1\": NUMBER",
        ),
        (r"\d+ of \d+ MiB used", "SOME of SIZE MiB used"),
        // A share of this machine's memory; what a state asks for is smaller.
        (r"\d{6,}k", "SIZEk"),
    ] {
        let what = Regex::new(what).unwrap();
        text = what.replace_all(&text, word).into_owned();
    }
    text
}

/// What differs from the recorded file, after recording it where that is asked for.
fn recorded(state: &State, name: &str, actual: &str) -> Option<String> {
    let path = folder(state.name).join(name);
    if env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, actual).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    (recorded != actual).then(|| {
        let difference = TextDiff::from_lines(&recorded, actual)
            .unified_diff()
            .header("recorded", "actual")
            .to_string();
        format!("{}\n{difference}", path.display())
    })
}
