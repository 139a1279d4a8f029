//! The verdict in the journal, and that verify leaves nothing else behind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use usr_policy_tests::privilege::has_other_users;
use usr_policy_tests::system::System;

use crate::STRICT;
use crate::apply::merge;
use crate::sandboxes::service;
use crate::verify::{DATABASE, Report, closed};

const SOCKET: &str = "/run/systemd/journal/socket";

/// A journald that only listens.
pub(crate) struct Journal(UnixDatagram);

impl Journal {
    pub(crate) fn new(system: &System) -> Self {
        let path = system.path(SOCKET);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let socket = UnixDatagram::bind(path).unwrap();
        // Whatever was sent is there already.
        socket
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        Journal(socket)
    }

    /// The next record, read as sd-journal writes it; `None` where there is none.
    pub(crate) fn next(&self) -> Option<BTreeMap<String, String>> {
        let mut buffer = vec![0; 1 << 20];
        let length = self.0.recv(&mut buffer).ok()?;
        let mut rest = &buffer[..length];
        let mut fields = BTreeMap::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|b| matches!(b, b'=' | b'\n')).unwrap();
            let name = String::from_utf8(rest[..end].to_vec()).unwrap();
            let is_short = rest[end] == b'=';
            rest = &rest[end + 1..];
            let length = if is_short {
                rest.iter().position(|b| *b == b'\n').unwrap()
            } else {
                let (length, after) = rest.split_first_chunk::<8>().unwrap();
                rest = after;
                usize::try_from(u64::from_le_bytes(*length)).unwrap()
            };
            let value = String::from_utf8(rest[..length].to_vec()).unwrap();
            assert_eq!(rest[length], b'\n');
            rest = &rest[length + 1..];
            let all: &mut String = fields.entry(name).or_default();
            if !all.is_empty() {
                all.push('\n');
            }
            all.push_str(&value);
        }
        Some(fields)
    }
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "verify of the service is one record in the journal, and nothing on standard output",
        || {
            System::with(STRICT, |system| {
                let journal = Journal::new(system);
                closed(system);
                let ran = system.program(&["verify", "--journal"]);
                assert_eq!(ran, (0, String::new(), String::new()));
                let record = journal.next().unwrap();
                let holds = "strict: Everything that is promised holds.";
                assert!(record["MESSAGE"].starts_with(holds), "{record:?}");
                assert_eq!(
                    record["MESSAGE_ID"], "36876bae71e64a5ea81a770b140c232c",
                    "{record:?}"
                );
                assert_eq!(record["PRIORITY"], "6", "{record:?}");
                assert_eq!(record["USR_POLICY_EXIT"], "0");
                assert!(!record.contains_key("USR_POLICY_BROKEN"), "{record:?}");
                assert!(journal.next().is_none());

                system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
                let ran = system.program(&["verify", "--journal"]);
                assert_eq!(ran, (1, String::new(), String::new()));
                let record = journal.next().unwrap();
                assert!(
                    record["MESSAGE"].contains("\nBROKEN: /usr: writable"),
                    "{record:?}"
                );
                assert_eq!(record["PRIORITY"], "3");
                assert_eq!(record["USR_POLICY_EXIT"], "1");
                assert_eq!(record["USR_POLICY_MODE"], "strict");
                assert!(
                    record["USR_POLICY_BROKEN"]
                        .lines()
                        .any(|line| line == "usr /usr"),
                    "{record:?}"
                );
                assert!(journal.next().is_none());
            });
        },
    ),
    ("verify of a person writes nothing to the journal", || {
        System::with(STRICT, |system| {
            let journal = Journal::new(system);
            let (exit, out, _) = system.program(&["verify"]);
            assert_eq!(exit, 1);
            assert!(!out.is_empty() && journal.next().is_none());
        });
    }),
    (
        "a verdict that the journal does not take goes to standard output",
        || {
            System::with(STRICT, |system| {
                let (exit, out, err) = system.program(&["verify", "--journal"]);
                assert_eq!(
                    err,
                    format!(
                        "usr-policy: {SOCKET}: cannot write the verdict: No such file or directory\n"
                    )
                );
                let without = system.program(&["verify"]);
                assert_eq!((exit, out), (without.0, without.1));
            });
        },
    ),
    (
        "verify starts no process, changes nothing, and opens nothing for writing",
        || {
            System::with(STRICT, |system| {
                let _journal = Journal::new(system);
                closed(system);
                system.write("/etc/usr-policy.conf", "[Policy]\nLock=merged\n");
                // Where a package manager is at work more is looked at.
                for is_at_work in [false, true] {
                    if is_at_work {
                        system.does(&["mount", "-o", "remount,bind,rw", "/var/lib/pacman"]);
                        system.write("/var/lib/pacman/db.lck", "");
                    }
                    assert_eq!(changes(system, &["verify"]), Vec::<String>::new());
                    let to_journal = changes(system, &["verify", "--journal"]);
                    let [socket, option, send] = &to_journal[..] else {
                        panic!("{to_journal:#?}");
                    };
                    assert!(socket.contains("AF_UNIX") && option.contains("SO_SNDTIMEO"));
                    assert!(send.contains(SOCKET), "{send}");
                }
                // It would be seen.
                let of_touch = seen_by_strace(system, &["touch", "/run/touched"]);
                assert!(of_touch.iter().any(|line| is_change(line)), "{of_touch:?}");
                let of_shell = seen_by_strace(system, &["sh", "-c", "true; true | true"]);
                assert!(of_shell.iter().any(|line| is_change(line)), "{of_shell:?}");
            });
        },
    ),
    (
        "no form of verify changes anything, whatever there is to look at and whoever asks",
        || {
            System::with(STRICT, |system| {
                // More is looked at where data is hidden, where there are extensions, and where processes have other mounts.
                system.write("/var/tmp/hidden/below", "x");
                system.extension("a");
                system.write("/etc/systemd/sysext.conf", "[SysExt]\nMutable=yes\n");
                closed(system);
                let mut own = service(system, "umount /var/lib/pacman");
                assert!(own.can_write(DATABASE));
                merge(system, None);
                system.does(&["mount", "--bind", "/", "/mnt"]);
                let report = Report::of(system);
                for words in [
                    "of their own by",
                    "extensions merged over it",
                    "can be written at /mnt",
                ] {
                    assert!(report.text.contains(words), "{}", report.text);
                }
                assert_eq!(changes_of_any_form(system, &[]), Vec::<String>::new());
                if has_other_users() {
                    let of_nobody = changes_of_any_form(system, NOBODY);
                    assert_eq!(of_nobody, Vec::<String>::new());
                }
            });
        },
    ),
];

/// What a caller without rights runs before his words.
const NOBODY: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// The forms of verify that print a verdict.
const FORMS: [&[&str]; 5] = [
    &["verify"],
    &["verify", "--all"],
    &["verify", "--deep"],
    &["verify", "--json"],
    &["verify", "--format=metrics"],
];

/// What any form of verify does that is more than looking; of a command before it, what that does is not counted.
fn changes_of_any_form(system: &System, before: &[&str]) -> Vec<String> {
    let forms = FORMS.iter().flat_map(|form| {
        let words = [before, &["/usr/bin/usr-policy"], form].concat();
        let lines = seen_by_strace(system, &words);
        // The program is started last.
        let start = lines.iter().rposition(|line| line.starts_with("execve("));
        let lines = lines[start.map_or(0, |line| line + 1)..].to_vec();
        assert!(lines.len() > 50, "{form:?}: {lines:#?}");
        lines.into_iter().filter(|line| is_change(line))
    });
    forms.collect()
}

/// The system calls of `usr-policy` with these words that are more than looking.
fn changes(system: &System, words: &[&str]) -> Vec<String> {
    let words = [&["/usr/bin/usr-policy"], words].concat();
    let mut lines = seen_by_strace(system, &words);
    assert!(lines.len() > 50, "{lines:#?}");
    lines.retain(|line| is_change(line));
    lines
}

/// A command's system calls, and those of its children, in the system.
fn seen_by_strace(system: &System, words: &[&str]) -> Vec<String> {
    let trace = "/run/trace";
    let mut command = system.command(&["strace", "--follow-forks", "--quiet=all", "--output"]);
    let ran = command.arg(trace).args(words).output().unwrap();
    assert!(matches!(ran.status.code(), Some(0 | 1)), "{ran:?}");
    let text = fs::read_to_string(system.path(trace)).unwrap();
    // The first line is how the program is started; the number of the process comes first in each.
    let lines = text
        .lines()
        .skip(1)
        .map(|line| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' '));
    lines.map(str::to_owned).collect()
}

/// What only looks, only touches the memory of the process itself, or ends it.
const LOOKS: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "chdir",
    "close",
    "dup",
    "execve",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "geteuid",
    "getpid",
    "getrandom",
    "getuid",
    "getgid",
    "getegid",
    "gettid",
    "ioctl",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "poll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "readv",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_getaffinity",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "stat",
    "statfs",
    "statx",
    "sysinfo",
    "uname",
];

fn is_change(line: &str) -> bool {
    // The end of a call that another thread came between; its arguments stand where it began.
    if line.starts_with("<... ") {
        return false;
    }
    let Some((name, arguments)) = line.split_once('(') else {
        // How the process ended.
        return false;
    };
    let is_own_output = matches!(name, "write" | "writev")
        && (arguments.starts_with("1,") || arguments.starts_with("2,"));
    let opens_for_writing = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"]
        .iter()
        .any(|flag| arguments.contains(flag));
    let is_another_program = name == "execve" && arguments.contains(" = 0");
    // A mount of its own that is attached nowhere, to look beneath another one; nothing ever attaches it.
    let is_own_mount = name == "open_tree" && arguments.contains("OPEN_TREE_CLONE")
        || name == "mount_setattr"
            && arguments.contains("AT_EMPTY_PATH, {attr_set=MOUNT_ATTR_RDONLY,");
    // Whether a follower has its file locked.
    let is_question = name == "flock" && arguments.contains("LOCK_SH|LOCK_NB");
    // A thread is no process, and asks what may not answer.
    let is_thread = name.starts_with("clone") && arguments.contains("CLONE_THREAD");
    if is_own_mount || is_question || is_thread {
        return false;
    }
    !is_own_output && (!LOOKS.contains(&name) || opens_for_writing || is_another_program)
}
