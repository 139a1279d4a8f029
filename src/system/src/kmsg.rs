//! Log records for /dev/kmsg, where systemd wants them from a generator; stderr where it cannot be opened.

use std::fs::File;
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
    console: Option<Console>,
}

/// Sends every record of this process to the kernel log under this name.
pub fn init(identifier: &'static str) {
    start(identifier, None);
}

/// The same, and shows warnings and errors on the console: in the first process nobody else does.
pub fn init_with_console(identifier: &'static str) {
    start(identifier, Console::open());
}

fn start(identifier: &'static str, console: Option<Console>) {
    let kernel = KernelLog::with_level(LevelFilter::Trace).ok();
    let logger = Logger {
        identifier,
        // What the kernel is not told, it does not show.
        console: console.map(|console| match kernel {
            Some(_) => console,
            None => Console {
                shown_by_kernel: LevelFilter::Off,
                ..console
            },
        }),
        kernel,
    };
    // A second call in one process would fail, and the first logger serves.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Where a person looks while the machine starts.
struct Console {
    file: File,
    /// What the kernel shows there by itself. Source: proc_sys_kernel(5), `printk`.
    shown_by_kernel: LevelFilter,
}

impl Console {
    fn open() -> Option<Self> {
        // Without a console there is nobody to see anything.
        let file = File::options().write(true).open("/dev/console").ok()?;
        let printk = std::fs::read("/proc/sys/kernel/printk").unwrap_or_default();
        let shown_by_kernel = match printk.first() {
            None | Some(b'0'..=b'3') => LevelFilter::Off,
            Some(b'4') => LevelFilter::Error,
            Some(_) => LevelFilter::Warn,
        };
        Some(Console {
            file,
            shown_by_kernel,
        })
    }

    fn show(&self, level: Level, line: &str) {
        if level <= Level::Warn && level > self.shown_by_kernel {
            // One write(2): a service that writes too does not mix in. Nobody is left to tell when it fails.
            drop((&self.file).write_all(format!("{line}\n").as_bytes()));
        }
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
            if let Some(console) = &self.console {
                console.show(record.level(), &format!("{}: {line}", self.identifier));
            }
            for piece in pieces(line, RECORD - PREFIX) {
                match &self.kernel {
                    Some(kernel) => kernel.log(
                        &Record::builder()
                            .level(level)
                            .target(self.identifier)
                            .args(format_args!("{piece}"))
                            .build(),
                    ),
                    None if self.console.is_some() => {}
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
