//! Writes a [`UnitTree`] below the three directories of a generator.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, symlinkat, unlinkat};
use rustix::io::Errno;
use usr_policy_plan::unit::{Directory, Entry, UnitTree};

use crate::failure::Failure;

/// The three directories that systemd gives a generator. Source: systemd.generator(7).
#[derive(Debug, Clone)]
pub struct UnitDirs {
    /// argv\[1\].
    pub normal: PathBuf,
    /// argv\[2\].
    pub early: PathBuf,
    /// argv\[3\].
    pub late: PathBuf,
}

impl UnitDirs {
    /// Writes every entry that can be written, and says which could not. A file is there whole, or not at all; one that
    /// somebody else has written stays as it is.
    #[must_use]
    pub fn write(&self, tree: &UnitTree) -> Vec<Failure> {
        let outputs = [&self.normal, &self.early, &self.late].map(|path| Output::open(path));
        let mut failures = Vec::new();
        let mut failed_names = Vec::new();
        // What needs another file comes when it is known whether that one is complete.
        let entries = || tree.iter();
        let needing = |entry: &Entry| matches!(entry, Entry::FileNeeding(..));
        let order = entries()
            .filter(|(.., entry)| !needing(entry))
            .chain(entries().filter(|(.., entry)| needing(entry)));
        for (directory, name, entry) in order {
            if let Entry::FileNeeding(needed, _) = entry
                && failed_names.contains(needed)
            {
                continue;
            }
            let output = &outputs[directory as usize];
            if let Err(error) = output
                .as_ref()
                .map_or_else(|error| Err(*error), |output| output.write(name, entry))
            {
                failed_names.push(name);
                failures.push(failure(self.of(directory).join(name), error.into()));
            }
        }
        failures
    }

    fn of(&self, directory: Directory) -> &Path {
        match directory {
            Directory::Normal => &self.normal,
            Directory::Early => &self.early,
            Directory::Late => &self.late,
        }
    }
}

fn failure(path: PathBuf, error: io::Error) -> Failure {
    let taken = error.kind() == ErrorKind::AlreadyExists;
    let failure = Failure::new(path, "cannot write", error);
    if taken {
        failure
            .with_remedy("another generator wrote it first, and usr-policy leaves it to that one")
    } else {
        failure
    }
}

/// One of the directories, open.
struct Output(OwnedFd);

impl Output {
    fn open(path: &Path) -> Result<Self, Errno> {
        let open = || {
            openat(
                CWD,
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        match open() {
            // systemd makes them; a test call by hand may not.
            Err(Errno::NOENT) if fs::create_dir_all(path).is_ok() => open().map(Output),
            result => result.map(Output),
        }
    }

    /// Creates a file or a link, and the directory that it lies in where that is missing.
    fn write(&self, name: &str, entry: &Entry) -> Result<(), Errno> {
        let make = || match entry {
            Entry::File(bytes) | Entry::FileNeeding(_, bytes) => self.write_new(name, bytes),
            // Another generator wants the same unit; one link is enough.
            Entry::Link(target) => match symlinkat(target.as_str(), &self.0, name) {
                Err(Errno::EXIST) => Ok(()),
                result => result,
            },
        };
        match (make(), name.rsplit_once('/')) {
            (Err(Errno::NOENT), Some((parent, _))) => {
                match mkdirat(&self.0, parent, Mode::from_raw_mode(0o755)) {
                    Err(error) if error != Errno::EXIST => Err(error),
                    _ => make(),
                }
            }
            (result, _) => result,
        }
    }

    fn write_new(&self, name: &str, bytes: &[u8]) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.0, name, flags, Mode::from_raw_mode(0o644))?;
        File::from(file).write_all(bytes).map_err(|error| {
            // Half a unit is worse than none. If it cannot be removed, the first error says enough.
            let _ = unlinkat(&self.0, name, AtFlags::empty());
            Errno::from_io_error(&error).unwrap_or(Errno::IO)
        })
    }
}
