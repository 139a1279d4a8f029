//! [`Root`]: the directory below which files are read: `/`, `/sysroot`, or a tree that somebody wants to look at.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::failure::Failure;

/// How often a path is resolved again. Each time something else must have come in between; a second is not reached.
const RETRIES: u32 = 10_000;

/// A directory that is `/` to every path that is read through it; symbolic links cannot lead out of it.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    fd: OwnedFd,
}

impl Root {
    /// Opens a directory as root.
    ///
    /// # Errors
    /// The kernel's, where there is no such directory.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Failure> {
        let path = path.into();
        match rustix::fs::openat(
            CWD,
            &path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(fd) => Ok(Root { path, fd }),
            Err(error) => Err(Failure::new(path, "cannot open as root directory", error)),
        }
    }

    /// Where the root is, for a path of the process's own root directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is the root directory of this process.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.path == Path::new("/")
    }

    /// The name of a file of this root for messages, and for mount tables.
    #[must_use]
    pub fn join(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// Opens a path below the root; symbolic links are resolved inside it.
    ///
    /// # Errors
    /// The kernel's, as openat2(2) has them.
    pub fn open_at(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        // An empty path, for the root itself, is no path to openat2(2).
        let relative = match path.trim_start_matches('/') {
            "" => ".",
            relative => relative,
        };
        let flags = flags | OFlags::CLOEXEC;
        if self.is_own() {
            // Links resolve in it anyway, on kernels without openat2(2) and under filters that do not know it too.
            return rustix::fs::openat(&self.fd, relative, flags, Mode::empty());
        }
        let open = || {
            let inside = ResolveFlags::IN_ROOT;
            rustix::fs::openat2(&self.fd, relative, flags, Mode::empty(), inside)
        };
        // EAGAIN says that something was renamed or mounted meanwhile, anywhere, and that a ".." on the way could have led
        // out: not that anything is wrong with the path. The generator's own link has one. Source: openat2(2).
        (0..RETRIES)
            .map(|_| open())
            .find(|result| !matches!(result, Err(Errno::AGAIN)))
            .unwrap_or(Err(Errno::AGAIN))
    }

    /// Opens a directory without the right to read it; `None` where there is none.
    ///
    /// # Errors
    /// The kernel's, where the directory may be there and cannot be opened.
    pub fn directory(&self, path: &str) -> Result<Option<OwnedFd>, Failure> {
        self.or_none(path, self.open_at(path, OFlags::PATH | OFlags::DIRECTORY))
    }

    /// The same; `None` also where a symbolic link is anywhere on the way, over which systemd mounts nothing either.
    ///
    /// # Errors
    /// The kernel's, where the directory may be there and cannot be opened.
    pub fn directory_itself(&self, path: &str) -> Result<Option<OwnedFd>, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut directory = None;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let above = directory.as_ref().map_or(self.as_fd(), OwnedFd::as_fd);
            let opened = rustix::fs::openat(above, name, flags, Mode::empty());
            directory = Some(match self.or_none(path, opened)? {
                Some(opened) => opened,
                None => return Ok(None),
            });
        }
        Ok(directory)
    }

    fn or_none(
        &self,
        path: &str,
        opened: Result<OwnedFd, Errno>,
    ) -> Result<Option<OwnedFd>, Failure> {
        match opened {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(Failure::new(self.join(path), "cannot open", error)),
        }
    }

    /// Reads a file; `None` where there is none, and empty for what is no regular file: a link to /dev/null masks a
    /// configuration file.
    ///
    /// # Errors
    /// The kernel's, where the file is there and cannot be read.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.read_at_most(path, u64::MAX)
    }

    /// The same of a file that is not larger than `limit`, in bytes.
    ///
    /// # Errors
    /// The kernel's, and `EFBIG` where the file is larger.
    pub fn read_at_most(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        let fail = |error: io::Error| Failure::new(self.join(path), "cannot read", error);
        // Without O_NONBLOCK a pipe in place of a file would hold the boot.
        let fd = match self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(fail(error.into())),
        };
        let mut file = File::from(fd);
        let metadata = file.metadata().map_err(fail)?;
        let mut text = Vec::new();
        if metadata.len() > limit {
            return Err(fail(Errno::FBIG.into()));
        }
        if metadata.is_file() {
            file.read_to_end(&mut text).map_err(fail)?;
        }
        Ok(Some(text))
    }

    /// The names in a directory, `.` and `..` left out; none where there is no such directory.
    ///
    /// # Errors
    /// The kernel's, where the directory is there and cannot be read.
    pub fn names(&self, directory: &str) -> Result<Vec<OsString>, Failure> {
        let fail = |error: Errno| Failure::new(self.join(directory), "cannot read", error);
        let fd = match self.open_at(directory, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(error) => return Err(fail(error)),
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        Ok(names)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
