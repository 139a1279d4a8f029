//! The record of what our own stages did.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

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
    pub result: Done,
}

/// What can come of what is done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// The host stage has ended its first run at boot, or that after a soft-reboot.
    Start,
    /// One of ours has made the path read-only.
    ReadOnly,
    /// One of ours could not make it read-only.
    Failed,
    /// One of ours has mounted a tmpfs there, or the follower saw one come back.
    Tmpfs,
    /// The follower saw that somebody else has taken the tmpfs away.
    Gone,
    /// One of ours has opened it on purpose.
    Unlocked,
    /// The follower saw that somebody else has made it writable.
    Opened,
    /// The follower saw that it is read-only again.
    Closed,
    /// Packages were changed in it while extensions covered `/usr`.
    ChangedUnderExtensions,
}

impl Done {
    /// Each with its word.
    const WORDS: [(Self, &str); 9] = [
        (Done::Start, "start"),
        (Done::ReadOnly, "read-only"),
        (Done::Failed, "failed"),
        (Done::Tmpfs, "tmpfs"),
        (Done::Gone, "gone"),
        (Done::Unlocked, "open"),
        (Done::Opened, "opened"),
        (Done::Closed, "closed"),
        (Done::ChangedUnderExtensions, "changed-under-extensions"),
    ];

    fn parse(word: &str) -> Option<Self> {
        let mut words = Self::WORDS.into_iter();
        words.find_map(|(outcome, own)| (own == word).then_some(outcome))
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Self::WORDS.into_iter();
        let word = words.find_map(|(outcome, word)| (outcome == *self).then_some(word));
        f.write_str(word.unwrap_or_default())
    }
}

impl Event {
    /// Reads the lines of the record: `boottime-µs stage path result`. What is no such line, or has a result that only
    /// another version knows, is left out: the record only explains.
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
                    result: Done::parse(words.next()?)?,
                })
            })
            .collect()
    }
}
