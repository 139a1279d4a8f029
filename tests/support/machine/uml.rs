//! user-mode-linux: a kernel with its disk drivers built in, which starts a root without an initramfs.

use std::fs::{self, File};
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

/// What the kernel says last.
const HALTED: &[u8] = b"reboot: System halted";

/// Whether the machine has switched itself off. Its process may go on all the same: what a late timer then finds is gone, and
/// the kernel dies of that without an end.
pub(super) fn has_halted(console: &Path) -> bool {
    let text = fs::read(console).unwrap_or_default();
    text.windows(HALTED.len()).any(|window| window == HALTED)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_halted_when_its_kernel_says_so_whatever_comes_after() {
        let console = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [
            ("systemd-shutdown[1]: Powering off.\n", false),
            (
                "<0>reboot: System halted\n<0>Kernel panic - not syncing\n",
                true,
            ),
        ] {
            fs::write(console.path(), text).unwrap();
            assert_eq!(has_halted(console.path()), expected, "{text}");
        }
        assert!(!has_halted(Path::new("/nowhere/console.log")));
    }
}
