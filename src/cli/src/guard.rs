//! `usr-policy guard`: what the hook of pacman asks before a transaction. In a chroot, or under `--root`, it judges the `/usr`
//! of that root.

use usr_policy_plan::plan::read_only_by_nature;
use usr_policy_system::root::Root;
use usr_policy_system::seen::mounted_usr;

use crate::machine::{is_read_only, merged};
use crate::{Outcome, Shown};

pub(crate) fn run() -> Outcome {
    let root = Root::open("/")?;
    if !is_read_only(&root, "/usr")? {
        return Ok(Shown {
            text: Vec::new(),
            complaints: Vec::new(),
            exit_code: 0,
        });
    }
    // Without /proc, as in some chroots, nobody can tell.
    let usr = mounted_usr(&root).unwrap_or_default();
    let nature = usr.as_ref().and_then(|usr| read_only_by_nature(&usr.mount));
    let way_out = match (merged(&root).unwrap_or_default(), nature) {
        (Some(names), _) => format!(
            "extensions are merged over it ({}): run systemd-sysext unmerge, then usr-policy unlock",
            names.join(", ")
        ),
        (None, Some(fs_type)) => format!("its file system ({fs_type}) cannot be written"),
        (None, None) => {
            "run usr-policy unlock, change the packages, then run usr-policy lock".to_owned()
        }
    };
    Ok(Shown {
        text: Vec::new(),
        complaints: vec![format!(
            "/usr is read-only, so packages cannot change it; {way_out}"
        )],
        exit_code: 1,
    })
}
