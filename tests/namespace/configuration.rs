//! Configuration that is too much, and a command line that wants none of it.

use std::fs::create_dir_all;

use usr_policy_tests::system::System;

use crate::STRICT;

const FILE: &str = "/etc/usr-policy.conf";

/// What a configuration file may hold.
const LIMIT: usize = 1 << 20;

/// Runs the generator; exit code and log.
fn generate(system: &System) -> (i32, String) {
    create_dir_all(system.path("/run/units")).unwrap();
    system.generator(&["/run/units"])
}

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "off on the command line reads no configuration, and verify still says what is wrong there",
        || {
            System::with("usrpolicy=strict usrpolicy=off", |system| {
                system.write(FILE, &"x".repeat(LIMIT + 1));
                assert_eq!(generate(system), (0, String::new()));
                assert_eq!(system.generator(&["sync"]), (0, String::new()));
                system.write(FILE, "nonsense\n");
                assert_eq!(generate(system), (0, String::new()));
                let (exit, text, _) = system.program(&["verify"]);
                assert_eq!(exit, 1, "{text}");
                assert!(text.contains("/etc/usr-policy.conf:1"), "{text}");
                let (exit, _, complaints) = system.program(&["plan"]);
                assert_eq!(exit, 1);
                assert!(
                    complaints.contains("/etc/usr-policy.conf:1: "),
                    "{complaints}"
                );
            });
        },
    ),
    (
        "a configuration file of more than a mebibyte counts for nothing, and is one error",
        || {
            System::with("root=/dev/vda2 rw", |system| {
                let with = |length: usize| {
                    let text = "[Policy]\nMode=strict\n#";
                    format!("{text}{}", " ".repeat(length - text.len()))
                };
                system.write(FILE, &with(LIMIT));
                let (exit, log) = generate(system);
                assert_eq!((exit, log.as_str()), (0, ""));
                assert!(system.path("/run/units/usr.mount").exists());
                system.does(&["rm", "-r", "/run/units"]);
                system.write(FILE, &with(LIMIT + 1));
                assert_eq!(
                    generate(system),
                    (1, "<3> /etc/usr-policy.conf: cannot read: File too large; a configuration file may hold 1 MiB; remove what does not belong there\n".to_owned())
                );
                assert!(!system.path("/run/units/usr.mount").exists());
                let (exit, text, _) = system.program(&["verify"]);
                assert_eq!(exit, 3, "{text}");
                assert!(text.contains("File too large"), "{text}");
            });
        },
    ),
    (
        "twenty problems of a file are said, and how many more there are",
        || {
            System::with(STRICT, |system| {
                system.write(FILE, &"nonsense\n".repeat(1_000));
                system.write("/etc/usr-policy.conf.d/a.conf", &"x\n".repeat(21));
                system.write("/etc/usr-policy.conf.d/b.conf", &"y\n".repeat(20));
                system.write("/etc/fstab", &"nonsense\n".repeat(1_000));
                let (exit, log) = generate(system);
                assert_eq!(exit, 1);
                let count = |head: &str| log.matches(head).count();
                assert_eq!(count("<3> /etc/usr-policy.conf:"), 21, "{log}");
                assert_eq!(count("<3> /etc/usr-policy.conf.d/a.conf:"), 21);
                assert_eq!(count("<3> /etc/usr-policy.conf.d/b.conf:"), 20);
                assert_eq!(count("<4> /etc/fstab:"), 21);
                for line in [
                    "<3> /etc/usr-policy.conf:20: is not a setting; write Key=value, or start a comment with #\n",
                    "<3> /etc/usr-policy.conf: and 980 more; usr-policy plan shows all of them\n",
                    "<3> /etc/usr-policy.conf.d/a.conf: and 1 more; usr-policy plan shows all of them\n",
                    "<4> /etc/fstab: and 980 more; usr-policy plan shows all of them\n",
                ] {
                    assert!(log.contains(line), "{log}");
                }
                let (_, _, complaints) = system.program(&["plan"]);
                assert_eq!(complaints.lines().count(), 1_000 + 21 + 20 + 1_000);
            });
        },
    ),
];
