//! Who writes in a way of his own, and who only looks: `lock` finds the one, and waits for nobody else.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use usr_policy_tests::privilege::has_other_users;
use usr_policy_tests::system::{Follower, System, becomes};

use crate::STRICT;
use crate::lock::{DATABASE, does, is_closed, sync};

/// The lock file of pacman.
const LOCK: &str = "/var/lib/pacman/db.lck";

/// Opens a file for reading, its second word, or for nothing at all, and keeps it open; no program of a shell does the latter.
const LOOKER: &str = "
    my ($flags, $file) = @ARGV;
    sysopen(my $open, $file, $flags eq 'path' ? 010000000 : 0) or die \"$file: $!\";
    $| = 1;
    print \"open\\n\";
    sleep 1 while 1;";

/// A process that has said that it has something open; it ends with this.
struct Open(Child);

impl Open {
    fn by(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "open\n");
        Open(process)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the program is that writes in a way of its own. Whoever could build these tests has a C compiler: Rust links with it.
fn writers(system: &System) -> &'static str {
    let path = "/srv/writers";
    let mut compiler = Command::new("cc")
        .args(["-x", "c", "-pthread", "-o"])
        .arg(system.path(path))
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut source = compiler.stdin.take().unwrap();
    source.write_all(include_bytes!("writers.c")).unwrap();
    drop(source);
    assert!(compiler.wait().unwrap().success());
    path
}

/// What lock says where it is refused.
fn refused(system: &System) -> String {
    let (exit, text, complaints) = system.program(&["lock"]);
    assert_eq!((exit, text.as_str()), (4, ""), "{complaints}");
    complaints
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "who only has the lock file open, and cannot write to it, is no package manager",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let _follower = Follower::start(system);
                let open = |before: &[&str], flags| {
                    let words = [before, &["perl", "-e", LOOKER, flags, LOCK]].concat();
                    Open::by(&mut system.command(&words))
                };
                let users: &[&[&str]] = if has_other_users() {
                    &[&[], usr_policy_tests::system::NOBODY]
                } else {
                    &[&[]]
                };
                for user in users {
                    does(system, &["unlock", "--for", "1s"]);
                    // As pacman makes it.
                    system.write(LOCK, "");
                    fs::set_permissions(system.path(LOCK), Permissions::from_mode(0o000)).unwrap();
                    let _path = open(user, "path");
                    let _reader = user.is_empty().then(|| open(user, "read"));
                    becomes("both are closed", || is_closed(system) == [true, true]);
                    // It says that the file is there.
                    assert_eq!(system.program(&["unlock"]).0, 0);
                    does(system, &["lock", "--remove-stale"]);
                    assert_eq!(is_closed(system), [true, true]);
                    assert!(!system.path(LOCK).exists());
                }
            });
        },
    ),
    (
        "a package manager whose first thread has ended has its lock all the same",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let program = writers(system);
                does(system, &["unlock"]);
                let pacman = Open::by(&mut system.command(&[program, "thread", LOCK]));
                let complaint = refused(system);
                assert!(
                    complaint.contains("lock: writers (pid ")
                        && complaint.contains("is changing packages"),
                    "{complaint}"
                );
                assert_eq!(system.program(&["lock", "--remove-stale"]).0, 4);
                assert!(system.path(LOCK).exists());
                drop(pacman);
                does(system, &["lock", "--remove-stale"]);
                assert_eq!(is_closed(system), [true, true]);
            });
        },
    ),
    (
        "lock names who writes to a file whose name is no text, and to one that it has closed",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let program = writers(system);
                does(system, &["unlock"]);
                let name = std::ffi::OsStr::from_bytes(b"/usr/share/na\xefve");
                let mut sh =
                    system.command(&["sh", "-c", "exec 3>\"$0\"; echo open; exec sleep 1000"]);
                let writer = Open::by(sh.arg(name));
                let complaint = refused(system);
                assert!(
                    complaint.contains(r"has /usr/share/na\xefve open for writing"),
                    "{complaint}"
                );
                drop(writer);
                let path = "/usr/share/mapped";
                let writer = Open::by(&mut system.command(&[program, "map", path]));
                // The kernel shows them to the root of the machine alone.
                let maps = format!("/proc/{}/map_files", writer.0.id());
                let mut links = fs::read_dir(Path::new(&maps)).into_iter().flatten();
                if links.any(|link| fs::metadata(link.unwrap().path()).is_err()) {
                    eprintln!("skipped: the root of a user namespace is not shown what is mapped");
                } else {
                    let complaint = refused(system);
                    assert!(
                        complaint.contains("lock: writers (pid ")
                            && complaint.contains("has /usr/share/mapped open for writing")
                            && complaint.lines().count() == 1,
                        "{complaint}"
                    );
                }
                drop(writer);
                does(system, &["lock"]);
                assert!(system.is_read_only(DATABASE));
            });
        },
    ),
];
