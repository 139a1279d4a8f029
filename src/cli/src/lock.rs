//! `usr-policy lock`: closes the package database, then `/usr`, unless somebody is writing there.

use usr_policy_plan::lock::Manual;
use usr_policy_system::database;
use usr_policy_system::failure::Failure;
use usr_policy_system::processes::{is_for_writing, open_files};
use usr_policy_system::state::{self, Turn};

use crate::machine::{Machine, sync};
use crate::{Outcome, Shown};

pub(crate) fn run(remove_stale: bool) -> Outcome {
    let machine = Machine::to_change("lock")?;
    if let Some(refusal) = machine.refusal("lock") {
        return Ok(refusal);
    }
    let busy = busy(&machine)?;
    if !busy.is_empty() {
        return Ok(Shown::refused(busy));
    }
    let turn = Turn::take()?;
    let mut complaints = Vec::new();
    if let Some(rule) = machine.plan.database() {
        let path = rule.mount_point.to_string();
        if remove_stale {
            database::remove_stale_lock(&turn, &machine.root, &path)?;
        } else if database::has_stale_lock(&machine.root, &path)? {
            complaints.push(format!(
                "{path}/db.lck: no program has it open; where no package manager is at work, usr-policy lock --remove-stale removes it"
            ));
        }
    }
    let mut state = state::read()?;
    state.manual = Manual::Lock;
    turn.write(&state)?;
    // It takes its own turn.
    drop(turn);
    let is_closed = sync()?
        && machine.is_read_only("/usr")?
        && match machine.plan.database() {
            Some(rule) => {
                let path = rule.mount_point.to_string();
                machine.root.directory(&path)?.is_none() || machine.is_read_only(&path)?
            }
            None => true,
        };
    if !is_closed {
        complaints.push(
            "lock: not everything is closed; usr-policy verify and journalctl -t usr-policy-generator say what"
                .to_owned(),
        );
    }
    let text: &[u8] = if is_closed {
        b"/usr and the package database are closed.\n"
    } else {
        b""
    };
    Ok(Shown {
        text: text.to_vec(),
        complaints,
        exit_code: u8::from(!is_closed),
    })
}

/// Who changes packages, and who has a file below `/usr` open for writing: a bind over it would not stop him.
fn busy(machine: &Machine) -> Result<Vec<String>, Failure> {
    let mut busy = Vec::new();
    if let Some(rule) = machine.plan.database() {
        let path = rule.mount_point.to_string();
        if let Some(holder) = database::holder(&machine.root, &path)? {
            busy.push(format!(
                "lock: {} (pid {}) is changing packages; let it end, then run usr-policy lock again",
                holder.program, holder.pid
            ));
        }
    }
    if !machine.is_read_only("/usr")? {
        let writers = open_files(|path| path.starts_with(b"/usr/"), is_for_writing);
        busy.extend(writers.iter().map(|writer| {
            format!(
                "lock: {} (pid {}) has {} open for writing; end it, then run usr-policy lock again",
                writer.program,
                writer.pid,
                writer.file.display()
            )
        }));
    }
    Ok(busy)
}
