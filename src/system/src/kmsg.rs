//! Log records for /dev/kmsg, where systemd wants them from a generator; stderr where it cannot be opened.

use std::io::{self, Write};

use kernlog::KernelLog;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// What one record may hold: the kernel refuses longer ones (1,024 bytes with its own prefix, less on older kernels).
const RECORD: usize = 976;

/// Room for `<3>usr-policy-generator[4194304]: `.
const PREFIX: usize = 48;

/// Makes kernlog usable: it has no fallback, puts the module's path where journalctl -t looks for the program, loses long
/// records, and is one step louder than systemd with everything below a warning.
struct Logger {
    identifier: &'static str,
    kernel: Option<KernelLog>,
}

/// Sends every record of this process to the kernel log under this name.
pub fn init(identifier: &'static str) {
    let kernel = KernelLog::with_level(LevelFilter::Trace).ok();
    // A second call in one process would fail, and the first logger serves.
    if log::set_boxed_logger(Box::new(Logger { identifier, kernel })).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        // kernlog makes Info a notice (5) and Debug an info (6); systemd's info is 6.
        let level = match record.level() {
            Level::Info => Level::Debug,
            Level::Debug => Level::Trace,
            level => level,
        };
        for line in text.lines() {
            for piece in pieces(line, RECORD - PREFIX) {
                match &self.kernel {
                    Some(kernel) => kernel.log(
                        &Record::builder()
                            .level(level)
                            .target(self.identifier)
                            .args(format_args!("{piece}"))
                            .build(),
                    ),
                    // Nobody is left to tell when stderr is closed too.
                    None => drop(writeln!(io::stderr(), "{}: {piece}", self.identifier)),
                }
            }
        }
    }

    fn flush(&self) {}
}

/// Splits a line into pieces of at most `max` bytes, never inside a character.
fn pieces(line: &str, max: usize) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at(rest.floor_char_boundary(max));
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_for_one_record_loses_nothing() {
        let line = "ä".repeat(1000);
        let split: Vec<&str> = pieces(&line, RECORD - PREFIX).collect();
        assert!(split.len() > 1);
        assert!(split.iter().all(|piece| piece.len() <= RECORD - PREFIX));
        assert_eq!(split.concat(), line);
    }
}
