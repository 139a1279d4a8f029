//! The test's own files in a guest: the witness and the units that call it. Nothing here has the product's name.

use std::fs;
use std::path::Path;
use std::process::Command;

use usr_policy_tests::machine::{At, Extra, Result, command, tree};

use crate::case::Step;

/// At the top: what may be hidden, merged over or read-only is below /usr, /opt and /etc.
pub const WITNESS: &str = "/witness/witness";

/// The static units of the test, by the target that wants them.
const UNITS: [(&str, &str, &str); 4] = [
    (
        "initrd-switch-root.target",
        "witness-initrd.service",
        include_str!("guest/witness-initrd.service"),
    ),
    (
        "local-fs.target",
        "witness-early.service",
        include_str!("guest/witness-early.service"),
    ),
    (
        "local-fs.target",
        "witness-local-fs.service",
        include_str!("guest/witness-local-fs.service"),
    ),
    (
        "multi-user.target",
        "witness-late.service",
        include_str!("guest/witness-late.service"),
    ),
];

/// The unit that is for the initramfs, and the only one there.
const INITRD_UNIT: &str = "witness-initrd.service";

/// The witness as a program: built for the guest too, since it is static.
///
/// # Errors
/// It cannot be read, or strip fails.
pub fn witness(path: &str) -> Result<Extra> {
    let built = Path::new(env!("CARGO_BIN_EXE_witness"));
    let dir = tempfile::tempdir().at(Path::new("a temporary directory"))?;
    let small = dir.path().join("witness");
    // Debugging information is five times the program, and an emulated machine unpacks it at every boot.
    command::output(Command::new("strip").arg("-o").arg(&small).arg(built))?;
    Ok(Extra::program(path, fs::read(&small).at(&small)?))
}

/// As [`Extra::unit`], in a directory of one's own choice.
fn unit_in(dir: &str, wanted_by: &str, name: &str, text: &str) -> [Extra; 2] {
    [
        Extra::file(&format!("{dir}/{name}"), text),
        Extra::link(
            &format!("{dir}/{wanted_by}.wants/{name}"),
            &format!("../{name}"),
        ),
    ]
}

/// What the root file system of every case has.
///
/// # Errors
/// The witness cannot be prepared.
pub fn root() -> Result<Vec<Extra>> {
    let mut extras = vec![
        witness(WITNESS)?,
        // 00: it shall be the first of the generators, which run in the order of their names.
        Extra::link("/etc/systemd/system-generators/00-witness", WITNESS),
    ];
    extras.extend(
        UNITS
            .iter()
            .filter(|unit| unit.1 != INITRD_UNIT)
            .flat_map(|(target, name, text)| Extra::unit(target, name, text)),
    );
    Ok(extras)
}

/// The same for a machine that keeps nothing of its root but /usr.
///
/// # Errors
/// The witness cannot be prepared.
pub fn root_in_usr() -> Result<Vec<Extra>> {
    let path = "/usr/lib/witness/witness";
    let mut extras = vec![
        witness(path)?,
        Extra::link("/usr/lib/systemd/system-generators/00-witness", path),
    ];
    for (target, name, text) in UNITS.iter().filter(|unit| unit.1 != INITRD_UNIT) {
        let text = text.replace(WITNESS, path);
        extras.extend(unit_in("/usr/lib/systemd/system", target, name, &text));
    }
    Ok(extras)
}

/// What an initramfs with systemd has.
///
/// # Errors
/// The witness cannot be prepared.
pub fn initrd() -> Result<Vec<Extra>> {
    let mut extras = vec![witness(WITNESS)?];
    extras.extend(
        UNITS
            .iter()
            .filter(|unit| unit.1 == INITRD_UNIT)
            .flat_map(|(target, name, text)| Extra::unit(target, name, text)),
    );
    Ok(extras)
}

/// What a busybox initramfs has that was built with [`hook`].
///
/// # Errors
/// The witness cannot be prepared.
pub fn busybox_initrd() -> Result<Vec<Extra>> {
    Ok(vec![witness(WITNESS)?])
}

/// The witness as a hook of mkinitcpio, for the tree in which a busybox initramfs is made. Cleanup hooks run in reverse
/// order: listed before a hook it looks at what that one has done.
pub fn hook() -> [Extra; 2] {
    [
        Extra::file(
            "/etc/initcpio/install/witness",
            include_str!("guest/witness.install"),
        ),
        Extra::file(
            "/etc/initcpio/hooks/witness",
            include_str!("guest/witness.hook"),
        ),
    ]
}

/// What the guest gets on a disk of its own, so that other questions need no other image.
///
/// # Errors
/// A file cannot be written.
pub fn input(steps: &[Step]) -> Result<tempfile::TempDir> {
    let mut extras = vec![
        Extra::file("late", include_str!("guest/late")),
        Extra::file("digest", include_str!("guest/digest")),
        Extra::file("lock", include_str!("guest/lock")),
    ];
    for (number, step) in steps.iter().enumerate() {
        extras.push(Extra::file(
            &format!("steps/{number:02}-{}", step.name),
            step.script,
        ));
    }
    tree::gather(&extras)
}
