//! Whether the machine that is asked about is a container: PID 1 knows, and not whoever asks.

use std::fs;

use usr_policy_system::container::has_mark;

use crate::observe::root_of_pid_1;

/// The environment with which PID 1 was started; only root may read it.
const ENVIRONMENT: &str = "/proc/1/environ";

/// The caller's own environment is no witness: anybody can write SYSTEMD_VIRTUALIZATION there, and PID 1 sets it for
/// generators alone. Who cannot look at PID 1 is not told that nothing is promised.
#[must_use]
pub(crate) fn in_container() -> bool {
    // A root that cannot be opened is told by whoever looks for more there.
    let root = root_of_pid_1().ok().flatten();
    let is_marked = root.is_some_and(|root| has_mark(&root));
    is_marked || fs::read(ENVIRONMENT).is_ok_and(|text| is_of_container(&text))
}

/// Whether the manager of a container has started PID 1. Source: systemd's container interface, "Environment Variables".
fn is_of_container(environment: &[u8]) -> bool {
    let mut variables = environment.split(|&byte| byte == 0);
    variables.any(|variable| {
        let manager = variable.strip_prefix(b"container=");
        manager.is_some_and(|manager| !manager.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_of_a_container_names_itself_to_pid_1() {
        for (environment, is_it) in [
            (&b"HOME=/\0container=lxc\0TERM=linux\0"[..], true),
            (b"container=podman", true),
            (b"container=\0", false),
            (b"xcontainer=lxc\0HOME=container=lxc\0", false),
            (b"", false),
        ] {
            let shown = environment.escape_ascii();
            assert_eq!(is_of_container(environment), is_it, "{shown}");
        }
    }
}
