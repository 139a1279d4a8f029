//! The stages, sync and verify on real mounts, in namespaces of their own.

#[path = "namespace/agree.rs"]
mod agree;
#[path = "namespace/apply.rs"]
mod apply;
#[path = "namespace/at_work.rs"]
mod at_work;
#[path = "namespace/beside.rs"]
mod beside;
#[path = "namespace/closing.rs"]
mod closing;
#[path = "namespace/configuration.rs"]
mod configuration;
#[path = "namespace/explain.rs"]
mod explain;
#[path = "namespace/follower.rs"]
mod follower;
#[path = "namespace/guard.rs"]
mod guard;
#[path = "namespace/installed.rs"]
mod installed;
#[path = "namespace/journal.rs"]
mod journal;
#[path = "namespace/kills.rs"]
mod kills;
#[path = "namespace/layers.rs"]
mod layers;
#[path = "namespace/layouts.rs"]
mod layouts;
#[path = "namespace/lock.rs"]
mod lock;
#[path = "namespace/many.rs"]
mod many;
#[path = "namespace/messages.rs"]
mod messages;
#[path = "namespace/plan.rs"]
mod plan;
#[path = "namespace/refuses.rs"]
mod refuses;
#[path = "namespace/rights.rs"]
mod rights;
#[path = "namespace/rules.rs"]
mod rules;
#[path = "namespace/sandboxes.rs"]
mod sandboxes;
#[path = "namespace/sync.rs"]
mod sync;
#[path = "namespace/sysext.rs"]
mod sysext;
#[path = "namespace/terminal.rs"]
mod terminal;
#[path = "namespace/verify.rs"]
mod verify;
#[path = "namespace/writers.rs"]
mod writers;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use usr_policy_tests::machine::namespace::become_root;
use usr_policy_tests::system::Installed;

fn main() -> ExitCode {
    // The root of a user namespace may not take this machine's root for a layer of an overlay: mounts below it are locked.
    become_root(&[
        "USR_POLICY_STAGE",
        follower::IDLE,
        kills::KILLS,
        kills::SEED,
        "CARGO",
        "HOME",
        "PATH",
    ])
    .unwrap();
    let _installed = Installed::new();
    let arguments = Arguments::from_args();
    let kinds = [
        ("agree", agree::TESTS),
        ("apply", apply::TESTS),
        ("at work", at_work::TESTS),
        ("beside", beside::TESTS),
        ("closing", closing::TESTS),
        ("configuration", configuration::TESTS),
        ("explain", explain::TESTS),
        ("follower", follower::TESTS),
        ("guard", guard::TESTS),
        ("installed", installed::TESTS),
        ("journal", journal::TESTS),
        ("kills", kills::TESTS),
        ("layers", layers::TESTS),
        ("layouts", layouts::TESTS),
        ("lock", lock::TESTS),
        ("many", many::TESTS),
        ("messages", messages::TESTS),
        ("plan", plan::TESTS),
        ("rights", rights::TESTS),
        ("rules", rules::TESTS),
        ("refuses", refuses::TESTS),
        ("sandboxes", sandboxes::TESTS),
        ("sync", sync::TESTS),
        ("sysext", sysext::TESTS),
        ("terminal", terminal::TESTS),
        ("verify", verify::TESTS),
        ("writers", writers::TESTS),
    ];
    let trials = kinds.into_iter().flat_map(|(kind, tests)| {
        tests.iter().map(move |(name, test)| {
            let trial = Trial::test(*name, || {
                test();
                Ok(())
            });
            trial.with_kind(kind)
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// The word on the kernel command line of most tests.
const STRICT: &str = "root=/dev/vda2 rw usrpolicy=strict";
