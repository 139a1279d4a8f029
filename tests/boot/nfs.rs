//! `/usr` shared over NFS: its disk is in a second machine, and dracut mounts the share as the fstab of the root says.

use usr_policy_tests::machine::neighbour::SERVER;
use usr_policy_tests::machine::{
    Extra, Format, Image, Initramfs, Layout, Result, Server, Share, Suite,
};

use crate::case::{Case, dracut, installed, with};
use crate::layouts::{OFF_WITH_USR, ROOT_LINE, USR, case, holds_but_for, with_fstab};
use crate::words::verify_says;

/// How the machine gets its address, from before /usr is there.
macro_rules! network {
    ($more:literal) => {
        concat!(
            "net.ifnames=0 rd.neednet=1 ip=192.0.2.2:::255.255.255.0::eth0:none",
            $more
        )
    };
}

/// The cases.
///
/// # Errors
/// The witness cannot be prepared.
pub fn cases() -> Result<Vec<Case>> {
    let served = image("nfs-dracut", Server::Runs)?;
    let off = "trixie-dracut-usr-over-nfs-stays-writable-without-the-word";
    Ok(vec![
        case(off, &served, network!(""), None, OFF_WITH_USR),
        case(
            "trixie-dracut-usr-over-nfs-is-never-writable-though-fstab-and-export-say-rw",
            &served,
            network!(" usrpolicy=strict"),
            Some(off),
            |seen, twin| {
                let mut complaints = holds_but_for(seen, twin, &[]);
                complaints.extend(verify_says(seen, "read-only since the initramfs"));
                complaints.extend(verify_says(seen, "mounts /usr writable"));
                complaints
            },
        ),
    ])
}

/// A machine with the share in its fstab, in an initramfs of which is what mounts it.
fn image(name: &str, server: Server) -> Result<Image> {
    let line = format!("{SERVER}:/usr\t/usr\tnfs\trw,x-systemd.mount-timeout=30s\t0 0\n");
    // Debian starts the server wherever its programs are.
    let contents = with(
        with_fstab(installed(&[]), ROOT_LINE, &line),
        [Extra::link(
            "/etc/systemd/system/nfs-server.service",
            "/dev/null",
        )],
    );
    Ok(Image {
        layout: Layout::of(Format::Ext4, [USR]),
        share: Some(Share {
            label: USR.label,
            server,
        }),
        initramfs: Initramfs::DracutNfs,
        ..dracut(name, Suite::Nfs, &contents)?
    })
}
