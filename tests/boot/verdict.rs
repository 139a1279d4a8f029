//! What `usr-policy verify` says in a boot. Every case declares its verdict: what is said besides is a false alarm, and what
//! is declared and not said is no alarm.

use serde_json::{Value, json};
use usr_policy_tests::verdict::object;

use crate::observed::{Answer, Observed, Said};

/// What `usr-policy verify` is to say of a case before any step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// How it ends; the service that asks it at the end of a boot has failed where that is not 0.
    pub code: i32,
    /// A part of each warning that the case deserves.
    pub warned: &'static [&'static str],
}

/// Everything that is promised holds, or nothing is: no warning.
pub const CLEAN: Verdict = warned(&[]);

/// It holds, with these warnings.
pub const fn warned(warned: &'static [&'static str]) -> Verdict {
    Verdict { code: 0, warned }
}

/// It does not hold, and there are these warnings besides.
pub const fn broken(warned: &'static [&'static str]) -> Verdict {
    Verdict { code: 1, warned }
}

/// fstab says rw, as genfstab writes it: a `mount -o remount /usr` would open it.
pub const FSTAB_OPENS_USR: &str =
    "mounts /usr writable; only a drop-in keeps systemd-remount-fs from it";

/// Nobody closed `/usr` in an initramfs.
pub const LATE: &str = "read-only, but late, since ";

/// The scripts of OpenRC open what pre-init has closed, and ours closes it again.
pub const CLOSED_AGAIN: &str =
    "read-only, but late: something had opened it again, and it is closed since ";

/// The extension of the tests is a directory of the root, which stays writable.
pub const WRITABLE_EXTENSION: &str =
    "a directory that can be written, and what changes there changes /usr at once";

/// The boot program is gone, and with it what follows a merge.
pub const NO_FOLLOWER: &str = "is not running: a merge by hand would not lock the database";

/// What is said of a path whose files another one shows, too.
const OTHER_WAY: &str = "the same files can be written at ";

/// In every boot: what is warned of is what the case declares, and a write to a path that something is said of meets just
/// that. Nothing to compare with, where the program is not installed.
pub fn agrees(seen: &Observed, verdict: Verdict) -> Vec<String> {
    let mut complaints = Vec::new();
    match seen.said("verify") {
        Ok(text) => {
            complaints.extend(as_declared(text, verdict));
            complaints.extend(meets_writers(seen, text).err());
            // A machine of OpenRC has none.
            let units = seen.said("units").ok();
            let up = units.map(|units| units_are_up(&units.stdout, text, verdict));
            complaints.extend(up.and_then(Result::err));
        }
        Err(why) if verdict != CLEAN => complaints.push(why),
        Err(_) => {}
    }
    complaints.extend(tells_programs_the_same(seen));
    complaints
}

/// The lines of a report that are findings: a verdict, a subject and what was found.
fn findings(text: &str) -> impl Iterator<Item = &str> {
    // What belongs to one is set off further, and what is about all of them not at all.
    let found = text.lines().filter_map(|line| line.strip_prefix("  "));
    found.filter(|line| !line.starts_with(' '))
}

fn as_declared(said: &Said, verdict: Verdict) -> Vec<String> {
    let mut complaints = Vec::new();
    if said.code != verdict.code {
        complaints.push(format!(
            "usr-policy verify: exit code {}, not {}: {}{}",
            said.code, verdict.code, said.stdout, said.stderr
        ));
    }
    let is_about = |line: &str, text: &str| line.starts_with("warning ") && line.contains(text);
    for line in findings(&said.stdout) {
        let is_alarm = line.starts_with("warning ") || line.starts_with("unknown ");
        if is_alarm && !verdict.warned.iter().any(|text| is_about(line, text)) {
            complaints.push(format!("a false alarm: {line}"));
        }
    }
    for text in verdict.warned {
        let times = findings(&said.stdout).filter(|line| is_about(line, text));
        let times = times.count();
        if times != 1 {
            complaints.push(format!("warned {times} times, not once: {text}"));
        }
    }
    complaints
}

/// What is said of a path is what a write there met. A promise for which nothing is said, or of a path that is not there, is
/// none.
fn meets_writers(seen: &Observed, said: &Said) -> Answer<()> {
    for path in [
        "/usr",
        "/var/lib/pacman",
        "/var/tmp",
        "/var/cache/pacman",
        "/etc",
        "/run",
    ] {
        let about = |line: &&str| {
            let mut words = line.split_whitespace();
            let verdict = words.next();
            // A promise that does not apply, or cannot be told, is no claim; and one about another way is none about this.
            let is_claim = !matches!(verdict, Some("-" | "unknown")) && !line.contains(OTHER_WAY);
            is_claim && words.next() == Some(path)
        };
        let Some(line) = findings(&said.stdout).find(about) else {
            continue;
        };
        // "writable, although it is to be locked" is no claim of a lock.
        let says_read_only =
            line.contains("read-only") || line.contains("locked") && !line.contains("writable");
        let answer = seen.write(path)?;
        if says_read_only != (answer == "EROFS") {
            return Err(format!(
                "a write to {path}: {answer}, but verify says: {line}"
            ));
        }
    }
    Ok(())
}

/// Where systemd starts a strict system somebody follows every merge, and no unit of ours has failed but the one that has to.
fn units_are_up(units: &str, said: &Said, verdict: Verdict) -> Answer<()> {
    let is = |line: &str, unit: &str, state: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some(unit) && words.nth(1) == Some(state)
    };
    let lines = || units.lines();
    let is_strict = said.stdout.starts_with("usr-policy: strict ");
    let follows = lines().any(|line| is(line, "usr-policy-follow.service", "active"));
    if follows != (is_strict && !verdict.warned.contains(&NO_FOLLOWER)) {
        return Err(format!("the follower: {units}"));
    }
    let judge = "usr-policy-verify.service";
    let failed = |line: &&str| line.split_whitespace().nth(2) == Some("failed");
    if let Some(line) = lines().find(|line| failed(line) && !is(line, judge, "failed")) {
        return Err(format!("a unit of ours has failed: {line}"));
    }
    let has_failed = lines().any(|line| is(line, judge, "failed"));
    // What nothing has pulled in, as without the follower, cannot fail.
    if has_failed != (follows && verdict.code != 0) {
        return Err(format!("{judge}: {units}"));
    }
    Ok(())
}

/// Whenever verify was asked, before the steps and after some of them, it told programs what it told people, as the schema
/// says.
fn tells_programs_the_same(seen: &Observed) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, text) in seen.everything_said() {
        if name != "verify" && !name.ends_with("-verify") {
            continue;
        }
        let same = seen
            .said(&format!("{name}-json"))
            .and_then(|json| tells_the_same(text, json));
        complaints.extend(same.err().map(|why| format!("{name}: {why}")));
    }
    complaints
}

fn tells_the_same(text: &Said, json: &Said) -> Answer<()> {
    same_findings(text, json, &object(&json.stdout)?)
}

fn same_findings(text: &Said, json: &Said, told: &Value) -> Answer<()> {
    let codes = [Value::from(text.code), Value::from(json.code)];
    if codes.iter().any(|code| *code != told["exit_code"]) {
        return Err(format!(
            "exit codes {codes:?}: {}{}",
            json.stdout, json.stderr
        ));
    }
    let rows = told["findings"].as_array().into_iter().flatten();
    let of_programs = rows.map(|row| {
        let field = |key: &str| row[key].as_str().unwrap_or_default();
        let verdict = match field("verdict") {
            "broken" => "BROKEN",
            "not-applicable" => "-",
            other => other,
        };
        [verdict, field("subject"), field("what")].join(" ")
    });
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let of_programs: Vec<String> = of_programs.map(|line| squeezed(&line)).collect();
    let of_people: Vec<String> = findings(&text.stdout).map(squeezed).collect();
    if of_programs != of_people {
        return Err(format!(
            "told programs: {of_programs:#?}\ntold people: {of_people:#?}"
        ));
    }
    Ok(())
}

/// A judge who cannot turn red proves nothing.
pub const NAME: &str = "a-false-alarm-of-verify-is-seen-and-so-is-one-that-does-not-come";

/// Shows the judge reports that a system does not deserve.
pub fn turns_red() -> Vec<String> {
    let clean =
        "usr-policy: strict (/proc/cmdline)\n  holds    /usr  read-only since the initramfs\n";
    let late = "  warning  /usr  read-only, but late, since 20.686 s after the kernel started\n                 -> wait\n";
    let contradiction = "  unknown  /usr  the mount says ro, a write says rw\n";
    let up = "usr-policy-follow.service loaded active running Follow\n";
    let down = "usr-policy-follow.service loaded failed failed Follow\n";
    let judged = "usr-policy-verify.service loaded failed failed Verify\n";
    let said = |code, stdout: &str| Said {
        stdout: stdout.to_owned(),
        stderr: String::new(),
        code,
    };
    let both = |text: &str| said(0, &format!("{clean}{text}"));
    let mut complaints = Vec::new();
    let mut see = |what: &str, is_red: bool, wanted: bool| {
        if is_red != wanted {
            complaints.push(format!("{what}: red is {is_red}"));
        }
    };
    for (report, verdict, wanted) in [
        (both(""), CLEAN, false),
        (both(late), CLEAN, true),
        (both(late), warned(&[LATE]), false),
        (both(late), warned(&[FSTAB_OPENS_USR]), true),
        (both(""), warned(&[LATE]), true),
        (both(&late.repeat(2)), warned(&[LATE]), true),
        (both(contradiction), CLEAN, true),
        (said(1, clean), CLEAN, true),
        (said(0, clean), broken(&[]), true),
    ] {
        let is_red = !as_declared(&report, verdict).is_empty();
        see(&format!("{report:?} {verdict:?}"), is_red, wanted);
    }
    let off = said(0, "usr-policy: off (by default)\n");
    for (units, report, verdict, wanted) in [
        (up, both(""), CLEAN, false),
        (down, both(""), CLEAN, true),
        ("", both(""), CLEAN, true),
        ("", off.clone(), CLEAN, false),
        (up, off, CLEAN, true),
        ("", said(1, clean), broken(&[NO_FOLLOWER]), false),
        (&[up, judged].concat(), said(1, clean), broken(&[]), false),
        (&[up, judged].concat(), both(""), CLEAN, true),
        (up, said(1, clean), broken(&[]), true),
    ] {
        let is_red = units_are_up(units, &report, verdict).is_err();
        see(&format!("{units} {verdict:?}"), is_red, wanted);
    }
    let told = |verdict: &str, code: i32| {
        let row = json!({
            "verdict": verdict, "subject": "/usr", "what": "read-only since the initramfs",
        });
        json!({ "exit_code": code, "findings": [row] })
    };
    for (text, json, told, wanted) in [
        (0, 0, told("holds", 0), false),
        (0, 0, told("warning", 0), true),
        (0, 0, json!({ "exit_code": 0, "findings": [] }), true),
        (0, 1, told("holds", 1), true),
        (1, 1, told("holds", 0), true),
    ] {
        let is_red = same_findings(&said(text, clean), &said(json, ""), &told).is_err();
        see(&format!("{text} {json} {told}"), is_red, wanted);
    }
    complaints
}
