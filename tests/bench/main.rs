//! `make bench`: what the policy costs, on this machine and as it is built here. It measures and asserts nothing about time.

mod busy;
mod costs;

use std::fs::{self, File};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use usr_policy_tests::machine::namespace::become_root;
use usr_policy_tests::product::{BOOT_PROGRAM, STAGE};
use usr_policy_tests::system::{Follower, GENERATOR, Installed, System, becomes, installed};

/// How many merges are timed.
const EVENTS: usize = 100;

/// The word on the kernel command line.
const STRICT: &str = "rw usrpolicy=strict";

const DATABASE: &str = "/var/lib/pacman";

fn main() -> ExitCode {
    if let Err(error) = become_root(&[STAGE, "CARGO", "HOME", "PATH"]) {
        eprintln!("bench: {error}");
        return ExitCode::FAILURE;
    }
    let _installed = Installed::new();
    let (mut times, memory) = System::with(STRICT, |system| {
        system.extension("hello");
        system.does(&[GENERATOR, "sync"]);
        let follower = Follower::start(system);
        let times: Vec<_> = (0..EVENTS).map(|_| time_to_close(system)).collect();
        (times, follower.status("VmRSS"))
    });
    times.sort();
    let size = |path: &str| {
        fs::metadata(installed().join(path))
            .unwrap()
            .len()
            .div_ceil(1024)
    };
    for (what, value) in [
        (
            "merge seen to database closed, median",
            milliseconds(times[EVENTS / 2]),
        ),
        (
            "merge seen to database closed, maximum",
            milliseconds(times[EVENTS - 1]),
        ),
        ("merges timed", EVENTS.to_string()),
        ("memory of the follower after them", format!("{memory} KiB")),
        (
            "size of the boot program",
            format!("{} KiB", size(BOOT_PROGRAM)),
        ),
        (
            "size of usr-policy",
            format!("{} KiB", size("usr/bin/usr-policy")),
        ),
    ] {
        println!("{what:<40}{value:>10}");
    }
    costs::beside_others();
    costs::growth();
    ExitCode::SUCCESS
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// From the moment at which somebody who waits for mounts sees the merge, to the one at which he sees the database closed.
fn time_to_close(system: &System) -> Duration {
    // Open before it is asked for anything: every change from here on is seen.
    let table = File::open("/proc/thread-self/mountinfo").unwrap();
    system.does(&["usr-policy", "unlock"]);
    becomes("the database is open", || !is_closed(system));
    let mut merge = system
        .command(&["systemd-sysext", "merge"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(&table, || is_merged(system));
    let began = Instant::now();
    wait_until(&table, || is_closed(system));
    let time = began.elapsed();
    assert!(merge.wait().unwrap().success());
    system.does(&["systemd-sysext", "unmerge"]);
    becomes("/usr is closed", || system.is_read_only("/usr"));
    time
}

fn wait_until(table: &File, is_so: impl Fn() -> bool) {
    while !is_so() {
        poll(&mut [PollFd::new(table, PollFlags::PRI)], None).unwrap();
    }
}

fn is_merged(system: &System) -> bool {
    let mounts = system.mounts_at("/usr");
    mounts.iter().any(|line| line.source == "sysext")
}

fn is_closed(system: &System) -> bool {
    let mounts = system.mounts_at(DATABASE);
    mounts.last().is_some_and(|line| line.has("ro"))
}
