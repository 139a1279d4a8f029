//! What verify says, beside what a write says.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, umount2};
use serde_json::Value;
use usr_policy_tests::prepare::{CACHE, VAR_TMP};
pub(crate) use usr_policy_tests::prepare::{close as closed, in_memory as mount_tmpfs};
use usr_policy_tests::privilege::{has_fuse, has_other_users, hung, tmpfs};
use usr_policy_tests::system::{NOBODY, System};
use usr_policy_tests::verdict;

use crate::STRICT;
use crate::apply::{merge, usr_of_its_own};

pub(crate) const DATABASE: &str = "/var/lib/pacman";

/// A line of the report: what is said of a path.
pub(crate) struct Finding {
    pub(crate) verdict: String,
    pub(crate) what: String,
}

pub(crate) struct Report {
    pub(crate) exit: i32,
    pub(crate) findings: Vec<(String, Finding)>,
    pub(crate) text: String,
}

impl Report {
    /// Runs verify, and tries in the same state what it judges: neither may say what the other denies.
    pub(crate) fn of(system: &System) -> Self {
        let report = Self::asked(system, &["/usr/bin/usr-policy", "verify"]);
        for path in ["/usr", DATABASE] {
            if !system.path(path).exists() {
                continue;
            }
            let Some(finding) = report.about(path) else {
                continue;
            };
            let writes = !system.is_read_only(path);
            match finding.verdict.as_str() {
                "holds" => assert!(!writes, "{path} can be written:\n{}", report.text),
                "BROKEN" if finding.what.starts_with("writable") => {
                    assert!(writes, "{path} cannot be written:\n{}", report.text);
                }
                _ => {}
            }
        }
        let pair = report.about("/usr and the package database");
        let is_dangerous = report.text.starts_with("usr-policy: strict")
            && system.path(DATABASE).exists()
            && system.is_read_only("/usr")
            && !system.is_read_only(DATABASE);
        assert_eq!(pair.is_some(), is_dangerous, "{}", report.text);
        report
    }

    /// What a user without rights is told.
    pub(crate) fn for_nobody(system: &System) -> Self {
        let verify = ["/usr/bin/usr-policy", "verify"];
        Self::asked(system, &[NOBODY, &verify].concat())
    }

    /// The whole report; the object and the metrics must be what they are to be, and say the same.
    fn asked(system: &System, words: &[&str]) -> Self {
        let ask = |form| system.command(&[words, &[form]].concat());
        let (report, object) = Self::with_object(&mut ask("--all"));
        let metrics = ask("--format=metrics").output().unwrap().stdout;
        let metrics = String::from_utf8(metrics).unwrap();
        let samples = verdict::metrics(&metrics).unwrap();
        let counted = samples
            .iter()
            .filter(|sample| sample.name == "usr_policy_finding");
        let counted: f64 = counted.map(|sample| sample.value).sum();
        let findings = object["findings"].as_array().unwrap();
        assert!((counted - findings.len() as f64).abs() < 0.5, "{metrics}");
        report
    }

    /// What a command prints that ends in verify, however that is called there.
    pub(crate) fn of_command(command: &mut Command) -> Self {
        Self::with_object(command).0
    }

    /// The same, and the object; it must be what it is to be, and end with the same code.
    fn with_object(command: &mut Command) -> (Self, Value) {
        let report = Self::read(command);
        let ran = with_json(command).output().unwrap();
        assert_eq!(ran.status.code(), Some(report.exit), "{ran:?}");
        let object = verdict::object(&String::from_utf8(ran.stdout).unwrap()).unwrap();
        assert_eq!(object["exit_code"], report.exit, "{object}");
        (report, object)
    }

    fn read(command: &mut Command) -> Self {
        let ran = command.output().unwrap();
        assert!(ran.stderr.is_empty(), "{ran:?}");
        let text = String::from_utf8(ran.stdout).unwrap();
        let mut findings = Vec::new();
        for line in text.lines().skip(1) {
            // `  verdict  subject  what`; a remedy has no verdict.
            let words: Vec<&str> = line.trim_start().splitn(2, "  ").collect();
            if let (true, [verdict, rest]) = (
                line.starts_with("  ") && !line.starts_with("   "),
                words.as_slice(),
            ) {
                let (subject, what) = rest.trim_start().split_once("  ").unwrap();
                findings.push((
                    subject.trim_end().to_owned(),
                    Finding {
                        verdict: (*verdict).to_owned(),
                        what: what.trim().to_owned(),
                    },
                ));
            }
        }
        Report {
            exit: ran.status.code().unwrap(),
            findings,
            text,
        }
    }

    pub(crate) fn about(&self, subject: &str) -> Option<&Finding> {
        self.findings
            .iter()
            .find(|(of, _)| of == subject)
            .map(|(_, finding)| finding)
    }

    #[track_caller]
    pub(crate) fn says(&self, subject: &str, verdict: &str, what: &str) {
        let found = self.findings.iter().any(|(of, finding)| {
            of == subject && finding.verdict == verdict && finding.what.contains(what)
        });
        assert!(found, "not \"{verdict} {subject} {what}\":\n{}", self.text);
    }

    #[track_caller]
    pub(crate) fn exits(&self, exit: i32) {
        assert_eq!(self.exit, exit, "{}", self.text);
    }
}

/// The command that asks verify for an object. A shell has its command in one word.
fn with_json(command: &Command) -> Command {
    let mut other = Command::new(command.get_program());
    other.env_clear();
    for (name, value) in command.get_envs() {
        other.env(name, value.unwrap());
    }
    let words = command.get_args().map(|word| word.to_str().unwrap());
    let mut words: Vec<String> = words
        .filter(|word| *word != "--all")
        .map(str::to_owned)
        .collect();
    match words
        .last_mut()
        .filter(|word| word.contains("usr-policy verify"))
    {
        Some(script) => script.push_str(" --json"),
        None => words.push("--json".to_owned()),
    }
    other.args(words);
    other
}

/// The tmpfs that an unlock has lifted.
fn in_memory_again(system: &System) {
    if system.mounts_at("/var/cache/pacman").is_empty() {
        mount_tmpfs(system, "/var/cache/pacman", CACHE);
    }
}

/// A system that was closed, with a change that must be noticed: the same without it holds.
pub(crate) fn changed(
    change: impl FnOnce(&System) + Send,
    check: impl FnOnce(&System, &Report) + Send,
) {
    System::with(STRICT, |system| {
        closed(system);
        let report = Report::of(system);
        report.exits(0);
        assert!(
            report
                .text
                .ends_with("Everything that is promised holds.\n"),
            "{}",
            report.text
        );
        change(system);
        check(system, &Report::of(system));
    });
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a system that is closed holds, and each rule has its line",
        || {
            changed(
                |_| {},
                |system, report| {
                    report.exits(0);
                    report.says("/usr", "holds", "read-only since the initramfs");
                    report.says(DATABASE, "holds", "locked");
                    report.says("/var/tmp", "holds", "tmpfs mode=1777,size=25%,nosuid,nodev");
                    report.says(
                        "/var/cache/pacman",
                        "holds",
                        "tmpfs mode=0755,size=25%,nosuid,nodev,noexec",
                    );
                    for path in ["/var/log", "/var/lib/systemd", "/etc", "/run"] {
                        report.says(path, "holds", "writable");
                    }
                    assert!(
                        report
                            .text
                            .starts_with("usr-policy: strict (/proc/cmdline)\n"),
                        "{}",
                        report.text
                    );
                    assert!(system.is_read_only("/usr") && system.is_read_only(DATABASE));
                },
            );
        },
    ),
    ("usr that can be written is broken", || {
        changed(
            |system| system.does(&["mount", "-o", "remount,bind,rw", "/usr"]),
            |system, report| {
                report.exits(1);
                report.says("/usr", "BROKEN", "writable");
                assert!(!system.is_read_only("/usr"));
            },
        );
    }),
    ("nothing closed at all is broken in every line", || {
        System::with(STRICT, |system| {
            let report = Report::of(system);
            report.exits(1);
            report.says("/usr", "BROKEN", "writable");
            report.says(DATABASE, "BROKEN", "writable, although it is to be locked");
            report.says("/var/tmp", "BROKEN", "no tmpfs");
            report.says("/var/cache/pacman", "BROKEN", "no tmpfs");
        });
    }),
    (
        "a read-only usr with a writable database is the worst line",
        || {
            changed(
                |system| system.does(&["umount", DATABASE]),
                |_, report| {
                    report.exits(1);
                    report.says(DATABASE, "BROKEN", "writable");
                    report.says(
                        "/usr and the package database",
                        "BROKEN",
                        "/usr is read-only and the database is writable",
                    );
                    assert_eq!(
                        report.findings[0].0, "/usr and the package database",
                        "{}",
                        report.text
                    );
                },
            );
        },
    ),
    ("a lock that is doubled is broken", || {
        changed(
            |system| system.does(&["mount", "--bind", "-o", "ro", DATABASE, DATABASE]),
            |_, report| {
                report.exits(1);
                report.says(DATABASE, "BROKEN", "locked more than once");
            },
        );
    }),
    (
        "a database on a disk of its own that is read-only is locked once",
        || {
            System::with(STRICT, |system| {
                system.write("/etc/fstab", "/dev/vdb /var/lib/pacman ext4 rw 0 2\n");
                tmpfs(&system.path(DATABASE), "");
                closed(system);
                let report = Report::of(system);
                report.exits(0);
                report.says(DATABASE, "holds", "locked");
            });
        },
    ),
    (
        "who was in a directory before it was closed is named",
        || {
            System::with(STRICT, |system| {
                closed(system);
                assert_eq!(system.program(&["unlock"]).0, 0);
                let mut command =
                    system.command(&["sh", "-c", "cd /usr/lib && echo; read end; touch made"]);
                let mut shell = command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut line = String::new();
                BufReader::new(shell.stdout.take().unwrap())
                    .read_line(&mut line)
                    .unwrap();
                assert_eq!(system.program(&["lock"]).0, 0);
                in_memory_again(system);
                let report = Report::of(system);
                report.exits(0);
                report.says(
                    "/usr",
                    "warning",
                    "(sh) has its working directory in it since before it was closed",
                );
                // And so it is.
                drop(shell.stdin.take());
                shell.wait().unwrap();
                assert_eq!(system.program(&["unlock"]).0, 0);
                assert!(system.path("/usr/lib/made").exists());
            });
        },
    ),
    (
        "a chroot with a policy of its own is told of the machine, not of itself",
        || {
            changed(
                |system| {
                    let other = system.path("/srv/other");
                    fs::create_dir_all(other.join("proc")).unwrap();
                    fs::create_dir_all(other.join("usr/bin")).unwrap();
                    fs::create_dir_all(other.join("etc")).unwrap();
                    fs::write(other.join("etc/usr-policy.conf"), "[Policy]\nMode=off\n").unwrap();
                    fs::copy(
                        system.path("/usr/bin/usr-policy"),
                        other.join("usr/bin/usr-policy"),
                    )
                    .unwrap();
                    system.does(&["mount", "--rbind", "/proc", "/srv/other/proc"]);
                    system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
                },
                |system, report| {
                    report.exits(1);
                    let mut command =
                        system.command(&["chroot", "/srv/other", "/usr/bin/usr-policy", "verify"]);
                    Report::of_command(&mut command).exits(1);
                },
            );
        },
    ),
    (
        "a record that cannot be read is told beside what is known, and takes nothing back",
        || {
            changed(
                |system| {
                    let state = system.path("/run/usr-policy/state/lock");
                    fs::create_dir_all(state.parent().unwrap()).unwrap();
                    let _ = fs::remove_file(&state);
                    symlink("lock", &state).unwrap();
                },
                |system, report| {
                    report.exits(3);
                    report.says(
                        "/run/usr-policy/state/lock",
                        "unknown",
                        "Too many levels of symbolic links",
                    );
                    report.says("/usr", "holds", "read-only");
                    system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
                    Report::of(system).exits(1);
                },
            );
        },
    ),
    (
        "extensions on a file system that does not answer do not hold the verdict",
        || {
            if !has_fuse() {
                return;
            }
            type Put = fn(&System);
            let ways: [(&str, Put, &str); 3] = [
                (
                    "/run/hung",
                    |system| symlink("/run/hung/x", system.path("/run/extensions/x")).unwrap(),
                    "/run/extensions/x, a link to /run/hung/x is not looked at",
                ),
                (
                    "/run/hung",
                    |system| symlink("../hung/x", system.path("/run/extensions/x.raw")).unwrap(),
                    "/run/extensions/x.raw, a link to ../hung/x is not looked at",
                ),
                (
                    "/run/extensions",
                    |_| {},
                    "a file system that one of them lies on does not answer",
                ),
            ];
            for (at, put, says) in ways {
                changed(
                    |system| {
                        for directory in ["/run/extensions", "/run/hung"] {
                            fs::create_dir_all(system.path(directory)).unwrap();
                        }
                        put(system);
                        hung(&system.path(at));
                    },
                    |system, report| {
                        report.exits(0);
                        let text = report.text.split_whitespace().collect::<Vec<_>>().join(" ");
                        assert!(text.contains(says), "{text}");
                        let flags = MntFlags::MNT_FORCE | MntFlags::MNT_DETACH;
                        umount2(&system.path(at), flags).unwrap();
                    },
                );
            }
        },
    ),
    (
        "a path of ones own with a writable mount in it is a warning",
        || {
            System::with(&format!("{STRICT} usrpolicy.path=/var/own:ro"), |system| {
                fs::create_dir_all(system.path("/var/own/up")).unwrap();
                closed(system);
                system.does(&["mount", "--bind", "-o", "ro", "/var/own", "/var/own"]);
                system.does(&["mount", "-o", "remount,bind,ro", "/var/own"]);
                tmpfs(&system.path("/var/own/up"), "");
                Report::of(system).says(
                    "/var/own",
                    "warning",
                    "/var/own/up is a writable mount of its own below it",
                );
            });
        },
    ),
    (
        "a mount below the database that can be written is broken",
        || {
            changed(
                |system| tmpfs(&system.path("/var/lib/pacman/local"), ""),
                |system, report| {
                    report.exits(1);
                    report.says(
                        DATABASE,
                        "BROKEN",
                        "locked, but /var/lib/pacman/local is a writable mount of its own below it",
                    );
                    assert_eq!(system.generator(&["sync"]).0, 0);
                    Report::of(system).exits(0);
                },
            );
        },
    ),
    ("merged extensions over a read-only usr hold", || {
        changed(
            |system| merge(system, None),
            |system, report| {
                report.exits(0);
                report.says("/usr", "holds", "extensions merged over it");
                assert!(system.is_read_only("/usr"));
            },
        );
    }),
    ("extensions with a writable layer are broken", || {
        changed(
            |system| merge(system, Some("writable")),
            |system, report| {
                report.exits(1);
                report.says("/usr", "BROKEN", "writable layer");
                assert!(!system.is_read_only("/usr"));
            },
        );
    }),
    (
        "extensions over a usr that can be written beneath them are broken",
        || {
            System::with(STRICT, |system| {
                merge(system, None);
                assert_eq!(system.generator(&["sync"]).0, 0);
                let report = Report::of(system);
                report.exits(1);
                report.says("/usr", "BROKEN", "writable beneath them");
                system.does(&["umount", "--lazy", "/usr"]);
                assert!(!system.is_read_only("/usr"));
            });
        },
    ),
    (
        "a tmpfs with other options is broken, and the difference is named",
        || {
            for (path, options, what) in [
                ("/var/tmp", "mode=0755,size=25%,nosuid,nodev", "mode=0755"),
                ("/var/tmp", "mode=1777,size=0,nosuid,nodev", "no size limit"),
                ("/var/tmp", "mode=1777,size=25%,nodev", "no nosuid"),
                ("/var/tmp", "mode=1777,size=25%,nosuid", "no nodev"),
                (
                    "/var/tmp",
                    "ro,mode=1777,size=25%,nosuid,nodev",
                    "no write access",
                ),
                (
                    "/var/cache/pacman",
                    "mode=0755,size=25%,nosuid,nodev",
                    "no noexec",
                ),
                (
                    "/var/cache/pacman",
                    "size=25%,nosuid,nodev,noexec",
                    "mode=1777",
                ),
            ] {
                changed(
                    |system| {
                        system.does(&["umount", path]);
                        mount_tmpfs(system, path, options);
                    },
                    |_, report| {
                        report.exits(1);
                        report.says(path, "BROKEN", what);
                    },
                );
            }
        },
    ),
    (
        "a tmpfs with another share of the memory is a warning, and with another number broken",
        || {
            changed(
                |system| {
                    system.does(&["umount", "/var/tmp"]);
                    mount_tmpfs(system, "/var/tmp", "mode=1777,size=1m,nosuid,nodev");
                },
                |system, report| {
                    report.exits(0);
                    report.says("/var/tmp", "warning", "size=1024k, and 25% of the memory");
                    system.boot_with("usrpolicy=strict usrpolicy.path=/var/tmp:tmpfs,size=2m");
                    let report = Report::of(system);
                    report.exits(1);
                    report.says("/var/tmp", "BROKEN", "size=1024k");
                },
            );
        },
    ),
    (
        "a tmpfs of the size that is the kernel's own default holds",
        || {
            System::with(
                "rw usrpolicy=strict usrpolicy.path=/var/tmp:tmpfs,size=50%",
                |system| {
                    closed(system);
                    let report = Report::of(system);
                    report.exits(0);
                    report.says("/var/tmp", "warning", "size=");
                    system.does(&["umount", "/var/tmp"]);
                    mount_tmpfs(system, "/var/tmp", "mode=1777,nosuid,nodev");
                    let report = Report::of(system);
                    report.exits(0);
                    report.says("/var/tmp", "holds", "size=50%");
                },
            );
        },
    ),
    ("a tmpfs with more flags than were asked for holds", || {
        changed(
            |system| {
                system.does(&[
                    "mount",
                    "-o",
                    "remount,bind,nosuid,nodev,noexec,noatime",
                    "/var/tmp",
                ])
            },
            |_, report| report.exits(0),
        );
    }),
    ("a tmpfs that is not there is broken", || {
        changed(
            |system| system.does(&["umount", "/var/tmp"]),
            |_, report| {
                report.exits(1);
                report.says("/var/tmp", "BROKEN", "no tmpfs");
            },
        );
    }),
    ("a system without pacman has no such line to break", || {
        System::with(STRICT, |system| {
            fs::remove_dir_all(system.path(DATABASE)).unwrap();
            fs::remove_dir_all(system.path("/var/cache/pacman")).unwrap();
            assert_eq!(system.early().0, 0);
            mount_tmpfs(system, "/var/tmp", VAR_TMP);
            let report = Report::of(system);
            report.exits(0);
            report.says(DATABASE, "-", "there is no such directory");
            report.says("/var/cache/pacman", "-", "there is no such directory");
        });
    }),
    (
        "a link in place of var tmp is a warning, for systemd mounts nothing there",
        || {
            System::with(STRICT, |system| {
                fs::remove_dir(system.path("/var/tmp")).unwrap();
                symlink("../tmp", system.path("/var/tmp")).unwrap();
                assert_eq!(system.early().0, 0);
                assert_eq!(system.generator(&["sync"]).0, 0);
                mount_tmpfs(system, "/var/cache/pacman", CACHE);
                let report = Report::of(system);
                report.exits(0);
                report.says("/var/tmp", "warning", "a symbolic link leads there");
            });
        },
    ),
    ("a file in place of a directory is a warning", || {
        changed(
            |system| {
                system.does(&["umount", "/var/tmp"]);
                system.does(&["rmdir", "/var/tmp"]);
                fs::write(system.path("/var/tmp"), "").unwrap();
            },
            |_, report| {
                report.exits(0);
                report.says("/var/tmp", "warning", "is no directory");
            },
        );
    }),
    (
        "a word that could not be understood is broken, whatever else holds",
        || {
            for (cmdline, says) in [
                ("rw usrpolicy=strikt", "usrpolicy=strikt is not a mode"),
                ("rw usrpolicy", "usrpolicy without a value is not a mode"),
                (
                    "rw usrpolicy=audit usrpolicy.lock=x",
                    "\"x\" is not a lock rule",
                ),
            ] {
                System::with(cmdline, |system| {
                    let report = Report::of(system);
                    report.exits(1);
                    report.says("/proc/cmdline", "BROKEN", says);
                });
            }
            changed(
                |system| system.write("/etc/usr-policy.conf", "[Policy]\nnonsense\n"),
                |_, report| {
                    report.exits(1);
                    report.says("/etc/usr-policy.conf:2", "BROKEN", "is not a setting");
                },
            );
        },
    ),
    ("off promises nothing", || {
        for cmdline in [
            "rw",
            "rw usrpolicy=off",
            "rw usrpolicy=off usrpolicy=strict",
        ] {
            System::with(cmdline, |system| {
                let report = Report::of(system);
                report.exits(0);
                assert!(report.findings.is_empty(), "{}", report.text);
                assert!(
                    report.text.ends_with("\nNothing is promised.\n"),
                    "{}",
                    report.text
                );
            });
        }
    }),
    (
        "a configuration that cannot be read leaves open what is promised",
        || {
            System::with("rw", |system| {
                symlink("usr-policy.conf", system.path("/etc/usr-policy.conf")).unwrap();
                let report = Report::of(system);
                report.exits(3);
                report.says(
                    "/etc/usr-policy.conf",
                    "unknown",
                    "cannot read: Too many levels of symbolic links",
                );
                assert!(!report.text.contains("Nothing is promised"));
                system.boot_with("rw usrpolicy=off");
                Report::of(system).exits(0);
                fs::remove_file(system.path("/etc/usr-policy.conf")).unwrap();
                system.boot_with("rw");
                Report::of(system).exits(0);
            });
        },
    ),
    (
        "a configuration that only root may read leaves it open to everybody else",
        || {
            if !has_other_users() {
                return;
            }
            System::with("rw", |system| {
                system.write("/etc/usr-policy.conf", "[Policy]\nMode=strict\n");
                system.does(&["chmod", "0600", "/etc/usr-policy.conf"]);
                let report = Report::for_nobody(system);
                report.exits(3);
                report.says(
                    "/etc/usr-policy.conf",
                    "unknown",
                    "cannot read: Permission denied",
                );
                assert!(
                    report.text.contains("run usr-policy verify as root"),
                    "{}",
                    report.text
                );
            });
        },
    ),
    (
        "in a container nothing is promised, whatever the host's command line says",
        || {
            for mark in ["/run/systemd/container", "/run/host/container-manager"] {
                System::with(STRICT, |system| {
                    system.write(mark, "podman");
                    let report = Report::of(system);
                    report.exits(0);
                    assert_eq!(
                        report.text,
                        "usr-policy: in a container: nothing is promised; its mounts are its manager's\n"
                    );
                });
            }
        },
    ),
    (
        "who asks cannot say that it is a container, and who has started PID 1 can",
        || {
            System::with(STRICT, |system| {
                let says = |words: &[&str]| {
                    let ask = [words, &["/usr/bin/usr-policy", "verify"]].concat();
                    Report::of_command(&mut system.command(&ask))
                };
                for variable in ["SYSTEMD_VIRTUALIZATION=container:x", "container=x"] {
                    let report = says(&["env", variable]);
                    report.exits(1);
                    report.says("/usr", "BROKEN", "writable");
                }
                const FIRST: [&str; 4] = ["unshare", "--pid", "--fork", "--mount-proc"];
                let first = |variable| {
                    let shell = ["sh", "-c", "\"$@\"; exit $?", "sh"];
                    says(&[&FIRST, &["env", variable][..], &shell].concat())
                };
                assert!(first("container=x").text.contains("in a container"));
                assert!(!first("container=").text.contains("in a container"));
            });
        },
    ),
    ("audit says what strict would find, and exits 0", || {
        System::with("rw usrpolicy=audit", |system| {
            let report = Report::of(system);
            report.exits(0);
            report.says("/usr", "warning", "writable");
            report.says("/var/tmp", "warning", "no tmpfs");
            assert!(report.text.contains("strict would find"), "{}", report.text);
        });
    }),
    ("lock off on a read-only usr is the dangerous pair", || {
        System::with("rw usrpolicy=strict usrpolicy.lock=off", |system| {
            closed(system);
            assert!(!system.is_read_only(DATABASE) && system.is_read_only("/usr"));
            let report = Report::of(system);
            report.exits(0);
            report.says(
                "/usr and the package database",
                "warning",
                "only the hook of usr-policy keeps pacman from forgetting packages",
            );
            fs::remove_file(system.path("/usr/share/libalpm/hooks/00-usr-policy-guard.hook"))
                .unwrap_err();
            system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
            system.does(&["rm", "/usr/share/libalpm/hooks/00-usr-policy-guard.hook"]);
            system.does(&["mount", "-o", "remount,bind,ro", "/usr"]);
            let report = Report::of(system);
            report.exits(1);
            report.says(DATABASE, "-", "left writable, as usrpolicy.lock=off asks");
            report.says(
                "/usr and the package database",
                "BROKEN",
                "the database is writable, as usrpolicy.lock=off asks",
            );
            assert!(
                report.text.contains("take usrpolicy.lock=off away"),
                "{}",
                report.text
            );
            system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
            assert!(
                Report::of(system)
                    .about("/usr and the package database")
                    .is_none()
            );
        });
    }),
    (
        "a usr that became read-only late is a warning with the time",
        || {
            System::with(STRICT, |system| {
                assert_eq!(system.generator(&["sync"]).0, 0);
                mount_tmpfs(system, "/var/tmp", VAR_TMP);
                mount_tmpfs(system, "/var/cache/pacman", CACHE);
                let report = Report::of(system);
                report.exits(0);
                report.says("/usr", "warning", "read-only, but late, since");
            });
        },
    ),
    (
        "after a soft-reboot nobody is told to find who had opened usr before",
        || {
            System::with(STRICT, |system| {
                let host_stage = || {
                    let words = ["apply", "--root", "/", "--stage", "host"];
                    assert_eq!(system.generator(&words).0, 0);
                };
                // As PID 1 does when it starts usr-policy-apply.service.
                let state = system.path("/run/usr-policy/state");
                assert_eq!(system.early().0, 0);
                fs::create_dir_all(&state).unwrap();
                host_stage();
                closed(system);
                Report::of(system).says("/usr", "holds", "read-only since the initramfs");
                system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
                host_stage();
                Report::of(system).says("/usr", "warning", "something had opened it again");

                fs::remove_dir_all(&state).unwrap();
                system.does(&["umount", "--lazy", "/usr"]);
                fs::create_dir(&state).unwrap();
                host_stage();
                let report = Report::of(system);
                report.exits(0);
                report.says("/usr", "holds", "read-only since the soft-reboot");
                system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
                host_stage();
                Report::of(system).says("/usr", "warning", "something had opened it again");
            });
        },
    ),
    (
        "a mount point with a newline in its name is a mount like any other",
        || {
            changed(
                |system| {
                    let path = system.path("/var/a\nb");
                    fs::create_dir(&path).unwrap();
                    tmpfs(&path, "");
                },
                |_, report| report.exits(0),
            );
        },
    ),
    ("a usr that is read-only by itself holds", || {
        System::with(STRICT, |system| {
            usr_of_its_own(system);
            system.does(&["mount", "-o", "remount,ro", "/usr"]);
            system.does(&["mount", "--bind", "-o", "ro", DATABASE, DATABASE]);
            mount_tmpfs(system, "/var/tmp", VAR_TMP);
            mount_tmpfs(system, "/var/cache/pacman", CACHE);
            let report = Report::of(system);
            report.exits(0);
            report.says("/usr", "holds", "read-only by");
        });
    }),
    ("a writable line for usr in fstab is a warning", || {
        System::with(STRICT, |system| {
            system.write("/etc/fstab", "/dev/vda / ext4\n/dev/vdb /usr ext4 rw 0 2\n");
            usr_of_its_own(system);
            assert_eq!(system.late().0, 0);
            assert_eq!(system.generator(&["sync"]).0, 0);
            mount_tmpfs(system, "/var/tmp", VAR_TMP);
            mount_tmpfs(system, "/var/cache/pacman", CACHE);
            let report = Report::of(system);
            report.exits(0);
            report.says("/etc/fstab:2", "warning", "mounts /usr writable");
        });
    }),
    (
        "a writable mount below usr is a warning, unless it is asked for",
        || {
            System::with(STRICT, |system| {
                tmpfs(&system.path("/usr/local"), "");
                closed(system);
                let report = Report::of(system);
                report.exits(0);
                report.says(
                    "/usr/local",
                    "warning",
                    "a writable mount of its own below /usr",
                );
                assert!(!system.is_read_only("/usr/local"));
                system.boot_with("rw usrpolicy=strict usrpolicy.path=/usr/local:rw");
                let report = Report::of(system);
                report.exits(0);
                report.says("/usr/local", "holds", "writable");
            });
        },
    ),
    (
        "a path that was asked to be read-only is judged by itself",
        || {
            System::with("rw usrpolicy=strict usrpolicy.path=/var/opt:ro", |system| {
                fs::create_dir_all(system.path("/var/opt")).unwrap();
                closed(system);
                let report = Report::of(system);
                report.exits(1);
                report.says("/var/opt", "BROKEN", "writable");
                system.does(&["mount", "--bind", "-o", "ro", "/var/opt", "/var/opt"]);
                let report = Report::of(system);
                report.exits(0);
                report.says("/var/opt", "holds", "read-only");
            });
        },
    ),
    ("a path that must stay writable and is not is said", || {
        changed(
            |system| system.does(&["mount", "--bind", "-o", "ro", "/etc", "/etc"]),
            |system, report| {
                report.exits(0);
                report.says("/etc", "warning", "read-only, although it must be writable");
                assert!(system.is_read_only("/etc"));
            },
        );
        changed(
            |system| {
                fs::create_dir_all(system.path("/var/lib/systemd")).unwrap();
                system.does(&[
                    "mount",
                    "--bind",
                    "-o",
                    "ro",
                    "/var/lib/systemd",
                    "/var/lib/systemd",
                ]);
            },
            |_, report| {
                report.exits(1);
                report.says(
                    "/var/lib/systemd",
                    "BROKEN",
                    "read-only, although it must be writable",
                );
            },
        );
    }),
    ("without proc it cannot be told", || {
        System::with(STRICT, |system| {
            closed(system);
            system.does(&["umount", "--lazy", "/proc"]);
            let (exit, out, error) = system.program(&["verify"]);
            assert_eq!((exit, out.as_str()), (3, ""));
            assert_eq!(
                error,
                "usr-policy: /proc/cmdline: cannot read: No such file or directory; mount proc on /proc\n"
            );
        });
    }),
    (
        "a caller who is not root is told the truth or nothing",
        || {
            if !has_other_users() {
                return;
            }
            System::with(STRICT, |system| {
                closed(system);
                let report = Report::for_nobody(system);
                assert!(matches!(report.exit, 0 | 3), "{}", report.text);
                assert!(
                    report
                        .findings
                        .iter()
                        .all(|(_, finding)| finding.verdict != "BROKEN"),
                    "{}",
                    report.text
                );
                report.says("/usr", "holds", "read-only");
                system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
                let report = Report::for_nobody(system);
                report.exits(1);
                report.says("/usr", "BROKEN", "writable");
            });
        },
    ),
    (
        "a caller who is not root and has mounts of its own is told that nothing can be told",
        || {
            if !has_other_users() {
                return;
            }
            System::with(STRICT, |system| {
                closed(system);
                let open = "mount -o remount,bind,rw /usr && exec \"$@\"";
                let sandbox = ["unshare", "--mount", "sh", "-c", open, "sh"];
                let words = [&sandbox, NOBODY, &["/usr/bin/usr-policy", "verify"]].concat();
                let report = Report::of_command(&mut system.command(&words));
                report.exits(3);
                report.says("/usr", "unknown", "could not be looked at");
                assert!(
                    report
                        .findings
                        .iter()
                        .all(|(_, finding)| finding.verdict != "holds"),
                    "{}",
                    report.text
                );
            });
        },
    ),
    (
        "root in a sandbox judges the mounts of PID 1 and not its own",
        || {
            System::with(STRICT, |system| {
                closed(system);
                let in_sandbox = |change: &str| {
                    let script = format!("{change} && exec /usr/bin/usr-policy verify");
                    Report::of_command(
                        &mut system.command(&["unshare", "--mount", "sh", "-c", &script]),
                    )
                };
                let report = in_sandbox("mount -o remount,bind,rw /usr");
                report.exits(0);
                report.says("/usr", "holds", "read-only");
                system.does(&["mount", "-o", "remount,bind,rw", "/usr"]);
                let report = in_sandbox("mount -o remount,bind,ro /usr");
                report.exits(1);
                report.says("/usr", "BROKEN", "writable");
            });
        },
    ),
    ("verify changes nothing", || {
        changed(
            |_| {},
            |system, _| {
                let before = (
                    system.mounts(),
                    fs::read(system.path("/run/usr-policy/events")).unwrap(),
                );
                let listing = || {
                    let ran = system
                        .command(&[
                            "find",
                            "/run",
                            "/var/lib/pacman",
                            "/var/tmp",
                            "/var/cache/pacman",
                            "/etc",
                            "-printf",
                            "%p %T@ %C@\\n",
                        ])
                        .output()
                        .unwrap();
                    String::from_utf8(ran.stdout).unwrap()
                };
                let files = listing();
                Report::of_command(&mut system.command(&["/usr/bin/usr-policy", "verify"]))
                    .exits(0);
                assert_eq!(files, listing());
                assert_eq!(
                    before,
                    (
                        system.mounts(),
                        fs::read(system.path("/run/usr-policy/events")).unwrap()
                    )
                );
            },
        );
    }),
];
