# Prints a call of a stub, quoted as bash would, and fails where an argument is $FAIL.
record() {
    local word
    printf '%s' "$1"
    (($# == 1)) || printf ' %q' "${@:2}"
    printf '\n'
    for word in "${@:2}"; do
        [[ -z $FAIL || $word != "$FAIL" ]] || return 1
    done
}
