//! Extensions: what lies where systemd-sysext(8) looks, and what it has merged. Nothing is mounted to look into an image.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, OFlags, StatVfsMountFlags, StatxFlags, fstatvfs};
use usr_policy_plan::config::{ConfigFile, boolean};
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::MountTable;
use usr_policy_plan::plan::Plan;
use usr_policy_plan::verify::{
    Access, Content, EXTENSION_DIRECTORIES, Extension, SearchDirectory, Sysext,
};
use usr_policy_system::drop_ins::drop_ins;
use usr_policy_system::failure::Failure;
use usr_policy_system::root::Root;

use crate::observe::access;
use crate::observe::units::read_file;

/// Where a file of systemd is looked for, the first one wins; its drop-ins apply by name. Source: sysext.conf(5), since v259;
/// systemd-system.conf(5).
const CONFIGURATION: [&str; 4] = [
    "/etc/systemd",
    "/run/systemd",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
];

/// Where a mutable merge writes what is written to `/usr`. Source: systemd-sysext(8), "Mutability".
const MUTABLE: &str = "/var/lib/extensions.mutable/usr";

pub(crate) fn observe_sysext(root: &Root, mounts: &MountTable, plan: &Plan) -> Sysext {
    let directories = EXTENSION_DIRECTORIES
        .into_iter()
        .filter_map(|path| search_directory(root, path));
    let system = ["/etc/os-release", "/usr/lib/os-release"]
        .into_iter()
        .find_map(|path| root.read(path).ok().flatten());
    Sysext {
        merged: merged_over(root, "/usr").unwrap_or_default(),
        extensions: extensions(root, mounts),
        directories: directories.collect(),
        system: system.unwrap_or_default(),
        architecture: architecture(),
        configuration: configuration(root, "sysext.conf"),
        has_mutable_directory: root.open_at(MUTABLE, OFlags::PATH).is_ok(),
        has_no_answer: false,
        order: order(root, plan),
    }
}

/// systemd's name of the architecture. Source: systemd.unit(5), `ConditionArchitecture=`.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x86-64",
        "x86" => "x86",
        "aarch64" => "arm64",
        other => other,
    }
}

fn search_directory(root: &Root, path: &'static str) -> Option<SearchDirectory> {
    // A link that leads nowhere is there all the same.
    root.open_at(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
    let directory = root.open_at(path, OFlags::PATH | OFlags::DIRECTORY).ok();
    Some(SearchDirectory {
        path,
        is_directory: directory.is_some(),
        access: directory.map_or(Access::NoWitness, |directory| written(&directory)),
    })
}

/// Whether somebody could write there, also where the caller may not.
fn written(directory: &OwnedFd) -> Access {
    let is_read_only =
        fstatvfs(directory).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    if is_read_only {
        Access::ReadOnly
    } else {
        access(directory)
    }
}

/// What is merged over a directory, by the names that systemd-sysext(8) has for them; `None` where it carries none.
/// Source: systemd src/sysext/sysext.c (`merge_subprocess`).
pub(crate) fn merged_over(root: &Root, directory: &str) -> Result<Option<Vec<String>>, Failure> {
    let names = root.read(&format!("{directory}/.systemd-sysext/extensions"))?;
    Ok(names.map(|names| {
        let names = String::from_utf8_lossy(&names).into_owned();
        names.lines().map(str::to_owned).collect()
    }))
}

/// What lies in the directories that are searched, in their order. What a link leads to is not looked at where that may wait
/// for ever.
pub(crate) fn extensions(root: &Root, mounts: &MountTable) -> Vec<Extension> {
    EXTENSION_DIRECTORIES
        .into_iter()
        .flat_map(|directory| extensions_in(root, mounts, directory))
        .collect()
}

fn extensions_in(root: &Root, mounts: &MountTable, directory: &str) -> Vec<Extension> {
    let mut entries: Vec<String> = root
        .names(directory)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .collect();
    entries.sort_unstable();
    let found = entries.into_iter().filter_map(|entry| {
        let path = format!("{directory}/{entry}");
        let target = target(root, &path);
        if target
            .as_ref()
            .is_some_and(|target| may_wait(mounts, directory, target))
        {
            let is_directory = !entry.as_bytes().ends_with(b".raw");
            let name = Extension::name_of(&entry, is_directory)?.to_owned();
            let content = Content::Unseen;
            return Some(Extension {
                name,
                path,
                target,
                content,
            });
        }
        let opened = root.open_at(&path, OFlags::PATH).ok();
        let kind = opened.as_ref().map(kind);
        let is_directory = match kind {
            Some(kind) => kind == FileType::Directory,
            // What a link that leads nowhere was to be, its name says.
            None => !entry.as_bytes().ends_with(b".raw"),
        };
        let name = Extension::name_of(&entry, is_directory)?.to_owned();
        let content = match (opened, kind) {
            (None, _) | (_, None) => Content::LeadsNowhere,
            (Some(opened), Some(FileType::Directory)) if !entry.as_bytes().ends_with(b".v") => {
                directory_content(root, &path, &name, &opened)
            }
            (_, Some(FileType::Directory | FileType::RegularFile | FileType::BlockDevice)) => {
                Content::Image
            }
            // A link to /dev/null, which hides nothing.
            _ => return None,
        };
        Some(Extension {
            name,
            path,
            target,
            content,
        })
    });
    found.collect()
}

/// Whether a look at what a link leads to may wait for ever; links on the way are not followed.
fn may_wait(mounts: &MountTable, directory: &str, target: &str) -> bool {
    let mut path = PathBuf::new();
    for component in Path::new(directory).join(target).components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            component => path.push(component),
        }
    }
    let seen = |path: &[u8]| MountPoint::seen(path);
    match (seen(path.as_os_str().as_bytes()), seen(b"/")) {
        (Ok(path), Ok(root)) => mounts.may_wait_at(&path, &root),
        _ => false,
    }
}

fn kind(file: &OwnedFd) -> FileType {
    rustix::fs::fstat(file).map_or(FileType::Unknown, |stat| {
        FileType::from_raw_mode(stat.st_mode)
    })
}

fn target(root: &Root, path: &str) -> Option<String> {
    let link = root.open_at(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
    let target = rustix::fs::readlinkat(&link, "", Vec::new()).ok()?;
    Some(target.to_string_lossy().into_owned())
}

fn directory_content(root: &Root, path: &str, name: &str, directory: &OwnedFd) -> Content {
    if root.names(path).is_ok_and(|names| names.is_empty()) {
        return Content::Mask;
    }
    Content::Directory {
        access: written(directory),
        release: release(root, path, name),
        has_os_release: root
            .open_at(
                &format!("{path}/usr/lib/os-release"),
                OFlags::PATH | OFlags::NOFOLLOW,
            )
            .is_ok(),
    }
}

/// The extension-release file: of this name, or of the name without its version, or one that says that its name does not
/// count. Source: os-release(5); systemd src/basic/os-util.c (`open_extension_release_at`).
fn release(root: &Root, path: &str, name: &str) -> Option<Vec<u8>> {
    const STRICT: &str = "user.extension-release.strict";
    let directory = format!("{path}/usr/lib/extension-release.d");
    let read = |name: &str| {
        let text = root.read(&format!("{directory}/extension-release.{name}"));
        text.ok().flatten()
    };
    let without_version = || name.split(['_', '+']).next().and_then(read);
    let relaxed = || {
        let names = root.names(&directory).ok()?;
        names.into_iter().find_map(|name| {
            let name = name
                .to_str()?
                .strip_prefix("extension-release.")?
                .to_owned();
            let path = format!("{directory}/extension-release.{name}");
            let file = root
                .open_at(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW)
                .ok()?;
            let mut value = [0; 8];
            let length = rustix::fs::fgetxattr(&file, STRICT, &mut value[..]).ok()?;
            let is_no = boolean(&value[..length]) == Some(false);
            is_no.then(|| read(&name)).flatten()
        })
    };
    read(name).or_else(without_version).or_else(relaxed)
}

pub(super) fn configuration(root: &Root, name: &str) -> Vec<ConfigFile> {
    let main = CONFIGURATION.map(|directory| format!("{directory}/{name}"));
    let directories = CONFIGURATION.map(|directory| format!("{directory}/{name}.d"));
    let read = |path| read_file(root, path);
    let drop_ins = drop_ins(root, directories, &mut drop);
    let main = main.into_iter().find_map(read);
    main.into_iter()
        .chain(drop_ins.into_iter().filter_map(read))
        .collect()
}

/// The numbers of the mounts at `/usr` and at the database, which only grow.
fn order(root: &Root, plan: &Plan) -> Option<(u64, u64)> {
    let number = |path: &str| {
        // STATX_MNT_ID_UNIQUE, since Linux 6.8. Source: statx(2).
        let wanted = StatxFlags::from_bits_retain(0x4000);
        let directory = root.open_at(path, OFlags::PATH | OFlags::DIRECTORY).ok()?;
        let answer = rustix::fs::statx(&directory, "", AtFlags::EMPTY_PATH, wanted).ok()?;
        (answer.stx_mask & wanted.bits() != 0).then_some(answer.stx_mnt_id)
    };
    let database = plan.database()?.mount_point.to_string();
    Some((number("/usr")?, number(&database)?))
}
