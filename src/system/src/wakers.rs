//! [`Wakers`]: mounts, times and requests, for a process that sleeps between them.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use log::warn;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, inotify};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use usr_policy_plan::lock::STATE;

use crate::failure::Failure;

/// The mount table of the namespace that this process shares with PID 1: no option of its unit makes another.
const MOUNTS: &str = "/proc/self/mountinfo";

/// What the follower waits for.
#[derive(Debug)]
pub struct Wakers {
    mounts: OwnedFd,
    timer: OwnedFd,
    requests: Requests,
}

/// How it is noticed that the state was replaced.
#[derive(Debug)]
enum Requests {
    Watched(OwnedFd),
    /// By looking, where inotify(7) is used up: which state was seen last.
    LookedFor(Cell<Option<(u64, i64, i64)>>),
}

/// How often is looked.
const SECOND: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

impl Wakers {
    /// Opens everything; from here on nothing is missed. Where requests cannot be watched, that is said.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> Result<Self, Failure> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mounts = rustix::fs::open(MOUNTS, flags, Mode::empty())
            .map_err(|error| Failure::new(MOUNTS, "cannot open", error))?;
        // It counts while the machine sleeps.
        let timer = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )
        .map_err(|error| Failure::new("timerfd", "cannot make", error))?;
        let directory = Path::new(STATE).parent().unwrap_or(Path::new("/run"));
        let watch = || -> Result<OwnedFd, std::io::Error> {
            std::fs::create_dir_all(directory)?;
            let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
            let requests = inotify::init(flags)?;
            // The state is replaced by renaming.
            inotify::add_watch(&requests, directory, inotify::WatchFlags::MOVED_TO)?;
            Ok(requests)
        };
        // Merges are heard of all the same, and times end.
        let requests = watch().map_or_else(
            |error| {
                let remedy = "what usr-policy lock and unlock ask for is looked for once a second; fs.inotify.max_user_instances is how many programs may watch";
                let failure = Failure::new(directory, "cannot watch", error);
                warn!("{}", failure.with_remedy(remedy));
                Requests::LookedFor(Cell::new(stamp()))
            },
            Requests::Watched,
        );
        Ok(Wakers {
            mounts,
            timer,
            requests,
        })
    }

    /// Sets the timer to a time of `CLOCK_BOOTTIME` in microseconds; `None` stops it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wake_at(&self, time: Option<u64>) -> Result<(), Failure> {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // Zero would stop it, too.
        let value = time.map_or(zero, |time| {
            let time = i64::try_from(time.max(1)).unwrap_or(i64::MAX);
            Timespec {
                tv_sec: time / 1_000_000,
                tv_nsec: time % 1_000_000 * 1_000,
            }
        });
        let setting = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)
            .map_err(|error| Failure::new("timerfd", "cannot set", error))?;
        Ok(())
    }

    /// Sleeps until something happens; returns whether it is more than a mount or unmount.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&self) -> Result<bool, Failure> {
        let mounts = PollFd::new(&self.mounts, PollFlags::PRI);
        let timer = PollFd::new(&self.timer, PollFlags::IN);
        let polled = match &self.requests {
            Requests::Watched(file) => {
                poll(&mut [mounts, timer, PollFd::new(file, PollFlags::IN)], None)
            }
            Requests::LookedFor(last) => poll_or_look(&mut [mounts, timer], last),
        };
        match polled {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::new(MOUNTS, "cannot wait for", error)),
        }
        let is_time = drained(&self.timer);
        let was_asked = match &self.requests {
            Requests::Watched(file) => was_replaced(file)?,
            Requests::LookedFor(last) => {
                let now = stamp();
                last.replace(now) != now
            }
        };
        Ok(was_asked || is_time)
    }
}

/// Whether the state was replaced.
fn was_replaced(watch: &OwnedFd) -> Result<bool, Failure> {
    let mut buffer = [MaybeUninit::uninit(); EVENTS];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    let mut was_asked = false;
    loop {
        match events.next() {
            // PID 1 removes the directory when usr-policy-apply.service stops; nothing is heard of the next one.
            Ok(event) if event.events().contains(inotify::ReadFlags::IGNORED) => {
                return Err(Failure::new(STATE, "cannot watch", Errno::STALE));
            }
            Ok(_) => was_asked = true,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(was_asked),
            Err(error) => return Err(Failure::new(STATE, "cannot watch", error)),
        }
    }
}

/// Sleeps until one of the files is ready, or the state is another one than at the last look.
fn poll_or_look(
    files: &mut [PollFd<'_>],
    last: &Cell<Option<(u64, i64, i64)>>,
) -> Result<usize, Errno> {
    loop {
        match poll(files, Some(&SECOND)) {
            Ok(0) if stamp() == last.get() => {}
            result => return result,
        }
    }
}

/// What no two states have in common; `None` where there is none.
fn stamp() -> Option<(u64, i64, i64)> {
    let state = std::fs::metadata(STATE).ok()?;
    Some((state.ino(), state.mtime(), state.mtime_nsec()))
}

/// Room for an event with the longest name. Source: inotify(7).
const EVENTS: usize = 512;

/// Reads how often a timer has ended, and whether it has.
fn drained(file: impl AsFd) -> bool {
    rustix::io::read(&file, &mut [0; 8]).is_ok_and(|length| length > 0)
}
