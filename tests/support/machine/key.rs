//! Names for what is made: a hash of everything that went into it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::{At, Result};

/// Hex digits of a key. 64 bits are plenty for a few dozen things, and short enough to read aloud.
const DIGITS: usize = 16;

/// A key that is being made.
#[derive(Clone, Default)]
pub struct Key(Sha256);

impl Key {
    /// A key of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one part. Its length goes in as well, so that two parts never read as one.
    #[must_use]
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.0.update(part.len().to_le_bytes());
        self.0.update(part);
        self
    }

    /// Adds a directory: names, modes, link targets and contents, in the order of names; no times, no owners.
    ///
    /// # Errors
    /// Something below `dir` cannot be read.
    pub fn with_tree(mut self, dir: &Path) -> Result<Self> {
        let mut names = fs::read_dir(dir)
            .and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.file_name()))
                    .collect::<std::io::Result<Vec<_>>>()
            })
            .at(dir)?;
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let meta = fs::symlink_metadata(&path).at(&path)?;
            self = self.with(name.as_bytes());
            if meta.is_symlink() {
                self = self
                    .with("link")
                    .with(fs::read_link(&path).at(&path)?.as_os_str().as_bytes());
            } else if meta.is_dir() {
                self = self.with("dir").with_tree(&path)?.with("end");
            } else {
                self = self
                    .with(meta.permissions().mode().to_le_bytes())
                    .with(fs::read(&path).at(&path)?);
            }
        }
        Ok(self)
    }

    /// The key as text.
    #[must_use]
    pub fn text(self) -> String {
        let mut text = hex(&self.0.finalize());
        text.truncate(DIGITS);
        text
    }
}

/// Bytes as hex digits, two each.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
        text
    })
}
