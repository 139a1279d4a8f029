//! Closing and opening the package database without breaking a transaction.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat, unlinkat};
use rustix::io::Errno;
use usr_policy_plan::mount_point::MountPoint;
use usr_policy_plan::mountinfo::{MountInfo, MountTable};
use usr_policy_plan::package_manager::PACMAN;

use crate::failure::Failure;
use crate::mount::{
    Below, How, attach, clone_tree, detach_seen, open_point, read_only_bind, set_read_only,
    writable_clone,
};
use crate::processes::{OpenFile, is_for_writing, open_files};
use crate::root::Root;
use crate::seen::{how_closed, mount_table, path_of};
use crate::state::Turn;

/// The lock file of pacman(8), in its database.
const PACKAGE_LOCK: &str = PACMAN.lock_file;

/// How often it is looked whether a lock file of nobody goes away, with [`PAUSE`] in between: a tenth of a second.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// What ours begins with; pacman's is empty.
const MARK: &[u8] = b"usr-policy ";

/// What came of closing.
#[derive(Debug)]
pub enum Closed {
    /// There is no such directory: the package manager is another one.
    NoDatabase,
    /// It was closed before.
    Already,
    /// It was open.
    Made(How),
    /// It was open, and a lock file of nobody was in it.
    OverStaleLock(How),
    /// A package manager is at work; nothing was done.
    Pending(OpenFile),
}

/// Closes the database. The package manager's own lock is taken meanwhile: a bind that is made while a transaction runs
/// makes its next write fail.
///
/// # Errors
/// The kernel's.
pub fn close(turn: &Turn, directory: Option<OwnedFd>, path: &str) -> Result<Closed, Failure> {
    let Some(directory) = directory else {
        return Ok(Closed::NoDatabase);
    };
    // What is mounted below belongs to it: a database with a part that can be written is not locked.
    let found = how_closed(&directory)?;
    let point = path_of(&directory);
    if found.itself == Some(true) && found.below {
        if let Some(point) = &point {
            detach_doubled(turn, point)?;
            // What others had mounted on the one that is gone is as they had it.
            cover_others(point)?;
        }
        PackageLock::remove_leftover_below(&directory);
        return Ok(Closed::Already);
    }
    let fail = |error| Failure::new(path, "cannot lock", error);
    let taken = match PackageLock::take(&directory)? {
        Taken::Held(holder) => return Ok(Closed::Pending(holder)),
        taken => taken,
    };
    // Also over a mount of its own: a bind reaches services that have mounts of their own, a flag does not. Where there is
    // one already, it was made writable, or something below it is new.
    let table = mount_table()?;
    let how = match point {
        Some(point) if table.is_self_bind(&point) => {
            let how = if found.itself == Some(true) {
                How::Atomically
            } else {
                set_read_only(&directory).map_err(fail)?
            };
            cover_others(&point)?;
            how
        }
        // Through the descriptor, which leads below the bind.
        _ => read_only_bind(&directory, Below::ReadOnly).map_err(fail)?,
    };
    Ok(match taken {
        Taken::Stale => Closed::OverStaleLock(how),
        _ => Closed::Made(how),
    })
}

/// Removes a lock file that one of us has left in an open database.
///
/// # Errors
/// The kernel's, where the database cannot be opened.
pub fn remove_leftover(_turn: &Turn, root: &Root, path: &str) -> Result<(), Failure> {
    if let Some(directory) = root.directory(path)? {
        PackageLock::remove_leftover(&directory);
    }
    Ok(())
}

/// Opens the database: every bind of it on itself goes, also where a shell has its working directory there.
///
/// # Errors
/// The kernel's.
pub fn open(turn: &Turn, root: &Root, path: &str) -> Result<(), Failure> {
    if let Some(point) = self_bind(root, path)? {
        uncover_others(&point)?;
    }
    detach_self_binds(turn, root, path)?;
    remove_leftover(turn, root, path)
}

/// Where a path leads, if the mount there is a bind of what lies below it: ours, or PID 1's of our unit.
///
/// # Errors
/// The kernel's, where the mount table cannot be read.
pub fn self_bind(root: &Root, path: &str) -> Result<Option<MountPoint>, Failure> {
    let Some(point) = root.directory(path)?.as_ref().and_then(path_of) else {
        return Ok(None);
    };
    let is_bound = mount_table()?.is_self_bind(&point);
    Ok(is_bound.then_some(point))
}

/// Takes every bind of a directory on itself away, whoever uses it.
///
/// # Errors
/// The kernel's.
pub fn detach_self_binds(_turn: &Turn, root: &Root, path: &str) -> Result<(), Failure> {
    while let Some(point) = self_bind(root, path)? {
        detach_keeping_others(&point)?;
    }
    Ok(())
}

/// More than one of ours may be stacked where PID 1 and we came at the same moment.
fn detach_doubled(_turn: &Turn, point: &MountPoint) -> Result<(), Failure> {
    while mount_table()?.is_doubled(point) {
        uncover_others(point)?;
        detach_keeping_others(point)?;
    }
    Ok(())
}

/// Puts a read-only bind over each mount of others below the bind of a database: a flag of theirs would stay when that is
/// opened. What is mounted there when the bind is made needs none, for it takes copies along.
fn cover_others(point: &MountPoint) -> Result<(), Failure> {
    let is_open = |table: &MountTable, mount: &MountInfo| {
        mount.mount_point.is_below(point) && !mount.mount_options.has("ro") && table.is_seen(mount)
    };
    let mut last = None;
    loop {
        let table = mount_table()?;
        let open = table.mounts.iter().filter(|mount| is_open(&table, mount));
        // The bind takes along what is mounted deeper.
        let Some(mount) = open.min_by_key(|mount| mount.mount_point.as_bytes().len()) else {
            return Ok(());
        };
        let fail = |error| Failure::new(mount.mount_point.to_string(), "cannot lock", error);
        // Else it would be covered for ever where that does not close it.
        if last.replace(mount.mount_id) == Some(mount.mount_id) {
            return Err(fail(Errno::BUSY.into()));
        }
        let there = open_point(&mount.mount_point)?;
        read_only_bind(&there, Below::ReadOnly)
            .or_else(|error| match error.kind() {
                io::ErrorKind::WouldBlock => Err(error),
                // One that cannot be bound, MS_UNBINDABLE.
                _ => set_read_only(&there),
            })
            .map_err(fail)?;
    }
}

/// Takes those binds away: each lies on another mount at the same path, as a bind that somebody makes of a directory does not.
fn uncover_others(point: &MountPoint) -> Result<(), Failure> {
    let is_cover = |table: &MountTable, mount: &MountInfo| {
        mount.mount_point.is_below(point)
            && mount.mount_options.has("ro")
            && table.is_seen(mount)
            && table.is_self_bind(&mount.mount_point)
            && table.stack_at(&mount.mount_point).len() > 1
    };
    loop {
        let table = mount_table()?;
        let Some(mount) = table.mounts.iter().find(|mount| is_cover(&table, mount)) else {
            return Ok(());
        };
        detach_seen(&mount.mount_point, mount.mount_id)?;
    }
}

/// Takes a bind of a directory on itself away, but not what others have mounted on it since: that is mounted again on what
/// the bind has covered.
fn detach_keeping_others(point: &MountPoint) -> Result<(), Failure> {
    let table = mount_table()?;
    // By now extensions may be merged over it.
    let Some(top) = table.top_at(point).filter(|_| table.is_self_bind(point)) else {
        return Ok(());
    };
    let on_it = table
        .mounts
        .iter()
        .filter(|mount| mount.parent_id == top.mount_id);
    let seen = on_it.filter(|mount| mount.mount_point.is_below(point) && table.is_seen(mount));
    let kept = seen
        .map(|mount| Ok((&mount.mount_point, clone_tree(&mount.mount_point)?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    detach_seen(point, top.mount_id)?;
    let now = mount_table()?;
    for (point, tree) in kept {
        // What the bind itself had taken along is there below it as well.
        if now.top_at(point).is_none() {
            attach(&tree, point)?;
        }
    }
    Ok(())
}

/// Who has the package manager's lock, where it is held.
///
/// # Errors
/// The kernel's, where the database cannot be opened.
pub fn holder(root: &Root, path: &str) -> Result<Option<OpenFile>, Failure> {
    let Some(directory) = root.directory(path)? else {
        return Ok(None);
    };
    Ok(PackageLock::holder(&directory))
}

/// Whether a process still has the package manager's lock, which is asked of it alone: the way to [`holder`] leads past every
/// open file of the machine.
#[must_use]
pub fn is_held_by(root: &Root, path: &str, holder: &OpenFile) -> bool {
    let file = root.directory(path).ok().flatten();
    let file = file.and_then(|directory| {
        let stat = rustix::fs::statat(directory, PACKAGE_LOCK, AtFlags::SYMLINK_NOFOLLOW);
        stat.ok().map(|stat| (stat.st_dev, stat.st_ino))
    });
    file.is_some() && file == identity(std::fs::metadata(&holder.link)).ok()
}

/// Whether there is a lock file of nobody.
///
/// # Errors
/// The kernel's, where the database cannot be opened.
pub fn has_stale_lock(root: &Root, path: &str) -> Result<bool, Failure> {
    let Some(directory) = root.directory(path)? else {
        return Ok(false);
    };
    Ok(PackageLock::file(&directory).is_some() && PackageLock::holder(&directory).is_none())
}

/// Removes a lock file of nobody.
///
/// # Errors
/// The kernel's.
pub fn remove_stale_lock(_turn: &Turn, root: &Root, path: &str) -> Result<(), Failure> {
    let Some(directory) = root.directory(path)? else {
        return Ok(());
    };
    if PackageLock::holder(&directory).is_some() {
        return Ok(());
    }
    let unlink = |directory: &OwnedFd| match unlinkat(directory, PACKAGE_LOCK, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    };
    // Also where it is locked: nobody uses it then.
    match unlink(&directory) {
        Err(Errno::ROFS) => writable_clone(&directory).and_then(|writable| Ok(unlink(&writable)?)),
        result => result.map_err(Into::into),
    }
    .map_err(|error| Failure::new([path, "/", PACKAGE_LOCK].concat(), "cannot remove", error))
}

/// What came of asking for the package manager's lock.
#[derive(Debug)]
pub enum Taken {
    /// We have it, until this is dropped.
    Ours(PackageLock),
    /// There is no need: nothing can be written there, or there is no room for a file.
    NotNeeded,
    /// Nobody has it, but the file is there.
    Stale,
    /// A package manager has it.
    Held(OpenFile),
}

/// Keeps package managers out of an open database until what is returned is dropped, unless one is at work there.
///
/// # Errors
/// The kernel's, where the database cannot be opened.
pub fn keep_out(_turn: &Turn, root: &Root, path: &str) -> Result<Taken, Failure> {
    match root.directory(path)? {
        Some(directory) => PackageLock::take(&directory),
        None => Ok(Taken::NotNeeded),
    }
}

/// The package manager's lock, held by us; given back when dropped.
#[derive(Debug)]
pub struct PackageLock {
    directory: OwnedFd,
}

impl PackageLock {
    /// Whoever has the [`Turn`] may call this.
    fn take(directory: &OwnedFd) -> Result<Taken, Failure> {
        let mut created = Self::create(directory);
        if matches!(created, Err(Errno::EXIST)) && Self::remove_leftover(directory) {
            created = Self::create(directory);
        }
        // pacman closes its file before it removes it. Source: pacman lib/libalpm/handle.c (`_alpm_handle_unlock`).
        for _ in 0..ATTEMPTS {
            if !matches!(created, Err(Errno::EXIST)) {
                break;
            }
            if let Some(holder) = Self::holder(directory) {
                return Ok(Taken::Held(holder));
            }
            sleep(PAUSE);
            created = Self::create(directory);
        }
        match created {
            Ok(()) => Ok(Taken::Ours(PackageLock {
                directory: directory
                    .try_clone()
                    .map_err(|error| Failure::new(PACKAGE_LOCK, "cannot keep", error))?,
            })),
            Err(Errno::EXIST) => Ok(Self::holder(directory).map_or(Taken::Stale, Taken::Held)),
            // A full or read-only file system keeps out who is not in already.
            Err(_) => Ok(Self::holder(directory).map_or(Taken::NotNeeded, Taken::Held)),
        }
    }

    /// Creates the file with our name in it, for whoever finds it. It gets its own name last: one of us that is killed before
    /// leaves nothing, and none that nobody could tell from pacman's.
    fn create(directory: &OwnedFd) -> Result<(), Errno> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let write = |file: OwnedFd| {
            // An empty one keeps pacman out as well.
            let mut file = File::from(file);
            let _ = file.write_all(format!("usr-policy {}\n", std::process::id()).as_bytes());
            file
        };
        let unnamed = openat(directory, ".", flags | OFlags::TMPFILE, mode).map(write);
        match unnamed
            .and_then(|file| linkat(file, "", directory, PACKAGE_LOCK, AtFlags::EMPTY_PATH))
        {
            // Not every file system has files without a name: NFS, for one.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
                let flags = flags | OFlags::CREATE | OFlags::EXCL;
                openat(directory, PACKAGE_LOCK, flags, mode).map(|file| drop(write(file)))
            }
            result => result,
        }
    }

    /// The same below a bind that was made before the file was removed. What cannot be removed goes when the database opens.
    fn remove_leftover_below(directory: &OwnedFd) {
        if Self::file(directory).is_some()
            && let Ok(writable) = writable_clone(directory)
        {
            Self::remove_leftover(&writable);
        }
    }

    /// Removes a lock file that one of us has left. Whoever makes one has the turn, and so has the caller.
    fn remove_leftover(directory: &OwnedFd) -> bool {
        let mut start = [0; MARK.len()];
        let is_ours = Self::file(directory)
            .is_some_and(|mut file| file.read_exact(&mut start).is_ok() && start == *MARK);
        is_ours && unlinkat(directory, PACKAGE_LOCK, AtFlags::empty()).is_ok()
    }

    fn file(directory: &OwnedFd) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(directory.as_fd(), PACKAGE_LOCK, flags, Mode::empty())
            .ok()
            .map(File::from)
    }

    /// The process that has the file open for writing: pacman keeps it open so until its transaction ends. Who only looks at it
    /// is none, and somebody without rights can do no more. Source: pacman lib/libalpm/handle.c (`_alpm_handle_lock`).
    fn holder(directory: &OwnedFd) -> Option<OpenFile> {
        let wanted = identity(Self::file(directory)?.metadata()).ok()?;
        let own = std::process::id();
        let mut holders = open_files(
            |path| path.ends_with(PACKAGE_LOCK.as_bytes()),
            |link, process| {
                process != own
                    && is_for_writing(link)
                    && identity(std::fs::metadata(link)).is_ok_and(|found| found == wanted)
            },
        );
        holders.pop()
    }
}

impl Drop for PackageLock {
    fn drop(&mut self) {
        // What stays is known as ours by its first words, and removed by the next one.
        let _ = unlinkat(&self.directory, PACKAGE_LOCK, AtFlags::empty());
    }
}

fn identity(metadata: io::Result<std::fs::Metadata>) -> io::Result<(u64, u64)> {
    metadata.map(|metadata| (metadata.dev(), metadata.ino()))
}
