//! What verify sees of the system beside its mounts.

use rustix::fs::{FileType, OFlags, Stat};
use usr_policy_plan::cmdline::Cmdline;
use usr_policy_plan::config::ConfigFile;
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::MountTable;
use usr_policy_plan::plan::{FSTAB, Plan};
use usr_policy_plan::policy::Treatment;
use usr_policy_plan::unit::BOOT_PROGRAM;
use usr_policy_plan::verify::{
    Generator, Hidden, Kind, OUTSIDE, Place, STORES, SYSEXT_SERVICE, SystemFacts, Unit,
    units_to_look_at,
};
use usr_policy_system::facts::running_cmdline;
use usr_policy_system::root::Root;
use usr_policy_system::seen::{self, GENERATOR_DIRECTORIES, is_program, runs_systemd};

use crate::observe::hidden::{Depth, beneath};
use crate::observe::initramfs::builders;
use crate::observe::look;
use crate::observe::sysext::configuration;
use crate::observe::units::{observe_units, read_file};

/// What cannot be read is left out: whoever needs it to judge a rule reads it too, and says so.
pub(crate) fn observe_system(
    root: &Root,
    plan: &Plan,
    mounts: &MountTable,
    depth: Depth,
) -> SystemFacts {
    let in_memory = plan
        .mounts
        .iter()
        .filter(|mount| matches!(mount.rule.treatment, Treatment::Tmpfs(_)))
        .map(|mount| &mount.rule.mount_point);
    let hidden = in_memory.filter_map(|path| {
        Some(Hidden {
            path: path.clone(),
            beneath: beneath(root, mounts, path, depth)?,
        })
    });
    let units = observe_units(root, units_to_look_at(plan));
    SystemFacts {
        cmdline: Cmdline::parse(&running_cmdline(root).unwrap_or_default()),
        fstab: read(root, FSTAB),
        outside: outside(root),
        store: store(root),
        hidden: hidden.collect(),
        environment_files: environment_files(root, &units),
        manager: configuration(root, "system.conf"),
        units,
        runs_systemd: runs_systemd(root),
        generator: generator(root),
        builders: builders(root),
    }
}

fn read(root: &Root, path: &str) -> Vec<u8> {
    root.read(path).ok().flatten().unwrap_or_default()
}

fn place(root: &Root, path: &str) -> Option<Place> {
    let path = MountPoint::new(path.as_bytes()).ok()?;
    Some(look(Some(root), path))
        .filter(|place| matches!(place.kind, Kind::Directory | Kind::Linked))
}

/// What tells systemd-sysext.service how it is to merge, beside its unit.
fn environment_files(root: &Root, units: &[Unit]) -> Vec<ConfigFile> {
    let mut units = units.iter();
    let service = units.find(|unit| unit.name == SYSEXT_SERVICE);
    let paths = service.map(Unit::environment_files).unwrap_or_default();
    let files = paths.into_iter();
    files.filter_map(|path| read_file(root, path)).collect()
}

fn outside(root: &Root) -> Vec<Place> {
    let stat = |path: &str, flags| -> Option<Stat> {
        rustix::fs::fstat(root.open_at(path, OFlags::PATH | flags).ok()?).ok()
    };
    let in_usr: Vec<Stat> = OUTSIDE
        .iter()
        .filter_map(|path| stat(&format!("/usr{path}"), OFlags::DIRECTORY))
        .collect();
    let those = OUTSIDE.iter().filter(|path| {
        let Some(own) = stat(path, OFlags::NOFOLLOW) else {
            return false;
        };
        if FileType::from_raw_mode(own.st_mode) == FileType::Symlink {
            // Another link may come in between: where it ends counts.
            let Some(end) = stat(path, OFlags::DIRECTORY) else {
                return false;
            };
            return !in_usr
                .iter()
                .any(|usr| (usr.st_dev, usr.st_ino) == (end.st_dev, end.st_ino));
        }
        root.names(path).is_ok_and(|names| !names.is_empty())
    });
    those.filter_map(|path| place(root, path)).collect()
}

fn store(root: &Root) -> Option<Place> {
    // Nix and Guix can be installed beside a system of another kind, which has its programs in /usr.
    if root.open_at("/usr/lib", OFlags::PATH).is_ok() {
        return None;
    }
    STORES.iter().find_map(|path| place(root, path))
}

fn generator(root: &Root) -> Generator {
    match seen::generator(root, &GENERATOR_DIRECTORIES) {
        Some((_, true)) => Generator::Ours,
        Some((path, false)) => Generator::Masked(path),
        None if is_program(root, BOOT_PROGRAM) => Generator::Missing,
        None => Generator::Unknown,
    }
}
