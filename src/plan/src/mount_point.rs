//! [`MountPoint`]: an absolute, normalised path. Construction is the only check.

use alloc::vec::Vec;
use core::fmt;

use crate::text::Shown;

/// An absolute path without `.`, `..`, doubled or trailing slashes, NUL or newline.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountPoint(Vec<u8>);

/// Why bytes are not a mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAMountPoint {
    /// It does not start with `/`.
    NotAbsolute,
    /// A component is `..`, which could leave the place that was checked.
    DotDot,
    /// A NUL or newline, which no unit file or mount table can carry unharmed.
    ControlByte,
}

impl MountPoint {
    /// Checks and normalises a path: doubled and trailing slashes and `.` components go, everything else stays.
    ///
    /// # Errors
    /// [`NotAMountPoint`], whose `Display` says what to write instead.
    pub fn new(path: &[u8]) -> Result<Self, NotAMountPoint> {
        todo!("{path:?}")
    }

    /// The path's bytes; `/` for the root.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether `self` lies strictly below `ancestor`. Compares components: `/variety` is not below `/var`.
    #[must_use]
    pub fn is_below(&self, ancestor: &MountPoint) -> bool {
        todo!("{ancestor:?}")
    }
}

impl fmt::Debug for MountPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MountPoint({self})")
    }
}

impl fmt::Display for MountPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(&self.0).fmt(f)
    }
}

impl fmt::Display for NotAMountPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotAMountPoint::NotAbsolute => "is not absolute; start it with /",
            NotAMountPoint::DotDot => "contains ..; write the path that it leads to",
            NotAMountPoint::ControlByte => "contains a newline or a NUL byte; use a path without it",
        })
    }
}
