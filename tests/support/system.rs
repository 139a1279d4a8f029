//! A throw-away system in namespaces of its own: this machine's root as the lower layer of an overlay, the installed
//! tree over it, and a process that is PID 1. Real syscalls, real mount(8), no boot.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::golden::below;
use crate::privilege::{bind, in_own_mounts, tmpfs};
use crate::product;
use crate::verdict;

/// The options of verify that print a text.
const TEXTUAL: [&str; 3] = ["--all", "--quiet", "--format=text"];

/// The boot program, as units and hooks call it.
pub const GENERATOR: &str = "/usr/lib/usr-policy/usr-policy-generator";

/// The words before a command that a user without rights runs.
pub const NOBODY: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// A copy of the installed tree on a file system of its own: no layer of an overlay may lie in another one.
///
/// It is made while there is one thread, because a program cannot be run while a process that another thread starts
/// still holds it open for writing.
#[derive(Debug)]
pub struct Installed {
    _scratch: Scratch,
}

/// A temporary directory with a tmpfs of its own, for a mount namespace of the test's own.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Makes the directory and mounts the tmpfs.
    ///
    /// # Panics
    /// Where that cannot be done.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        tmpfs(directory.path(), "mode=0755");
        Scratch(directory)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A directory that something is mounted on cannot be removed.
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

static INSTALLED: OnceLock<PathBuf> = OnceLock::new();

impl Installed {
    /// Copies the stage, in a mount namespace of this process. Systems can be made as long as it is there.
    ///
    /// # Panics
    /// Where that cannot be done, or was done before.
    #[must_use]
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let scratch = Scratch::new();
        let copied = Command::new("cp")
            .args(["--recursive", "--preserve=mode", "--no-target-directory"])
            .arg(product::stage())
            .arg(scratch.path())
            .status();
        assert!(copied.unwrap().success());
        INSTALLED.set(scratch.path().to_owned()).unwrap();
        Installed { _scratch: scratch }
    }
}

impl Default for Installed {
    fn default() -> Self {
        Self::new()
    }
}

/// The copy of the installed tree.
///
/// # Panics
/// Before it was made.
#[must_use]
pub fn installed() -> &'static Path {
    INSTALLED.get().expect("Installed::new() comes first")
}

/// The system; the calling thread is in its mount namespace, but not in its root.
#[derive(Debug)]
pub struct System {
    scratch: Scratch,
    first: Child,
}

/// A line of the mount table, read without any code of the product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number, which another mount may have after it.
    pub id: u64,
    /// Where it is mounted, in the system.
    pub mount_point: String,
    /// The options of this mount.
    pub options: Vec<String>,
    /// The number of its peer group.
    pub peer_group: Option<u64>,
    /// The file system's type.
    pub fs_type: String,
    /// What whoever mounted it has called it.
    pub source: String,
}

impl System {
    /// Runs a function in a system of its own, whose kernel was given `cmdline`.
    ///
    /// # Panics
    /// With the function, or where the system cannot be made.
    pub fn with<T: Send>(cmdline: &str, function: impl FnOnce(&System) -> T + Send) -> T {
        Self::mounted_with(cmdline, MsFlags::empty(), function)
    }

    /// The same with another tree below it than this machine's root.
    ///
    /// # Panics
    /// With the function, or where the system cannot be made.
    pub fn of_tree<T: Send>(
        tree: &Path,
        cmdline: &str,
        function: impl FnOnce(&System) -> T + Send,
    ) -> T {
        Self::made_with(cmdline, tree, MsFlags::empty(), function)
    }

    /// The same, with flags for the mount of the root.
    ///
    /// # Panics
    /// With the function, or where the system cannot be made.
    pub fn mounted_with<T: Send>(
        cmdline: &str,
        flags: MsFlags,
        function: impl FnOnce(&System) -> T + Send,
    ) -> T {
        Self::made_with(cmdline, Path::new("/"), flags, function)
    }

    fn made_with<T: Send>(
        cmdline: &str,
        tree: &Path,
        flags: MsFlags,
        function: impl FnOnce(&System) -> T + Send,
    ) -> T {
        in_own_mounts(|| {
            let mut system = System::new(tree, flags);
            system.boot_with(cmdline);
            let result = catch_unwind(AssertUnwindSafe(|| function(&system)));
            // With PID 1 ends everything that it is PID 1 to.
            let _ = system.first.kill();
            if result.is_ok() {
                // After a panic it could wait for a process that nobody waits for any more.
                let _ = system.first.wait();
            }
            result.unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn new(tree: &Path, flags: MsFlags) -> Self {
        let scratch = Scratch::new();
        let base = scratch.path();
        for name in ["upper", "work", "root", "run", "dev", "plain"] {
            fs::create_dir(base.join(name)).unwrap();
        }
        let options = format!(
            "lowerdir={}:{},upperdir={base}/upper,workdir={base}/work",
            installed().display(),
            tree.display(),
            base = base.display()
        );
        let root = base.join("root");
        mount(
            Some("root"),
            &root,
            Some("overlay"),
            flags,
            Some(options.as_str()),
        )
        .unwrap();
        // As PID 1 makes it.
        let shared = MsFlags::MS_SHARED;
        mount(None::<&str>, &root, None::<&str>, shared, None::<&str>).unwrap();

        for path in ["etc/usr-policy.conf", "etc/usr-policy.conf.d", "var/tmp"] {
            let path = root.join(path);
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir_all(&path);
        }
        for path in ["var/tmp", "var/lib/pacman/local", "var/cache/pacman/pkg"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::write(root.join("etc/fstab"), "").unwrap();
        // sd_booted(3)
        fs::create_dir_all(base.join("run/systemd/system")).unwrap();
        bind(&base.join("run"), &root.join("run"));
        bind(&base.join("dev"), &root.join("dev"));
        for name in ["cmdline", "dev/kmsg", "dev/null"] {
            fs::write(base.join(name), "").unwrap();
        }
        bind(Path::new("/dev/null"), &root.join("dev/null"));
        // For what is run as in an initramfs, with this machine's root as its own.
        bind(&base.join("cmdline"), Path::new("/proc/cmdline"));
        bind(&base.join("dev/kmsg"), Path::new("/dev/kmsg"));
        bind(&base.join("run"), Path::new("/run"));

        // The next process of this thread is PID 1 of a new namespace.
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let mut first = chroot(&root)
            .args([
                "sh",
                "-c",
                "mount -t proc proc /proc && echo ready && exec sleep infinity",
            ])
            // Tests may run in a container, and it is none.
            .env_remove("container")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(first.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        bind(&base.join("cmdline"), &root.join("proc/cmdline"));
        System { scratch, first }
    }

    /// Changes the kernel command line.
    ///
    /// # Panics
    /// Where that cannot be done.
    pub fn boot_with(&self, cmdline: &str) {
        fs::write(self.base().join("cmdline"), format!("{cmdline}\n")).unwrap();
    }

    /// Where the system keeps what is not its own.
    #[must_use]
    pub fn base(&self) -> &Path {
        self.scratch.path()
    }

    /// The root directory, as the calling thread sees it.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.base().join("root")
    }

    /// A path of the system, as the calling thread sees it.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        below(&self.root(), path)
    }

    /// Writes a file of the system.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A command in the system.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = chroot(&self.root());
        command.args(words);
        command
    }

    /// A command in the system, and what strace(1) makes of one of its system calls, in the words of its `inject=`.
    #[must_use]
    pub fn with_call(&self, call: &str, becomes: &str, words: &[&str]) -> Command {
        let (trace, inject) = (
            format!("--trace={call}"),
            format!("--inject={call}:{becomes}"),
        );
        let strace = ["strace", "-f", "-qqq", "-o", "/dev/null", &trace, &inject];
        self.command(&[&strace, words].concat())
    }

    /// A command in the system, of a user without rights.
    #[must_use]
    pub fn as_nobody(&self, words: &[&str]) -> Command {
        self.command(&[NOBODY, words].concat())
    }

    /// Runs a command in the system, which must succeed.
    ///
    /// # Panics
    /// Where it fails.
    pub fn does(&self, words: &[&str]) {
        let ran = self.command(words).output().unwrap();
        assert!(ran.status.success(), "{words:?}: {ran:?}");
    }

    /// Runs the boot program in the real root: exit code and log.
    ///
    /// # Panics
    /// Where it cannot be run, or prints anything.
    #[must_use]
    pub fn generator(&self, words: &[&str]) -> (i32, String) {
        let command = [&[GENERATOR], words].concat();
        self.logged(&mut self.command(&command))
    }

    /// Runs a stage as the initramfs does, on the root that is mounted at `root`: exit code and log.
    ///
    /// # Panics
    /// Where it cannot be run, or prints anything.
    #[must_use]
    pub fn initramfs(&self, root: impl AsRef<OsStr>, stage: &str) -> (i32, String) {
        let mut command = Command::new(installed().join(product::BOOT_PROGRAM));
        command
            .args(["apply", "--root"])
            .arg(root)
            .args(["--stage", stage]);
        self.logged(&mut command)
    }

    /// The early stage on the system's root.
    ///
    /// # Panics
    /// Where it cannot be run, or prints anything.
    #[must_use]
    pub fn early(&self) -> (i32, String) {
        self.initramfs(self.root(), "early")
    }

    /// The late stage on the system's root.
    ///
    /// # Panics
    /// Where it cannot be run, or prints anything.
    #[must_use]
    pub fn late(&self) -> (i32, String) {
        self.initramfs(self.root(), "late")
    }

    /// The log, as it is now.
    ///
    /// # Panics
    /// Where it cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.base().join("dev/kmsg")).unwrap()
    }

    /// Runs a command of ours: exit code and log, without the head of each record but its priority.
    ///
    /// # Panics
    /// Where it cannot be run, or prints anything.
    #[must_use]
    pub fn logged(&self, command: &mut Command) -> (i32, String) {
        let kmsg = self.base().join("dev/kmsg");
        fs::write(&kmsg, "").unwrap();
        let ran: Output = command.output().unwrap();
        assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");
        let log = String::from_utf8(fs::read(&kmsg).unwrap()).unwrap();
        let lines = log.lines().map(|line| {
            let (head, text) = line.split_once("]: ").unwrap_or((line, ""));
            let priority = head.split_once("usr-policy-generator[");
            let (priority, _) = priority.unwrap_or_else(|| panic!("{line}: not a record of ours"));
            let text = text.replace(self.root().to_str().unwrap(), "ROOT");
            format!("{priority} {text}\n")
        });
        (ran.status.code().unwrap(), lines.collect())
    }

    /// Runs `usr-policy`: exit code, standard output, standard error. Whoever asks for the verdict as text gets it as an object
    /// too, and that must be what the schema says.
    ///
    /// # Panics
    /// Where it cannot be run, or prints another object.
    #[must_use]
    pub fn program(&self, words: &[&str]) -> (i32, String, String) {
        if words.first() == Some(&"verify") && words[1..].iter().all(|word| TEXTUAL.contains(word))
        {
            let (_, text, _) = self.printed(&["verify", "--json"]);
            verdict::object(&text).unwrap();
        }
        self.printed(words)
    }

    fn printed(&self, words: &[&str]) -> (i32, String, String) {
        let command = [&["/usr/bin/usr-policy"], words].concat();
        let ran = self.command(&command).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            ran.status.code().unwrap(),
            text(ran.stdout),
            text(ran.stderr),
        )
    }

    /// Makes a directory that systemd-sysext(8) merges.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn extension(&self, name: &str) {
        let tree = format!("/var/lib/extensions/{name}/usr");
        self.write(&format!("{tree}/share/{name}"), "");
        let release = format!("{tree}/lib/extension-release.d/extension-release.{name}");
        self.write(&release, "ID=_any\n");
    }

    /// Tries to write in a directory, by making a file and removing it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_in(&self, directory: &str) -> io::Result<()> {
        let probe = self.path(directory).join(".probe");
        OpenOptions::new()
            .write(true)
            // One stays where the directory is closed before it is removed.
            .create(true)
            .truncate(true)
            .open(&probe)?;
        fs::remove_file(probe)
    }

    /// Whether a follower has its file locked.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        let file = File::open(self.path("/run/usr-policy/following"));
        file.is_ok_and(|file| file.try_lock_shared().is_err())
    }

    /// Lets it look as if one had, until this process ends.
    ///
    /// # Panics
    /// Where one has.
    pub fn pretend_to_follow(&self) {
        fs::create_dir_all(self.path("/run/usr-policy")).unwrap();
        let path = self.path("/run/usr-policy/following");
        fs::write(&path, "").unwrap();
        // For reading: what is open for writing keeps /run from becoming read-only.
        let file = File::open(path).unwrap();
        file.try_lock().unwrap();
        std::mem::forget(file);
    }

    /// Whether a directory is read-only, by trying.
    ///
    /// # Panics
    /// Where writing fails for another reason.
    #[must_use]
    pub fn is_read_only(&self, directory: &str) -> bool {
        match self.write_in(directory) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => true,
            Err(error) => panic!("{directory}: {error}"),
        }
    }

    /// The mount table, in the kernel's order.
    ///
    /// # Panics
    /// Where it cannot be read.
    #[must_use]
    pub fn mounts(&self) -> Vec<Line> {
        // Not /proc/self, which is the first thread's.
        let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let root = self.root();
        let lines = text.lines().filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let below = Path::new(words[4]).strip_prefix(&root).ok()?;
            let end = words.iter().position(|word| *word == "-").unwrap();
            let peer_group = words[6..end]
                .iter()
                .find_map(|word| word.strip_prefix("shared:"));
            Some(Line {
                id: words[0].parse().unwrap(),
                mount_point: Path::new("/").join(below).to_str().unwrap().to_owned(),
                options: words[5].split(',').map(str::to_owned).collect(),
                peer_group: peer_group.map(|number| number.parse().unwrap()),
                fs_type: words[end + 1].to_owned(),
                source: words[end + 2].to_owned(),
            })
        });
        lines.collect()
    }

    /// The mounts at a path, the first one first.
    #[must_use]
    pub fn mounts_at(&self, path: &str) -> Vec<Line> {
        let mut mounts = self.mounts();
        mounts.retain(|line| line.mount_point == path);
        mounts
    }
}

/// The follower, until it is dropped.
#[derive(Debug)]
pub struct Follower(Child);

impl Follower {
    /// Whether it has ended by itself.
    ///
    /// # Panics
    /// Where that cannot be asked.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Starts it, as its unit does.
    ///
    /// # Panics
    /// Where that cannot be done.
    #[must_use]
    pub fn start(system: &System) -> Self {
        let follower = Follower(system.command(&[GENERATOR, "follow"]).spawn().unwrap());
        let began = Instant::now();
        while !system.is_followed() {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "it did not begin"
            );
            sleep(Duration::from_millis(1));
        }
        follower
    }

    /// The number of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// A number in proc_pid_status(5); of memory, in KiB.
    ///
    /// # Panics
    /// Where it has ended, or the kernel has no such number.
    #[must_use]
    pub fn status(&self, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(key));
        let value = value.and_then(|value| value.strip_prefix(':'));
        let number = value.and_then(|value| value.split_whitespace().next());
        number.unwrap().parse().unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so.
///
/// # Panics
/// Where it is not within twenty seconds.
pub fn becomes(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
        sleep(Duration::from_millis(2));
    }
}

/// A process that has a file open for writing. No descriptor of ours: every process that another thread starts would
/// hold it open for a moment too.
#[derive(Debug)]
pub struct Writer {
    process: Child,
}

/// Opens the file that is its name, and keeps it open until its input ends.
const OPEN: &str = "exec 3>>\"$0\" && echo open && read end";

impl Writer {
    /// Opens a file of the system, and creates it.
    ///
    /// # Panics
    /// Where that cannot be done.
    #[must_use]
    pub fn of(system: &System, path: &str) -> Self {
        Self::by(system.command(&["sh", "-c", OPEN, path]))
    }

    /// The same of a path in another root, a directory of the system with a busybox in it.
    ///
    /// # Panics
    /// Where that cannot be done.
    #[must_use]
    pub fn in_root(system: &System, root: &str, path: &str) -> Self {
        Self::by(system.command(&["chroot", root, "/busybox", "sh", "-c", OPEN, path]))
    }

    fn by(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "open\n");
        Writer { process }
    }

    /// Closes the file.
    ///
    /// # Panics
    /// Where the process cannot be waited for.
    pub fn end(mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }
}

impl Line {
    /// Whether the mount has an option, as a whole word.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
}

fn chroot(root: &Path) -> Command {
    let mut command = crate::golden::chroot(root);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin")
        .env("LC_ALL", "C.UTF-8");
    command
}
