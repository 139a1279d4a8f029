//! What makes a suite's tree a machine that boots to the end, quickly and always the same way.

use super::tree::Extra;

/// Label of the root file system, in fstab and on the kernel command line.
pub const ROOT_LABEL: &str = "root";

/// As genfstab writes it. With an empty fstab systemd-remount-fs has nothing to do, and a test of its restart would
/// prove nothing.
const FSTAB: &str = "LABEL=root\t/\text4\trw,relatime\t0 1\n";

/// Fixed: a machine without one is on its first boot, which is another boot than the second.
const MACHINE_ID: &str = "6e616d6f6e6f6d61636869746f627973\n";

/// What waits for a terminal or a network, or runs when it likes.
const MASKED: [&str; 10] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@.service",
    "serial-getty@.service",
    "systemd-tmpfiles-clean.timer",
];

/// The files of such a machine.
#[must_use]
pub fn extras() -> Vec<Extra> {
    let mut extras = vec![
        Extra::file("/etc/fstab", FSTAB),
        Extra::file("/etc/hostname", "machine\n"),
        Extra::file("/etc/machine-id", MACHINE_ID),
        // Newer than /usr: nothing is rebuilt for an updated /usr (ConditionNeedsUpdate= in systemd.unit(5)).
        Extra::file("/etc/.updated", ""),
        Extra::file("/var/.updated", ""),
    ];
    extras.extend(
        MASKED.map(|unit| Extra::link(&format!("/etc/systemd/system/{unit}"), "/dev/null")),
    );
    extras
}

/// A directory extension that every Debian takes, `hello`, outside the places where systemd-sysext looks.
pub const EXTENSION: &str = "/opt/extensions/hello";

/// The program that the extension has.
pub const EXTENSION_PROGRAM: &str = "/usr/bin/hello-ext";

/// The files of the extension.
#[must_use]
pub fn extension() -> Vec<Extra> {
    vec![
        Extra::program(
            &format!("{EXTENSION}{EXTENSION_PROGRAM}"),
            "#!/bin/sh\necho hello from the extension\n",
        ),
        Extra::file(
            &format!("{EXTENSION}/usr/lib/extension-release.d/extension-release.hello"),
            "ID=_any\n",
        ),
    ]
}
