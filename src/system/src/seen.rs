//! What a stage finds at the root that it works on.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::{MountInfo, MountTable};
use usr_policy_plan::plan::{Installation, Seen, UsrMount};
use usr_policy_plan::unit::BOOT_PROGRAM;

use crate::failure::Failure;
use crate::mount::link_of;
use crate::root::Root;

/// Where systemd looks for generators, the first name wins. The first one is of the running system, the others are of its root.
/// Source: systemd.generator(7).
pub const GENERATOR_DIRECTORIES: [&str; 4] = [
    "/run/systemd/system-generators",
    "/etc/systemd/system-generators",
    "/usr/local/lib/systemd/system-generators",
    "/usr/lib/systemd/system-generators",
];

/// There while systemd is PID 1. Source: sd_booted(3).
const SYSTEMD_RUNS: &str = "/run/systemd/system";

/// Where OpenRC has its runlevels. Source: rc-update(8).
const RUNLEVELS: &str = "/etc/runlevels";

/// How often it is looked at what is mounted, where that changes meanwhile.
const LOOKS: u32 = 10;

/// Looks at a root and its `/usr`; the descriptor is the `/usr` directory that was looked at.
///
/// # Errors
/// The kernel's, where the mount table cannot be read.
pub fn look(root: &Root) -> Result<(Seen, Option<OwnedFd>), Failure> {
    again(|| look_once(root))
}

/// A mount that ends between the opening of its directory and the reading of the table is in no line, and never will be: whoever
/// opens the path anew finds the one that took its place. Each time another merge must have come in between.
fn again<T>(look: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
    let mut looks = (0..LOOKS).map(|_| look());
    looks.find(Result::is_ok).unwrap_or_else(look)
}

fn look_once(root: &Root) -> Result<(Seen, Option<OwnedFd>), Failure> {
    let root_mounted = root.is_own() || mount_of(root.as_fd())?.is_its_root;
    let directory = root.directory("/usr")?;
    let usr = match &directory {
        Some(fd) if root_mounted => Some(usr_mount(root, fd)?),
        _ => None,
    };
    let seen = Seen {
        root_mounted,
        usr_exists: directory.is_some(),
        installation: installation(root),
        usr,
    };
    Ok((seen, directory))
}

/// What is mounted at the `/usr` of the running system; `None` where it has none.
///
/// # Errors
/// The kernel's, where the mount table cannot be read.
pub fn mounted_usr(root: &Root) -> Result<Option<UsrMount>, Failure> {
    again(|| {
        let directory = root.directory("/usr")?;
        directory
            .map(|directory| usr_mount(root, &directory))
            .transpose()
    })
}

/// The mount in which an open file lies.
#[derive(Debug, Clone, Copy)]
pub struct MountOf {
    /// Field 1 of proc_pid_mountinfo(5).
    pub id: u64,
    /// Whether the file is the directory at which it is mounted.
    pub is_its_root: bool,
}

/// Asks the kernel for the mount of an open file: the order of the mount table does not tell.
///
/// # Errors
/// The kernel's; `ENOSYS` before Linux 5.8.
pub fn mount_of(file: impl AsFd) -> Result<MountOf, Failure> {
    let fail = |error: Errno| Failure::new("/", "cannot ask for the mount id (statx)", error);
    let answer =
        rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map_err(fail)?;
    if answer.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(fail(Errno::NOSYS).with_remedy("Linux 5.8 or later is needed"));
    }
    Ok(MountOf {
        id: answer.stx_mnt_id,
        is_its_root: answer.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    })
}

/// Whether this process has the mounts of PID 1; `None` where that cannot be asked.
#[must_use]
pub fn has_mounts_of_pid_1() -> Option<bool> {
    // Nobody who asks this starts a machine: unshare(1) has made a PID 1 of it, with mounts of its own.
    if std::process::id() == 1 {
        return Some(false);
    }
    let namespace = |process| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    Some(namespace("self")? == namespace("1")?)
}

/// Where the mount table of this process is.
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// The mount table of this process.
///
/// # Errors
/// The kernel's, where it cannot be read.
pub fn mount_table() -> Result<MountTable, Failure> {
    let text =
        std::fs::read(MOUNTINFO).map_err(|error| Failure::new(MOUNTINFO, "cannot read", error))?;
    Ok(MountTable::parse(&text))
}

fn line_of(table: &MountTable, mount: MountOf) -> Result<&MountInfo, Failure> {
    table.by_id(mount.id).ok_or_else(|| {
        Failure::new(
            MOUNTINFO,
            "no line has the mount id that was asked for",
            Errno::NOENT,
        )
        .with_remedy("mount proc of this mount namespace on /proc")
    })
}

/// What is mounted at a directory, and below it.
#[derive(Debug, Clone, Copy)]
pub struct Closed {
    /// Whether the directory's own mount is read-only; `None` where it has no mount of its own.
    pub itself: Option<bool>,
    /// Whether every mount below it that is seen there is.
    pub below: bool,
}

/// Looks how far a directory is closed by the flags of mounts.
///
/// # Errors
/// The kernel's, where the mount table cannot be read.
pub fn how_closed(directory: &OwnedFd) -> Result<Closed, Failure> {
    let table = mount_table()?;
    let mount = mount_of(directory)?;
    let line = line_of(&table, mount)?;
    let is_read_only = |mount: &MountInfo| mount.mount_options.has("ro");
    Ok(Closed {
        itself: mount.is_its_root.then(|| is_read_only(line)),
        below: path_of(directory).is_none_or(|path| {
            submounts(&table, &path).all(|mount| is_read_only(mount) || !table.is_seen(mount))
        }),
    })
}

/// The path at which a directory is seen from here: a link may have led to it.
#[must_use]
pub fn path_of(directory: &OwnedFd) -> Option<MountPoint> {
    let path = std::fs::read_link(link_of(directory)).ok()?;
    MountPoint::new(path.as_os_str().as_bytes()).ok()
}

/// The mounts below a path, hidden ones too.
fn submounts<'a>(
    table: &'a MountTable,
    path: &'a MountPoint,
) -> impl Iterator<Item = &'a MountInfo> {
    table
        .mounts
        .iter()
        .filter(|mount| mount.mount_point.is_below(path))
}

fn usr_mount(root: &Root, usr: &OwnedFd) -> Result<UsrMount, Failure> {
    let table = mount_table()?;
    let mount_of = mount_of(usr)?;
    let mount = line_of(&table, mount_of)?.clone();
    let has_submounts = path_of(usr).is_some_and(|path| submounts(&table, &path).next().is_some());
    let parent = table.by_id(mount.parent_id).cloned();
    let is_sysext = mount.is_sysext() && is_marked_by_sysext(root, usr).unwrap_or(false);
    Ok(UsrMount {
        mount,
        is_usr_itself: mount_of.is_its_root,
        is_sysext,
        has_submounts,
        parent,
    })
}

/// Whether systemd-sysext(8) would take the mount at `/usr` for its own: the file holds the device number of the
/// directory. Source: systemd src/sysext/sysext.c (`is_our_mount_point`).
#[must_use]
pub fn is_marked_by_sysext(root: &Root, usr: &OwnedFd) -> Option<bool> {
    let stat = rustix::fs::fstat(usr).ok()?;
    let text = root.read("/usr/.systemd-sysext/dev").ok()??;
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    Some(text.trim_ascii() == format!("{major}:{minor}").as_bytes())
}

/// What of usr-policy a root has itself.
#[must_use]
pub fn installation(root: &Root) -> Installation {
    if !is_program(root, BOOT_PROGRAM) {
        return Installation::NoBootProgram;
    }
    match generator(root, &GENERATOR_DIRECTORIES[1..]) {
        Some((_, true)) if is_locked_by_init(root) => Installation::Whole,
        Some((_, true)) => Installation::NobodyToLock,
        Some((_, false)) | None => Installation::NoGenerator,
    }
}

/// What systemd finds under the name of our generator in these directories, and whether it is a program.
#[must_use]
pub fn generator(root: &Root, directories: &[&str]) -> Option<(String, bool)> {
    directories.iter().find_map(|directory| {
        let path = format!("{directory}/usr-policy-generator");
        // The name counts, wherever it leads: a link to /dev/null masks the generator.
        root.open_at(&path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        let is_program = is_program(root, &path);
        Some((path, is_program))
    })
}

/// Whether what starts the root also runs what of usr-policy locks the database: systemd its generators, OpenRC the scripts
/// of its runlevels.
fn is_locked_by_init(root: &Root) -> bool {
    let has_systemd = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"]
        .iter()
        .any(|path| is_program(root, path));
    let has_script = || {
        let runlevels = root.names(RUNLEVELS).unwrap_or_default();
        runlevels.iter().any(|runlevel| {
            let script = format!("{RUNLEVELS}/{}/usr-policy", runlevel.display());
            // A link, whose target may be in what is not mounted yet.
            root.open_at(&script, OFlags::PATH | OFlags::NOFOLLOW)
                .is_ok()
        })
    };
    has_systemd || has_script()
}

/// Whether the system at this root is run by systemd; `None` where that cannot be seen.
#[must_use]
pub fn runs_systemd(root: &Root) -> Option<bool> {
    let found = root.directory(SYSTEMD_RUNS).ok()?;
    Some(found.is_some())
}

/// Whether a path of the root leads to a regular file that is not empty and may be executed.
#[must_use]
pub fn is_program(root: &Root, path: &str) -> bool {
    let Ok(fd) = root.open_at(path, OFlags::PATH) else {
        return false;
    };
    // Its mode and not access(2), for which rustix refuses AT_EMPTY_PATH: to root any of the bits is enough anyway.
    let executable = Mode::XUSR | Mode::XGRP | Mode::XOTH;
    rustix::fs::fstat(&fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_size > 0
            && Mode::from_raw_mode(stat.st_mode).intersects(executable)
    })
}
