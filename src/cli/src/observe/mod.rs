//! What `verify` sees: the mount namespace of PID 1, whoever calls. It changes nothing, not even a time stamp.

pub(crate) mod hidden;
mod layers;
mod sysext;
mod system;
mod undoers;
mod units;

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, OFlags, StatVfsMountFlags, fstatvfs};
use rustix::io::Errno;
use rustix::process::geteuid;
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::MountTable;
use usr_policy_plan::plan::Plan;
use usr_policy_plan::pre_init::PRE_INIT;
use usr_policy_plan::unit::BOOT_PROGRAM;
use usr_policy_plan::verify::{
    Access, Blind, Caller, Event, Follower, Kind, Observed, Place, PreInit, paths,
};
use usr_policy_system::covered;
use usr_policy_system::database;
use usr_policy_system::events::EVENTS;
use usr_policy_system::failure::Failure;
use usr_policy_system::mount::may_write;
use usr_policy_system::pacman::is_guarded;
use usr_policy_system::root::Root;
use usr_policy_system::seen::mount_of;
use usr_policy_system::state;

use crate::contents::are_same;
use hidden::Depth;
use sysext::observe_sysext;
use system::observe_system;

/// The mount table of PID 1.
const TABLE: &str = "/proc/1/mountinfo";

/// The root directory of PID 1; only root may look through it.
const ROOT: &str = "/proc/1/root";

pub(crate) fn observe(plan: &Plan, depth: Depth) -> Result<Observed, Failure> {
    let read = |path| {
        fs::read(path).map_err(|error| {
            Failure::new(path, "cannot read", error).with_remedy("mount proc on /proc")
        })
    };
    let text = read(TABLE)?;
    let mounts = MountTable::parse(&text);
    // Anybody may read the table: a line that is none is no matter of rights.
    let mut blind: Vec<Blind> = mounts
        .bad_lines
        .iter()
        .map(|bad| Blind {
            subject: format!("{TABLE}:{}", bad.line),
            what: bad.what(),
            remedy: "report this line of the table".to_owned(),
        })
        .collect();
    let caller = caller();
    // Without root, the caller's own view is PID 1's where both have the same mounts.
    let root = match Root::open(ROOT) {
        Ok(root) => Some(root),
        Err(_) if read("/proc/self/mountinfo")? == text => Some(Root::open("/")?),
        Err(_) => {
            blind.push(Blind {
                subject: ROOT.to_owned(),
                what: "this process has mounts of its own, and may not look at those of PID 1"
                    .to_owned(),
                remedy: caller.way_to_see().to_owned(),
            });
            None
        }
    };
    let layers = layers::layers(plan, root.as_ref(), caller, (&text, &mounts));
    let undoers = root.as_ref().map(|root| undoers::undoers(plan, root));
    let places = paths(plan)
        .into_iter()
        .map(|path| look(root.as_ref(), path))
        .collect();
    let system = rustix::system::sysinfo();
    let database = plan.database().map(|rule| rule.mount_point.to_string());
    let (mut at_work, mut covered) = (None, Vec::new());
    if let (Some(root), Some(database)) = (&root, &database) {
        at_work = database::holder(root, database)?.map(|holder| holder.to_string());
        covered = match covered::covered(root, database) {
            Ok(packages) => packages,
            Err(failure) => {
                blind.push(Blind {
                    subject: "packages".to_owned(),
                    what: failure.to_string(),
                    remedy: caller.way_to_see().to_owned(),
                });
                Vec::new()
            }
        };
    }
    let sysext = root.as_ref().map(|root| observe_sysext(root, plan));
    let beside = root
        .as_ref()
        .map(|root| observe_system(root, plan, &mounts, depth));
    Ok(Observed {
        mounts,
        places,
        memory: u64::from(system.mem_unit).checked_mul(system.totalram),
        // No record: nothing of ours acted at this boot.
        events: Event::parse(&fs::read(EVENTS).unwrap_or_default()),
        caller,
        unread: Vec::new(),
        state: state::read()?,
        now: state::now(),
        is_guarded: root.as_ref().is_some_and(is_guarded),
        follower: follower(),
        at_work,
        covered,
        pre_init: root.as_ref().map_or(PreInit::Missing, pre_init),
        layers,
        undoers: undoers.unwrap_or_default(),
        blind,
        sysext: sysext.unwrap_or_default(),
        system: beside.unwrap_or_default(),
    })
}

/// Whether merges are followed. Source of the path: sd_booted(3); elsewhere nobody does.
fn follower() -> Follower {
    let is_followed = state::is_followed().filter(|_| Path::new("/run/systemd/system").exists());
    match is_followed {
        Some(true) => Follower::Alive,
        Some(false) => Follower::Dead,
        None => Follower::Unknown,
    }
}

/// Whoever runs this.
fn caller() -> Caller {
    if geteuid().is_root() {
        Caller::Root
    } else {
        Caller::Other
    }
}

fn pre_init(root: &Root) -> PreInit {
    match are_same(root, [PRE_INIT, BOOT_PROGRAM]) {
        Some(true) => PreInit::Installed,
        Some(false) => PreInit::Different,
        // What cannot be read is no proof of anything.
        None => PreInit::Missing,
    }
}

pub(crate) fn look(root: Option<&Root>, path: MountPoint) -> Place {
    let unseen = |path, kind| Place {
        path,
        kind,
        mount_id: None,
        access: Access::NoWitness,
        statvfs_read_only: None,
    };
    let Some(root) = root else {
        return unseen(path, Kind::Unknown);
    };
    let name = path.to_string();
    match root.open_at(&name, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(directory) => {
            let kind = if is_linked(root, &path) {
                Kind::Linked
            } else {
                Kind::Directory
            };
            Place {
                path,
                kind,
                mount_id: mount_of(&directory).ok().map(|mount| mount.id),
                access: access(&directory),
                statvfs_read_only: fstatvfs(&directory)
                    .ok()
                    .map(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY)),
            }
        }
        Err(Errno::NOENT) => unseen(path, Kind::Missing),
        Err(Errno::NOTDIR) => unseen(path, Kind::Other),
        Err(_) => unseen(path, Kind::Unknown),
    }
}

pub(crate) fn access(directory: impl AsFd) -> Access {
    match may_write(directory) {
        Ok(()) => Access::Writable,
        Err(Errno::ROFS) => Access::ReadOnly,
        // Without the right to write there, the question stays open.
        Err(_) => Access::NoWitness,
    }
}

/// Whether a symbolic link is anywhere on the way, where systemd mounts nothing.
fn is_linked(root: &Root, path: &MountPoint) -> bool {
    let name = path.to_string();
    let ends = name
        .char_indices()
        .skip(1)
        .filter_map(|(at, c)| (c == '/').then_some(at))
        .chain([name.len()]);
    ends.into_iter().any(|end| {
        root.open_at(&name[..end], OFlags::PATH | OFlags::NOFOLLOW)
            .is_ok_and(|file| {
                rustix::fs::statat(&file, "", AtFlags::EMPTY_PATH).is_ok_and(|stat| {
                    rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink()
                })
            })
    })
}
