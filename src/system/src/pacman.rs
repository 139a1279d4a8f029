//! What pacman finds: its configuration, and whether our hook is one of those that it runs.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{OFlags, fstat};
use usr_policy_plan::config::ConfigFile;
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::MountTable;
use usr_policy_plan::package_manager::{GUARD, GUARD_HOOK, GUARD_NAME};
use usr_policy_plan::pacman_conf::PacmanConf;
use usr_policy_plan::pattern::{is_pattern, matches};

use crate::failure::Failure;
use crate::root::Root;
use crate::seen::{is_program, mount_table};

/// Its configuration.
const PACMAN_CONF: &str = "/etc/pacman.conf";

/// Reads pacman.conf(5) and what it includes. What cannot be read says nothing, as pacman itself would not start; nor does what
/// lies where a server or an automount may let the caller wait: that can be PID 1.
#[must_use]
pub fn pacman_conf(root: &Root) -> PacmanConf {
    let read = |path: String| {
        let text = root.read(&path).ok()??;
        Some(ConfigFile {
            path: path.into_bytes(),
            text,
        })
    };
    let Some(file) = read(PACMAN_CONF.to_owned()) else {
        return PacmanConf::default();
    };
    let mounts = OnceCell::new();
    PacmanConf::parse(&file, &mut |pattern| {
        let Ok(pattern) = std::str::from_utf8(pattern) else {
            return Vec::new();
        };
        let mounts = mounts.get_or_init(|| mount_table().unwrap_or_default());
        if may_wait(mounts, root, pattern) {
            return Vec::new();
        }
        expand(root, pattern).into_iter().filter_map(read).collect()
    })
}

/// Whether what lies there may be long in coming, and pacman.conf was not.
fn may_wait(mounts: &MountTable, root: &Root, pattern: &str) -> bool {
    let parts = pattern.split('/');
    let fixed = parts.take_while(|part| !is_pattern(part.as_bytes()));
    let in_table = |path: &str| MountPoint::seen(root.join(path).as_os_str().as_bytes());
    match (
        in_table(&fixed.collect::<Vec<_>>().join("/")),
        in_table(PACMAN_CONF),
    ) {
        (Ok(path), Ok(beside)) => mounts.may_wait_at(&path, &beside),
        _ => false,
    }
}

/// The paths of a pattern of glob(7), sorted; a path that is none is itself.
fn expand(root: &Root, pattern: &str) -> Vec<String> {
    let mut paths = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        paths = paths
            .into_iter()
            .flat_map(|path| {
                if !is_pattern(part.as_bytes()) {
                    return vec![format!("{path}/{part}")];
                }
                let directory = if path.is_empty() { "/" } else { &path };
                let mut names = root.names(directory).unwrap_or_default();
                names.retain(|name| matches(part.as_bytes(), name.as_bytes()));
                names.sort();
                let names = names.iter().filter_map(|name| name.to_str());
                names.map(|name| format!("{path}/{name}")).collect()
            })
            .collect();
    }
    paths
}

/// The packages of a database that have files below `/usr`, by name and version, each with the time at which it was installed.
/// Source: pacman lib/libalpm/be_local.c; each is a directory below local/ with the files `desc` and `files`.
///
/// # Errors
/// The kernel's, where the database cannot be read; a package that goes away meanwhile is left out.
pub(crate) fn packages_in_usr(
    root: &Root,
    database: &str,
) -> Result<BTreeMap<String, String>, Failure> {
    let local = format!("{database}/local");
    let mut packages = BTreeMap::new();
    for name in root.names(&local)? {
        let Some(name) = name.to_str() else {
            continue;
        };
        let files = root.read(&format!("{local}/{name}/files")).ok().flatten();
        let has_files = files.is_some_and(|text| {
            let mut lines = text.split(|&byte| byte == b'\n');
            lines.any(|line| line.starts_with(b"usr/"))
        });
        let desc = root.open_at(&format!("{local}/{name}/desc"), OFlags::PATH);
        if let Some(stat) = desc.ok().and_then(|desc| fstat(desc).ok())
            && has_files
        {
            let installed = format!("{}.{}", stat.st_mtime, stat.st_mtime_nsec);
            packages.insert(name.to_owned(), installed);
        }
    }
    Ok(packages)
}

/// Whether pacman would run our hook, and the hook our program: a file of its name in a later directory takes its place, and
/// a link to /dev/null masks it. Source: alpm-hooks(5).
#[must_use]
pub fn is_guarded(root: &Root) -> bool {
    let conf = pacman_conf(root);
    let last = conf.hook_dirs().rev().find_map(|directory| {
        let directory = OsStr::from_bytes(directory).to_str()?;
        let path = format!("{}/{GUARD_NAME}", directory.trim_end_matches('/'));
        // The name counts, wherever it leads.
        root.open_at(&path, OFlags::PATH | OFlags::NOFOLLOW)
            .is_ok()
            .then_some(path)
    });
    let text = last.and_then(|path| root.read(&path).ok().flatten());
    text.is_some_and(|text| text == GUARD_HOOK.as_bytes()) && is_program(root, GUARD)
}
