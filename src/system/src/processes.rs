//! Who has a file open: the links of proc_pid_fd(5).

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use usr_policy_plan::text::Shown;

/// A file that a process has open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFile {
    /// The process.
    pub pid: u32,
    /// Its name, as proc_pid_comm(5) has it.
    pub program: String,
    /// The file, by the path that the kernel shows.
    pub file: PathBuf,
}

impl fmt::Display for OpenFile {
    /// The process. Its name is its own choice, and must not look like a line of ours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", Shown(self.program.as_bytes()), self.pid)
    }
}

/// The files that processes have open and that pass both questions: first of the path that the kernel shows, then of the
/// link that leads to the file and of the directory of its process. What cannot be looked at is left out: for a whole
/// answer the caller is root.
pub fn open_files(
    mut has_path: impl FnMut(&[u8]) -> bool,
    mut is_it: impl FnMut(&Path, &Path) -> bool,
) -> Vec<OpenFile> {
    let mut found = Vec::new();
    for process in names(Path::new("/proc")) {
        let Some(pid) = number(&process) else {
            continue;
        };
        for link in names(&process.join("fd")) {
            let Ok(file) = fs::read_link(&link) else {
                continue;
            };
            if has_path(file.as_os_str().as_bytes()) && is_it(&link, &process) {
                found.push(OpenFile {
                    pid,
                    program: program(&process),
                    file,
                });
            }
        }
    }
    found
}

/// Whether a descriptor of a process may be written through. Source: proc_pid_fdinfo(5), `flags` in octal.
#[must_use]
pub fn is_for_writing(link: &Path, process: &Path) -> bool {
    let Some(descriptor) = link.file_name() else {
        return false;
    };
    let text = fs::read_to_string(process.join("fdinfo").join(descriptor)).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    // O_ACCMODE; O_PATH, which gives access to nothing, has the bits of reading.
    flags.is_some_and(|flags| flags & 0o3 != 0)
}

fn names(directory: &Path) -> impl Iterator<Item = PathBuf> {
    // A process may end at any time.
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The directories of all processes, in the order of their numbers.
#[must_use]
pub fn numbered() -> Vec<(u32, PathBuf)> {
    let processes = names(Path::new("/proc"));
    let mut found: Vec<_> = processes
        .filter_map(|process| Some((number(&process)?, process)))
        .collect();
    found.sort_unstable();
    found
}

/// The name of a process, as proc_pid_comm(5) has it.
#[must_use]
pub fn program(process: &Path) -> String {
    let name = fs::read(process.join("comm")).unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii_end()).into_owned()
}
