//! The initramfs hooks of mkinitcpio and dracut, and the units that they install: sourced by the shells that source
//! them at a user's, with stubs that record each call. The boots are in tests/boot/.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use similar::TextDiff;

/// Where the Makefile installs the boot program, below `DESTDIR` and `PREFIX=/usr`.
const BOOT_PROGRAM: &str = "/usr/lib/usr-policy/usr-policy-generator";
const INSTALL_HOOK: &str = "mkinitcpio/install/usr-policy";
const RUNTIME_HOOK: &str = "mkinitcpio/hooks/usr-policy";
const MODULE_SETUP: &str = "dracut/90usr-policy/module-setup.sh";
const PRE_PIVOT_HOOK: &str = "dracut/90usr-policy/usr-policy.sh";
const UNITS: [&str; 2] = [
    "units/usr-policy-early.service",
    "units/usr-policy-late.service",
];

/// The shells that run a run-time hook somewhere: Arch's and Debian's busybox, and dash as the strictest of them.
const SHELLS: [&[&str]; 2] = [&["busybox", "ash"], &["dash"]];

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; is it installed? try make requirements")
    });
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// Runs a recorder of tests/initramfs/ over a hook and returns the calls; what bash itself complains about is a failure.
fn recorded(
    recorder: &str,
    hook: &str,
    environment: &[(&str, &str)],
    functions: &[&str],
) -> String {
    let output = run(Command::new("bash")
        .arg(repository().join("tests/initramfs").join(recorder))
        .arg(repository().join(hook))
        .args(functions)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(environment.iter().copied()));
    assert_eq!(
        text(&output.stderr),
        "",
        "{recorder} {hook} {environment:?}"
    );
    text(&output.stdout).to_owned()
}

fn assert_golden(name: &str, actual: &str) {
    let path = format!("tests/initramfs/{name}");
    let expected = fs::read_to_string(repository().join(&path)).unwrap_or_default();
    assert!(
        expected == actual,
        "{path} is not what was recorded:\n{}",
        TextDiff::from_lines(&expected, actual)
            .unified_diff()
            .header(&path, "recorded")
    );
}

/// A copy of a run-time hook that calls `program` in place of the boot program.
fn hook_that_calls(program: &Path, hook: &str, directory: &Path) -> PathBuf {
    let original = read(hook);
    assert_eq!(
        original.matches(BOOT_PROGRAM).count(),
        1,
        "{hook} calls the boot program once"
    );
    let copy = directory.join("hook");
    fs::write(
        &copy,
        original.replace(BOOT_PROGRAM, program.to_str().unwrap()),
    )
    .unwrap();
    copy
}

/// A program that keeps its arguments, a line each, in `argv` beside it, and fails.
fn program_that_fails(directory: &Path) -> PathBuf {
    let program = directory.join("program");
    fs::write(
        &program,
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >>\"${0%/*}/argv\"\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// Runs `script` with the hook as `$1`, as an init would that has the API mounts or has none of them.
fn run_in(shell: &[&str], script: &str, hook: &OsStr) -> String {
    let output = run(Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", script, "init"])
        .arg(hook)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("NEWROOT", "/sysroot"));
    text(&output.stdout).to_owned()
}

// What mkinitcpio's init does with a hook (mkinitcpio(8), "About runtime hooks").
const RUN_CLEANUP_HOOK: &str = r#"unset run_cleanuphook; . "$1"; type run_cleanuphook >/dev/null && run_cleanuphook; echo goes on"#;

#[test]
fn a_busybox_image_gets_the_boot_program_and_the_runtime_hook() {
    let hooks = ("HOOKS", "base udev modconf block filesystems usr-policy");
    assert_golden(
        "mkinitcpio-busybox.calls",
        &recorded("mkinitcpio.bash", INSTALL_HOOK, &[hooks], &[]),
    );
}

#[test]
fn a_systemd_image_gets_the_boot_program_both_units_and_a_link_to_each() {
    let environment = [
        ("HOOKS", "base systemd modconf block filesystems usr-policy"),
        ("SYSTEMD", "1"),
    ];
    assert_golden(
        "mkinitcpio-systemd.calls",
        &recorded("mkinitcpio.bash", INSTALL_HOOK, &environment, &[]),
    );
}

#[test]
fn an_image_without_the_boot_program_has_no_hook_either_and_says_so() {
    for systemd in [&[("SYSTEMD", "1")][..], &[]] {
        let environment = [systemd, &[("FAIL", BOOT_PROGRAM)]].concat();
        assert_golden(
            "mkinitcpio-no-boot-program.calls",
            &recorded(
                "mkinitcpio.bash",
                INSTALL_HOOK,
                &environment,
                &["build", "true"],
            ),
        );
    }
}

#[test]
fn a_systemd_image_without_a_unit_says_which_folder_lacks_it_and_has_no_link_to_nothing() {
    let environment = [("SYSTEMD", "1"), ("FAIL", "usr-policy-late.service")];
    assert_golden(
        "mkinitcpio-no-unit.calls",
        &recorded(
            "mkinitcpio.bash",
            INSTALL_HOOK,
            &environment,
            &["build", "true"],
        ),
    );
}

#[test]
fn listed_before_systemd_it_says_where_it_belongs() {
    let hooks = ("HOOKS", "base usr-policy systemd modconf block filesystems");
    assert_golden(
        "mkinitcpio-before-systemd.calls",
        &recorded(
            "mkinitcpio.bash",
            INSTALL_HOOK,
            &[hooks],
            &["build", "true"],
        ),
    );
}

#[test]
fn listed_twice_it_asks_twice_for_the_same() {
    let once = recorded("mkinitcpio.bash", INSTALL_HOOK, &[], &["build"]);
    assert_eq!(
        recorded("mkinitcpio.bash", INSTALL_HOOK, &[], &["build", "build"]),
        once.repeat(2)
    );
}

#[test]
fn the_help_of_mkinitcpio_names_the_word_for_the_kernel_command_line() {
    let help = recorded("mkinitcpio.bash", INSTALL_HOOK, &[], &["help"]);
    assert!(
        help.contains("usrpolicy=strict") && help.contains("usr-policy(7)"),
        "{help}"
    );
    assert!(help.lines().all(|line| line.len() <= 80), "{help}");
}

#[test]
fn the_runtime_hook_calls_the_late_stage_on_the_new_root_and_boot_goes_on_though_it_fails() {
    for shell in SHELLS {
        let directory = tempfile::tempdir().unwrap();
        let hook = hook_that_calls(
            &program_that_fails(directory.path()),
            RUNTIME_HOOK,
            directory.path(),
        );
        assert_eq!(
            run_in(shell, RUN_CLEANUP_HOOK, hook.as_os_str()),
            "goes on\n",
            "{shell:?}"
        );
        let argv = fs::read_to_string(directory.path().join("argv")).unwrap();
        assert_eq!(
            argv, "apply\n--root\n/new_root\n--stage\nlate\n",
            "{shell:?}"
        );
    }
}

#[test]
fn boot_goes_on_where_the_image_lost_the_boot_program() {
    for (hook, script) in [
        (RUNTIME_HOOK, RUN_CLEANUP_HOOK),
        (PRE_PIVOT_HOOK, r#". "$1"; echo goes on"#),
    ] {
        for shell in SHELLS {
            let directory = tempfile::tempdir().unwrap();
            let hook = hook_that_calls(&directory.path().join("missing"), hook, directory.path());
            assert_eq!(
                run_in(shell, script, hook.as_os_str()),
                "goes on\n",
                "{shell:?} {hook:?}"
            );
        }
    }
}

// mkinitcpio finds the hook points by name; one that runs before root is mounted would find no root.
#[test]
fn the_runtime_hook_has_a_cleanup_hook_and_no_other() {
    let hook = read(RUNTIME_HOOK);
    let functions: Vec<&str> = hook
        .lines()
        .filter_map(|line| line.split_once("()"))
        .map(|(name, _)| name.trim())
        .collect();
    assert_eq!(functions, ["run_cleanuphook"]);
}

#[test]
fn a_dracut_image_with_systemd_gets_the_boot_program_both_units_and_a_link_to_each() {
    let modules = (
        "MODULES",
        "bash systemd systemd-initrd dracut-systemd usrmount base",
    );
    assert_golden(
        "dracut-systemd.calls",
        &recorded("dracut.bash", MODULE_SETUP, &[modules], &[]),
    );
}

#[test]
fn a_dracut_image_without_systemd_gets_a_hook_that_runs_after_usr_is_mounted() {
    assert_golden(
        "dracut-no-systemd.calls",
        &recorded(
            "dracut.bash",
            MODULE_SETUP,
            &[("MODULES", "bash usrmount base")],
            &[],
        ),
    );
}

#[test]
fn dracut_leaves_the_module_out_where_the_boot_program_is_missing() {
    let environment = [("MODULES", "systemd-initrd"), ("FAIL", BOOT_PROGRAM)];
    assert_golden(
        "dracut-no-boot-program.calls",
        &recorded("dracut.bash", MODULE_SETUP, &environment, &[]),
    );
}

#[test]
fn the_pre_pivot_hook_calls_the_late_stage_on_the_new_root_and_boot_goes_on_though_it_fails() {
    for shell in SHELLS {
        let directory = tempfile::tempdir().unwrap();
        let hook = hook_that_calls(
            &program_that_fails(directory.path()),
            PRE_PIVOT_HOOK,
            directory.path(),
        );
        assert_eq!(
            run_in(shell, r#". "$1"; echo goes on"#, hook.as_os_str()),
            "goes on\n",
            "{shell:?}"
        );
        let argv = fs::read_to_string(directory.path().join("argv")).unwrap();
        assert_eq!(
            argv, "apply\n--root\n/sysroot\n--stage\nlate\n",
            "{shell:?}"
        );
    }
}

/// A system that is just enough for tests/support/mkinitcpio/build: busybox, two modules, and our hooks.
fn tree_with_the_hooks() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    put("usr/bin/busybox", "#!/bin/sh\necho ash\necho mount\n");
    put("usr/lib/initcpio/install/usr-policy", &read(INSTALL_HOOK));
    put("usr/lib/initcpio/hooks/usr-policy", &read(RUNTIME_HOOK));
    put(
        "etc/initcpio/install/witness",
        "build() { add_runscript; }\n",
    );
    put(
        "etc/initcpio/hooks/witness",
        "run_latehook() { :; }\nrun_cleanuphook() { :; }\n",
    );
    put(
        "etc/initcpio/install/strange",
        "build() { add_strange_things; }\n",
    );
    put(&BOOT_PROGRAM[1..], "#!/bin/sh\n");
    let modules = "usr/lib/modules/1.0";
    put(
        &format!("{modules}/modules.builtin"),
        "kernel/drivers/virtio/virtio_pci.ko\n",
    );
    put(
        &format!("{modules}/modules.dep"),
        "kernel/block/virtio_blk.ko:\nkernel/ext4.ko: kernel/jbd2.ko kernel/crc16.ko\nkernel/jbd2.ko: kernel/crc16.ko\n",
    );
    for module in ["block/virtio_blk", "ext4", "jbd2", "crc16"] {
        put(&format!("{modules}/kernel/{module}.ko"), "");
    }
    tree
}

/// Builds an image as the boot tests do, and returns its folder and what the builder said.
fn built(tree: &Path, hooks: &[&str]) -> (tempfile::TempDir, Output) {
    let image = tempfile::tempdir().unwrap();
    let output = Command::new("bash")
        .arg(repository().join("tests/support/mkinitcpio/build"))
        .args([
            tree.as_os_str(),
            OsStr::new("1.0"),
            image.path().as_os_str(),
        ])
        .args(hooks)
        .output()
        .unwrap();
    (image, output)
}

fn in_image(image: &tempfile::TempDir, file: &str) -> String {
    fs::read_to_string(image.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn a_built_image_runs_our_cleanup_hook_before_that_of_a_hook_listed_earlier() {
    let tree = tree_with_the_hooks();
    let (image, output) = built(tree.path(), &["witness", "usr-policy"]);
    assert!(output.status.success(), "{output:?}");
    assert!(
        in_image(&image, "config")
            .contains("LATEHOOKS=\"witness\"\nCLEANUPHOOKS=\"usr-policy witness\"\n")
    );
    assert_eq!(in_image(&image, "hooks/usr-policy"), read(RUNTIME_HOOK));
    assert_eq!(in_image(&image, &BOOT_PROGRAM[1..]), "#!/bin/sh\n");
    let modules = ["virtio_blk", "crc16", "jbd2", "ext4"]
        .map(|module| format!("/usr/lib/modules/{module}.ko\n"));
    assert_eq!(
        in_image(&image, "modules"),
        modules.concat(),
        "each after what it needs"
    );
}

#[test]
fn an_image_is_built_though_the_boot_program_is_missing_and_the_exit_code_says_so() {
    let tree = tree_with_the_hooks();
    fs::remove_file(tree.path().join(&BOOT_PROGRAM[1..])).unwrap();
    let (image, output) = built(tree.path(), &["usr-policy"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        text(&output.stderr).contains("install usr-policy again"),
        "{output:?}"
    );
    assert!(in_image(&image, "config").contains("CLEANUPHOOKS=\"\"\n"));
    assert!(image.path().join("init").exists() && !image.path().join("hooks/usr-policy").exists());
}

#[test]
fn a_hook_that_asks_for_more_than_the_builder_knows_ends_the_build() {
    let (_, output) = built(tree_with_the_hooks().path(), &["strange"]);
    assert!(
        !output.status.success() && text(&output.stderr).contains("add_strange_things"),
        "{output:?}"
    );
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let output = run(Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(UNITS.map(|unit| repository().join(unit))));
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("", ""));
}

// Each initrd target has OnFailure=emergency.target: what is required there and fails ends the boot.
#[test]
fn no_unit_can_fail_the_boot_or_outlive_the_initrd() {
    for unit in UNITS {
        let text = read(unit);
        let settings: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let stage = if unit.contains("early") {
            "early"
        } else {
            "late"
        };
        let exec_start = format!("ExecStart=-{BOOT_PROGRAM} apply --root /sysroot --stage {stage}");
        for wanted in [
            exec_start.as_str(),
            "Type=oneshot",
            "DefaultDependencies=no",
            "ConditionPathExists=/etc/initrd-release",
            "ConditionKernelCommandLine=!usrpolicy=off",
            "Conflicts=shutdown.target initrd-switch-root.target",
            "Before=shutdown.target initrd-switch-root.target",
        ] {
            assert!(settings.contains(&wanted), "{unit}: {wanted}");
        }
        // Links are made by the hooks, so no [Install]; the others fail the boot, outlive the initrd or hide the mount.
        for key in [
            "[Install]",
            "OnFailure",
            "RemainAfterExit",
            "Requires",
            "BindsTo",
            "FailureAction",
            "Private",
            "Protect",
            "ReadOnly",
            "ReadWrite",
            "Inaccessible",
            "Bind",
            "TemporaryFileSystem",
            "RootDirectory",
            "MountFlags",
        ] {
            assert!(
                !settings.iter().any(|line| line.starts_with(key)),
                "{unit}: {key}"
            );
        }
        let limit = settings
            .iter()
            .find_map(|line| line.strip_prefix("TimeoutStartSec=")?.strip_suffix('s'));
        assert!(
            limit.is_some_and(|seconds| seconds.parse::<u8>().is_ok_and(|seconds| seconds <= 30)),
            "{unit}: {limit:?}"
        );
    }
}

#[test]
fn shellcheck_has_nothing_to_say_about_the_hooks_and_the_scripts_of_the_tests() {
    let recorders =
        ["record", "mkinitcpio", "dracut"].map(|name| format!("tests/initramfs/{name}.bash"));
    let builders = ["build", "functions", "init", "real"]
        .map(|name| format!("tests/support/mkinitcpio/{name}"));
    run(Command::new("shellcheck")
        .arg("--external-sources")
        .args([INSTALL_HOOK, RUNTIME_HOOK, MODULE_SETUP, PRE_PIVOT_HOOK])
        .args(recorders)
        .args(builders)
        .args(["serve", "serve.install"].map(|name| format!("tests/support/nfs/{name}")))
        .args(["tests/matrix-table", "tests/pacman-table"])
        .args(["digest", "late", "lock"].map(|name| format!("tests/boot/guest/{name}")))
        .current_dir(repository()));
}

#[test]
fn every_hook_says_its_licence() {
    for file in [INSTALL_HOOK, RUNTIME_HOOK, MODULE_SETUP, PRE_PIVOT_HOOK]
        .into_iter()
        .chain(UNITS)
    {
        assert!(
            read(file)
                .lines()
                .take(2)
                .any(|line| line == "# SPDX-License-Identifier: MIT OR Apache-2.0"),
            "{file}"
        );
    }
}
