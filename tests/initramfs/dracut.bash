# Records what a dracut module asks for, a line per call, and what check() answers.
#
#   bash dracut.bash MODULE-SETUP
#
# Written after dracut.modules(7). In the environment: MODULES, the modules of the image; FAIL=WORD, calls with that
# argument fail.

# The hook that is read is an argument, and it uses what is set here.
# shellcheck disable=SC1090,SC1091,SC2034

. "${BASH_SOURCE[0]%/*}/record.bash"

for name in inst inst_binary inst_dir inst_hook inst_library inst_multiple inst_rules inst_script inst_simple \
    instmods require_any_binary require_binaries require_kernel_modules systemctl; do
    eval "$name() { record $name \"\$@\"; }"
done

dracut_module_included() { [[ " $MODULES " == *" $1 "* ]]; }

SYSTEMCTL=systemctl
initdir=/image
moddir=/usr/lib/dracut/modules.d/90usr-policy
systemdsystemunitdir=/usr/lib/systemd/system

. "$1"
check
answer=$?
printf 'check: %s\n' "$answer"
# As dracut does: a module whose check fails is not asked for anything else.
((answer == 0)) || exit 0
printf 'depends: [%s]\n' "$(depends)"
install
