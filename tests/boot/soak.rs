//! One cell many times over: what is not ordered comes in another order one day.

use usr_policy_tests::machine::{Error, Result};

use crate::boots::Boots;
use crate::case::Case;
use crate::observed::{Answer, Observed};

/// The cell.
const CASE: &str = "trixie-dracut-strict-holds-from-before-switch-root-to-shutdown";

/// Units that wait for each other, so that every boot starts them in one order.
const CHAIN: [&str; 6] = [
    "usr-policy-apply.service",
    "local-fs-pre.target",
    "usr-policy-lock.service",
    "var-lib-pacman.mount",
    "local-fs.target",
    "systemd-tmpfiles-setup.service",
];

/// What must have come before local-fs.target in any order.
const BEFORE: [&str; 3] = ["usr.mount", "var-tmp.mount", "var-cache-pacman.mount"];

/// Boots the cell so many times, and says where one boot was unlike the others.
///
/// # Errors
/// A boot fails, its judge complains, or its units came in another order.
pub fn run(boots: &Boots, cases: &[Case], times: u32) -> Result<()> {
    let case = cases.iter().find(|case| case.name == CASE);
    let case = case.ok_or_else(|| Error::new(format!("{CASE}: no such case")))?;
    let twin = cases.iter().find(|other| Some(other.name) == case.twin);
    let twin = twin.map(|twin| boots.known_or_boot(twin)).transpose()?;
    for number in 1..=times {
        let seen = boots.again(case)?;
        let mut complaints = (case.judge)(&seen, twin.as_deref());
        complaints.extend(order(&seen).err());
        if !complaints.is_empty() {
            return Err(Error::new(format!(
                "boot {number} of {times}: {}",
                complaints.join("\n")
            )));
        }
        eprintln!("boot {number} of {times}: as the others");
    }
    Ok(())
}

fn order(seen: &Observed) -> Answer<()> {
    let began = |unit: &str| match unit.rsplit_once('.') {
        // A target, or a mount that PID 1 finds made, has no time of its own at which it begins.
        Some((_, "target" | "mount")) => seen.time(unit, "ActiveEnterTimestampMonotonic"),
        _ => seen.time(unit, "InactiveExitTimestampMonotonic"),
    };
    let mut last = 0;
    for unit in CHAIN {
        let now = began(unit)?;
        if now < last {
            return Err(format!("{unit} came too early: {CHAIN:?}"));
        }
        last = now;
    }
    for unit in BEFORE {
        if began(unit)? > began("local-fs.target")? {
            return Err(format!("{unit} came after local-fs.target"));
        }
    }
    let cycle = seen
        .journal
        .iter()
        .find(|record| record.field("MESSAGE").contains("ordering cycle"));
    cycle.map_or(Ok(()), |record| Err(record.line()))
}
