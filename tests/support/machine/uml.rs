//! user-mode-linux: a kernel with its disk drivers built in, which starts a root without an initramfs.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::{At, Result};
use super::qemu::Qemu;

/// Debian's kernel for it, with the modules below [`MODULES`].
pub const PROGRAM: &str = "linux.uml";

/// A directory for the one version that is installed.
pub const MODULES: &str = "/usr/lib/uml/modules";

/// What is different from an emulated machine on the kernel command line.
const WORDS: &str = "root=/dev/ubda rw console=ttyS0 loglevel=4 systemd.show_status=yes systemd.log_color=no panic=-1";

/// Everything that decides how the machine runs and is not a file of it, for the key of an image.
#[must_use]
pub fn recipe() -> String {
    format!("{PROGRAM} {WORDS}")
}

/// What is written to a disk of this name goes there instead, and is forgotten after the boot.
#[must_use]
pub fn writes(name: &str) -> String {
    format!("{name}.cow")
}

/// The command that runs a machine: its first two disks are the root and one other, the next are input and output.
pub(super) fn command(machine: &Qemu<'_>, memory: u32) -> Result<Command> {
    let disk = |(number, name): (usize, &&str)| {
        let writes = machine.output.with_file_name(writes(name));
        let file = machine.disks.join(name);
        format!("ubd{number}={},{}", writes.display(), file.display())
    };
    let create = |file: &Path| File::create(file).at(file);
    let mut command = Command::new("setpriv");
    // It is many processes, which go on for ever without the first: they end with the namespace.
    command
        .args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", PROGRAM])
        .arg(format!("mem={memory}M"))
        .args(machine.names.iter().take(2).enumerate().map(disk))
        .arg(format!("ubd2r={}", machine.input.display()))
        .arg(format!("ubd3={}", machine.output.display()))
        .args(["con=null", "ssl=null", "ssl0=null,fd:1", "ssl1=null,fd:2"])
        .args(WORDS.split(' '))
        .args(machine.words.split_ascii_whitespace())
        .stdin(Stdio::null())
        .stdout(create(machine.console)?)
        .stderr(create(machine.lines)?);
    Ok(command)
}
