//! `usr-policy lock`: closes the package database, then `/usr`, unless somebody is writing there.

use std::os::unix::ffi::OsStrExt;

use usr_policy_plan::lock::{Manual, State};
use usr_policy_plan::package_manager::PACMAN;
use usr_policy_plan::text::Shown;
use usr_policy_system::database;
use usr_policy_system::failure::Failure;
use usr_policy_system::state::Turn;
use usr_policy_system::writers::{mappers, writers};

use crate::machine::{Machine, is_read_only, sync};
use crate::{Outcome, Shown as Told};

pub(crate) fn run(remove_stale: bool) -> Outcome {
    let machine = Machine::to_change("lock")?;
    if let Some(refusal) = machine.refusal("lock") {
        return Ok(refusal);
    }
    let turn = Turn::take()?;
    let busy = busy(&machine)?;
    if !busy.is_empty() {
        return Ok(Told::refused(busy));
    }
    let mut complaints = Vec::new();
    if let Some(rule) = machine.plan.database() {
        let path = rule.mount_point.to_string();
        if remove_stale {
            database::remove_stale_lock(&turn, &machine.root, &path)?;
        } else if database::has_stale_lock(&machine.root, &path)? {
            complaints.push(PACMAN.stale_lock(&path));
        }
    }
    turn.write(&State {
        manual: Manual::Lock,
        ..machine.state(&turn)?
    })?;
    // It takes its own turn.
    drop(turn);
    let is_closed = sync()?
        && is_read_only(&machine.root, "/usr")?
        && match machine.plan.database() {
            Some(rule) => {
                let path = rule.mount_point.to_string();
                machine.root.directory(&path)?.is_none() || is_read_only(&machine.root, &path)?
            }
            None => true,
        };
    if !is_closed {
        complaints.push(
            "lock: not everything is closed; usr-policy verify and journalctl -t usr-policy-generator say what"
                .to_owned(),
        );
    }
    // Nothing can close what lies beneath extensions.
    let is_open_beneath = machine.usr()?.is_some_and(|usr| usr.is_open_beneath());
    let text: &[u8] = match (is_closed, is_open_beneath) {
        (false, _) => b"",
        (true, false) => b"/usr and the package database are closed.\n",
        (true, true) => {
            b"The package database is closed, and /usr when the extensions over it are unmerged.\n"
        }
    };
    Ok(Told {
        text: text.to_vec(),
        complaints,
        exit_code: u8::from(!is_closed),
    })
}

/// Who changes packages, and who has a file below `/usr` open for writing: a bind over it would not stop him.
fn busy(machine: &Machine) -> Result<Vec<String>, Failure> {
    let mut busy = Vec::new();
    let plan = &machine.plan;
    if let Some(rule) = plan.database().or(plan.database_below_usr()) {
        let path = rule.mount_point.to_string();
        if let Some(holder) = database::holder(&machine.root, &path)? {
            busy.push(format!(
                "lock: {holder} is changing packages; let it end, then run usr-policy lock again"
            ));
        }
    }
    if !is_read_only(&machine.root, "/usr")? {
        let mut writing = writers(&machine.root)?;
        writing.extend(mappers(&machine.root)?);
        // One that has both, or more than one of them, is named once for each file.
        writing.sort_by(|a, b| (a.pid, &a.file).cmp(&(b.pid, &b.file)));
        writing.dedup_by(|a, b| (a.pid, &a.file) == (b.pid, &b.file));
        busy.extend(writing.iter().map(|writer| {
            format!(
                "lock: {writer} has {} open for writing; end it, then run usr-policy lock again",
                Shown(writer.file.as_os_str().as_bytes())
            )
        }));
    }
    Ok(busy)
}
