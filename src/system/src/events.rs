//! `/run/usr-policy/events`: a line for each thing that was done, only ever added to, and read only to explain.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use crate::failure::Failure;

/// The record. In the initramfs it is the same file: /run is taken along to the real root.
pub const EVENTS: &str = "/run/usr-policy/events";

/// Adds a line: `boottime-µs stage path result`.
///
/// # Errors
/// The kernel's. What was done holds all the same.
pub fn record(stage: &str, path: &str, result: &str) -> Result<(), Failure> {
    append(stage, path, result).map_err(|error| Failure::new(EVENTS, "cannot add a line", error))
}

fn append(stage: &str, path: &str, result: &str) -> io::Result<()> {
    if let Some(directory) = Path::new(EVENTS).parent() {
        fs::create_dir_all(directory)?;
    }
    let now = clock_gettime(ClockId::Boottime);
    let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
    // One write(2) for each line: two programs that append at once do not mix.
    let line = format!("{microseconds} {stage} {path} {result}\n");
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(EVENTS)?
        .write_all(line.as_bytes())
}
