# Records what an install hook of mkinitcpio asks for, a line per call.
#
#   bash mkinitcpio.bash INSTALL-HOOK [FUNCTION...]
#
# Written after mkinitcpio(8), "About install hooks", plus the four functions that mkinitcpio's own hooks use besides.
# In the environment: SYSTEMD=1, the systemd hook was read before; FAIL=WORD, calls with that argument fail, as
# mkinitcpio's do when a file is missing; HOOKS, as mkinitcpio.conf has it.

# The hook that is read is an argument, and mkinitcpio's messages are formats.
# shellcheck disable=SC1090,SC1091,SC2059

# mkinitcpio keeps what it sources from its configuration as an array.
read -ra HOOKS <<<"$HOOKS"

. "${BASH_SOURCE[0]%/*}/record.bash"

documented=(
    add_module add_binary add_file add_file_early add_dir add_dir_early add_full_dir add_symlink add_all_modules
    add_checked_modules add_runscript add_udev_rule add_all_modules_from_symbol add_checked_modules_from_symbol
    add_initcpio_binary
)
for name in "${documented[@]}" ${SYSTEMD:+add_systemd_unit add_systemd_drop_in}; do
    eval "$name() { record $name \"\$@\"; }"
done

# The first argument is a format, and error() is false.
warning() { printf '%s' '==> WARNING: '; printf "$@"; printf '\n'; }
error() { printf '%s' '==> ERROR: '; printf "$@"; printf '\n'; return 1; }

hook=$1
shift
. "$hook"
for name in "${@:-build}"; do
    "$name"
done
