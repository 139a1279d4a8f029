//! What makes the initramfs, and what its configuration says.

use usr_policy_plan::config::ConfigFile;
use usr_policy_plan::verify::Builders;
use usr_policy_system::drop_ins::drop_ins;
use usr_policy_system::root::Root;
use usr_policy_system::seen::is_program;

use crate::observe::units::read_file;

/// The presets of mkinitcpio. Source: mkinitcpio(8), "About presets".
const PRESETS: &str = "/etc/mkinitcpio.d";

pub(crate) fn builders(root: &Root) -> Builders {
    let is_there = |name: &str| {
        ["bin", "sbin"]
            .iter()
            .any(|directory| is_program(root, &format!("/usr/{directory}/{name}")))
    };
    let presets = root.names(PRESETS).unwrap_or_default();
    let presets = presets.iter().filter_map(|name| name.to_str());
    let presets = presets
        .filter(|name| name.as_bytes().ends_with(b".preset"))
        .filter_map(|name| read_file(root, format!("{PRESETS}/{name}")));
    Builders {
        has_mkinitcpio: is_there("mkinitcpio"),
        mkinitcpio: configuration(root, "/etc/mkinitcpio.conf", &["/etc/mkinitcpio.conf.d"]),
        presets: presets.collect(),
        has_dracut: is_there("dracut"),
        dracut: configuration(
            root,
            "/etc/dracut.conf",
            &["/etc/dracut.conf.d", "/usr/lib/dracut/dracut.conf.d"],
        ),
    }
}

/// A file, and what is read after it.
fn configuration(root: &Root, file: &str, directories: &[&str]) -> Vec<ConfigFile> {
    let drop_ins = drop_ins(root, directories, &mut drop);
    let files = [file.to_owned()].into_iter().chain(drop_ins);
    files.filter_map(|path| read_file(root, path)).collect()
}
