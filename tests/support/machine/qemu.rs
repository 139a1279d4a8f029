//! An emulated machine, from power on to power off.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::base::ROOT_LABEL;
use super::command::tail;
use super::error::{At, Error, Result};
use super::firmware::Firmware;
use super::neighbour::{Network, words_of_the_client};
use super::uml;

/// The emulator.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";

/// Works on every machine that runs the tests. `-cpu max` panics at random in the emulator of QEMU 7.2 (cmpxchg16b),
/// and is slower: it makes the C library choose AVX2 strings.
const PROCESSOR: &str = "qemu64,-cx16,-svm";

/// What the tests' own boots have on the kernel command line: a console, no waiting for a person, and nothing that
/// costs an emulated machine time without changing what is tested.
const WORDS: &str = "console=ttyS0 loglevel=4 systemd.show_status=yes systemd.log_color=no rd.shell=0 \
    rd.emergency=poweroff panic=-1 mitigations=off init_on_alloc=0 apparmor=0 audit=0 nokaslr 8250.nr_uarts=2";

/// How long a guest may take. The slowest, OpenRC in user-mode-linux, needs a third.
const TIME_LIMIT: Duration = Duration::from_mins(8);

/// Memory in MiB.
const MEMORY: u32 = 1024;

/// The second one makes a boot a third faster. In QEMU before 8.1 it may also translate code that the first is just
/// changing, and run it for good: the kernel dies of a breakpoint of its own, and only where there are two.
pub(super) const PROCESSORS: u8 = 2;

/// How long a machine that has switched itself off may take to end.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How often to look whether the machine has stopped.
const TICK: Duration = Duration::from_millis(100);

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The guest switched itself off, or restarted.
    ByItself,
    /// It took too long and was stopped.
    TimeLimit,
}

/// An emulated machine and its disks.
#[derive(Debug, Clone, Copy)]
pub struct Qemu<'a> {
    /// The kernel; `None` for user-mode-linux, which is one.
    pub kernel: Option<&'a Path>,
    /// The initramfs, where there is one.
    pub initramfs: Option<&'a Path>,
    /// The directory of its disks: `/dev/disk/by-id/virtio-NAME`, the root's first. What the guest writes is forgotten, so that an image
    /// serves many boots.
    pub disks: &'a Path,
    /// The names of the disks in that directory.
    pub names: &'a [&'static str],
    /// A disk that can only be read: `/dev/disk/by-id/virtio-input`.
    pub input: &'a Path,
    /// A disk whose writes are kept: `/dev/disk/by-id/virtio-output`.
    pub output: &'a Path,
    /// More words for the kernel command line.
    pub words: &'a str,
    /// What the guest writes to its first serial port.
    pub console: &'a Path,
    /// What it writes to the second.
    pub lines: &'a Path,
    /// What starts the kernel in the place of QEMU; the kernel, the initramfs and the words are on its own disk.
    pub firmware: Option<&'a Firmware>,
    /// The network that it has, if any: `eth0`.
    pub network: Option<&'a Network>,
    /// How many processors it has.
    pub processors: u8,
}

/// How the root is mounted: `rw`, unless the words say otherwise. Not every program takes the last of two.
fn access(words: &str) -> &'static str {
    if words.split(' ').any(|word| word == "ro") {
        ""
    } else {
        "rw"
    }
}

/// A machine without disks, network and console.
pub(super) fn bare(memory: u32, processors: u8) -> Command {
    // setpriv: the machine does not outlive a test that is killed.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", PROGRAM])
        .args(["-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512"])
        .args(["-cpu", PROCESSOR, "-smp", &processors.to_string()])
        .args(["-m", &memory.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-device", "virtio-rng-pci"]);
    command
}

/// A disk.
pub(super) fn drive(id: &str, file: &Path, how: &str) -> [String; 4] {
    // QEMU splits at commas; a doubled one is one.
    let file = file.display().to_string().replace(',', ",,");
    [
        "-drive".to_owned(),
        format!("id={id},file={file},format=raw,if=none,cache=unsafe,{how}"),
        "-device".to_owned(),
        format!("virtio-blk-pci,drive={id},serial={id}"),
    ]
}

impl Qemu<'_> {
    /// Everything that decides how the machine runs and is not a file of it, for the key of a boot.
    #[must_use]
    pub fn recipe(words: &str) -> String {
        format!("{PROCESSOR} {MEMORY} {WORDS} {words}")
    }

    /// The kernel command line of a machine with these words, and without a network.
    #[must_use]
    pub fn command_line(words: &str) -> String {
        format!("root=LABEL={ROOT_LABEL} {} {WORDS} {words}", access(words))
    }

    /// Runs the machine until it stops.
    ///
    /// # Errors
    /// QEMU cannot be run, or fails.
    pub fn run(&self, log: &Path) -> Result<Ended> {
        self.run_watched(log, || Ok(()))
    }

    /// Runs the machine until it stops, and calls a function several times a second meanwhile: who reads the files of
    /// the serial ports there sees what the guest writes as it writes it. Its error stops the machine.
    ///
    /// # Errors
    /// Those of [`Qemu::run`] and of the function.
    pub fn run_watched(&self, log: &Path, mut look: impl FnMut() -> Result<()>) -> Result<Ended> {
        let (program, mut command) = match self.kernel {
            Some(kernel) => (PROGRAM, self.command(kernel, log)?),
            None => (uml::PROGRAM, uml::command(self, MEMORY)?),
        };
        let mut child = command.spawn().map_err(|error| {
            Error::new(format!(
                "{program}: {error}; tests/requirements boot installs what is needed"
            ))
        })?;
        let began = Instant::now();
        let mut halted = None;
        loop {
            let stopped = child.try_wait().at(log)?;
            // Once more after the end, for the last lines.
            if let Err(error) = look() {
                if stopped.is_none() {
                    child.kill().and_then(|()| child.wait()).at(log)?;
                }
                return Err(error);
            }
            if let Some(status) = stopped {
                if status.success() {
                    return Ok(Ended::ByItself);
                }
                return Err(Error::new(format!("{program}: {status}: {}", tail(log, 5))));
            }
            if self.kernel.is_none() && uml::has_halted(self.console) {
                let halted = *halted.get_or_insert_with(Instant::now);
                if halted.elapsed() > LAST_WORDS {
                    child.kill().and_then(|()| child.wait()).at(log)?;
                    return Ok(Ended::ByItself);
                }
            }
            if began.elapsed() > TIME_LIMIT {
                child.kill().and_then(|()| child.wait()).at(log)?;
                return Ok(Ended::TimeLimit);
            }
            sleep(TICK);
        }
    }

    fn command(&self, kernel: &Path, log: &Path) -> Result<Command> {
        let file = File::create(log).at(log)?;
        let mut command = bare(MEMORY, self.processors);
        let network = self.network.map(|_| format!(" {}", words_of_the_client()));
        let network = network.unwrap_or_default();
        command
            .args(
                self.names
                    .iter()
                    .flat_map(|name| drive(name, &self.disks.join(name), "snapshot=on")),
            )
            .args(drive("input", self.input, "readonly=on"))
            .args(drive("output", self.output, "snapshot=off"))
            .args(
                self.network
                    .iter()
                    .flat_map(|network| network.of_the_client()),
            )
            .args([
                "-serial".to_owned(),
                format!("file:{}", self.console.display()),
            ])
            .args([
                "-serial".to_owned(),
                format!("file:{}", self.lines.display()),
            ]);
        match self.firmware {
            Some(firmware) => {
                command.args(firmware.arguments());
            }
            None => {
                command
                    .arg("-kernel")
                    .arg(kernel)
                    .args(
                        self.initramfs
                            .iter()
                            .flat_map(|file| [Path::new("-initrd"), *file]),
                    )
                    .args([
                        "-append".to_owned(),
                        format!("{}{network}", Self::command_line(self.words)),
                    ]);
            }
        }
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().at(log)?)
            .stderr(file);
        Ok(command)
    }
}
