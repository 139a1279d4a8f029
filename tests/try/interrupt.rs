//! Ctrl-C: the tools that run are ended, and the program goes back the way it came, so that nothing stays mounted.

use std::fs;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use usr_policy_tests::machine::{At, Error, Result};

/// Exit code of a program that was interrupted: 128 and the number of SIGINT.
pub const EXIT_CODE: u8 = 130;

/// How long tools may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the program may take to end when no tool runs: it may be waiting for a lock.
const PATIENCE_ALONE: Duration = Duration::from_secs(2);

/// How often to look for them.
const TICK: Duration = Duration::from_millis(100);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes over what a terminal or an init sends to end a program.
///
/// # Errors
/// The kernel refuses.
pub fn watch() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).at(Path::new("signals"))?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            end_children();
        }
    });
    Ok(())
}

/// Whether the program is to end.
pub fn is_requested() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// # Errors
/// The program is to end.
pub fn check() -> Result<()> {
    if is_requested() {
        return Err(Error::new("interrupted"));
    }
    Ok(())
}

/// Ends the tools that run, and what they have started: some wait for that before they end themselves. A terminal has
/// sent its signal to each of them, but kill(1) only to this program.
fn end_children() {
    let began = Instant::now();
    let mut last_child = began;
    let mut told = Vec::new();
    while began.elapsed() < PATIENCE && last_child.elapsed() < PATIENCE_ALONE {
        for child in descendants() {
            last_child = Instant::now();
            if !told.contains(&child) {
                told.push(child);
                // One that has just ended is no matter.
                let _ = kill_process(child, Signal::TERM);
            }
        }
        thread::sleep(TICK);
    }
    for child in descendants() {
        let _ = kill_process(child, Signal::KILL);
    }
    process::exit(i32::from(EXIT_CODE));
}

/// The processes that this one has started, and theirs, that have not ended.
fn descendants() -> Vec<Pid> {
    let mut all = children("self");
    let mut asked = 0;
    while let Some(pid) = all.get(asked) {
        asked += 1;
        all.extend(children(&pid.as_raw_pid().to_string()));
    }
    all
}

/// The processes that one process has started. Source: proc_pid_task(5).
fn children(pid: &str) -> Vec<Pid> {
    // One that has just ended has none.
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
                .collect::<Vec<_>>()
        })
        .collect()
}
