//! Other witnesses of the mounts of PID 1, and other ways to the same files.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access as Asked, AtFlags, CWD, OFlags, StatxAttributes, StatxFlags, accessat};
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::MountTable;
use usr_policy_plan::octal;
use usr_policy_plan::plan::{Plan, PlannedMount};
use usr_policy_plan::policy::Treatment;
use usr_policy_plan::verify::{
    Access, Caller, Layers, Process, SecondMount, SecondReading, Standing, Way, Ways,
};
use usr_policy_system::processes::{numbered, program};
use usr_policy_system::root::Root;

use super::beneath::beneath_extensions;
use super::{TABLE, access};

/// The same mounts as [`TABLE`], in the older format. Source: proc_pid_mounts(5).
const SECOND_TABLE: &str = "/proc/1/mounts";

/// So often the tables are read while mounts come and go. One that never rests is no second witness.
const READINGS: u32 = 5;

pub(super) fn layers(
    plan: &Plan,
    root: Option<&Root>,
    caller: Caller,
    (text, mounts): (&[u8], &MountTable),
    database_at: Option<&MountPoint>,
) -> Layers {
    let ways = Ways::new(plan, mounts, database_at);
    let look = |way: &Way| (way.clone(), ask(root, &way.at));
    let there = numbered();
    let (processes, has_unseen_processes) = match caller {
        Caller::Root => processes(&ways, &there),
        // Of the mounts of other people's processes the kernel shows them nothing.
        Caller::Other => (Vec::new(), true),
    };
    let standing = match caller {
        Caller::Root => standing(plan, root, mounts, &there),
        Caller::Other => Vec::new(),
    };
    let rules = plan.mounts.iter().map(|mount| &mount.rule);
    let rules = rules.chain(&plan.writable).map(|rule| &rule.mount_point);
    Layers {
        second: second_reading(text),
        root: root.map(|root| {
            root.open_at("/", OFlags::PATH)
                .map_or(Access::NoWitness, access)
        }),
        beneath: beneath_extensions(plan, root, mounts, &there),
        immutable: rules
            .filter(|path| is_immutable(root, path))
            .cloned()
            .collect(),
        elsewhere: ways.elsewhere().map(look).collect(),
        processes,
        standing,
        has_unseen_processes,
    }
}

/// The processes with the mounts of PID 1 whose working directory can be written where its path cannot.
fn standing(
    plan: &Plan,
    root: Option<&Root>,
    mounts: &MountTable,
    there: &[(u32, PathBuf)],
) -> Vec<Standing> {
    let closed = |mount: &&PlannedMount| mount.rule.treatment == Treatment::ReadOnly;
    let closed: Vec<_> = plan.mounts.iter().filter(closed).collect();
    let first = namespace(Path::new("/proc/1")).ok();
    let mut found = Vec::new();
    for (pid, process) in there {
        let cwd = process.join("cwd");
        let Ok(path) = fs::read_link(&cwd) else {
            continue;
        };
        let Ok(at) = MountPoint::seen(path.as_os_str().as_bytes()) else {
            continue;
        };
        let mut rules = closed.iter().map(|mount| &mount.rule.mount_point);
        let Some(of) = rules.find(|rule| at.is_at_or_below(rule)) else {
            continue;
        };
        // The kernel shows the path that the process sees, and a look at what lies there can wait for ever.
        if namespace(process).ok() != first || mounts.may_wait_at(&at, of) {
            continue;
        }
        let can_write = accessat(CWD, &cwd, Asked::WRITE_OK, AtFlags::EACCESS).is_ok();
        if can_write && ask(root, &at) == Access::ReadOnly {
            found.push(Standing {
                pid: *pid,
                program: program(process),
                of: of.clone(),
            });
        }
    }
    found
}

/// Opens a place without following anything out of the root; mount points may hold any byte.
fn open(root: Option<&Root>, path: &MountPoint) -> Option<OwnedFd> {
    let path = str::from_utf8(path.as_bytes()).ok()?;
    root?.open_at(path, OFlags::PATH | OFlags::DIRECTORY).ok()
}

fn ask(root: Option<&Root>, path: &MountPoint) -> Access {
    open(root, path).map_or(Access::NoWitness, access)
}

/// Whether nothing can be changed there by an attribute. Source: statx(2), `STATX_ATTR_IMMUTABLE`; FS_IOC_GETFLAGS would need
/// the right to read.
fn is_immutable(root: Option<&Root>, path: &MountPoint) -> bool {
    open(root, path).is_some_and(has_immutable_flag)
}

pub(super) fn has_immutable_flag(directory: impl AsFd) -> bool {
    rustix::fs::statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .is_ok_and(|answer| answer.stx_attributes.contains(StatxAttributes::IMMUTABLE))
}

/// Reads the mounts once more, by another parser, while the table says what it said.
fn second_reading(text: &[u8]) -> Option<SecondReading> {
    for _ in 0..READINGS {
        let second = fs::read(SECOND_TABLE).ok()?;
        if fs::read(TABLE).ok()? == text {
            return Some(read_second(&second));
        }
    }
    None
}

/// Line by line: one that proc-mounts cannot read would make it refuse them all.
fn read_second(text: &[u8]) -> SecondReading {
    let mut reading = SecondReading::default();
    for line in text
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        match second_mount(line) {
            Some(mount) => reading.mounts.push(mount),
            None => reading.unreadable += 1,
        }
    }
    reading
}

fn second_mount(line: &[u8]) -> Option<SecondMount> {
    let line = str::from_utf8(line).ok()?;
    let (_, rest) = line.split_once(' ')?;
    // It parts fields at white space of every kind, and the kernel at spaces only.
    if rest.split(' ').count() != rest.split_whitespace().count() {
        return None;
    }
    // Without the source: where that is a link in /dev/disk it would be followed, and an empty one shifts the fields.
    let mount: proc_mounts::MountInfo = format!("none {rest}").parse().ok()?;
    let is_read_only = match mount.options.first()?.as_str() {
        "ro" => true,
        "rw" => false,
        _ => return None,
    };
    Some(SecondMount {
        mount_point: MountPoint::seen(mount.dest.as_os_str().as_bytes()).ok()?,
        fs_type: octal::decode(mount.fstype.as_bytes()),
        is_read_only,
    })
}

/// Looks into each mount namespace that is not that of PID 1, once by each root directory that its processes have: a table
/// shows what lies below that of its process. The second is whether some could not be looked at.
fn processes(ways: &Ways, there: &[(u32, PathBuf)]) -> (Vec<Process>, bool) {
    let first = namespace(Path::new("/proc/1")).ok();
    let mut seen = BTreeSet::new();
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    let mut has_unseen = first.is_none();
    let own = std::process::id();
    // What only this process can do is over with it.
    for (pid, process) in there.iter().filter(|(pid, _)| *pid != own) {
        let view = namespace(process).and_then(|namespace| {
            if first.as_ref() == Some(&namespace) {
                return Ok(None);
            }
            Ok(Some((namespace, root_directory(process)?)))
        });
        let view = match view {
            Ok(Some(view)) => view,
            Err(ErrorKind::PermissionDenied) => {
                has_unseen = true;
                continue;
            }
            // It has the mounts of PID 1, or has ended.
            Ok(None) | Err(_) => continue,
        };
        if seen.contains(&view) {
            continue;
        }
        // Another process with the same view may be there longer.
        let Ok(text) = fs::read(process.join("mountinfo")) else {
            continue;
        };
        let (namespace, _) = view.clone();
        seen.insert(view);
        let program = program(process);
        for way in ways.only_in(&MountTable::parse(&text)) {
            if told.insert((namespace.clone(), way.of.clone())) {
                found.push(Process {
                    pid: *pid,
                    program: program.clone(),
                    way,
                });
            }
        }
    }
    (found, has_unseen)
}

/// The root directory of a process: its mount, file system and inode.
fn root_directory(process: &Path) -> Result<(u64, u32, u32, u64), ErrorKind> {
    // Without asking its file system, which may be one that does not answer.
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let asked = StatxFlags::INO | StatxFlags::MNT_ID;
    let answer = rustix::fs::statx(CWD, process.join("root"), flags, asked);
    let answer = answer.map_err(|error| std::io::Error::from(error).kind())?;
    Ok((
        answer.stx_mnt_id,
        answer.stx_dev_major,
        answer.stx_dev_minor,
        answer.stx_ino,
    ))
}

fn namespace(process: &Path) -> Result<PathBuf, ErrorKind> {
    fs::read_link(process.join("ns/mnt")).map_err(|error| error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>, bool)> {
        let mount = second_mount(line)?;
        Some((
            mount.mount_point.as_bytes().to_vec(),
            mount.fs_type,
            mount.is_read_only,
        ))
    }

    #[test]
    fn the_second_reading_knows_place_type_and_whether_it_is_read_only() {
        let mount = |path: &str, fs_type: &str, is_read_only| {
            Some((path.into(), fs_type.into(), is_read_only))
        };
        for (line, expected) in [
            (
                "/dev/vda / ext4 rw,errors=remount-ro 0 0",
                mount("/", "ext4", false),
            ),
            (
                "a /a\\040b fuse.x\\040y ro,relatime 0 0",
                mount("/a b", "fuse.x y", true),
            ),
            (
                " /empty\\134source tmpfs rw 0 0",
                mount("/empty\\source", "tmpfs", false),
            ),
            (
                "/dev/disk/by-label/none /usr ext4 ro 0 0",
                mount("/usr", "ext4", true),
            ),
        ] {
            assert_eq!(read(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn what_the_second_parser_would_misread_is_no_witness() {
        for line in [
            &b"a /not\xffutf8 tmpfs rw 0 0"[..],
            "a /no\u{a0}break tmpfs rw 0 0".as_bytes(),
            "a /a\u{a0}b\u{a0}c\u{a0}0\u{a0}0 tmpfs rw 0 0".as_bytes(),
            b"a /a\x0bb tmpfs rw 0 0",
            b"a /a",
            b"a relative tmpfs rw 0 0",
            b"a /a tmpfs mode=1 0 0",
            b"",
        ] {
            assert_eq!(read(line), None, "{}", line.escape_ascii());
        }
        let reading = read_second(b"a / ext4 rw 0 0\n\na /\xff tmpfs rw 0 0\n");
        assert_eq!((reading.mounts.len(), reading.unreadable), (1, 1));
    }
}
