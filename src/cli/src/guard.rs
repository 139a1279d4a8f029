//! `usr-policy guard`: what the hook of pacman asks before a transaction. In a chroot, or under `--root`, it judges the `/usr`
//! of that root.

use crate::machine::Machine;
use crate::{Outcome, Shown};

pub(crate) fn run() -> Outcome {
    let machine = Machine::read_any()?;
    if !machine.is_read_only("/usr")? {
        return Ok(Shown {
            text: Vec::new(),
            complaints: Vec::new(),
            exit_code: 0,
        });
    }
    // Without /proc, as in some chroots, nobody can tell.
    let way_out = match machine.merged().unwrap_or_default() {
        Some(names) => format!(
            "extensions are merged over it ({}): run systemd-sysext unmerge, then usr-policy unlock",
            names.join(", ")
        ),
        None => "run usr-policy unlock, change the packages, then run usr-policy lock".to_owned(),
    };
    Ok(Shown {
        text: Vec::new(),
        complaints: vec![format!(
            "/usr is read-only, so packages cannot change it; {way_out}"
        )],
        exit_code: 1,
    })
}
