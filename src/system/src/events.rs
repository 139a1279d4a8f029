//! `/run/usr-policy/events`: a line for each thing that was done, only ever added to, and read only to explain.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use usr_policy_plan::octal;
use usr_policy_plan::verify::{Done, Event};

use crate::failure::Failure;
use crate::state::now;

/// The record. In the initramfs it is the same file: /run is taken along to the real root.
pub const EVENTS: &str = "/run/usr-policy/events";

/// A mark in the `RuntimeDirectory=` of usr-policy-apply.service, which PID 1 makes when that starts and removes when it stops.
const STARTED: &str = "/run/usr-policy/state/started";

/// Whether usr-policy-apply.service was started and this was not asked since: once at boot, once after each soft-reboot.
/// Where no unit runs the host stage it never was.
///
/// # Errors
/// The kernel's.
pub fn is_first_since_start() -> Result<bool, Failure> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(STARTED)
    {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
            Ok(false)
        }
        Err(error) => Err(Failure::new(STARTED, "cannot create", error)),
    }
}

/// Whether the host stage has ended a run since the kernel started.
#[must_use]
pub fn has_start() -> bool {
    let text = fs::read(EVENTS).unwrap_or_default();
    Event::parse(&text)
        .iter()
        .any(|event| event.result == Done::Start)
}

/// Adds a line: `boottime-µs stage path result`, the path with the escapes of proc_pid_mountinfo(5).
///
/// # Errors
/// The kernel's. What was done holds all the same.
pub fn record(stage: &str, path: &str, result: Done) -> Result<(), Failure> {
    append(stage, path, result).map_err(|error| Failure::new(EVENTS, "cannot add a line", error))
}

fn append(stage: &str, path: &str, result: Done) -> io::Result<()> {
    if let Some(directory) = Path::new(EVENTS).parent() {
        fs::create_dir_all(directory)?;
    }
    let microseconds = now();
    // One write(2) for each line: two programs that append at once do not mix.
    let mut line = format!("{microseconds} {stage} ").into_bytes();
    line.extend(octal::encode(path.as_bytes()));
    line.extend(format!(" {result}\n").into_bytes());
    let mut options = OpenOptions::new();
    options
        .append(true)
        .create(true)
        .open(EVENTS)?
        .write_all(&line)
}
