//! `usr-policy unlock`: opens `/usr`, then the package database, then lifts the tmpfs from the package cache.

use std::time::{Duration, SystemTime};

use humantime::{format_duration, format_rfc3339_seconds};
use rustix::io::Errno;
use usr_policy_plan::lock::{Manual, State};
use usr_policy_plan::package_manager::PACMAN;
use usr_policy_plan::plan::read_only_by_nature;
use usr_policy_plan::policy::{Lock, Role, Rule, Treatment};
use usr_policy_plan::unit::FOLLOW_SERVICE;
use usr_policy_plan::verify::Done;
use usr_policy_system::database;
use usr_policy_system::events;
use usr_policy_system::failure::Failure;
use usr_policy_system::mount::{detach_seen, may_write, set_file_system_writable, set_writable};
use usr_policy_system::seen::{how_closed, mount_of, mount_table, runs_systemd};
use usr_policy_system::state::{self, Turn, now};

use crate::machine::{Machine, is_read_only, merged, sync};
use crate::{Outcome, Shown};

pub(crate) fn run(time: Option<Duration>) -> Outcome {
    let machine = Machine::to_change("unlock")?;
    if let Some(refusal) = machine.refusal("unlock") {
        return Ok(refusal);
    }
    let turn = Turn::take()?;
    if let Some(why) = refusal(&machine, time)? {
        return Ok(Shown::refused(vec![format!("unlock: {why}")]));
    }
    let until = time.map(|time| {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        now().saturating_add(microseconds)
    });
    // On record before anything is open: whoever comes next closes it when its time is over, also if this is killed.
    let before = machine.state(&turn)?;
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
    let is_followed = state::is_followed(&machine.root) != Some(false);
    let text = match time {
        Some(time) => format!(
            "/usr and the package database are open for {}, until {}.\n",
            format_duration(time),
            format_rfc3339_seconds(SystemTime::now() + time)
        ),
        None if is_followed => "/usr and the package database are open until usr-policy lock, the next merge or the next boot.\n".to_owned(),
        None => "/usr and the package database are open until usr-policy lock or the next boot.\n".to_owned(),
    };
    let mut complaints = Vec::new();
    // OpenRC has nothing that follows.
    if !is_followed && runs_systemd(&machine.root) != Some(false) {
        complaints.push(format!(
            "unlock: nobody follows merges, so a merge does not end it; systemctl start {FOLLOW_SERVICE}, or run usr-policy lock before a merge"
        ));
    }
    if let Some(rule) = machine.plan.database() {
        let path = rule.mount_point.to_string();
        if database::has_stale_lock(&machine.root, &path)? {
            complaints.push(PACMAN.stale_lock(&path));
        }
    }
    Ok(Shown {
        text: text.into_bytes(),
        complaints,
        exit_code: 0,
    })
}

/// Opens everything: `/usr` first, so that the database never can change without it.
fn open(turn: &Turn, machine: &Machine) -> Result<(), Failure> {
    open_usr(turn, machine)?;
    if let Some(rule) = machine.plan.database() {
        let path = rule.mount_point.to_string();
        turn.open_unit(&rule.unit())?;
        database::open(turn, &machine.root, &path)?;
        if is_read_only(&machine.root, &path)? {
            return Err(Failure::new(&path, "is still read-only", Errno::ROFS)
                .with_remedy("see findmnt for who mounts it so; everything is closed again"));
        }
        record(&path);
    }
    match machine.plan.mount_of(Role::Cache) {
        Some(mount) => lift(turn, machine, &mount.rule),
        None => Ok(()),
    }
}

/// Why nothing may be opened.
fn refusal(machine: &Machine, time: Option<Duration>) -> Result<Option<String>, Failure> {
    if time.is_some() && state::is_followed(&machine.root) == Some(false) {
        return Ok(Some(format!(
            "--for is over only where {FOLLOW_SERVICE} runs, and it does not; systemctl start it, or unlock without --for"
        )));
    }
    if machine.plan.lock == Lock::Always {
        return Ok(Some(
            "usrpolicy.lock=always opens nothing by hand: only a maintenance window may, which this version does not have; boot with usrpolicy=off to change the system".to_owned(),
        ));
    }
    if let Some(names) = merged(&machine.root)? {
        return Ok(Some(format!(
            "extensions are merged over /usr ({}); run systemd-sysext unmerge first",
            names.join(", ")
        )));
    }
    let Some(usr) = machine.usr()? else {
        return Ok(None);
    };
    // Ours, over a root that is read-only as a whole, or the root itself.
    let is_in_root = !usr.is_usr_itself || database::self_bind(&machine.root, "/usr")?.is_some();
    let is_read_only_root = is_in_root && usr.mount.super_options.has("ro");
    if read_only_by_nature(&usr.mount).is_some() || is_read_only_root {
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
        return Err(Failure::new("/usr", "is still read-only", Errno::ROFS)
            .with_remedy("see findmnt /usr for who mounts it; everything is closed again"));
    }
    record("/usr");
    Ok(())
}

/// A tmpfs over the package cache would fill the memory with downloads. One with somebody's mount on it stays: they go to
/// that, and it would be gone with the tmpfs. So does what is no tmpfs: it is not ours.
fn lift(turn: &Turn, machine: &Machine, rule: &Rule) -> Result<(), Failure> {
    let path = rule.mount_point.to_string();
    let Some(directory) = machine.root.directory_itself(&path)? else {
        return Ok(());
    };
    let mount = mount_of(&directory)?;
    let table = mount_table()?;
    let is_tmpfs = table
        .by_id(mount.id)
        .is_some_and(|line| line.fs_type == b"tmpfs");
    let has_mounts = table.mounts.iter().any(|one| one.parent_id == mount.id);
    let is_ours = matches!(rule.treatment, Treatment::Tmpfs(_)) && mount.is_its_root && is_tmpfs;
    if is_ours && !has_mounts {
        turn.open_unit(&rule.unit())?;
        detach_seen(&rule.mount_point, mount.id)?;
    }
    Ok(())
}

/// The record only explains.
fn record(path: &str) {
    drop(events::record("unlock", path, Done::Unlocked));
}
