//! [`Failure`]: something that was tried and did not work.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where, what went wrong, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// The file or directory.
    pub path: PathBuf,
    /// What was tried: "cannot read".
    pub attempt: &'static str,
    /// What the kernel said.
    pub error: io::Error,
    /// What a person can do; empty where the kernel's word says it.
    pub remedy: &'static str,
}

impl Failure {
    /// A failure that explains itself.
    pub fn new(
        path: impl Into<PathBuf>,
        attempt: &'static str,
        error: impl Into<io::Error>,
    ) -> Self {
        Failure {
            path: path.into(),
            attempt,
            error: error.into(),
            remedy: "",
        }
    }

    /// The same failure of another file or directory.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    /// Adds what a person can do.
    #[must_use]
    pub fn with_remedy(mut self, remedy: &'static str) -> Self {
        self.remedy = remedy;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}",
            self.path.display(),
            self.attempt,
            Reason(&self.error)
        )?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl Failure {
    /// What went wrong, for a line that names the file by itself.
    #[must_use]
    pub fn what(&self) -> String {
        format!("{}: {}", self.attempt, Reason(&self.error))
    }
}

/// The kernel's words as in strerror(3), without Rust's "(os error 30)".
struct Reason<'a>(&'a io::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(
            text.split_once(" (os error")
                .map_or(text.as_str(), |(words, _)| words),
        )
    }
}
