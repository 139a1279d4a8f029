//! The golden folders: a small root, and what the boot program makes of it.
//!
//! ```text
//! <sentence>/input/            the root: proc/cmdline, etc/fstab, etc/usr-policy.conf, …
//! <sentence>/environment       variables of the boot program, a line each; none where it is missing
//! <sentence>/directories       its arguments, a line each; the three of systemd where it is missing
//! <sentence>/normal early late its output, byte for byte
//! <sentence>/kmsg exit         its log, with PID for the number, and its exit code
//! <sentence>/initramfs         what the stages of the initramfs would do, as usr-policy plan tells it
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::product;

/// The directories that systemd gives its generators, in the order of their arguments.
pub const DIRECTORIES: [(&str, &str); 3] = [
    ("normal", "/run/systemd/generator"),
    ("early", "/run/systemd/generator.early"),
    ("late", "/run/systemd/generator.late"),
];

/// A golden folder.
#[derive(Debug, Clone)]
pub struct Case {
    /// The sentence that is its name.
    pub name: String,
    /// Where it is.
    pub folder: PathBuf,
}

/// A file's bytes or a link's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File(Vec<u8>),
    /// A symbolic link.
    Link(PathBuf),
}

/// Files and links by their path below a directory.
pub type Tree = BTreeMap<PathBuf, Entry>;

/// What one run of the boot program came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Result {
    /// What lies in the three directories afterwards, below `normal`, `early` and `late`.
    pub output: Tree,
    /// The records, with PID for the number.
    pub kmsg: Vec<u8>,
    /// The exit code.
    pub exit: i32,
}

/// All golden folders, by name.
///
/// # Panics
/// Where there are none.
#[must_use]
pub fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut cases: Vec<Case> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| {
            let entry = entry.unwrap();
            Case {
                name: entry.file_name().into_string().unwrap(),
                folder: entry.path(),
            }
        })
        .collect();
    assert!(!cases.is_empty(), "{}: no folders", directory.display());
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

impl Case {
    /// The folder with this name.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let found = cases().into_iter().find(|case| case.name == name);
        found.unwrap_or_else(|| panic!("tests/golden/{name}: there is no such folder"))
    }

    /// The kernel command line of the input; `None` where the input has no /proc.
    #[must_use]
    pub fn cmdline(&self) -> Option<Vec<u8>> {
        fs::read(self.folder.join("input/proc/cmdline")).ok()
    }

    /// Whether the boot program is given one directory for everything.
    #[must_use]
    pub fn has_one_directory(&self) -> bool {
        self.lines_of("directories")
            .is_some_and(|lines| lines.len() == 1)
    }

    fn lines_of(&self, name: &str) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.folder.join(name)).ok()?;
        Some(text.lines().map(str::to_owned).collect())
    }

    /// A copy of the input, with the boot program and what systemd has made before it runs a generator.
    #[must_use]
    pub fn root(&self) -> TempDir {
        // Beside the stage, to link the program: while a copy is being written, a process that another thread starts holds
        // it open, and it cannot be run (ETXTBSY).
        let root = tempfile::tempdir_in(product::stage().parent().unwrap()).unwrap();
        copy(&self.folder.join("input"), root.path());
        let program = root.path().join(product::BOOT_PROGRAM);
        let generators = root.path().join("usr/lib/systemd/system-generators");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::create_dir_all(&generators).unwrap();
        fs::hard_link(product::boot_program(), &program).unwrap();
        // Any program: that it is there says that generators are run.
        let systemd = root.path().join("usr/lib/systemd/systemd");
        fs::hard_link(product::boot_program(), systemd).unwrap();
        symlink(
            "../../usr-policy/usr-policy-generator",
            generators.join("usr-policy-generator"),
        )
        .unwrap();
        for (_, directory) in DIRECTORIES {
            fs::create_dir_all(below(root.path(), directory)).unwrap();
        }
        root
    }

    /// Runs the boot program in a root that [`Case::root`] made, as PID 1 runs a generator.
    #[must_use]
    pub fn run_in(&self, root: &Path) -> Output {
        fs::create_dir_all(root.join("dev")).unwrap();
        fs::write(root.join("dev/kmsg"), "").unwrap();
        fs::write(root.join("dev/null"), "").unwrap();
        let three = || DIRECTORIES.map(|(_, path)| path.to_owned()).to_vec();
        chroot(root)
            .arg("/usr/lib/systemd/system-generators/usr-policy-generator")
            .args(self.lines_of("directories").unwrap_or_else(three))
            .env_clear()
            .envs(
                self.lines_of("environment")
                    .unwrap_or_default()
                    .iter()
                    .map(|line| line.split_once('=').unwrap()),
            )
            .output()
            .unwrap()
    }

    /// Runs the boot program on a copy of the input.
    #[must_use]
    pub fn run(&self) -> Result {
        let root = self.root();
        self.result_in(root.path())
    }

    /// Runs the boot program in a root that [`Case::root`] made, and looks at what came of it.
    #[must_use]
    pub fn result_in(&self, root: &Path) -> Result {
        let ran = self.run_in(root);
        assert_eq!(
            (ran.stdout.as_slice(), ran.stderr.as_slice()),
            (&b""[..], &b""[..]),
            "a generator's output goes to the console of the boot: {ran:?}"
        );
        let exit = ran.status.code().unwrap_or_else(|| panic!("{ran:?}"));
        let mut output = Tree::new();
        for (name, directory) in DIRECTORIES {
            for (path, entry) in tree(&below(root, directory)) {
                output.insert(Path::new(name).join(path), entry);
            }
        }
        Result {
            output,
            kmsg: without_pid(&fs::read(root.join("dev/kmsg")).unwrap()),
            exit,
        }
    }

    /// What is recorded in the folder.
    #[must_use]
    pub fn recorded(&self) -> Result {
        let mut output = Tree::new();
        for (name, _) in DIRECTORIES {
            for (path, entry) in tree(&self.folder.join(name)) {
                output.insert(Path::new(name).join(path), entry);
            }
        }
        let exit = fs::read_to_string(self.folder.join("exit")).unwrap_or_default();
        Result {
            output,
            kmsg: fs::read(self.folder.join("kmsg")).unwrap_or_default(),
            exit: exit.trim_end().parse().unwrap_or(-1),
        }
    }

    /// Records what a run came to.
    pub fn record(&self, result: &Result) {
        for (name, _) in DIRECTORIES {
            let directory = self.folder.join(name);
            if directory.exists() {
                fs::remove_dir_all(&directory).unwrap();
            }
        }
        write(&self.folder, &result.output);
        fs::write(self.folder.join("kmsg"), &result.kmsg).unwrap();
        fs::write(self.folder.join("exit"), format!("{}\n", result.exit)).unwrap();
    }
}

/// A command whose root directory is `root`. Source: unshare(1).
#[must_use]
pub fn chroot(root: &Path) -> Command {
    let mut command = Command::new("/usr/bin/unshare");
    command.arg("--root").arg(root).args(["--wd", "/"]);
    command
}

/// A path of a root, as the caller sees it.
#[must_use]
pub fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Reads all files and links below a directory; none where there is no such directory.
///
/// # Panics
/// Where the directory cannot be read, or holds what a generator may not write.
#[must_use]
pub fn tree(directory: &Path) -> Tree {
    let mut tree = Tree::new();
    collect(directory, Path::new(""), &mut tree);
    tree
}

fn collect(directory: &Path, below: &Path, tree: &mut Tree) {
    let Ok(entries) = fs::read_dir(directory.join(below)) else {
        return;
    };
    for entry in entries.map(std::result::Result::unwrap) {
        let path = below.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(directory, &path, tree);
        } else if kind.is_symlink() {
            tree.insert(path, Entry::Link(fs::read_link(entry.path()).unwrap()));
        } else {
            assert!(kind.is_file(), "{}: {kind:?}", entry.path().display());
            tree.insert(path, Entry::File(fs::read(entry.path()).unwrap()));
        }
    }
}

/// Writes files and links below a directory.
///
/// # Panics
/// Where one cannot be written.
pub fn write(directory: &Path, tree: &Tree) {
    for (path, entry) in tree {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match entry {
            Entry::File(bytes) => fs::write(&path, bytes).unwrap(),
            Entry::Link(target) => symlink(target, &path).unwrap(),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let tree = tree(from);
    assert!(!tree.is_empty(), "{}: an empty root", from.display());
    write(to, &tree);
}

/// The log with PID in place of each record's number, which is all that two runs differ in.
fn without_pid(kmsg: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in kmsg.split_inclusive(|&byte| byte == b'\n') {
        let open = line.iter().position(|&byte| byte == b'[');
        let close = line.iter().position(|&byte| byte == b']');
        match (open, close) {
            (Some(open), Some(close))
                if open < close && line[open + 1..close].iter().all(u8::is_ascii_digit) =>
            {
                out.extend_from_slice(&line[..=open]);
                out.extend_from_slice(b"PID");
                out.extend_from_slice(&line[close..]);
            }
            _ => out.extend_from_slice(line),
        }
    }
    out
}

/// A tree as text, for differences that a person reads.
#[must_use]
pub fn shown(tree: &Tree) -> String {
    let mut text = String::new();
    for (path, entry) in tree {
        let path = shown_path(path);
        match entry {
            Entry::File(bytes) => {
                text += &format!("==> {path} <==\n{}\n", shown_bytes(bytes));
            }
            Entry::Link(target) => text += &format!("==> {path} -> {}\n", shown_path(target)),
        }
    }
    text
}

fn shown_path(path: &Path) -> String {
    shown_bytes(path.as_os_str().as_bytes())
}

/// Bytes as text in which each byte that is none can be seen.
#[must_use]
pub fn shown_bytes(bytes: &[u8]) -> String {
    let lines = bytes.split(|&byte| byte == b'\n');
    let lines = lines.map(|line| line.escape_ascii().to_string().replace("\\\\", "\\"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Bytes as an argument.
#[must_use]
pub fn argument(bytes: &[u8]) -> OsString {
    std::ffi::OsStr::from_bytes(bytes).to_owned()
}
