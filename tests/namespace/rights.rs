//! Who may read and write what is written below `/run`, whatever the umask of whoever runs a verb.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use usr_policy_tests::privilege::has_other_users;
use usr_policy_tests::system::{GENERATOR, System, becomes};

use crate::STRICT;
use crate::lock::{DATABASE, STATE, does, seen, sync};

/// Runs a verb of a person with another umask.
fn with_umask(system: &System, umask: &str, verb: &str) {
    system.does(&["sh", "-c", &format!("umask {umask} && usr-policy {verb}")]);
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "whatever the umask, everybody may read what is on record and nobody else may write it",
        || {
            for umask in ["077", "000"] {
                System::with(STRICT, |system| {
                    sync(system);
                    // Whoever is first makes the directories.
                    fs::remove_dir_all(system.path("/run/usr-policy")).unwrap();
                    with_umask(system, umask, "unlock");
                    let mode = |path: &str| {
                        let metadata = fs::metadata(system.path(path)).unwrap();
                        format!("{path} {:o}", metadata.permissions().mode() & 0o7777)
                    };
                    let found = [
                        "/run/usr-policy",
                        "/run/usr-policy/open",
                        "/run/usr-policy/state",
                        "/run/usr-policy/open/usr.mount",
                        "/run/usr-policy/events",
                        STATE,
                    ]
                    .map(mode);
                    assert_eq!(
                        found,
                        [
                            "/run/usr-policy 755",
                            "/run/usr-policy/open 755",
                            "/run/usr-policy/state 755",
                            "/run/usr-policy/open/usr.mount 644",
                            "/run/usr-policy/events 644",
                            "/run/usr-policy/state/lock 644",
                        ],
                        "umask {umask}"
                    );
                });
            }
        },
    ),
    (
        "a link in place of a record is replaced, and the file that it leads to stays as it is",
        || {
            System::with(STRICT, |system| {
                sync(system);
                system.write("/etc/precious", "precious");
                fs::create_dir_all(system.path("/run/usr-policy/open")).unwrap();
                for path in ["/run/usr-policy/open/usr.mount", &[STATE, ".new"].concat()] {
                    let path = system.path(path);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    symlink("/etc/precious", path).unwrap();
                }
                does(system, &["unlock"]);
                assert!(seen(system, "unlock"));
                for path in ["/run/usr-policy/open/usr.mount", STATE] {
                    let found = fs::symlink_metadata(system.path(path)).unwrap();
                    assert!(found.is_file(), "{path}");
                }
                let text = fs::read_to_string(system.path("/etc/precious")).unwrap();
                assert_eq!(text, "precious");
            });
        },
    ),
    (
        "who may not read what is on record is told so, and nothing else is said to be broken",
        || {
            if !has_other_users() {
                return;
            }
            System::with(STRICT, |system| {
                sync(system);
                does(system, &["unlock"]);
                fs::set_permissions(system.path(STATE), Permissions::from_mode(0o600)).unwrap();
                let ran = system
                    .as_nobody(&["usr-policy", "verify"])
                    .output()
                    .unwrap();
                assert_eq!(ran.status.code(), Some(3), "{ran:?}");
                let said = String::from_utf8(ran.stderr).unwrap();
                assert_eq!(
                    said,
                    "usr-policy: /run/usr-policy/state/lock: cannot read: Permission denied; without it nobody can tell what is open on purpose: run it as root\n"
                );
                assert!(!system.is_read_only(DATABASE));
            });
        },
    ),
    (
        "a follower that cannot watch the requests looks for them, and says so once",
        || {
            System::with(STRICT, |system| {
                sync(system);
                let said = || {
                    let text = "/run/usr-policy/state: cannot watch: Too many open files; what usr-policy lock and unlock ask for is looked for once a second; fs.inotify.max_user_instances";
                    system.log().matches(text).count()
                };
                let words = [GENERATOR, "follow"];
                let mut command = system.with_call("inotify_init1", "error=EMFILE", &words);
                let mut follower = command.spawn().unwrap();
                becomes("it follows", || system.is_followed());
                does(system, &["unlock", "--for", "2s"]);
                becomes("the unlock ends", || system.is_read_only(DATABASE));
                assert_eq!(said(), 1, "{}", system.log());
                system.does(&["sh", "-c", "kill $(pidof -x usr-policy-generator)"]);
                follower.wait().unwrap();
            });
        },
    ),
];
