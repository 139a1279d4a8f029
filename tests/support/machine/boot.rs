//! One boot of an image: what the guest is given, what it says and what it brings back, below one directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::cache;
use super::command::{self, tail};
use super::disk;
use super::error::{At, Error, Result};
use super::firmware::Firmware;
use super::image::Made;
use super::neighbour::{Neighbour, Serves};
use super::qemu::{Ended, PROCESSORS, Qemu};
use super::uml;

/// Room for everything that a guest brings back.
const OUTPUT_SIZE: u64 = 64 << 20;

/// Lines of the console that a failure repeats.
const TAIL: usize = 25;

/// What is said of a boot that the emulator has ended.
const ONCE_MORE: &str = "booting once more, with one processor";

/// A boot, and the directory of its records.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// What the machine starts from.
    pub made: &'a Made,
    /// More words on the kernel command line.
    pub words: &'a str,
    /// What starts the kernel, where QEMU does not.
    pub firmware: Option<&'a Firmware>,
    /// Where all of it is kept. What is there from an earlier boot is removed.
    pub dir: &'a Path,
    /// A file that the guest brings back if it has come to its end; `None` where it cannot come there, and the console is
    /// all that tells.
    pub proof: Option<&'a str>,
}

impl Boot<'_> {
    /// What the guest has written to its console.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// What the guest has written to the second serial port.
    #[must_use]
    pub fn lines(&self) -> PathBuf {
        self.dir.join("lines.log")
    }

    /// What the guest has brought back.
    #[must_use]
    pub fn guest(&self) -> PathBuf {
        self.dir.join("guest")
    }

    /// Gives the guest a directory as a tar archive on a disk of its own, boots it, and unpacks the archive that it has
    /// written to another disk. Returns how long the machine ran.
    ///
    /// `look` is called while it runs, as in [`Qemu::run_watched`].
    ///
    /// # Errors
    /// The machine cannot be run, or does not come to its end.
    pub fn run(&self, input: &Path, mut look: impl FnMut() -> Result<()>) -> Result<Duration> {
        cache::remove(self.dir)?;
        let guest = self.guest();
        fs::create_dir_all(&guest).at(&guest)?;
        let file = |name: &str| self.dir.join(name);
        let (archive, output, log) = (file("input.tar"), file("output.tar"), file("log"));
        let (console, lines) = (self.console(), self.lines());
        disk::archive(input, &archive, &log)?;
        let neighbour = self.neighbour()?;
        let mut machine = Qemu {
            kernel: self.made.kernel.as_deref(),
            initramfs: self.made.initramfs.as_deref(),
            disks: &self.made.disks,
            names: &self.made.names,
            input: &archive,
            output: &output,
            words: self.words,
            console: &console,
            lines: &lines,
            firmware: self.firmware,
            network: neighbour.as_ref().map(Neighbour::network),
            // Firmware counts each boot, so that one cannot be repeated.
            processors: if self.firmware.is_some() {
                1
            } else {
                PROCESSORS
            },
        };
        let began = Instant::now();
        let mut ended = Ended::TimeLimit;
        for repeated in [false, true] {
            disk::empty(&output, OUTPUT_SIZE)?;
            ended = machine.run_watched(&file("qemu.log"), &mut look)?;
            // The emulator's fault, about once in thirty boots; nothing else is ever repeated.
            let Some(fault) = fault_of_the_emulator(&console) else {
                break;
            };
            if self.firmware.is_some() {
                break;
            }
            if !repeated {
                machine.processors = 1;
                eprintln!("{}: {fault}; {ONCE_MORE}", console.display());
                fs::copy(&console, file("console-of-the-first-try.log")).at(&console)?;
            }
        }
        let took = began.elapsed();
        for name in &self.made.names {
            cache::remove(&file(&uml::writes(name)))?;
        }
        let came_to_its_end = match self.proof {
            None => true,
            Some(proof) => {
                let mut unpack = Command::new("tar");
                unpack.arg("--extract").arg("--file").arg(&output);
                command::run(unpack.arg("-C").arg(&guest), &log).is_ok()
                    && guest.join(proof).exists()
            }
        };
        if ended == Ended::TimeLimit || !came_to_its_end {
            let what = match ended {
                Ended::TimeLimit => "did not switch itself off in time",
                Ended::ByItself => "brought nothing back",
            };
            return Err(Error::new(format!(
                "the guest {what}; {} ends with\n{}\n\n{} ends with\n{}",
                console.display(),
                tail(&console, TAIL),
                lines.display(),
                tail(&lines, 5),
            )));
        }
        for done in [&archive, &output] {
            cache::remove(done)?;
        }
        Ok(took)
    }

    /// The other machine, where a part of the layout is there; it is ready.
    fn neighbour(&self) -> Result<Option<Neighbour>> {
        let Some(share) = self.made.share else {
            return Ok(None);
        };
        match (&self.made.kernel, &self.made.server, share.server.access()) {
            (Some(kernel), Some(initramfs), Some(access)) => {
                let serves = Serves {
                    kernel,
                    initramfs,
                    disk: &self.made.disks.join(share.label),
                    access,
                };
                let console = self.dir.join("server.log");
                let started = Neighbour::start(&serves, &console, PROCESSORS);
                match (&started, fault_of_the_emulator(&console)) {
                    (Err(_), Some(fault)) => {
                        eprintln!("{}: {fault}; {ONCE_MORE}", console.display());
                        Neighbour::start(&serves, &console, 1)
                    }
                    _ => started,
                }
                .map(Some)
            }
            _ => Neighbour::nobody().map(Some),
        }
    }
}

/// What the emulator did to the guest, where it did; nothing that runs in the guest can.
fn fault_of_the_emulator(console: &Path) -> Option<&'static str> {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    if !text.lines().any(is_of_user_space) {
        return Some("no line of user space on the console");
    }
    // The kernel patches its own code with a breakpoint in the first byte, and QEMU's other processor runs into it.
    text.lines()
        .any(|line| line.contains("Oops: int3: 0000"))
        .then_some("the kernel ran into a breakpoint of its own")
}

/// Whether a line of the console is not the kernel's, which begins with its time: `[    1.234567] `.
fn is_of_user_space(line: &str) -> bool {
    let time = line
        .trim_start()
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'));
    let kernel = time.is_some_and(|(time, _)| time.trim().parse::<f64>().is_ok());
    !kernel && !line.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::fault_of_the_emulator;
    use std::fs;

    #[test]
    fn only_what_no_guest_can_do_is_the_emulators_fault() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let console = dir.path().join("console.log");
        let fault = |text: &str| {
            fs::write(&console, text).expect("the console is written");
            fault_of_the_emulator(&console)
        };
        let kernel = "[    0.000000] Linux version 6.12.107\r\n[    1.627137] Oops: int3: 0000 [#2] PREEMPT SMP NOPTI\r\n";
        let panic = "[    9.100000] Kernel panic - not syncing: Attempted to kill init!\r\n";
        let started =
            "[    2.000000] Run /init as init process\r\nWelcome to Debian GNU/Linux!\r\n";
        assert!(fault("").is_some());
        assert!(fault(kernel).is_some());
        assert!(fault(&format!("{started}{kernel}")).is_some());
        assert_eq!(fault(started), None);
        assert_eq!(fault(&format!("{started}{panic}")), None);
    }
}
