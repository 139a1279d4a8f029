//! What verify shows on a terminal.

use std::fs::File;
use std::io::Read;

use nix::pty::{Winsize, openpty};
use usr_policy_tests::prepare::close;
use usr_policy_tests::system::System;

use crate::STRICT;

/// Long lines of every kind: the dangerous pair, and what could not be read.
fn broken(system: &System) {
    close(system);
    system.does(&["umount", "/var/lib/pacman"]);
    system.does(&["umount", "/var/tmp"]);
    std::os::unix::fs::symlink("usr-policy.conf", system.path("/etc/usr-policy.conf")).unwrap();
}

/// What verify writes to a terminal with so many columns.
fn on_terminal(system: &System, columns: u16, environment: &[(&str, &str)]) -> String {
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let ends = openpty(Some(&size), None).unwrap();
    let mut child = {
        let mut command = system.command(&["/usr/bin/usr-policy", "verify"]);
        command
            .env("TERM", "xterm")
            .envs(environment.iter().copied());
        command.stdout(ends.slave).spawn().unwrap()
    };
    let mut text = Vec::new();
    // It ends with EIO, when nobody has the other end open any more.
    let _ = File::from(ends.master).read_to_end(&mut text);
    child.wait().unwrap();
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

const PLAIN: (&str, &str) = ("NO_COLOR", "1");

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "no line is longer than the terminal, none is lost, and a pipe gets each finding whole",
        || {
            System::with(STRICT, |system| {
                broken(system);
                let (_, piped, _) = system.program(&["verify"]);
                assert!(piped.lines().any(|line| line.len() > 100), "{piped}");
                for columns in [56, 60, 80, 100, 300] {
                    let shown = on_terminal(system, columns, &[PLAIN]);
                    assert_eq!(words(&shown), words(&piped), "{columns}");
                    for line in shown.lines() {
                        assert!(line.len() <= columns.into(), "{columns}: {line}");
                    }
                }
                assert_eq!(on_terminal(system, 300, &[PLAIN]), piped);
            });
        },
    ),
    (
        "on sixty columns what goes on is indented, and no line is a single word where there is room",
        || {
            System::with(STRICT, |system| {
                broken(system);
                let shown = on_terminal(system, 60, &[PLAIN]);
                let expected = "\
  BROKEN   /usr and the package database  /usr is read-only
           and the database is writable
           pacman -R would report success, forget the
           package and leave its files
           -> do not run pacman; lock the database with
              /usr/lib/usr-policy/usr-policy-generator sync
";
                assert!(shown.contains(expected), "{shown}");
            });
        },
    ),
    (
        "a terminal that does not tell its width is as wide as COLUMNS says, or eighty",
        || {
            System::with(STRICT, |system| {
                broken(system);
                for (environment, columns) in [
                    (&[PLAIN, ("COLUMNS", "50")][..], 50),
                    (&[PLAIN, ("COLUMNS", "wide")], 80),
                    (&[PLAIN], 80),
                ] {
                    let shown = on_terminal(system, 0, environment);
                    assert_eq!(shown, on_terminal(system, columns, &[PLAIN]));
                }
                // Less than a word beside its indentation.
                let (_, piped, _) = system.program(&["verify"]);
                assert_eq!(on_terminal(system, 12, &[PLAIN]), piped);
            });
        },
    ),
    (
        "colours are for a terminal that has them, and for who wants them",
        || {
            System::with(STRICT, |system| {
                broken(system);
                let has_colours = |text: &str| text.contains("\u{1b}[");
                let shown = on_terminal(system, 80, &[]);
                assert!(shown.contains("\u{1b}[1m\u{1b}[31mBROKEN "), "{shown:?}");
                assert!(
                    shown.contains("\u{1b}[32mholds  \u{1b}[0m  /usr"),
                    "{shown:?}"
                );
                assert!(has_colours(&on_terminal(system, 80, &[("NO_COLOR", "")])));
                for environment in [PLAIN, ("NO_COLOR", "0"), ("TERM", "dumb")] {
                    assert!(!has_colours(&on_terminal(system, 80, &[environment])));
                }
                let (_, piped, _) = system.program(&["verify"]);
                assert!(!has_colours(&piped));
                // A colour takes no room.
                let plain = on_terminal(system, 60, &[PLAIN]);
                let coloured = on_terminal(system, 60, &[]);
                let bare = |text: &str| {
                    let mut parts = text.split('\u{1b}');
                    let first = parts.next().unwrap_or_default().to_owned();
                    parts.fold(first, |bare, part| {
                        bare + part.split_once('m').map_or("", |(_, rest)| rest)
                    })
                };
                assert_eq!(bare(&coloured), plain);
            });
        },
    ),
];
