//! Boots with other words than `strict`: the way out, the misspelt word, the configuration file.

use usr_policy_tests::machine::{Extra, Result, Suite};

use crate::case::{Case, dracut, half_dracut, installed, with};
use crate::checks;
use crate::observed::Observed;
use crate::steps::{MERGE_BY_HAND, PACMAN};
use crate::verdict::{CLEAN, broken};

/// Two promises of an off system that an error in the log breaks.
pub const SAID_SO: [&str; 2] = ["no-record-has-our-name", "verify-has-nothing-to-say"];

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    let steps = [&PACMAN[..], &MERGE_BY_HAND].concat();
    let plain = dracut("trixie-dracut", Suite::Trixie, &installed(&[]))?;
    let configured = with(
        installed(&[]),
        [Extra::file(
            "/etc/usr-policy.conf",
            "[Policy]\nMode=strict\n",
        )],
    );
    // The initramfs is older than the file.
    let configured = half_dracut(
        "trixie-dracut-configured",
        Suite::Trixie,
        &configured,
        &installed(&[]),
    )?;
    Ok(vec![
        Case {
            name: "trixie-dracut-a-misspelt-word-boots-as-without-it-and-is-named",
            image: plain.clone(),
            words: "usrpolicy=strikt",
            steps: steps.clone(),
            twin: None,
            verdict: broken(&[]),
            judge: |seen, _| {
                let mut complaints = checks::off(seen).broken_but_for(&SAID_SO);
                let misspelt = "/proc/cmdline: usrpolicy=strikt is not a mode; use usrpolicy=strict or remove it";
                complaints.extend(said_in_the_log(seen, &[misspelt]));
                complaints.extend(verify_says(seen, "usrpolicy=strikt is not a mode"));
                complaints
            },
        },
        Case {
            name: "trixie-dracut-off-beside-strict-is-off",
            image: plain,
            words: "usrpolicy=off usrpolicy=strict",
            steps: steps.clone(),
            twin: None,
            verdict: CLEAN,
            judge: |seen, _| checks::off(seen).broken(),
        },
        Case {
            name: OFF_OVER_STRICT_FILE,
            image: configured.clone(),
            words: "usrpolicy=off",
            steps: steps.clone(),
            twin: None,
            verdict: CLEAN,
            judge: |seen, _| checks::off(seen).broken(),
        },
        Case {
            name: "trixie-dracut-a-configuration-file-alone-is-strict-in-an-older-initramfs-too",
            image: configured,
            words: "",
            steps,
            twin: Some(OFF_OVER_STRICT_FILE),
            verdict: CLEAN,
            judge: |seen, twin| match twin {
                Some(twin) => checks::strict_from_the_initrd(seen, twin).broken(),
                None => vec!["this needs its twin".to_owned()],
            },
        },
    ])
}

const OFF_OVER_STRICT_FILE: &str = "trixie-dracut-off-beats-a-configuration-file-that-says-strict";

/// The boot program logged exactly these lines in this boot, in any order, in the initramfs or after it.
pub fn said_in_the_log(seen: &Observed, lines: &[&str]) -> Vec<String> {
    let said: Vec<&str> = seen
        .journal
        .iter()
        .filter(|record| record.field("SYSLOG_IDENTIFIER") == "usr-policy-generator")
        .map(|record| record.field("MESSAGE"))
        .collect();
    let missing = lines
        .iter()
        .filter(|line| said.iter().filter(|said| said == line).count() != 1)
        .map(|line| format!("the log does not say this once: {line}"));
    let others = said
        .iter()
        .filter(|said| !lines.contains(said))
        .map(|said| format!("the log says besides: {said}"));
    missing.chain(others).collect()
}

/// `usr-policy verify` said something.
pub fn verify_says(seen: &Observed, text: &str) -> Option<String> {
    match seen.said("verify") {
        Ok(said) if said.stdout.contains(text) => None,
        Ok(said) => Some(format!(
            "usr-policy verify does not say \"{text}\": {}",
            said.stdout
        )),
        Err(why) => Some(why),
    }
}
