//! [`Wakers`]: mounts, times and requests, for a process that sleeps between them.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

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
    requests: OwnedFd,
}

impl Wakers {
    /// Opens everything; from here on nothing is missed.
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
        let requests = watch().map_err(|error| Failure::new(directory, "cannot watch", error))?;
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
        let mut files = [
            PollFd::new(&self.mounts, PollFlags::PRI),
            PollFd::new(&self.timer, PollFlags::IN),
            PollFd::new(&self.requests, PollFlags::IN),
        ];
        match poll(&mut files, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::new(MOUNTS, "cannot wait for", error)),
        }
        let is_time = drained(&self.timer);
        Ok(self.was_asked()? || is_time)
    }

    /// Whether the state was replaced.
    fn was_asked(&self) -> Result<bool, Failure> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let mut events = inotify::Reader::new(&self.requests, &mut buffer);
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
}

/// Room for an event with the longest name. Source: inotify(7).
const EVENTS: usize = 512;

/// Reads how often a timer has ended, and whether it has.
fn drained(file: impl AsFd) -> bool {
    rustix::io::read(&file, &mut [0; 8]).is_ok_and(|length| length > 0)
}
