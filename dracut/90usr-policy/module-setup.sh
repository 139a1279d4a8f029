#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0

# dracut sets these.
# shellcheck disable=SC2154

# called by dracut
check() {
    # Not 255: wanted in every image, hostonly or not. Whether it does anything is said at boot.
    require_binaries /usr/lib/usr-policy/usr-policy-generator || return 1
    return 0
}

# called by dracut
depends() {
    # None: it goes with the initrd targets of systemd where the image has them, and with a hook where not.
    return 0
}

# called by dracut
install() {
    inst_multiple /usr/lib/usr-policy/usr-policy-generator

    if dracut_module_included "systemd-initrd"; then
        inst_multiple \
            "$systemdsystemunitdir"/usr-policy-early.service \
            "$systemdsystemunitdir"/usr-policy-late.service

        # Only in the image: a link in the system itself would show there with the policy off.
        $SYSTEMCTL -q --root "$initdir" add-wants initrd-root-fs.target usr-policy-early.service
        $SYSTEMCTL -q --root "$initdir" add-wants initrd-fs.target usr-policy-late.service
    else
        # usrmount mounts /usr at 50.
        inst_hook pre-pivot 60 "$moddir/usr-policy.sh"
    fi
}
