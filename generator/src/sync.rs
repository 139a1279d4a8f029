//! The sync role: closes what the policy wants closed, the package database first, then `/usr`. Where there is no systemd
//! it also mounts what units do elsewhere.
//!
//! It may be called at any time and any number of times; what is closed already stays as it is.

use std::os::fd::OwnedFd;
use std::path::Path;

use log::{debug, error, info};
use usr_policy_plan::plan::{PlannedMount, Stage};
use usr_policy_plan::policy::{Role, Treatment};
use usr_policy_plan::pre_init::Options;
use usr_policy_system::failure::Failure;
use usr_policy_system::mount::{
    Below, How, NewMount, mount_new, read_only_bind, set_tree_read_only,
};
use usr_policy_system::root::Root;
use usr_policy_system::seen::{Closed, has_mounts_of_pid_1, how_closed, mount_of};

use crate::Failed;
use crate::apply::{Planned, is_left_to_manager, record, said};

pub(crate) fn run() -> Result<(), Failed> {
    if is_left_to_manager(Stage::Host) {
        return Ok(());
    }
    let planned = Planned::read("/".into())?;
    if !planned.plan.is_strict() {
        return Ok(());
    }
    if has_mounts_of_pid_1() == Some(false) {
        return Err(Failed::because(
            &"/proc/self/ns/mnt: these are not the mounts of PID 1, and what is closed here stays open there; run nsenter -t 1 -m /usr/lib/usr-policy/usr-policy-generator sync",
        ));
    }
    let database = planned
        .plan
        .mount_of(Role::Database)
        .map_or(Ok(()), |mount| lock(&planned.root, mount));
    // Both are tried: one that fails is no reason to leave the other open.
    let usr = planned.close_usr(Stage::Sync);
    let result = database.and(usr);
    // Source: sd_booted(3).
    if Path::new("/run/systemd/system").exists() {
        return result;
    }
    let others = planned.plan.mounts.iter();
    others
        .filter(|mount| !matches!(mount.rule.role, Role::Usr | Role::Database))
        .fold(result, |result, mount| {
            result.and(mount_path(&planned.root, mount))
        })
}

/// Does what a unit does elsewhere.
fn mount_path(root: &Root, mount: &PlannedMount) -> Result<(), Failed> {
    let Treatment::Tmpfs(options) = mount.rule.treatment else {
        return lock(root, mount);
    };
    let path = mount.rule.mount_point.to_string();
    let Some(directory) = root.directory_itself(&path)? else {
        debug!("{path}: there is no such directory");
        return Ok(());
    };
    if mount_of(&directory)?.is_its_root {
        return Ok(());
    }
    let new = NewMount {
        source: b"tmpfs",
        fs_type: b"tmpfs",
        options: &Options::parse(&options.to_string()),
    };
    mount_new(&new, &directory).map_err(|failure| failure.at(&path))?;
    info!("{path}: made a tmpfs");
    record("sync", &path, "tmpfs");
    Ok(())
}

fn lock(root: &Root, mount: &PlannedMount) -> Result<(), Failed> {
    let path = mount.rule.mount_point.to_string();
    // A database is followed to where it lies. A path of somebody's own is not: a link may lead to what is never touched.
    let directory = match mount.rule.role {
        Role::Database => root.directory(&path),
        _ => root.directory_itself(&path),
    };
    match directory.and_then(|directory| lock_directory(directory, &path)) {
        Ok(Some(how)) => {
            said(&path, how);
            record("sync", &path, "read-only");
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(failure) => {
            error!("{failure}");
            record("sync", &path, "failed");
            Err(Failed)
        }
    }
}

/// Locks a database that is there; `None` where it is locked already, or belongs to no package manager of this system.
fn lock_directory(directory: Option<OwnedFd>, path: &str) -> Result<Option<How>, Failure> {
    let Some(directory) = directory else {
        debug!("{path}: there is no such directory");
        return Ok(None);
    };
    // What is mounted below belongs to it: a database with a part that can be written is not locked.
    let made = match how_closed(&directory)? {
        Closed {
            itself: Some(true),
            below: true,
        } => return Ok(None),
        Closed {
            itself: Some(_), ..
        } => set_tree_read_only(&directory),
        Closed { itself: None, .. } => read_only_bind(&directory, Below::ReadOnly),
    };
    made.map(Some).map_err(|error| {
        Failure::new(path, "cannot lock", error).with_remedy(
            "let the package manager end, then run /usr/lib/usr-policy/usr-policy-generator sync",
        )
    })
}
