//! The generator role: units for the real root, a pure function of command line, configuration and fstab.
//!
//! It never asks what is mounted: `/var` may still be missing, from systemd 253 on everything looks read-only from here,
//! and the output is made again at every daemon-reload.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use log::{Level, error, info, warn};
use usr_policy_plan::config::boolean;
use usr_policy_plan::plan::{FSTAB, Plan, Reason};
use usr_policy_plan::unit::unit_tree;
use usr_policy_system::container::in_container;
use usr_policy_system::facts::{gather_to_act, running_cmdline};
use usr_policy_system::failure::Failure;
use usr_policy_system::root::Root;
use usr_policy_system::unit_dir::UnitDirs;

use crate::Failed;
use crate::problems::{say_first, say_problems};

pub(crate) fn run(directories: &UnitDirs) -> Result<(), Failed> {
    // In the initramfs the static units act; a container's mounts are its manager's.
    if in_initrd() || in_container() {
        return Ok(());
    }
    match write_units(directories) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Failed),
        Err(failure) => {
            error!("{failure}");
            Err(Failed)
        }
    }
}

/// Writes every unit that can be written; returns how many things went wrong.
fn write_units(directories: &UnitDirs) -> Result<usize, Failure> {
    let root = Root::open("/")?;
    let (facts, mut failures) = gather_to_act(&root, &running_cmdline(&root)?);
    let plan = Plan::new(&facts);
    let wrong = say_problems(&plan);
    if plan.is_strict() {
        let bad_lines = plan.fstab_lines.iter();
        let mut bad_lines = bad_lines.map(|bad| format!("{FSTAB}:{}: {}", bad.line, bad.problem));
        say_first(Level::Warn, &FSTAB, &mut bad_lines);
        for left_out in &plan.left_out {
            match left_out.reason {
                Reason::LockOff | Reason::BelowUsr => info!("{left_out}"),
                _ => warn!("{left_out}"),
            }
        }
        let tree = unit_tree(&plan, directories.normal.as_os_str().as_bytes());
        failures.extend(directories.write(&tree));
    }
    for failure in &failures {
        error!("{failure}");
    }
    Ok(wrong + failures.len())
}

/// Source: systemd src/basic/initrd-util.c (`in_initrd`).
fn in_initrd() -> bool {
    let asked = std::env::var_os("SYSTEMD_IN_INITRD").and_then(|value| boolean(value.as_bytes()));
    asked.unwrap_or_else(|| Path::new("/etc/initrd-release").exists())
}
