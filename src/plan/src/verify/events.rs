//! The record of what our own stages did.

use alloc::string::String;
use alloc::vec::Vec;

use crate::octal;

/// A line of `/run/usr-policy/events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Microseconds since the kernel started, suspend included (`CLOCK_BOOTTIME`).
    pub boottime: u64,
    /// Which of our stages did it.
    pub stage: String,
    /// To which path.
    pub path: String,
    /// What came of it.
    pub result: String,
}

/// The result in the line with which the host stage ends its first run at boot, and after each soft-reboot.
pub const START: &str = "start";

/// The result in the line of `usr-policy unlock`.
pub const UNLOCKED: &str = "open";

/// The result in a line of the follower: somebody else has made the path writable.
pub const OPENED: &str = "opened";

impl Event {
    /// Reads the lines of the record: `boottime-µs stage path result`. What is no such line is left out: the record only
    /// explains.
    #[must_use]
    pub fn parse(text: &[u8]) -> Vec<Self> {
        String::from_utf8_lossy(text)
            .lines()
            .filter_map(|line| {
                let mut words = line.splitn(4, ' ');
                Some(Event {
                    boottime: words.next()?.parse().ok()?,
                    stage: words.next()?.into(),
                    path: String::from_utf8_lossy(&octal::decode(words.next()?.as_bytes()))
                        .into_owned(),
                    result: words.next()?.into(),
                })
            })
            .collect()
    }
}
