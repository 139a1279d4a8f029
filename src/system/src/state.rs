//! `/run/usr-policy`: what `sync`, the follower, `usr-policy lock` and `usr-policy unlock` decide from, one at a time.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::process::umask;
use rustix::time::{ClockId, clock_gettime};
use usr_policy_plan::lock::{STATE, State};
use usr_policy_plan::unit::OPEN_DIRECTORY;

use crate::failure::Failure;
use crate::root::Root;

/// Whoever has this file locked may change mounts and state.
const TURN: &str = "/run/usr-policy/turn";

/// How often a turn is asked for, with [`PAUSE`] in between: ten seconds. One that acts needs some milliseconds; one that
/// was stopped must not hold the boot.
const ATTEMPTS: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(10);

/// Whoever has this file locked follows merges.
const FOLLOWING: &str = "/run/usr-policy/following";

/// How often it is tried while somebody asks: a second.
const ASKED: u32 = 100;

/// Lets everybody read what this process writes below `/run`, and nobody else write it, whoever has started it: `verify` tells
/// a user what it tells root, and no link of somebody's is in the way of what root writes.
pub fn set_umask() {
    umask(Mode::from_raw_mode(0o022));
}

/// Opens a file to be locked. Nobody else may: who can read a file can lock it, and flock(2) asks for no more.
fn lock_file(path: &str) -> io::Result<File> {
    make_parent(path)?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    let file = options.mode(0o600).open(path)?;
    // Also one that is there already.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Says that this process follows merges, for as long as it lives.
///
/// # Errors
/// The kernel's, or `EAGAIN` where another one does.
pub fn follow() -> Result<File, Failure> {
    let fail = |error| Failure::new(FOLLOWING, "cannot lock", error);
    let file = lock_file(FOLLOWING).map_err(fail)?;
    // Whoever only asks has it for a moment.
    for _ in 0..ASKED {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::AGAIN | Errno::INTR) => sleep(PAUSE),
            Err(error) => return Err(fail(error.into())),
        }
    }
    Err(fail(Errno::AGAIN.into()))
}

/// Whether somebody follows merges; `None` where that cannot be told.
#[must_use]
pub fn is_followed(root: &Root) -> Option<bool> {
    is_locked(root, FOLLOWING)
}

/// Whether one of our programs may be changing mounts or state; `None` where that cannot be told. Who wants the turn asks again
/// and again, so nobody minds that this has it for a moment.
#[must_use]
pub fn is_taken(root: &Root) -> Option<bool> {
    is_locked(root, TURN)
}

/// Whether somebody has a file locked, for which one must be allowed to read it.
fn is_locked(root: &Root, path: &str) -> Option<bool> {
    match root.open_at(path, OFlags::RDONLY) {
        Ok(file) => match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::AGAIN) => Some(true),
            Ok(()) => Some(false),
            Err(_) => None,
        },
        Err(Errno::NOENT) => Some(false),
        Err(_) => None,
    }
}

/// While it lives, no other program of ours changes mounts or state. The kernel ends it with the process.
#[derive(Debug)]
pub struct Turn {
    _lock: Option<File>,
}

/// Microseconds since the kernel started, suspend included.
#[must_use]
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
    u64::try_from(microseconds).unwrap_or_default()
}

/// What was written last; nothing was merged and nothing asked for where there is no such file.
///
/// # Errors
/// The kernel's, where the file is there and cannot be read.
pub fn read() -> Result<State, Failure> {
    match fs::read(STATE) {
        Ok(text) => Ok(State::parse(&text)),
        Err(error) if is_missing(&error) => Ok(State::default()),
        Err(error) => Err(Failure::new(STATE, "cannot read", error)),
    }
}

impl Turn {
    /// Waits until nobody else has the turn.
    ///
    /// # Errors
    /// The kernel's, or `EAGAIN` where another one has had it for ten seconds.
    pub fn take() -> Result<Self, Failure> {
        let lock = lock_file(TURN).map_err(|error| Failure::new(TURN, "cannot open", error))?;
        for _ in 0..ATTEMPTS {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Turn { _lock: Some(lock) }),
                Err(Errno::AGAIN | Errno::INTR) => sleep(PAUSE),
                Err(error) => return Err(Failure::new(TURN, "cannot lock", error)),
            }
        }
        Err(Failure::new(TURN, "cannot lock", Errno::AGAIN).with_remedy(
            "another program of usr-policy hangs: find it with fuser /run/usr-policy/turn",
        ))
    }

    /// For whoever only closes and cannot have one: at worst a mount is doubled, or a package manager finds the database
    /// unlocked for the moment of a bind; the next one that has a turn mends it.
    #[must_use]
    pub fn without() -> Self {
        Turn { _lock: None }
    }

    /// Replaces the state: a reader sees the one before or this one.
    ///
    /// # Errors
    /// The kernel's; the state before is there then.
    pub fn write(&self, state: &State) -> Result<(), Failure> {
        replace(STATE, &state.text())
    }

    /// Takes the state away, for which there is always room: without one everything is locked, and nothing is open by hand.
    ///
    /// # Errors
    /// The kernel's.
    pub fn forget(&self) -> Result<(), Failure> {
        match fs::remove_file(STATE) {
            Err(error) if !is_missing(&error) => Err(Failure::new(STATE, "cannot remove", error)),
            _ => Ok(()),
        }
    }

    /// Records that a unit is open on purpose, before it is unmounted: PID 1 does not mount it again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_unit(&self, unit: &str) -> Result<(), Failure> {
        let path = open_file(unit);
        // Not for a moment it may be gone.
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
            return Ok(());
        }
        make_parent(&path)
            .and_then(|()| write_new(&path, ""))
            .map_err(|error| Failure::new(&path, "cannot write", error))
    }

    /// Whether there is such a record.
    #[must_use]
    pub fn has_opened(&self, unit: &str) -> bool {
        Path::new(&open_file(unit)).exists()
    }

    /// Takes such a record back.
    ///
    /// # Errors
    /// The kernel's.
    pub fn close_unit(&self, unit: &str) -> Result<(), Failure> {
        let path = open_file(unit);
        match fs::remove_file(&path) {
            Err(error) if !is_missing(&error) => Err(Failure::new(&path, "cannot remove", error)),
            _ => Ok(()),
        }
    }
}

/// Replaces a file, in a directory that is made where it is missing: a reader sees the text before or this one.
pub(crate) fn replace(path: &str, text: &str) -> Result<(), Failure> {
    let new = [path, ".new"].concat();
    make_parent(path)
        .and_then(|()| write_new(&new, text))
        .and_then(|()| fs::rename(&new, path))
        .map_err(|error| Failure::new(path, "cannot replace", error))
}

/// Writes a file in place of whatever has its name: what a link leads to stays as it is.
fn write_new(path: &str, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_missing(&error) => return Err(error),
        _ => {}
    }
    File::create_new(path)?.write_all(text.as_bytes())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn open_file(unit: &str) -> String {
    [OPEN_DIRECTORY, "/", unit].concat()
}

fn make_parent(path: &str) -> io::Result<()> {
    Path::new(path).parent().map_or(Ok(()), fs::create_dir_all)
}
