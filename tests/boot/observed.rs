//! What came back from a boot.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use usr_policy_tests::machine::{At, Error, Result};

use crate::journal::{self, Record};
use crate::mounts::Table;
use crate::watch::Watch;

/// The line that the guest writes to its console just before it asks to be switched off.
const SWITCHING_OFF: &str = "witness: switching off";

/// What a writer met at one moment.
#[derive(Debug, Clone)]
pub struct Moment {
    /// The answer to an append-open of a file in /usr: `OK`, or the name of an error.
    pub append: String,
    /// The mounts of PID 1.
    pub mounts: Table,
    /// CLOCK_BOOTTIME in µs.
    pub time: u64,
}

/// What a program said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

/// Everything that the guest saw of one boot.
#[derive(Debug, Clone)]
pub struct Observed {
    moments: BTreeMap<String, Moment>,
    said: BTreeMap<String, Said>,
    /// What the watch saw, from the first generator of the real root on.
    pub watch: Watch,
    /// The journal of the boot, the initramfs included.
    pub journal: Vec<Record>,
    /// All that was on the console.
    pub console: String,
}

/// What a question about a boot may be answered with: the value, or why it is not there.
pub type Answer<T> = std::result::Result<T, String>;

impl Observed {
    /// Reads what a boot has left: `console.log`, and the guest's records below `guest/`.
    ///
    /// # Errors
    /// A file that every boot leaves is not there, or is not what it should be.
    pub fn load(dir: &Path) -> Result<Self> {
        let guest = dir.join("guest");
        let (mut moments, mut said) = (BTreeMap::new(), BTreeMap::new());
        for entry in fs::read_dir(&guest).at(&guest)? {
            let path = entry.at(&guest)?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if let Some(name) = name.strip_suffix(".append") {
                moments.insert(name.to_owned(), moment(&guest, name)?);
            } else if let Some(name) = name.strip_suffix(".code") {
                said.insert(name.to_owned(), said_by(&guest, name)?);
            }
        }
        let journal = guest.join("journal.out");
        Ok(Self {
            moments,
            said,
            watch: Watch::parse(&text(&guest.join("watch"))?).map_err(Error::new)?,
            journal: journal::parse(&fs::read(&journal).at(&journal)?).map_err(Error::new)?,
            console: text(&dir.join("console.log"))?,
        })
    }

    /// Reads what a boot has left that cannot come to its end: `console.log` alone.
    ///
    /// # Errors
    /// The file is not there.
    pub fn on_the_console(dir: &Path) -> Result<Self> {
        Ok(Self {
            moments: BTreeMap::new(),
            said: BTreeMap::new(),
            watch: Watch::default(),
            journal: Vec::new(),
            console: text(&dir.join("console.log"))?,
        })
    }

    /// What was seen at a moment: `initrd`, `generator`, `early`, `local-fs`, `late`, or after a step: `step-NAME`.
    ///
    /// # Errors
    /// Nothing looked at that moment.
    pub fn moment(&self, name: &str) -> Answer<&Moment> {
        self.moments
            .get(name)
            .ok_or_else(|| format!("nothing was noted at the moment \"{name}\""))
    }

    /// When the last moment was, in µs of CLOCK_BOOTTIME.
    ///
    /// # Errors
    /// There was none.
    pub fn last_step(&self) -> Answer<u64> {
        self.moments
            .values()
            .map(|moment| moment.time)
            .max()
            .ok_or_else(|| "nothing was noted".to_owned())
    }

    /// What was said when the guest asked for something (see `guest/late`), or by a step: `step-NAME`.
    ///
    /// # Errors
    /// It was not asked.
    pub fn said(&self, name: &str) -> Answer<&Said> {
        self.said
            .get(name)
            .ok_or_else(|| format!("nothing was kept as \"{name}\""))
    }

    /// All that was said, by its name.
    pub fn everything_said(&self) -> impl Iterator<Item = (&str, &Said)> {
        self.said.iter().map(|(name, said)| (name.as_str(), said))
    }

    /// The answer to a write in a directory.
    ///
    /// # Errors
    /// Nobody wrote there.
    pub fn write(&self, dir: &str) -> Answer<&str> {
        self.said("writes")?
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(dir)?.strip_prefix('\t'))
            .ok_or_else(|| format!("{dir}: nobody tried to write there"))
    }

    /// When a unit did something, in µs of CLOCK_MONOTONIC: a property of systemctl show.
    ///
    /// # Errors
    /// It did not, in this boot.
    pub fn time(&self, unit: &str, property: &str) -> Answer<u64> {
        let id = format!("Id={unit}");
        self.said("times")?
            .stdout
            .split("\n\n")
            .find(|block| block.lines().any(|line| line == id))
            .and_then(|block| {
                block
                    .lines()
                    .find_map(|line| line.strip_prefix(property)?.strip_prefix('='))
            })
            .and_then(|value| value.parse().ok())
            .filter(|time| *time > 0)
            .ok_or_else(|| format!("{unit} has no {property}"))
    }

    /// Memory of the guest in KiB.
    ///
    /// # Errors
    /// It did not say.
    pub fn memory(&self) -> Answer<u64> {
        self.said("memory")?
            .stdout
            .lines()
            .find_map(|line| {
                line.strip_prefix("MemTotal:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse()
                    .ok()
            })
            .ok_or_else(|| "/proc/meminfo has no MemTotal".to_owned())
    }

    /// The version of systemd in the guest.
    ///
    /// # Errors
    /// It did not say.
    pub fn systemd(&self) -> Answer<u32> {
        let version = &self.said("version")?.stdout;
        let number = version.split(' ').nth(1).unwrap_or_default();
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        digits
            .parse()
            .map_err(|_| format!("not a version of systemd: {version}"))
    }

    /// The console from the moment when the machine was asked to switch off.
    ///
    /// # Errors
    /// It never was.
    pub fn shutdown(&self) -> Answer<&str> {
        let at = self
            .console
            .find(SWITCHING_OFF)
            .ok_or("the guest never came to its shutdown")?;
        Ok(&self.console[at..])
    }
}

fn moment(guest: &Path, name: &str) -> Result<Moment> {
    let file = |what: &str| guest.join(format!("{name}.{what}"));
    let time = text(&file("time"))?;
    Ok(Moment {
        append: text(&file("append"))?,
        mounts: Table::parse(&text(&file("mountinfo"))?).map_err(Error::new)?,
        time: time
            .parse()
            .map_err(|_| Error::new(format!("{}: not a time: {time}", file("time").display())))?,
    })
}

fn said_by(guest: &Path, name: &str) -> Result<Said> {
    let file = |what: &str| guest.join(format!("{name}.{what}"));
    let code = text(&file("code"))?;
    Ok(Said {
        stdout: text(&file("out"))?,
        stderr: text(&file("err"))?,
        code: code
            .trim()
            .parse()
            .map_err(|_| Error::new(format!("{}: not a number: {code}", file("code").display())))?,
    })
}

/// A file as text; bytes that are none are replaced.
fn text(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path).at(path)?).into_owned())
}
