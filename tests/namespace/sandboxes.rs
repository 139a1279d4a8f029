//! Who was there before something is opened or closed: a shell that stands in the database, and services to which systemd
//! gives mounts of their own.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Stdio};

use usr_policy_tests::system::System;

use crate::STRICT;
use crate::apply::usr_of_its_own;
use crate::lock::{DATABASE, does, is_closed, sync};

/// As systemd.exec(5) has them: mounts of the machine come in, none goes out.
pub(crate) const PRIVATE_TMP: &str = "mount -t tmpfs tmp /tmp && mount -t tmpfs tmp /var/tmp";
pub(crate) const PROTECT_SYSTEM: &str = "mount -t tmpfs tmp /tmp && mount -t tmpfs tmp /var/tmp
    mount --rbind /usr /usr && mount -o remount,bind,ro /usr";

/// Tries to write in each directory that it is told, by its path: what somebody has open or stands in leads below a bind.
const TRY: &str = "echo ready
    while read directory; do
        { command : >$directory/.probe; } 2>/dev/null && rm $directory/.probe && echo writable || echo closed
    done";

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a shell that stands in the database and a sandboxed service see it opened and closed",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let mut shell = Process::start(system, &["env", "--chdir", DATABASE], "");
                let mut services = [PRIVATE_TMP, PROTECT_SYSTEM].map(|it| service(system, it));
                let mut see = |words: &[&str], is_writable| {
                    if !words.is_empty() {
                        does(system, words);
                    }
                    assert_eq!(shell.can_write(DATABASE), is_writable, "shell {words:?}");
                    for service in &mut services {
                        assert_eq!(service.can_write(DATABASE), is_writable, "{words:?}");
                    }
                };
                see(&[], false);
                see(&["unlock"], true);
                see(&["lock"], false);
                see(&["unlock"], true);
                see(&["lock"], false);
            });
        },
    ),
    (
        "a service that is started during an unlock cannot write when everything is closed again",
        || {
            // A flag of the mount of /usr would not reach them: theirs is another one.
            for has_own_usr in [false, true] {
                System::with(STRICT, |system| {
                    if has_own_usr {
                        usr_of_its_own(system);
                    }
                    nothing_stays_open(system);
                });
            }
        },
    ),
];

fn nothing_stays_open(system: &System) {
    sync(system);
    does(system, &["unlock"]);
    let mut free = service(system, PRIVATE_TMP);
    let mut bound = service(system, PROTECT_SYSTEM);
    assert!(free.can_write("/usr") && free.can_write(DATABASE));
    assert!(!bound.can_write("/usr") && bound.can_write(DATABASE));
    does(system, &["lock"]);
    assert_eq!(is_closed(system), [true, true]);
    for service in [&mut free, &mut bound] {
        assert!(!service.can_write("/usr") && !service.can_write(DATABASE));
    }
    // Its own mounts are its own.
    assert!(free.can_write("/tmp") && bound.can_write("/var/tmp"));
}

/// A process of the system that tries what it is told.
pub(crate) struct Process {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

pub(crate) fn service(system: &System, setup: &str) -> Process {
    Process::start(
        system,
        &["unshare", "--mount", "--propagation", "slave"],
        setup,
    )
}

impl Process {
    fn start(system: &System, how: &[&str], setup: &str) -> Self {
        let script = format!("set -e; {setup}\nset +e; {TRY}");
        let mut process = system
            .command(&[how, &["sh", "-c", &script]].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut started = Process { process, lines };
        assert_eq!(started.line(), "ready");
        started
    }

    pub(crate) fn can_write(&mut self, directory: &str) -> bool {
        let mut input = self.process.stdin.as_ref().unwrap();
        writeln!(input, "{directory}").unwrap();
        match self.line().as_str() {
            "writable" => true,
            "closed" => false,
            other => panic!("{directory}: {other}"),
        }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
