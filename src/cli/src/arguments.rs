//! The command line of `usr-policy`, in one definition.
//!
//! It names nothing else of this program: examples/pages.rs, which makes the manual page and the completions, takes it as it is.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

/// Read-only /usr from boot, a locked package database, and the truth about both.
#[derive(Debug, Parser)]
#[command(
    name = "usr-policy",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The time of an unlock. What ends in a year nobody waits for.
fn parse_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time > Duration::from_hours(24 * 365) {
        return Err("more than a year; leave --for away".to_owned());
    }
    Ok(time)
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Tell whether the running system is what the policy promises
    ///
    /// What is broken comes first, then what could not be told, then warnings: each with what was found, why it matters and what
    /// to do. What holds has a line. On a terminal lines are as long as it is wide, with colours unless NO_COLOR is set; what
    /// goes elsewhere has none, and a finding is never broken into lines.
    ///
    /// Exit status: 0 everything holds, 1 something promised does not hold, 2 wrong usage, 3 could not tell.
    Verify(Verify),
    /// Show what the generator writes and what the initramfs does
    ///
    /// Exit status: 0, or 1 if a word or a line of the configuration could not be understood, 2 wrong usage, 3 could not read.
    /// With --diff 0 where there is no difference, 1 where there is one.
    Plan {
        /// Read configuration and fstab below this directory
        #[arg(long, value_name = "DIR", default_value = "/", value_hint = ValueHint::DirPath)]
        root: PathBuf,
        /// Take this for the kernel command line instead of the running kernel's
        #[arg(long, value_name = "TEXT")]
        cmdline: Option<OsString>,
        /// Show only what differs from what the generator has written and from what is mounted
        #[arg(long, conflicts_with = "root")]
        diff: bool,
    },
    /// Tell why a path is as it is, what becomes of it at the next boot, and how to change it
    ///
    /// The mount, the rule and where that comes from, the extension and the package that it belongs to, and whether it can be
    /// written. A path that does not exist is told of as if it were made.
    ///
    /// Exit status: 0 told, 2 wrong usage, 3 could not look.
    Explain {
        /// The path, absolute or from the current directory
        #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
        path: PathBuf,
    },
    /// Show what is closed, what is open, since when and why
    ///
    /// Exit status: 0, or 3 if it could not be looked at.
    Status,
    /// Open /usr, the package database and the package cache, to install or remove packages
    ///
    /// Until usr-policy lock, the next merge of an extension, or the next boot. Exit status: 0 open, 2 wrong usage, 3 could not
    /// be done, 4 refused.
    Unlock {
        /// Close everything again after this time, for instance 15m or 1h30m
        #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
        time: Option<Duration>,
    },
    /// Tell pacman whether /usr may change; its hook asks
    #[command(hide = true)]
    Guard,
    /// Close the package database and /usr again
    ///
    /// Exit status: 0 closed, 1 something is still open, 2 wrong usage, 3 could not be done, 4 refused: a program is writing.
    Lock {
        /// Remove a lock file of the package manager that no program holds
        #[arg(long)]
        remove_stale: bool,
    },
}

/// How a verdict is shown: what is in the group `form` goes by itself.
#[derive(Debug, Args)]
#[group(skip)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub(crate) struct Verify {
    /// Print only what is broken or could not be told; nothing where that is nothing
    #[arg(short, long, group = "form")]
    pub(crate) quiet: bool,
    /// Print also what does not apply here, the layers of each rule, what the lock table says, and when it was looked
    #[arg(short, long, group = "form")]
    pub(crate) all: bool,
    /// Print one JSON object, as /usr/share/usr-policy/verify.schema.json describes it; short for --format=json
    #[arg(long, group = "form")]
    json: bool,
    /// Print text for people, one JSON object, or metrics for the textfile collector of a Prometheus node exporter
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "text",
        group = "form"
    )]
    format: Format,
    /// Write the verdict to the journal, as one record, and not to standard output
    #[arg(long, group = "form")]
    pub(crate) journal: bool,
    /// Walk through what is hidden beneath each tmpfs, and say how much it is
    #[arg(long)]
    pub(crate) deep: bool,
}

impl Verify {
    /// The form that was asked for, by either option.
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// Whom a verdict is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people; it may change.
    Text,
    /// For programs.
    Json,
    /// For a fleet.
    Metrics,
}
