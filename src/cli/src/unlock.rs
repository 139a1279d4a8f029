//! `usr-policy unlock`: opens `/usr`, then the package database, then lifts the tmpfs from the package cache.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use humantime::{format_duration, format_rfc3339_seconds};
use rustix::io::Errno;
use usr_policy_plan::lock::{Manual, State};
use usr_policy_plan::plan::read_only_by_nature;
use usr_policy_plan::policy::{Lock, Role, Rule, Treatment};
use usr_policy_plan::verify::UNLOCKED;
use usr_policy_system::database;
use usr_policy_system::events;
use usr_policy_system::failure::Failure;
use usr_policy_system::mount::{detach, may_write, set_file_system_writable, set_writable};
use usr_policy_system::seen::{how_closed, mount_of};
use usr_policy_system::state::{self, Turn, now};

use crate::machine::{Machine, sync, unit_of};
use crate::{Outcome, Shown};

pub(crate) fn run(time: Option<Duration>) -> Outcome {
    let machine = Machine::to_change("unlock")?;
    if let Some(refusal) = machine.refusal("unlock") {
        return Ok(refusal);
    }
    if let Some(why) = refusal(&machine)? {
        return Ok(Shown::refused(vec![format!("unlock: {why}")]));
    }
    let until = time.map(|time| {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        now().saturating_add(microseconds)
    });
    let turn = Turn::take()?;
    // On record before anything is open: whoever comes next closes it when its time is over, also if this is killed.
    let before = state::read()?;
    turn.write(&State {
        manual: Manual::Unlock { until },
        ..before
    })?;
    if let Err(failure) = open(&turn, &machine) {
        turn.write(&before)?;
        // It takes its own turn.
        drop(turn);
        // What it cannot close it says itself, and verify after it.
        drop(sync());
        return Err(failure);
    }
    let database = machine.plan.database();
    let mut text = match time {
        Some(time) => format!(
            "/usr and the package database are open for {}, until {}.\n",
            format_duration(time),
            format_rfc3339_seconds(SystemTime::now() + time)
        ),
        None => "/usr and the package database are open until usr-policy lock, the next merge or the next boot.\n".to_owned(),
    };
    if let Some(rule) = database
        && database::has_stale_lock(&machine.root, &rule.mount_point.to_string())?
    {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{}/db.lck is there, and no program has it open: remove it before pacman can work.",
            rule.mount_point
        );
    }
    Ok(Shown {
        text: text.into_bytes(),
        complaints: Vec::new(),
        exit_code: 0,
    })
}

/// Opens everything: `/usr` first, so that the database never can change without it.
fn open(turn: &Turn, machine: &Machine) -> Result<(), Failure> {
    open_usr(turn, machine)?;
    if let Some(rule) = machine.plan.database() {
        let path = rule.mount_point.to_string();
        turn.open_unit(&unit_of(rule))?;
        database::open(turn, &machine.root, &path)?;
        record(&path);
    }
    match machine.plan.mount_of(Role::Cache) {
        Some(mount) => lift(turn, machine, &mount.rule),
        None => Ok(()),
    }
}

/// Why nothing may be opened.
fn refusal(machine: &Machine) -> Result<Option<String>, Failure> {
    if machine.plan.lock == Lock::Always {
        return Ok(Some(
            "usrpolicy.lock=always opens nothing by hand; boot with usrpolicy=off to change the system".to_owned(),
        ));
    }
    if let Some(names) = machine.merged()? {
        return Ok(Some(format!(
            "extensions are merged over /usr ({}); run systemd-sysext unmerge first",
            names.join(", ")
        )));
    }
    let Some(usr) = machine.usr()? else {
        return Ok(None);
    };
    let is_root = || usr.mount.super_options.has("ro") && !usr.is_usr_itself;
    if read_only_by_nature(&usr.mount).is_some() || is_root() {
        let fs_type = String::from_utf8_lossy(&usr.mount.fs_type).into_owned();
        return Ok(Some(format!(
            "the file system of /usr ({fs_type}) is read-only, and not by usr-policy; change what provides it"
        )));
    }
    Ok(None)
}

fn open_usr(turn: &Turn, machine: &Machine) -> Result<(), Failure> {
    turn.open_unit("usr.mount")?;
    database::detach_self_binds(turn, &machine.root, "/usr")?;
    let Some(directory) = machine.root.directory("/usr")? else {
        return Ok(());
    };
    let fail = |error| Failure::new("/usr", "cannot make writable", error);
    if how_closed(&directory)?.itself == Some(true) {
        set_writable(&directory).map_err(fail)?;
        // As a line of fstab with ro has it; it is closed again by the flag of the mount alone.
        if may_write(&directory) == Err(Errno::ROFS) {
            set_file_system_writable(&directory).map_err(fail)?;
        }
    }
    if may_write(&directory) == Err(Errno::ROFS) {
        return Err(
            Failure::new("/usr", "is still read-only", Errno::ROFS).with_remedy(
                "see findmnt /usr for who mounts it; usr-policy lock closes the rest again",
            ),
        );
    }
    record("/usr");
    Ok(())
}

/// A tmpfs over the package cache would fill the memory with downloads.
fn lift(turn: &Turn, machine: &Machine, rule: &Rule) -> Result<(), Failure> {
    let path = rule.mount_point.to_string();
    let Some(directory) = machine.root.directory_itself(&path)? else {
        return Ok(());
    };
    if matches!(rule.treatment, Treatment::Tmpfs(_)) && mount_of(&directory)?.is_its_root {
        turn.open_unit(&unit_of(rule))?;
        detach(&rule.mount_point)?;
    }
    Ok(())
}

/// The record only explains.
fn record(path: &str) {
    drop(events::record("unlock", path, UNLOCKED));
}
