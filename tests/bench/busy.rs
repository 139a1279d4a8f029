//! A system as it is on a working day: extensions are merged, services have mounts of their own, and an administrator has
//! drop-ins for units.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use usr_policy_tests::system::System;

use crate::STRICT;

/// What systemd gives a service with ProtectSystem=, PrivateTmp= and PrivateMounts=. It ends with its input.
const SERVICE: &str = "mount -t tmpfs tmp /tmp && mount -t tmpfs tmp /var/tmp &&
mount --rbind /usr /usr && mount -o remount,bind,ro /usr && echo ready && read end";

/// How many of them a small machine has.
const SERVICES: usize = 20;

/// The units of which verify reads every file.
const UNITS: [&str; 5] = [
    "usr-policy-apply.service",
    "usr-policy-lock.service",
    "usr-policy-follow.service",
    "systemd-sysext.service",
    "var-tmp.mount",
];

/// So many drop-ins has each of them.
const DROP_INS: usize = 4;

/// Runs a function in such a system; `boot` makes it what it is after a boot.
pub fn with(boot: fn(&System), function: impl FnOnce(&System) + Send) {
    System::with(STRICT, |system| {
        for name in ["one", "two"] {
            system.extension(name);
        }
        for unit in UNITS {
            for number in 0..DROP_INS {
                let path = format!("/etc/systemd/system/{unit}.d/{number}.conf");
                system.write(&path, "[Unit]\nDocumentation=man:hier(7)\n");
            }
        }
        boot(system);
        system.does(&["systemd-sysext", "merge"]);
        let services = Services::start(system, SERVICES);
        function(system);
        drop(services);
    });
}

/// Services, until they are dropped.
pub struct Services(Vec<Child>);

impl Services {
    /// Starts so many.
    pub fn start(system: &System, count: usize) -> Self {
        let words = ["unshare", "--mount", "--propagation", "slave"];
        let start = |_| {
            let mut command = system.command(&[&words[..], &["sh", "-c", SERVICE]].concat());
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut service = command.spawn().unwrap();
            let mut line = String::new();
            let output = service.stdout.take().unwrap();
            BufReader::new(output).read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n");
            service
        };
        Services((0..count).map(start).collect())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for service in &mut self.0 {
            drop(service.stdin.take());
            let _ = service.wait();
        }
    }
}
