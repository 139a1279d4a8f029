//! Why a machine could not be made or did not run: a sentence for a person.

use std::fmt::{self, Display};
use std::io;
use std::path::Path;

/// A sentence that names the file or the program, and the fix where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

/// What everything here returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with this sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Adds the file that an error of the system is about.
pub trait At<T> {
    /// The same result, with `path` in front of the error.
    ///
    /// # Errors
    /// The error that was there.
    fn at(self, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|error| Error(format!("{}: {error}", path.display())))
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|error| Error(format!("{}: {}", path.display(), error.desc())))
    }
}
