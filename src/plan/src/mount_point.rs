//! [`MountPoint`]: an absolute, normalised path. Construction is the only check.

use alloc::vec::Vec;
use core::fmt;

use crate::text::Shown;

/// An absolute path without `.`, `..`, doubled or trailing slashes, or NUL; one from a mount table may hold a newline.
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
        if path.first() != Some(&b'/') {
            return Err(NotAMountPoint::NotAbsolute);
        }
        if path.contains(&b'\n') {
            return Err(NotAMountPoint::ControlByte);
        }
        Self::seen(path)
    }

    /// The same of a path that is there already, such as one in a mount table: a newline is allowed.
    ///
    /// # Errors
    /// [`NotAMountPoint`], whose `Display` says what to write instead.
    pub fn seen(path: &[u8]) -> Result<Self, NotAMountPoint> {
        if path.first() != Some(&b'/') {
            return Err(NotAMountPoint::NotAbsolute);
        }
        if path.contains(&0) {
            return Err(NotAMountPoint::ControlByte);
        }
        let mut normalised = Vec::with_capacity(path.len());
        for component in path.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(NotAMountPoint::DotDot),
                name => {
                    normalised.push(b'/');
                    normalised.extend_from_slice(name);
                }
            }
        }
        if normalised.is_empty() {
            normalised.push(b'/');
        }
        Ok(MountPoint(normalised))
    }

    /// The path's bytes; `/` for the root.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path with what [`MountPoint::below`] gives after it.
    #[must_use]
    pub(crate) fn join(&self, rest: &[u8]) -> Self {
        match (self.0.as_slice(), rest) {
            (_, b"") => self.clone(),
            (b"/", rest) => MountPoint(rest.to_vec()),
            (path, rest) => MountPoint([path, rest].concat()),
        }
    }

    /// The path without its last component; `None` above the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let end = self.0.iter().rposition(|&byte| byte == b'/')?;
        match (self.0.as_slice(), end) {
            (b"/", _) => None,
            (path, 0) => Some(MountPoint(path[..1].to_vec())),
            (path, end) => Some(MountPoint(path[..end].to_vec())),
        }
    }

    /// Whether `self` lies strictly below `ancestor`. Compares components: `/variety` is not below `/var`.
    #[must_use]
    pub fn is_below(&self, ancestor: &MountPoint) -> bool {
        *self != *ancestor && self.is_at_or_below(ancestor)
    }

    /// Whether `self` is `ancestor` or lies below it.
    #[must_use]
    pub fn is_at_or_below(&self, ancestor: &MountPoint) -> bool {
        self.below(ancestor).is_some()
    }

    /// The rest of the path below `ancestor`, with its first slash; empty for `ancestor` itself, `None` outside of it.
    #[must_use]
    pub fn below(&self, ancestor: &MountPoint) -> Option<&[u8]> {
        // The root is the one path that ends in the slash itself.
        let ancestor = ancestor.0.strip_suffix(b"/").unwrap_or(&ancestor.0);
        let own = self.0.strip_suffix(b"/").unwrap_or(&self.0);
        let rest = own.strip_prefix(ancestor)?;
        matches!(rest.first(), None | Some(b'/')).then_some(rest)
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
            NotAMountPoint::ControlByte => {
                "contains a newline or a NUL byte; use a path without it"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    fn point(path: &str) -> MountPoint {
        MountPoint::new(path.as_bytes()).unwrap()
    }

    #[test]
    fn doubled_and_trailing_slashes_and_single_dots_go() {
        for path in [
            "/var/tmp",
            "/var/tmp/",
            "//var//tmp",
            "/./var/./tmp/.",
            "/var/tmp//.",
        ] {
            assert_eq!(point(path).as_bytes(), b"/var/tmp", "{path}");
        }
    }

    #[test]
    fn every_way_to_write_the_root_is_the_root() {
        for path in ["/", "//", "/.", "/./"] {
            assert_eq!(point(path).as_bytes(), b"/", "{path}");
        }
    }

    #[test]
    fn names_that_only_look_like_dots_stay() {
        assert_eq!(point("/.../..a/.b").as_bytes(), b"/.../..a/.b");
    }

    #[test]
    fn spaces_percent_signs_and_bytes_that_are_not_utf8_stay() {
        assert_eq!(
            MountPoint::new(b"/a b/100%/\xff").unwrap().as_bytes(),
            b"/a b/100%/\xff"
        );
    }

    #[test]
    fn a_relative_path_and_an_empty_one_are_refused() {
        for path in ["", "usr", "./usr", "none", " /usr"] {
            assert_eq!(
                MountPoint::new(path.as_bytes()),
                Err(NotAMountPoint::NotAbsolute),
                "{path}"
            );
        }
    }

    #[test]
    fn a_path_that_could_leave_the_place_that_was_checked_is_refused() {
        for path in ["/..", "/var/../etc", "/var/tmp/.."] {
            assert_eq!(
                MountPoint::new(path.as_bytes()),
                Err(NotAMountPoint::DotDot),
                "{path}"
            );
        }
    }

    #[test]
    fn a_newline_or_a_nul_is_refused() {
        for path in ["/a\nb", "/\0", "/a\n/.."] {
            assert_eq!(
                MountPoint::new(path.as_bytes()),
                Err(NotAMountPoint::ControlByte),
                "{path}"
            );
        }
    }

    #[test]
    fn a_newline_that_is_seen_is_a_mount_point_and_is_shown_escaped() {
        let seen = MountPoint::seen(b"/a\nb/").unwrap();
        assert_eq!(seen.as_bytes(), b"/a\nb");
        assert_eq!(seen.to_string(), "/a\\x0ab");
        assert_eq!(MountPoint::seen(b"/\0"), Err(NotAMountPoint::ControlByte));
        assert_eq!(MountPoint::seen(b"a"), Err(NotAMountPoint::NotAbsolute));
        assert_eq!(MountPoint::seen(b"/.."), Err(NotAMountPoint::DotDot));
    }

    #[test]
    fn variety_is_not_below_var() {
        assert!(point("/var/lib").is_below(&point("/var")));
        assert!(!point("/variety").is_below(&point("/var")));
        assert!(!point("/var").is_below(&point("/var/lib")));
    }

    #[test]
    fn nothing_is_below_itself_and_everything_else_is_below_the_root() {
        assert!(!point("/var").is_below(&point("/var")));
        assert!(point("/var").is_at_or_below(&point("/var")));
        assert!(point("/var").is_below(&point("/")));
        assert!(!point("/").is_below(&point("/")));
        assert!(point("/").is_at_or_below(&point("/")));
        assert!(!point("/").is_at_or_below(&point("/var")));
    }

    #[test]
    fn every_refusal_says_what_to_write_instead() {
        assert_eq!(
            NotAMountPoint::NotAbsolute.to_string(),
            "is not absolute; start it with /"
        );
        assert_eq!(
            NotAMountPoint::DotDot.to_string(),
            "contains ..; write the path that it leads to"
        );
        assert_eq!(
            NotAMountPoint::ControlByte.to_string(),
            "contains a newline or a NUL byte; use a path without it"
        );
    }
}
