//! Writes a [`UnitTree`] below the three directories of a generator.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

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
        let mut failures = Vec::new();
        let mut failed_names = Vec::new();
        for (directory, name, entry) in tree.iter() {
            let path = self.of(directory).join(name);
            let result = match entry {
                Entry::File(bytes) => create(&path, |path| write_new(path, bytes)),
                Entry::Link(target) => create(&path, |path| symlink(target, path)),
                Entry::FileNeeding(..) => continue,
            };
            match result {
                // Another generator wants the same unit; one link is enough.
                Err(error)
                    if error.kind() == ErrorKind::AlreadyExists
                        && matches!(entry, Entry::Link(_)) => {}
                Err(error) => {
                    failed_names.push(name);
                    failures.push(failure(path, error));
                }
                Ok(()) => {}
            }
        }
        for (directory, name, entry) in tree.iter() {
            let Entry::FileNeeding(needed, bytes) = entry else {
                continue;
            };
            if !failed_names.contains(needed) {
                let path = self.of(directory).join(name);
                failures.extend(
                    create(&path, |path| write_new(path, bytes))
                        .err()
                        .map(|error| failure(path, error)),
                );
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

/// Creates a file, and the directory that it lies in where that is missing.
fn create(path: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    match make(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            make(path)
        }
        result => result,
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes).inspect_err(|_| {
        // Half a unit is worse than none. If it cannot be removed, the first error says enough.
        let _ = fs::remove_file(path);
    })
}
