//! When the package database is locked, and when `/usr` is open on purpose: the lock table of usr-policy(7) as a function.
//!
//! [`State`] is what is remembered between two looks, in [`STATE`]. It is brought up to date by what is merged now, and
//! [`State::wanted`] reads the table.

use alloc::string::String;
use core::fmt::{self, Write};

use crate::policy::Lock;

/// Where the state is kept. PID 1 removes it when the machine restarts, and the table begins anew.
pub const STATE: &str = "/run/usr-policy/state/lock";

/// For so long nothing may be merged after an unmerge before the database is opened, in microseconds: a refresh unmerges
/// and merges within some ten milliseconds.
pub const SETTLED: u64 = 2_000_000;

/// What is known of extensions at this boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Extensions {
    /// None was merged yet.
    #[default]
    NotYet,
    /// Some are merged over `/usr`.
    Merged,
    /// They were, and are no longer.
    Unmerged {
        /// When that was seen, `CLOCK_BOOTTIME` in microseconds.
        since: u64,
    },
}

/// What a person asked for, and no merge has ended since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manual {
    /// Nothing.
    #[default]
    Nothing,
    /// `usr-policy lock`.
    Lock,
    /// `usr-policy unlock`.
    Unlock {
        /// Until then, `CLOCK_BOOTTIME` in microseconds; `None` is until the next lock, merge or boot.
        until: Option<u64>,
    },
}

/// What is remembered between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// What was merged when it was looked at last.
    pub extensions: Extensions,
    /// What a person asked for.
    pub manual: Manual,
}

/// What the table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Whether the package database is to be read-only.
    pub is_locked: bool,
    /// Whether `/usr` is writable on purpose.
    pub usr_is_open: bool,
    /// The row of the table.
    pub why: Why,
    /// When the table says something else although nothing has happened, `CLOCK_BOOTTIME` in microseconds.
    pub until: Option<u64>,
}

/// Whether a package manager is at work in what is not closed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    /// None is.
    Nobody,
    /// One holds its lock, and what it writes to would be closed under it.
    AtWork,
}

/// What is done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    /// Everything stays open on purpose.
    Open,
    /// Nothing is closed before the transaction ends: half of it would be missing in `/usr`, or in the database.
    Wait,
    /// `/usr` is closed. The database may be open.
    CloseUsr,
    /// The database is closed, then `/usr`.
    CloseBoth,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Extensions are merged.
    Merged,
    /// Unlocked by hand.
    Unlocked,
    /// Locked by hand.
    LockedByHand,
    /// `usrpolicy.lock=off`.
    LockOff,
    /// `usrpolicy.lock=always`.
    LockAlways,
    /// `merged`, and nothing was merged at this boot.
    NotYetMerged,
    /// `merged`, and the unmerge may be half of a refresh.
    Settling,
    /// `merged`, everything is unmerged, and the guard stops what would change `/usr`.
    Guarded,
    /// `merged`, everything is unmerged, and there is no guard.
    NoGuard,
}

impl Wanted {
    /// What is done now. What a transaction writes to waits for its end in every row that closes something; what is open on
    /// purpose needs no waiting.
    #[must_use]
    pub fn now(&self, transaction: Transaction) -> Now {
        match (self.usr_is_open, transaction, self.is_locked) {
            (true, ..) => Now::Open,
            (false, Transaction::AtWork, _) => Now::Wait,
            (false, Transaction::Nobody, true) => Now::CloseBoth,
            (false, Transaction::Nobody, false) => Now::CloseUsr,
        }
    }
}

impl Why {
    /// Its name for programs, which does not change.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Why::Merged => "merged",
            Why::Unlocked => "unlocked",
            Why::LockedByHand => "locked-by-hand",
            Why::LockOff => "lock-off",
            Why::LockAlways => "lock-always",
            Why::NotYetMerged => "not-yet-merged",
            Why::Settling => "settling",
            Why::Guarded => "guarded",
            Why::NoGuard => "no-guard",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Merged => "extensions are merged",
            Why::Unlocked => "unlocked by hand",
            Why::LockedByHand => "locked by hand",
            Why::LockOff => "usrpolicy.lock=off",
            Why::LockAlways => "usrpolicy.lock=always",
            Why::NotYetMerged => "locked from boot until extensions were merged and unmerged",
            Why::Settling => "extensions were unmerged a moment ago",
            Why::Guarded => {
                "no extension is merged, and the guard hook stops what would change /usr"
            }
            Why::NoGuard => {
                "no extension is merged, but no guard hook would stop what would change /usr"
            }
        })
    }
}

impl State {
    /// Reads [`STATE`]. What is no such text is a state in which nothing was merged and nothing asked for: locked.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut state = State::default();
        let text = core::str::from_utf8(text).unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (key, word) = (words.next(), words.next());
            let time = words.next().map(str::parse);
            match (key, word, time) {
                (Some("extensions"), Some("merged"), None) => state.extensions = Extensions::Merged,
                (Some("extensions"), Some("unmerged"), Some(Ok(since))) => {
                    state.extensions = Extensions::Unmerged { since };
                }
                (Some("manual"), Some("lock"), None) => state.manual = Manual::Lock,
                (Some("manual"), Some("unlock"), None) => {
                    state.manual = Manual::Unlock { until: None };
                }
                (Some("manual"), Some("unlock"), Some(Ok(until))) => {
                    state.manual = Manual::Unlock { until: Some(until) };
                }
                _ => {}
            }
        }
        state
    }

    /// The text of [`STATE`].
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = match self.extensions {
            Extensions::NotYet => Ok(()),
            Extensions::Merged => writeln!(text, "extensions merged"),
            Extensions::Unmerged { since } => writeln!(text, "extensions unmerged {since}"),
        };
        let _ = match self.manual {
            Manual::Nothing => Ok(()),
            Manual::Lock => writeln!(text, "manual lock"),
            Manual::Unlock { until: None } => writeln!(text, "manual unlock"),
            Manual::Unlock { until: Some(until) } => writeln!(text, "manual unlock {until}"),
        };
        text
    }

    /// The state after a look: a merge ends an unlock, and the unmerge after it ends a lock by hand.
    #[must_use]
    pub fn after(self, is_merged: bool, now: u64) -> Self {
        let is_over = matches!(self.manual, Manual::Unlock { until: Some(until) } if until <= now);
        let (extensions, ends) = match (self.extensions, is_merged) {
            (_, true) => (
                Extensions::Merged,
                matches!(self.manual, Manual::Unlock { .. }),
            ),
            (Extensions::Merged, false) => (Extensions::Unmerged { since: now }, true),
            (before, false) => (before, false),
        };
        State {
            extensions,
            manual: if ends || is_over {
                Manual::Nothing
            } else {
                self.manual
            },
        }
    }

    /// Reads the table. `is_guarded`: a hook of the package manager stops what would change a read-only `/usr`.
    #[must_use]
    pub fn wanted(&self, lock: Lock, is_guarded: bool, now: u64) -> Wanted {
        let row = |is_locked, why| Wanted {
            is_locked,
            usr_is_open: false,
            why,
            until: None,
        };
        match (self.extensions, self.manual, lock) {
            (Extensions::Merged, ..) => row(true, Why::Merged),
            (_, Manual::Unlock { until }, Lock::Merged | Lock::Off)
                if until.is_none_or(|until| now < until) =>
            {
                Wanted {
                    is_locked: false,
                    usr_is_open: true,
                    why: Why::Unlocked,
                    until,
                }
            }
            (_, Manual::Lock, _) => row(true, Why::LockedByHand),
            (.., Lock::Always) => row(true, Why::LockAlways),
            (Extensions::Unmerged { .. }, _, Lock::Merged) if !is_guarded => {
                row(true, Why::NoGuard)
            }
            // A clock that went back is no reason to wait for ever: then it is settled from now on.
            (Extensions::Unmerged { since }, ..)
                if since <= now && now < since.saturating_add(SETTLED) =>
            {
                Wanted {
                    until: Some(since.saturating_add(SETTLED)),
                    ..row(true, Why::Settling)
                }
            }
            (.., Lock::Off) => row(false, Why::LockOff),
            (Extensions::NotYet, ..) => row(true, Why::NotYetMerged),
            (Extensions::Unmerged { .. }, ..) => row(false, Why::Guarded),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;

    use super::{Extensions, Manual, Now, SETTLED, State, Transaction, Wanted, Why};
    use crate::policy::Lock;

    const NOW: u64 = 100_000_000;
    const OLD: Extensions = Extensions::Unmerged {
        since: NOW - SETTLED,
    };
    const FRESH: Extensions = Extensions::Unmerged {
        since: NOW - SETTLED + 1,
    };
    const UNLOCK: Manual = Manual::Unlock { until: None };

    const OVER: Manual = Manual::Unlock { until: Some(NOW) };
    const NOT_OVER: Manual = Manual::Unlock {
        until: Some(NOW + 1),
    };

    /// Extensions, what a person asked for; then the row by its name: under `always`, under `merged` with the guard and without
    /// it, under `off`.
    const TABLE: &str = "
        not-yet  nothing   lock-always     not-yet-merged  not-yet-merged  lock-off
        not-yet  lock      locked-by-hand  locked-by-hand  locked-by-hand  locked-by-hand
        not-yet  unlock    lock-always     unlocked        unlocked        unlocked
        not-yet  not-over  lock-always     unlocked        unlocked        unlocked
        not-yet  over      lock-always     not-yet-merged  not-yet-merged  lock-off
        merged   nothing   merged          merged          merged          merged
        merged   lock      merged          merged          merged          merged
        merged   unlock    merged          merged          merged          merged
        merged   not-over  merged          merged          merged          merged
        merged   over      merged          merged          merged          merged
        fresh    nothing   lock-always     settling        no-guard        settling
        fresh    lock      locked-by-hand  locked-by-hand  locked-by-hand  locked-by-hand
        fresh    unlock    lock-always     unlocked        unlocked        unlocked
        fresh    not-over  lock-always     unlocked        unlocked        unlocked
        fresh    over      lock-always     settling        no-guard        settling
        old      nothing   lock-always     guarded         no-guard        lock-off
        old      lock      locked-by-hand  locked-by-hand  locked-by-hand  locked-by-hand
        old      unlock    lock-always     unlocked        unlocked        unlocked
        old      not-over  lock-always     unlocked        unlocked        unlocked
        old      over      lock-always     guarded         no-guard        lock-off
    ";

    /// What is done in a row where no transaction is at work.
    fn done(why: &str) -> Now {
        match why {
            "unlocked" => Now::Open,
            "lock-off" | "guarded" => Now::CloseUsr,
            _ => Now::CloseBoth,
        }
    }

    #[test]
    fn every_cell_of_the_table() {
        let extensions = [
            ("not-yet", Extensions::NotYet),
            ("merged", Extensions::Merged),
            // It may be half of a refresh.
            ("fresh", FRESH),
            ("old", OLD),
        ];
        let manuals = [
            ("nothing", Manual::Nothing),
            ("lock", Manual::Lock),
            ("unlock", UNLOCK),
            ("not-over", NOT_OVER),
            ("over", OVER),
        ];
        // Every row has its line, and no line is there twice.
        let mut lines = TABLE.trim().lines().map(str::split_whitespace);
        for (extensions_word, extensions) in extensions {
            for (manual_word, manual) in manuals {
                let mut words = lines.next().unwrap();
                assert_eq!(words.next(), Some(extensions_word));
                assert_eq!(words.next(), Some(manual_word));
                let row: Vec<&str> = words.collect();
                let [always, guarded, unguarded, off] = row[..] else {
                    panic!("{row:?}");
                };
                for (lock, is_guarded, why) in [
                    (Lock::Always, true, always),
                    (Lock::Always, false, always),
                    (Lock::Merged, true, guarded),
                    (Lock::Merged, false, unguarded),
                    (Lock::Off, true, off),
                    (Lock::Off, false, off),
                ] {
                    let cell = format!("{lock:?} {extensions:?} {manual:?} guard {is_guarded}");
                    let wanted = State { extensions, manual }.wanted(lock, is_guarded, NOW);
                    assert_eq!(wanted.why.id(), why, "{cell}");
                    let now = done(why);
                    assert_eq!(wanted.now(Transaction::Nobody), now, "{cell}");
                    assert_eq!(wanted.usr_is_open, now == Now::Open, "{cell}");
                    assert_eq!(wanted.is_locked, now == Now::CloseBoth, "{cell}");
                    // In what is open on purpose a transaction goes on; anywhere else it is waited for.
                    let at_work = if now == Now::Open { now } else { Now::Wait };
                    assert_eq!(wanted.now(Transaction::AtWork), at_work, "{cell}");
                }
            }
        }
        assert_eq!(lines.count(), 0);
    }

    #[test]
    fn the_row_says_why_and_until_when() {
        let state = |extensions, manual| State { extensions, manual };
        assert_eq!(
            state(FRESH, Manual::Nothing).wanted(Lock::Merged, true, NOW),
            Wanted {
                is_locked: true,
                usr_is_open: false,
                why: Why::Settling,
                until: Some(NOW + 1)
            }
        );
        let until = Some(NOW + 5);
        assert_eq!(
            state(OLD, Manual::Unlock { until })
                .wanted(Lock::Merged, true, NOW)
                .until,
            until
        );
        // Its time is over, whether or not anybody has looked since.
        let over = state(OLD, Manual::Unlock { until: Some(NOW) }).wanted(Lock::Merged, false, NOW);
        assert_eq!((over.is_locked, over.why), (true, Why::NoGuard));
        // The clock of another boot.
        let later = Extensions::Unmerged { since: NOW + 9 };
        assert_eq!(
            state(later, Manual::Nothing)
                .wanted(Lock::Merged, true, NOW)
                .why,
            Why::Guarded
        );
    }

    #[test]
    fn a_merge_ends_an_unlock_and_its_unmerge_a_lock() {
        let unlocked = State {
            extensions: Extensions::NotYet,
            manual: UNLOCK,
        };
        assert_eq!(unlocked.after(false, NOW), unlocked);
        let merged = unlocked.after(true, NOW);
        assert_eq!(merged.manual, Manual::Nothing);
        assert_eq!(merged.extensions, Extensions::Merged);

        let locked = State {
            manual: Manual::Lock,
            ..State::default()
        };
        assert_eq!(locked.after(true, NOW).manual, Manual::Lock);
        let unmerged = locked.after(true, NOW).after(false, NOW + 7);
        assert_eq!(
            unmerged,
            State {
                extensions: Extensions::Unmerged { since: NOW + 7 },
                manual: Manual::Nothing
            }
        );
        // The time of an unmerge is that of the first look after it.
        assert_eq!(unmerged.after(false, NOW + 9), unmerged);

        let until = Some(NOW);
        let over = State {
            manual: Manual::Unlock { until },
            ..State::default()
        };
        assert_eq!(over.after(false, NOW - 1), over);
        assert_eq!(over.after(false, NOW), State::default());
    }

    #[test]
    fn the_text_is_read_as_it_was_written_and_anything_else_is_locked() {
        for extensions in [Extensions::NotYet, Extensions::Merged, FRESH] {
            for manual in [
                Manual::Nothing,
                Manual::Lock,
                UNLOCK,
                Manual::Unlock { until: Some(7) },
            ] {
                let state = State { extensions, manual };
                assert_eq!(State::parse(state.text().as_bytes()), state);
            }
        }
        for text in [
            "",
            "\n\n",
            "extensions",
            "extensions unmerged",
            "extensions unmerged soon",
            "manual",
            "manual open",
            "manual unlock soon",
            "manual unlock -1",
            "\u{0}",
        ] {
            assert_eq!(State::parse(text.as_bytes()), State::default(), "{text:?}");
        }
        assert_eq!(State::parse(b"\xff\xfe"), State::default());
    }
}
