//! `usr-policy explain`: looks at a path, and says why it is as it is. It changes nothing, not even a time stamp.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access as Asked, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use usr_policy_plan::explain::{Extension, Line, Looked, Ships, explain};
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::plan::{Facts, Plan};
use usr_policy_plan::verify::{Access, ByName, Content, Extension as Entry, considered};
use usr_policy_system::facts::{gather, running_cmdline};
use usr_policy_system::failure::Failure;
use usr_policy_system::pacman::is_guarded;
use usr_policy_system::root::Root;
use usr_policy_system::seen::{has_mounts_of_pid_1, mount_of, mount_table};
use usr_policy_system::state;

use usr_policy_plan::text::Shown as Escaped;

use crate::container::in_container;
use crate::observe::sysext::{self, merged_over};
use crate::observe::{PATIENCE, access_of, beside, has_table_of_pid_1};
use crate::{COULD_NOT_TELL, Outcome, Shown};

/// As many links as the kernel follows. Source: path_resolution(7).
const LINKS: usize = 40;

pub(crate) fn run(path: &Path) -> Outcome {
    let root = Root::open("/")?;
    let mut notes = Vec::new();
    let (facts, failures) = if in_container() {
        notes.push("in a container: nothing is promised; its mounts are its manager's".to_owned());
        (Facts::default(), Vec::new())
    } else {
        gather(&root, &running_cmdline(&root)?)
    };
    let plan = Plan::new(&facts);
    if !plan.problems.is_empty() {
        notes.push(
            "not every word could be understood; usr-policy verify names those that count for nothing"
                .to_owned(),
        );
    }
    let has_mounts_of_pid_1 = match has_mounts_of_pid_1() {
        Some(has) => has,
        // What cannot be told is not said.
        None => has_table_of_pid_1().unwrap_or(true),
    };
    if !has_mounts_of_pid_1 {
        notes.push(
            "this process has mounts of its own; PID 1 and its services may see others".to_owned(),
        );
    }
    let looked = look(&root, &plan, path, notes)?;
    let mut text = String::new();
    for Line { key, what } in explain(&facts, &plan, &looked) {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{key:10}  {}", Escaped(what.as_bytes()));
    }
    Ok(Shown {
        text: text.into_bytes(),
        exit_code: if failures.is_empty() {
            0
        } else {
            COULD_NOT_TELL
        },
        complaints: failures.iter().map(ToString::to_string).collect(),
    })
}

fn look(root: &Root, plan: &Plan, path: &Path, mut notes: Vec<String>) -> Result<Looked, Failure> {
    let path = std::path::absolute(path)
        .map_err(|error| Failure::new(path, "cannot be looked up", error))?;
    let found = resolve(&path)?;
    let nearest = rustix::fs::openat(
        CWD,
        &found.nearest,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| Failure::new(&found.nearest, "cannot open", error))?;
    let is_directory = fs::symlink_metadata(&found.nearest).is_ok_and(|metadata| metadata.is_dir());
    let mount_id = mount_of(&nearest).ok().map(|mount| mount.id);
    let mounts = mount_table()?;
    let there = point(&found.path)?;
    let nearest = point(&found.nearest)?;
    let holding = mount_id.and_then(|id| mounts.by_id(id));
    let holding = holding.or_else(|| mounts.holding(&nearest));
    let merged = match holding.filter(|mount| mount.is_sysext()) {
        Some(mount) => merged_over(root, &mount.mount_point.to_string())?.unwrap_or_default(),
        None => Vec::new(),
    };
    let answer = beside({
        let mounts = mounts.clone();
        move || Root::open("/").map(|root| sysext::extensions(&root, &mounts))
    });
    let extensions = if let Ok(there) = answer.recv_timeout(PATIENCE) {
        extensions(&there?, &merged, &found.path)
    } else {
        notes.push(
            "extensions could not be looked at: a file system that one of them lies on does not answer"
                .to_owned(),
        );
        Vec::new()
    };
    let database = plan.database().map(|rule| rule.mount_point.to_string());
    Ok(Looked {
        asked: asked(&path, &there),
        access: access(&found.nearest),
        extensions,
        packages: match database {
            Some(database) => packages(root, &database, &found.path)?,
            None => None,
        },
        path: there,
        nearest,
        is_directory,
        mount_id,
        mounts,
        state: state::read()?,
        is_guarded: is_guarded(root),
        now: state::now(),
        notes,
    })
}

/// A path, checked: one that was resolved is absolute and normal.
fn point(path: &Path) -> Result<MountPoint, Failure> {
    MountPoint::seen(path.as_os_str().as_bytes())
        .map_err(|_| Failure::new(path, "cannot be looked up", Errno::INVAL))
}

/// The path that was asked about; where `..` is in it, only what it leads to can be said.
fn asked(path: &Path, there: &MountPoint) -> MountPoint {
    MountPoint::seen(path.as_os_str().as_bytes()).unwrap_or_else(|_| there.clone())
}

/// Where a path leads, and how much of it exists.
struct Found {
    path: PathBuf,
    nearest: PathBuf,
}

/// Follows every link, as the kernel does; what does not exist is where it would be made.
fn resolve(path: &Path) -> Result<Found, Failure> {
    let mut rest: VecDeque<OsString> = names(path);
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        let fail = |error| {
            let failure = Failure::new(&next, "cannot be looked at", error);
            match failure.error.kind() {
                ErrorKind::PermissionDenied => failure.with_remedy("run it as root"),
                _ => failure,
            }
        };
        match fs::symlink_metadata(&next) {
            Ok(metadata) if metadata.is_symlink() => {
                links += 1;
                if links > LINKS {
                    return Err(Failure::new(path, "cannot be looked up", Errno::LOOP));
                }
                let target = fs::read_link(&next).map_err(fail)?;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                for name in names(&target).into_iter().rev() {
                    rest.push_front(name);
                }
            }
            Ok(_) => here = next,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                let mut path = next;
                for name in rest {
                    if name == ".." {
                        path.pop();
                    } else {
                        path.push(name);
                    }
                }
                return Ok(Found {
                    path,
                    nearest: here,
                });
            }
            Err(error) => return Err(fail(error)),
        }
    }
    Ok(Found {
        path: here.clone(),
        nearest: here,
    })
}

/// The names of a path, from the root on.
fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

fn access(path: &Path) -> Access {
    // The caller as he is, not as root: that a file's mode says no is no matter of mounts.
    access_of(rustix::fs::accessat(
        CWD,
        path,
        Asked::WRITE_OK,
        AtFlags::EACCESS,
    ))
}

/// The extensions that are merged, and those that are there and have the path.
fn extensions(there: &[Entry], merged: &[String], path: &Path) -> Vec<Extension> {
    let told = |name: &str, is_merged: bool, found: Option<&Entry>| {
        // A link that leads nowhere is no source of anything.
        let found = found.filter(|found| found.content != Content::LeadsNowhere);
        let ships = match found.map(|found| (&found.content, &found.path)) {
            Some((Content::Directory { .. }, source)) => ships(Path::new(source), path),
            Some((Content::Mask, _)) => Ships::No,
            _ => Ships::Unseen,
        };
        Extension {
            name: name.to_owned(),
            source: found.map(|found| found.path.clone()),
            is_merged,
            ships,
        }
    };
    let sources = ByName::new(there);
    // As they are merged: of two that ship a file the later one counts, and systemd compares versions, not letters.
    let of_merge = merged
        .iter()
        .map(|name| told(name, true, sources.get(name)));
    let mut others: Vec<Extension> = considered(there)
        .into_iter()
        .filter(|found| !merged.contains(&found.name))
        .map(|found| told(&found.name, false, Some(found)))
        .filter(|extension| extension.ships == Ships::Yes)
        .collect();
    others.sort_by(|one, other| one.name.cmp(&other.name));
    others.extend(of_merge);
    others
}

fn ships(tree: &Path, path: &Path) -> Ships {
    let name = path.as_os_str().as_bytes();
    let inside = OsStr::from_bytes(name.strip_prefix(b"/").unwrap_or(name));
    match fs::symlink_metadata(tree.join(inside)) {
        Ok(_) => Ships::Yes,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ships::Unseen,
        Err(_) => Ships::No,
    }
}

/// The packages that have a path in their lists, with their versions; `None` where there is no database. Source: pacman
/// lib/libalpm/be_local.c: below `%FILES%`, a path a line, without its first slash, and with one at the end of a directory.
fn packages(root: &Root, database: &str, path: &Path) -> Result<Option<Vec<String>>, Failure> {
    let local = format!("{database}/local");
    if root.directory(&local)?.is_none() {
        return Ok(None);
    }
    let name = path.as_os_str().as_bytes();
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let directory = [name, b"/"].concat();
    let mut owners = Vec::new();
    for package in root.names(&local)? {
        let Some(package) = package.to_str() else {
            continue;
        };
        let text = root.read(&format!("{local}/{package}/files"))?;
        let text = text.unwrap_or_default();
        let lines = text.split(|&byte| byte == b'\n');
        let mut files = lines.skip_while(|line| *line != b"%FILES%").skip(1);
        if files
            .by_ref()
            .take_while(|line| !line.starts_with(b"%"))
            .any(|line| line == name || line == directory)
        {
            owners.push(package.to_owned());
        }
    }
    owners.sort_unstable();
    Ok(Some(owners))
}
