//! Who has a file open: the links of proc_pid_fd(5), and of proc_pid_map_files(5) where it has closed it since.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
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
    /// The link in /proc that leads to the file, as long as that is open or mapped.
    pub link: PathBuf,
}

impl fmt::Display for OpenFile {
    /// The process. Its name is its own choice, and must not look like a line of ours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", Shown(self.program.as_bytes()), self.pid)
    }
}

/// The files that processes have open and that pass both questions: first of the path that the kernel shows, then of the
/// link that leads to the file and of its process. What cannot be looked at is left out: for a whole answer the caller is
/// root.
pub fn open_files(
    mut has_path: impl FnMut(&[u8]) -> bool,
    mut is_it: impl FnMut(&Path, u32) -> bool,
) -> Vec<OpenFile> {
    let mut found = Vec::new();
    for (pid, process) in processes() {
        for link in descriptors(pid, &process) {
            let Ok(file) = fs::read_link(&link) else {
                continue;
            };
            if has_path(file.as_os_str().as_bytes()) && is_it(&link, pid) {
                found.push(open_file(pid, &process, file, link));
            }
        }
    }
    found
}

/// The files that processes have mapped so that what they write to that memory is written to the file: without a descriptor
/// they are open for writing all the same. The questions are those of [`open_files`].
pub fn mapped_files(
    mut has_path: impl FnMut(&[u8]) -> bool,
    mut is_it: impl FnMut(&Path) -> bool,
) -> Vec<OpenFile> {
    let mut found = Vec::new();
    for (pid, process) in processes() {
        let maps = fs::read(process.join("maps")).unwrap_or_default();
        for range in String::from_utf8_lossy(&maps).lines().filter_map(shared) {
            let link = process.join("map_files").join(range);
            let Ok(file) = fs::read_link(&link) else {
                continue;
            };
            let may_be = has_path(file.as_os_str().as_bytes()) && has_write_bit(&link);
            if may_be && is_it(&link) {
                found.push(open_file(pid, &process, file, link));
            }
        }
    }
    found
}

/// The name in `map_files` of a line of `maps` whose file is written with the memory; the one has its addresses with zeros
/// before them, the other without. Source: proc_pid_maps(5).
fn shared(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let (range, access) = (words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let without_zeros = |address: &str| address.trim_start_matches('0').to_owned();
    access
        .ends_with('s')
        .then(|| [&without_zeros(start), "-", &without_zeros(end)].concat())
}

/// Whether the file of a mapping is open for writing. Source: proc_pid_map_files(5), which has the access in the mode.
fn has_write_bit(link: &Path) -> bool {
    fs::symlink_metadata(link).is_ok_and(|link| link.permissions().mode() & 0o200 != 0)
}

/// The links of what a process has open. Where its first thread has ended that has none, but the others go on.
fn descriptors(pid: u32, process: &Path) -> Vec<PathBuf> {
    let links: Vec<PathBuf> = names(&process.join("fd")).collect();
    if !links.is_empty() {
        return links;
    }
    names(&process.join("task"))
        .filter(|thread| number(thread) != Some(pid))
        .find_map(|thread| {
            let links: Vec<PathBuf> = names(&thread.join("fd")).collect();
            (!links.is_empty()).then_some(links)
        })
        .unwrap_or_default()
}

/// Whether a descriptor of a process may be written through. Source: proc_pid_fdinfo(5), `flags` in octal.
#[must_use]
pub fn is_for_writing(link: &Path) -> bool {
    let (Some(descriptor), Some(process)) = (link.file_name(), link.ancestors().nth(2)) else {
        return false;
    };
    let text = fs::read_to_string(process.join("fdinfo").join(descriptor)).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    // O_ACCMODE; O_PATH, which gives access to nothing, has the bits of reading.
    flags.is_some_and(|flags| flags & 0o3 != 0)
}

/// Every process, by its number and its directory.
fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    names(Path::new("/proc")).filter_map(|process| Some((number(&process)?, process)))
}

fn open_file(pid: u32, process: &Path, file: PathBuf, link: PathBuf) -> OpenFile {
    OpenFile {
        pid,
        program: program(process),
        file,
        link,
    }
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
    let mut found: Vec<_> = processes().collect();
    found.sort_unstable();
    found
}

/// The name of a process, as proc_pid_comm(5) has it.
#[must_use]
pub fn program(process: &Path) -> String {
    let name = fs::read(process.join("comm")).unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii_end()).into_owned()
}
