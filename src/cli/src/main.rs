//! `usr-policy`: what people run after the boot.

mod arguments;
mod container;
mod contents;
mod explain;
mod guard;
mod journal;
mod lock;
mod machine;
mod observe;
mod plan;
mod status;
mod terminal;
mod unlock;
mod verify;

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;
use usr_policy_system::failure::Failure;

use crate::arguments::{Arguments, Verb};

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Verify(how) => verify::run(&how),
        Verb::Plan {
            root,
            cmdline,
            diff: false,
        } => plan::run(root, cmdline),
        Verb::Plan { cmdline, .. } => plan::difference(cmdline),
        Verb::Explain { path } => explain::run(&path),
        Verb::Guard => guard::run(),
        Verb::Status => status::run(),
        Verb::Unlock { time } => unlock::run(time),
        Verb::Lock { remove_stale } => lock::run(remove_stale),
    };
    match result {
        Ok(Shown {
            text,
            complaints,
            exit_code,
        }) => {
            for complaint in complaints {
                complain(&complaint);
            }
            match io::stdout().lock().write_all(&text) {
                // Whoever closed the pipe has seen enough.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    complain(&format_args!("cannot write to standard output: {error}"));
                    ExitCode::from(COULD_NOT_TELL)
                }
                _ => ExitCode::from(exit_code),
            }
        }
        Err(failure) => {
            complain(&failure);
            ExitCode::from(COULD_NOT_TELL)
        }
    }
}

/// The exit code of a verb that could not look.
const COULD_NOT_TELL: u8 = 3;

/// The exit code of a verb that could act and will not.
const REFUSED: u8 = 4;

/// What a verb has to say.
struct Shown {
    /// For standard output.
    text: Vec<u8>,
    /// For standard error.
    complaints: Vec<String>,
    /// 0: all held; 1: something does not; 3: could not tell; 4: refused.
    exit_code: u8,
}

impl Shown {
    /// In a container: the command line is the host's, and the mounts are the manager's.
    fn nothing_promised() -> Self {
        let text =
            b"usr-policy: in a container: nothing is promised; its mounts are its manager's\n";
        Shown {
            text: text.to_vec(),
            complaints: Vec::new(),
            exit_code: 0,
        }
    }

    /// Nothing was done, and why.
    fn refused(complaints: Vec<String>) -> Self {
        Shown {
            text: Vec::new(),
            complaints,
            exit_code: REFUSED,
        }
    }
}

type Outcome = Result<Shown, Failure>;

fn complain(what: &dyn fmt::Display) {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr(), "usr-policy: {what}"));
}
