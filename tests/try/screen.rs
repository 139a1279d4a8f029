//! What a person sees: plain lines, and below them one that tells how far a tool has come.

use std::fs;
use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::transcript::printable;

/// Characters of the running line: it must not wrap.
const WIDTH: usize = 78;

/// How often the running line is drawn again.
const TICK: Duration = Duration::from_millis(250);

/// How often a line is written where nothing can be drawn again.
const PLAIN_TICK: Duration = Duration::from_secs(15);

/// Standard output.
pub struct Screen {
    terminal: bool,
    running: Mutex<Option<Running>>,
}

/// How far a tool has come, told from its log.
pub type Describe = fn(log: &str) -> String;

struct Running {
    what: String,
    log: PathBuf,
    describe: Describe,
    began: Instant,
    told: Instant,
}

impl Running {
    fn line(&self) -> String {
        // A log that is not there yet is an empty one.
        let log = fs::read(&self.log).unwrap_or_default();
        let state = (self.describe)(&String::from_utf8_lossy(&log));
        let separator = if state.is_empty() { "" } else { ": " };
        format!(
            "  {} {}{separator}{state}",
            clock(self.began.elapsed()),
            self.what
        )
        .chars()
        .take(WIDTH)
        .collect()
    }
}

impl Screen {
    /// Standard output, and a thread that keeps the running line up to date.
    pub fn new() -> Arc<Self> {
        let screen = Arc::new(Self {
            terminal: stdout().is_terminal(),
            running: Mutex::default(),
        });
        let tick = Arc::clone(&screen);
        thread::spawn(move || {
            loop {
                thread::sleep(TICK);
                tick.draw();
            }
        });
        screen
    }

    /// Shows how far a tool has come, until [`Screen::stop`].
    pub fn run(&self, what: &str, log: &Path, describe: Describe) {
        let mut running = self.lock();
        let new = Running {
            what: what.to_owned(),
            log: log.to_owned(),
            describe,
            began: Instant::now(),
            told: Instant::now(),
        };
        if !self.terminal {
            write(&format!("  {what} …\n"));
        }
        *running = Some(new);
    }

    /// Takes the running line away.
    pub fn stop(&self) {
        let mut running = self.lock();
        if running.take().is_some() {
            self.clear();
        }
    }

    /// A line.
    pub fn line(&self, text: &str) {
        let _running = self.lock();
        self.clear();
        write(&format!("{text}\n"));
    }

    /// A line that begins something.
    pub fn heading(&self, text: &str) {
        self.line(&format!("\n{}", self.styled("1", text)));
    }

    /// A command, as it is typed.
    pub fn command(&self, text: &str) {
        self.line(&self.styled("1", &format!("# {text}")));
    }

    /// How a command has ended, and whether that and what it has said is as promised.
    pub fn verdict(&self, code: i32, complaint: Option<&str>, promise: &str) {
        self.line(&match complaint {
            None => self.styled("32", &format!("  exit code {code}, as promised: {promise}")),
            Some(complaint) => self.styled(
                "31",
                &format!("  NOT AS PROMISED ({promise}): exit code {code}; {complaint}"),
            ),
        });
    }

    /// `style` is a parameter of SGR. Source: console_codes(4).
    fn styled(&self, style: &str, text: &str) -> String {
        if self.terminal {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn draw(&self) {
        let mut running = self.lock();
        let Some(running) = running.as_mut() else {
            return;
        };
        if self.terminal {
            let line = running.line();
            self.clear();
            write(&line);
        } else if running.told.elapsed() >= PLAIN_TICK {
            running.told = Instant::now();
            write(&format!("{}\n", running.line()));
        }
    }

    fn clear(&self) {
        if self.terminal {
            write("\r\x1b[K");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where nobody reads any more there is nobody to tell.
fn write(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Minutes and seconds.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// The last line of a log that says anything.
pub fn last_line(log: &str) -> String {
    log.lines()
        .rev()
        .map(|line| printable(line.as_bytes()).trim().to_owned())
        .find(|line| !line.is_empty())
        .unwrap_or_default()
}

/// What mmdebstrap says as it goes on, and what comes after it.
const SYSTEM: [(&str, &str); 8] = [
    ("I: running apt-get update", "reading package lists"),
    ("I: downloading packages", "downloading packages"),
    ("I: extracting archives", "unpacking the essential packages"),
    (
        "I: installing essential",
        "installing the essential packages",
    ),
    (
        "I: installing remaining",
        "installing systemd, the kernel, dracut, pacman …",
    ),
    (
        "I: running --customize-hook",
        "listing the kernel's modules",
    ),
    ("I: cleaning package lists", "cleaning up"),
    (
        ":: Synchronizing package databases",
        "making the package repository",
    ),
];

/// How far mmdebstrap has come.
pub fn system(log: &str) -> String {
    SYSTEM
        .iter()
        .enumerate()
        .rev()
        .find(|(_, (mark, _))| log.contains(mark))
        .map(|(index, (_, what))| format!("{} of {}, {what}", index + 1, SYSTEM.len()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thing_that_mmdebstrap_has_begun_is_what_it_does() {
        assert_eq!(system(""), "");
        let log = "I: running apt-get update...\nI: downloading packages with apt...\n";
        assert_eq!(system(log), "2 of 8, downloading packages");
    }

    #[test]
    fn a_console_is_told_by_its_last_line_with_words() {
        assert_eq!(last_line("a\n[  OK  ] b\r\n\r\n"), "[  OK  ] b");
    }
}
