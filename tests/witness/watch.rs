//! The watch: a line for every change at a path of the policy, and one a second to show that it did not sleep.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::nice;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::{ClockId, clock_gettime};

use super::mounts::{Glance, Seen, TABLE};

/// Where something is promised.
const PATHS: [&str; 4] = ["/usr", "/var/lib/pacman", "/var/tmp", "/var/cache/pacman"];

/// How long to wait for the kernel to say that the table has changed. It does not say so when only a superblock
/// becomes writable, so the watch looks by itself as well, twice in the shortest window that it must see (50 ms).
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// How often to say that the watch is awake, in µs.
const HEARTBEAT: u64 = 1_000_000;

/// CLOCK_BOOTTIME in µs.
pub fn boottime() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

/// Whether a watch that was started is still there.
pub fn is_running(records: &Path) -> bool {
    // One that was killed has no program, even while nobody has waited for it.
    fs::read_to_string(records.join("watch.pid"))
        .and_then(|pid| fs::read_link(format!("/proc/{pid}/exe")))
        .is_ok_and(|program| program.ends_with("witness"))
}

/// Watches until it is killed. `watch` gets lines `µs PATH ID rw|ro TYPE MOUNT-POINT OPTIONS SUPER-OPTIONS`, or
/// `µs PATH absent`, and `µs awake LONGEST-GAP-µs`, all separated by tabs; `watch.pid` gets the process id.
pub fn run(records: &Path) -> io::Result<()> {
    // Started by a generator, it would keep a copy of all mounts that systemd made for generators only.
    move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&File::open("/proc/1/ns/mnt")?),
        Some(LinkNameSpaceType::Mount),
    )?;
    // A boot keeps every processor busy; a watch that waits for its turn sees no short window.
    nice(-20)?;
    fs::write(records.join("watch.pid"), process::id().to_string())?;
    let mut lines = File::options()
        .create(true)
        .append(true)
        .open(records.join("watch"))?;
    let table = File::open(TABLE)?;
    let paths = PATHS.map(PathBuf::from);
    let mut last: [Option<Option<Seen>>; PATHS.len()] = Default::default();
    let mut glances = [None; PATHS.len()];
    let (mut said, mut looked, mut longest) = (0, boottime(), 0);
    loop {
        let now = boottime();
        longest = longest.max(now - looked);
        looked = now;
        for (path, last) in paths.iter().zip(&mut last) {
            let seen = Seen::at(path)?;
            if last.as_ref() != Some(&seen) {
                lines.write_all(line(path, seen.as_ref()).as_bytes())?;
                *last = Some(seen);
            }
        }
        loop {
            if boottime() - said > HEARTBEAT {
                said = boottime();
                lines.write_all(format!("{said}\tawake\t{longest}\n").as_bytes())?;
                longest = 0;
            }
            let changed = poll(&mut [PollFd::new(&table, PollFlags::PRI)], Some(&PAUSE))? > 0;
            let now = boottime();
            longest = longest.max(now - looked);
            looked = now;
            let seen = [0, 1, 2, 3].map(|index: usize| Glance::at(&paths[index]));
            if changed || seen != glances {
                glances = seen;
                break;
            }
        }
    }
}

fn line(path: &Path, seen: Option<&Seen>) -> String {
    let (now, path) = (boottime(), path.display());
    let Some(seen) = seen else {
        return format!("{now}\t{path}\tabsent\n");
    };
    let Seen {
        id,
        writable,
        fs_type,
        mount_point,
        options,
        super_options,
    } = seen;
    let access = if *writable { "rw" } else { "ro" };
    format!("{now}\t{path}\t{id}\t{access}\t{fs_type}\t{mount_point}\t{options}\t{super_options}\n")
}
