//! Pre-init: the boot program as the first process of a small root, in namespaces of its own. The boots are in
//! tests/boot/.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use usr_policy_tests::privilege::{become_root, bind, in_own_mounts, tmpfs};
use usr_policy_tests::product;
use usr_policy_tests::system::Scratch;
use usr_policy_tests::trials;

fn main() -> ExitCode {
    become_root();
    trials::run(TESTS)
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The real init of most tests: it says what it finds.
const INIT: &str = r#"#!/bin/busybox sh
busybox echo "pid=$$ name=$0 arguments=$*"
busybox env | busybox sort | busybox tr '\n' ' '
busybox echo
busybox awk '/^Sig(Ign|Blk|Cgt)/ { printf "%s%s ", $1, $2 } END { print "" }' /proc/1/status
for fd in /proc/1/fd/*; do busybox echo "fd ${fd##*/} $(busybox readlink $fd)"; done
busybox cat /proc/self/mountinfo
busybox touch /usr/probe 2>/dev/null && busybox echo "usr is writable" || busybox echo "usr is read-only"
busybox cat /run/usr-policy/events 2>/dev/null
[ ! -e /verify ] || /usr/bin/usr-policy verify --all
exit 0
"#;

/// A root file system with hardly anything in it, and what is mounted in it before the first process starts.
struct Machine {
    scratch: Scratch,
}

/// What came of a boot.
struct Boot {
    output: Output,
    /// What was on the console.
    console: String,
}

impl Machine {
    /// Calls a function with a machine that has a `/usr` of its own in its root, in a mount namespace of its own.
    fn with<T: Send>(function: impl FnOnce(&Machine) -> T + Send) -> T {
        in_own_mounts(|| {
            let machine = Machine {
                scratch: Scratch::new(),
            };
            let root = machine.root();
            fs::create_dir(&root).unwrap();
            tmpfs(&root, "mode=0755");
            for name in ["bin", "sbin", "etc", "dev", "proc", "sys", "run", "usr"] {
                fs::create_dir(root.join(name)).unwrap();
            }
            let busybox = Command::new("sh")
                .args(["-c", "command -v busybox"])
                .output()
                .unwrap();
            let busybox = String::from_utf8(busybox.stdout).unwrap();
            fs::copy(busybox.trim_end(), root.join("bin/busybox"))
                .unwrap_or_else(|error| panic!("busybox: {error}; run make requirements"));
            fs::copy(product::boot_program(), root.join("usr-policy-init")).unwrap();
            machine.program("/sbin/init", INIT);
            machine.install_in(&root.join("usr"));
            // Somebody will lock the database: OpenRC, by the script of this name.
            fs::create_dir_all(root.join("etc/runlevels/boot")).unwrap();
            symlink(
                "/etc/init.d/usr-policy",
                root.join("etc/runlevels/boot/usr-policy"),
            )
            .unwrap();
            // Not this machine's devtmpfs: its options would change for everybody.
            tmpfs(&root.join("dev"), "mode=0755");
            for name in ["null", "console"] {
                File::create(root.join("dev").join(name)).unwrap();
            }
            bind(Path::new("/dev/null"), &root.join("dev/null"));
            machine.write("/etc/fstab", "");
            function(&machine)
        })
    }

    fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    /// What `make install` puts into a `/usr`, as far as pre-init looks.
    fn install_in(&self, usr: &Path) {
        for name in ["lib/usr-policy", "lib/systemd/system-generators", "bin"] {
            fs::create_dir_all(usr.join(name)).unwrap();
        }
        let stage = product::stage();
        for file in [product::BOOT_PROGRAM, product::PROGRAM] {
            let to = usr.join(file.strip_prefix("usr/").unwrap());
            fs::copy(stage.join(file), to).unwrap();
        }
        symlink(
            "../../usr-policy/usr-policy-generator",
            usr.join("lib/systemd/system-generators/usr-policy-generator"),
        )
        .unwrap();
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.root().join(&path[1..]), text).unwrap();
    }

    fn program(&self, path: &str, text: &str) {
        self.write(path, text);
        let path = self.root().join(&path[1..]);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The command that starts the first process, as the kernel starts an init: two variables, and the words that it
    /// does not know itself.
    fn first_process(&self, cmdline: &str, arguments: &str) -> Command {
        self.write("/cmdline", &format!("{cmdline}\n"));
        // What is mounted here is there before the first process; of /proc, without which the command line cannot be
        // replaced, a test of its own sees to it that it is mounted.
        let script = format!(
            "busybox mount -t proc proc /proc &&
            busybox mount -o bind /cmdline /proc/cmdline &&
            [ ! -e /panic ] || busybox mount -o bind /panic /proc/sys/kernel/panic &&
            exec busybox env -i HOME=/ TERM=linux /usr-policy-init {arguments}"
        );
        self.in_namespaces(&script)
    }

    fn in_namespaces(&self, script: &str) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "chroot"])
            .arg(self.root())
            .args(["/bin/busybox", "sh", "-c", script])
            .env("PATH", format!("{PATH}:/bin"))
            .stdin(Stdio::null());
        command
    }

    fn console(&self) -> String {
        let text = fs::read_to_string(self.root().join("dev/console")).unwrap();
        text.replace("usr-policy-generator: ", "")
    }

    fn boot(&self, cmdline: &str) -> Boot {
        let output = self.first_process(cmdline, "single two").output().unwrap();
        Boot {
            output,
            console: self.console(),
        }
    }
}

impl Boot {
    /// What the real init said.
    fn said(&self) -> &str {
        let said = str::from_utf8(&self.output.stdout).unwrap();
        assert!(self.output.status.success(), "{:?}", self.output);
        assert!(said.starts_with("pid=1 "), "{said}\n{}", self.console);
        said
    }

    /// Mount options, type and options of the file system of what is mounted at a path last.
    fn mount_at(&self, path: &str) -> Option<(String, String, String)> {
        let mut lines = self.said().lines().filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let end = words.iter().position(|word| *word == "-")?;
            let word = |at: usize| words[at].to_owned();
            (words[4] == path).then(|| (word(5), word(end + 1), word(end + 3)))
        });
        lines.next_back()
    }

    fn usr_is_read_only(&self) -> bool {
        self.said().contains("\nusr is read-only\n")
    }

    /// The record, without its time stamps.
    fn events(&self) -> Vec<&str> {
        let lines = self.said().lines();
        lines
            .filter_map(|line| line.split_once(' '))
            .filter(|(time, _)| time.len() > 3 && time.bytes().all(|byte| byte.is_ascii_digit()))
            .map(|(_, event)| event)
            .filter(|event| event.starts_with("init "))
            .collect()
    }
}

const STRICT: &str = "root=/dev/vda1 rw usrpolicy=strict";

/// The end of what is on the console where not everything could be done.
const WAY_OUT: &str = "pre-init could not do everything; the way out is usrpolicy=off on the kernel command line, with mount.usr=DEVICE mount.usrflags=ro where /usr is missing, or an initramfs and no init= there\n";

const RECORD: [&str; 1] = ["init /usr read-only"];

/// A file system of its own for `/usr`, on a loop device.
struct Disk {
    device: String,
}

impl Disk {
    /// Makes one with what is installed on it; `None`, and the reason is printed, where there are no loop devices: then
    /// only the boots show it.
    fn make(machine: &Machine, label: &str) -> Option<Self> {
        let tree = machine.scratch.path().join("tree");
        fs::create_dir(&tree).unwrap();
        machine.install_in(&tree);
        fs::write(tree.join("on-the-disk"), "").unwrap();
        let image = machine.scratch.path().join("image");
        let made = Command::new("mke2fs")
            .env("PATH", PATH)
            .args(["-q", "-F", "-t", "ext4", "-L", label, "-d"])
            .args([&tree, &image])
            .arg("16M")
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let set_up = Command::new("losetup")
            .env("PATH", PATH)
            .args(["--find", "--show"])
            .arg(&image)
            .output()
            .unwrap();
        if !set_up.status.success() {
            eprintln!("skipped: no loop device: {set_up:?}");
            return None;
        }
        let device = String::from_utf8(set_up.stdout)
            .unwrap()
            .trim_end()
            .to_owned();
        let node = machine.root().join(&device[1..]);
        File::create(&node).unwrap();
        bind(Path::new(&device), &node);
        Some(Disk { device })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .env("PATH", PATH)
            .args(["--detach", &self.device])
            .status();
    }
}

/// A label that no other disk has, while several tests run.
fn label(of: &str) -> String {
    format!("{of} {}", std::process::id())
}

const TESTS: &[(&str, fn())] = &[
    (
        "usr in the root is read-only before the first program of the root",
        || {
            Machine::with(|machine| {
                let boot = machine.boot(STRICT);
                assert!(boot.usr_is_read_only());
                assert_eq!(boot.events(), RECORD);
                let (mount, ..) = boot.mount_at("/usr").unwrap();
                assert!(mount.starts_with("ro,"), "{mount}");
                let (root, ..) = boot.mount_at("/").unwrap();
                assert!(root.starts_with("rw,"), "{root}");
                assert_eq!(boot.console, "");
            });
        },
    ),
    (
        "without the word nothing is mounted on usr and nothing recorded",
        || {
            Machine::with(|machine| {
                for cmdline in ["", "usrpolicy=audit", "usrpolicy=strict usrpolicy=off"] {
                    let boot = machine.boot(cmdline);
                    assert!(!boot.usr_is_read_only(), "{cmdline}");
                    assert_eq!(boot.mount_at("/usr"), None);
                    assert_eq!(boot.events(), [""; 0]);
                    assert_eq!(boot.console, "");
                }
            });
        },
    ),
    (
        "the real init is the first process, with the words variables signals and files that the kernel gave",
        || {
            Machine::with(|machine| {
                let boot = machine.boot(STRICT);
                // The same without pre-init in between.
                let script = "busybox mount -t proc proc /proc &&
                    exec busybox env -i HOME=/ TERM=linux /sbin/init single two";
                let output = machine.in_namespaces(script).output().unwrap();
                let direct = Boot {
                    output,
                    console: machine.console(),
                };
                let given = |boot: &Boot| -> Vec<String> {
                    let lines = boot.said().lines();
                    lines
                        .take_while(|line| !line.contains(" - "))
                        // The number of a file; a pipe has another name in each process.
                        .map(|line| match line.strip_prefix("fd ") {
                            Some(file) => file.split(' ').next().unwrap().to_owned(),
                            None => line.to_owned(),
                        })
                        .collect()
                };
                let expected = given(&direct);
                assert_eq!(expected[0], "pid=1 name=/sbin/init arguments=single two");
                assert!(expected[1].starts_with("HOME=/ ") && expected[1].contains(" TERM=linux "));
                assert!(expected.len() > 5, "{expected:?}");
                assert_eq!(given(&boot), expected);
            });
        },
    ),
    (
        "what every program expects is mounted as systemd does it",
        || {
            Machine::with(|machine| {
                // Without /proc there is no command line to replace: this machine's is read, or nothing of ours is on it.
                let script = "exec busybox env -i HOME=/ TERM=linux /usr-policy-init";
                let output = machine.in_namespaces(script).output().unwrap();
                let boot = Boot {
                    output,
                    console: machine.console(),
                };
                let of = |path: &str| boot.mount_at(path).unwrap();
                let (proc, fs_type, _) = of("/proc");
                assert_eq!(
                    (proc.as_str(), fs_type.as_str()),
                    ("rw,nosuid,nodev,noexec,relatime", "proc")
                );
                let (sys, fs_type, _) = of("/sys");
                assert_eq!(
                    (sys.as_str(), fs_type.as_str()),
                    ("rw,nosuid,nodev,noexec,relatime", "sysfs")
                );
                let (run, fs_type, options) = of("/run");
                // strictatime is what the table shows by showing nothing.
                assert_eq!(
                    (run.as_str(), fs_type.as_str()),
                    ("rw,nosuid,nodev", "tmpfs")
                );
                assert!(
                    options.contains("mode=755") && options.contains("nr_inodes=819200"),
                    "{options}"
                );
                // It was there, and is what it was.
                let (dev, fs_type, _) = of("/dev");
                assert_eq!((dev.as_str(), fs_type.as_str()), ("rw,relatime", "tmpfs"));
                let at = |path: &str| {
                    let is_there = |line: &&str| line.split(' ').nth(4) == Some(path);
                    boot.said().lines().filter(is_there).count()
                };
                assert_eq!(["/proc", "/sys", "/run", "/dev"].map(at), [1; 4]);
            });
        },
    ),
    (
        "without a console and without a /dev/null the real init starts all the same",
        || {
            Machine::with(|machine| {
                machine.program(
                    "/sbin/init",
                    "#!/bin/busybox sh\nbusybox touch /usr/probe || busybox echo $$ >/started\n",
                );
                let script = "busybox mount -t tmpfs none /dev &&
                    busybox mount -t proc proc /proc &&
                    busybox mount -o bind /cmdline /proc/cmdline &&
                    exec /usr-policy-init <&- >&- 2>&-";
                machine.write("/cmdline", STRICT);
                let output = machine.in_namespaces(script).output().unwrap();
                let started = fs::read_to_string(machine.root().join("started"));
                assert_eq!(started.unwrap_or_default(), "1\n", "{output:?}");
            });
        },
    ),
    (
        "what could not be mounted is said and the real init starts all the same",
        || {
            Machine::with(|machine| {
                fs::remove_dir(machine.root().join("run")).unwrap();
                let boot = machine.boot(STRICT);
                assert!(boot.usr_is_read_only());
                let (first, rest) = boot.console.split_once('\n').unwrap();
                assert_eq!(
                    first,
                    "/run: cannot open as root directory: No such file or directory"
                );
                assert!(rest.ends_with(WAY_OUT), "{rest}");
            });
        },
    ),
    (
        "another init is started where the command line names it",
        || {
            Machine::with(|machine| {
                machine.program("/sbin/other", INIT);
                let boot = machine.boot("usrpolicy.init=/sbin/other");
                assert!(
                    boot.said()
                        .starts_with("pid=1 name=/sbin/other arguments=single two\n")
                );
            });
        },
    ),
    (
        "an init that is no path of a program drops only itself",
        || {
            Machine::with(|machine| {
                let boot = machine.boot("usrpolicy=strict usrpolicy.init=sbin/init");
                assert!(boot.usr_is_read_only());
                assert_eq!(
                    boot.console,
                    "/proc/cmdline: usrpolicy.init=sbin/init is not the path of a program; write an absolute one such as /sbin/init\n"
                );
            });
        },
    ),
    (
        "an init that is missing is said and the next one is started",
        || {
            Machine::with(|machine| {
                let boot = machine.boot("usrpolicy.init=/sbin/other");
                assert!(boot.said().starts_with("pid=1 name=/sbin/init "));
                assert_eq!(
                    boot.console,
                    "/sbin/other: cannot start: No such file or directory; trying the next init\n"
                );
            });
        },
    ),
    ("pre-init does not start itself in a circle", || {
        Machine::with(|machine| {
            let boot = machine.boot("usrpolicy.init=/usr-policy-init");
            assert!(boot.said().starts_with("pid=1 name=/sbin/init "));
            assert_eq!(
                boot.console,
                "/usr-policy-init: is usr-policy itself, and not started again; name the real init with usrpolicy.init=\n"
            );
        });
    }),
    (
        "copies of pre-init do not start each other in a circle, with or without proc",
        || {
            Machine::with(|machine| {
                let copy = machine.root().join("sbin/init");
                fs::copy(product::boot_program(), copy).unwrap();
                machine.program("/bin/sh", "#!/bin/busybox sh\nbusybox echo $$\n");
                let said = |command: &mut Command| {
                    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
                    let began = Instant::now();
                    // A circle would not end by itself.
                    while process.try_wait().unwrap().is_none() {
                        if began.elapsed() > Duration::from_secs(10) {
                            process.kill().unwrap();
                        }
                        sleep(Duration::from_millis(50));
                    }
                    let output = process.wait_with_output().unwrap();
                    String::from_utf8(output.stdout).unwrap()
                };
                let mut asked = machine.first_process("usrpolicy.init=/usr-policy-init", "");
                assert_eq!(said(&mut asked), "1\n");
                fs::remove_dir(machine.root().join("proc")).unwrap();
                for start in ["/usr-policy-init", "/sbin/init"] {
                    let script = format!("exec {start}");
                    assert_eq!(said(&mut machine.in_namespaces(&script)), "1\n", "{start}");
                }
            });
        },
    ),
    (
        "a shell is the last init and is given none of the words",
        || {
            Machine::with(|machine| {
                fs::remove_file(machine.root().join("sbin/init")).unwrap();
                machine.program("/bin/sh", INIT);
                let boot = machine.boot(STRICT);
                assert!(boot.said().starts_with("pid=1 name=/bin/sh arguments=\n"));
            });
        },
    ),
    (
        "where nothing can be started the message stays, unless the kernel is to restart after a panic",
        || {
            Machine::with(|machine| {
                fs::remove_file(machine.root().join("sbin/init")).unwrap();
                let message = "no init could be started; press Ctrl-Alt-Delete, and boot with an initramfs or name an init with usrpolicy.init=\n";
                // The end of the first process is a panic of the kernel.
                machine.write("/panic", "10\n");
                let boot = machine.boot(STRICT);
                assert_eq!(boot.output.status.code(), Some(1));
                assert_eq!(boot.console, message);

                machine.write("/panic", "0\n");
                machine.write("/dev/console", "");
                let mut process = machine.first_process(STRICT, "").spawn().unwrap();
                let began = Instant::now();
                while machine.console() != message {
                    assert!(
                        began.elapsed() < Duration::from_secs(20),
                        "{}",
                        machine.console()
                    );
                    sleep(Duration::from_millis(50));
                }
                sleep(Duration::from_millis(500));
                assert_eq!(process.try_wait().unwrap(), None);
                process.kill().unwrap();
                process.wait().unwrap();
            });
        },
    ),
    (
        "a usr without the boot program is left writable, for nobody would lock the database",
        || {
            Machine::with(|machine| {
                fs::remove_dir_all(machine.root().join("usr/lib/usr-policy")).unwrap();
                let boot = machine.boot(STRICT);
                assert!(!boot.usr_is_read_only());
                assert!(
                    boot.console
                        .starts_with("/usr: left writable: the root has no "),
                    "{}",
                    boot.console
                );
                assert!(boot.console.ends_with(WAY_OUT), "{}", boot.console);
            });
        },
    ),
    (
        "verify knows pre-init, and a copy that is older than the program",
        || {
            Machine::with(|machine| {
                machine.write("/verify", "");
                let boot = machine.boot(STRICT);
                let holds = "  holds    /usr               read-only since pre-init (init stage, ";
                assert!(boot.said().contains(holds), "{}", boot.said());
                assert!(!boot.said().contains("/usr-policy-init"), "{}", boot.said());

                machine.program(
                    "/usr/lib/usr-policy/usr-policy-generator",
                    "#!/bin/sh\n# newer\n",
                );
                let boot = machine.boot(STRICT);
                let warning =
                    "  warning  /usr-policy-init   is not the boot program that is installed\n";
                assert!(boot.said().contains(warning), "{}", boot.said());
                let remedy =
                    "-> install -m755 /usr/lib/usr-policy/usr-policy-generator /usr-policy-init\n";
                assert!(boot.said().contains(remedy), "{}", boot.said());
            });
        },
    ),
    (
        "a device that does not come is waited for as long as fstab says, and said",
        || {
            Machine::with(|machine| {
                machine.write(
                    "/etc/fstab",
                    "LABEL=nobody\\040has\\040this /usr ext4 rw,x-systemd.device-timeout=2s 0 2\n",
                );
                let began = Instant::now();
                let boot = machine.boot(STRICT);
                boot.said();
                assert!(began.elapsed() >= Duration::from_secs(2));
                assert_eq!(
                boot.console,
                "/usr: waiting for LABEL=nobody has this\n\
                LABEL=nobody has this: cannot mount on /usr: there is no such device; encrypted devices, LVM, most RAID and ZFS need an initramfs; a slow disk needs x-systemd.device-timeout= in fstab\n"
                    .to_owned()
                    + WAY_OUT
            );
            });
        },
    ),
    ("what a first process cannot mount is said at once", || {
        Machine::with(|machine| {
            machine.write("/etc/fstab", "/dev/disk/by-id/x /usr ext4\n");
            let boot = machine.boot(STRICT);
            boot.said();
            assert!(
                boot.console.starts_with(
                    "/etc/fstab:1: /usr from /dev/disk/by-id/x: a link that udev makes"
                ),
                "{}",
                boot.console
            );
            assert!(boot.console.ends_with(WAY_OUT));
        });
    }),
    (
        "usr on a disk of its own is read-only by its mount alone where fstab says rw",
        || {
            Machine::with(|machine| {
                let label = label("writable");
                let Some(_disk) = Disk::make(machine, &label) else {
                    return;
                };
                let spec = label.replace(' ', "\\040");
                machine.write(
                    "/etc/fstab",
                    &format!("LABEL={spec} /usr ext4 rw,nodev 0 0\n"),
                );
                let boot = machine.boot(STRICT);
                assert!(boot.usr_is_read_only());
                assert_eq!(boot.events(), RECORD);
                let (mount, fs_type, file_system) = boot.mount_at("/usr").unwrap();
                assert_eq!(
                    (mount.as_str(), fs_type.as_str()),
                    ("ro,nodev,relatime", "ext4")
                );
                assert!(file_system.starts_with("rw"), "{file_system}");
                assert_eq!(boot.console, "");

                let boot = machine.boot("rw");
                assert!(!boot.usr_is_read_only());
                let (mount, ..) = boot.mount_at("/usr").unwrap();
                assert_eq!(mount, "rw,nodev,relatime");
                assert_eq!(boot.events(), [""; 0]);
            });
        },
    ),
    (
        "usr on a disk of its own is read-only throughout where fstab says ro",
        || {
            Machine::with(|machine| {
                let Some(disk) = Disk::make(machine, &label("read-only")) else {
                    return;
                };
                machine.write(
                    "/etc/fstab",
                    &format!("{} /usr auto ro,noatime 0 0\n", disk.device),
                );
                for (cmdline, events) in [(STRICT, RECORD.as_slice()), ("rw", &[])] {
                    let boot = machine.boot(cmdline);
                    assert!(boot.usr_is_read_only());
                    assert_eq!(boot.events(), events);
                    let (mount, _, file_system) = boot.mount_at("/usr").unwrap();
                    assert_eq!(mount, "ro,noatime", "{cmdline}");
                    assert!(file_system.starts_with("ro"), "{file_system}");
                }
            });
        },
    ),
    ("words that only mount knows are no obstacle", || {
        Machine::with(|machine| {
            let Some(disk) = Disk::make(machine, &label("words")) else {
                return;
            };
            machine.write(
                "/etc/fstab",
                &format!(
                    "{} /usr ext4 rw,norelatime,noiversion,loud,rprivate,nolazytime 0 0\n",
                    disk.device
                ),
            );
            for cmdline in ["rw", STRICT] {
                let boot = machine.boot(cmdline);
                assert_eq!(boot.usr_is_read_only(), cmdline == STRICT);
                assert!(boot.mount_at("/usr").is_some());
                assert_eq!(boot.console, "");
            }
        });
    }),
    (
        "an option that the file system refuses costs the options and not usr",
        || {
            Machine::with(|machine| {
                let Some(disk) = Disk::make(machine, &label("refused")) else {
                    return;
                };
                let device = &disk.device;
                machine.write(
                    "/etc/fstab",
                    &format!("{device} /usr ext4 rw,nodev,discrad 0 0\n"),
                );
                for (cmdline, events) in [("rw", [].as_slice()), (STRICT, &RECORD)] {
                    machine.write("/dev/console", "");
                    let boot = machine.boot(cmdline);
                    assert!(boot.usr_is_read_only());
                    assert_eq!(boot.events(), events);
                    let (mount, _, file_system) = boot.mount_at("/usr").unwrap();
                    assert_eq!(mount, "ro,nodev,relatime");
                    assert!(file_system.starts_with("ro"), "{file_system}");
                    assert_eq!(
                        boot.console,
                        format!(
                            "{device}: cannot mount: ext4: Unknown parameter 'discrad'; /usr is mounted read-only without the options of its file system; correct them in fstab or mount.usrflags=\n"
                        )
                    );
                }
            });
        },
    ),
    (
        "where usr cannot be mounted the way out that is shown is one",
        || {
            Machine::with(|machine| {
                let Some(disk) = Disk::make(machine, &label("elsewhere")) else {
                    return;
                };
                machine.write("/etc/fstab", "/dev/null /usr ext4 rw 0 0\n");
                let boot = machine.boot(STRICT);
                assert_eq!(boot.mount_at("/usr"), None);
                assert!(boot.console.ends_with(WAY_OUT), "{}", boot.console);
                machine.write("/dev/console", "");
                let words = format!("usrpolicy=off mount.usr={} mount.usrflags=ro", disk.device);
                let boot = machine.boot(&words);
                assert!(boot.mount_at("/usr").is_some());
                assert_eq!(boot.console, "");
            });
        },
    ),
    ("the command line can name the device of usr alone", || {
        Machine::with(|machine| {
            let Some(disk) = Disk::make(machine, &label("named")) else {
                return;
            };
            machine.write("/etc/fstab", "/dev/nothing /usr ext4 rw 0 2\n");
            let words = format!("{STRICT} mount.usr={}", disk.device);
            let boot = machine.boot(&words);
            assert!(boot.usr_is_read_only());
            assert_eq!(boot.console, "");
            let (_, _, file_system) = boot.mount_at("/usr").unwrap();
            assert!(file_system.starts_with("rw"), "{file_system}");
        });
    }),
    (
        "a configuration in usr counts though usr is not there when pre-init starts",
        || {
            Machine::with(|machine| {
                let Some(disk) = Disk::make(machine, &label("configured")) else {
                    return;
                };
                // Written through the machine itself, which is off until it is there.
                machine.write("/etc/fstab", &format!("{} /usr ext4 rw 0 0\n", disk.device));
                machine.program(
                    "/sbin/init",
                    &INIT.replace(
                        "exit 0",
                        "printf '[Policy]\\nMode=strict\\n' 2>/dev/null >/usr/lib/usr-policy.conf",
                    ),
                );
                assert!(!machine.boot("rw").usr_is_read_only());
                let boot = Boot {
                    output: machine.first_process("rw", "").output().unwrap(),
                    console: machine.console(),
                };
                let said = str::from_utf8(&boot.output.stdout).unwrap();
                assert!(
                    said.contains("\nusr is read-only\n"),
                    "{said}\n{}",
                    boot.console
                );
            });
        },
    ),
    (
        "where nobody can tell whether usr is to be read-only it becomes what fstab says",
        || {
            Machine::with(|machine| {
                let Some(disk) = Disk::make(machine, &label("untold")) else {
                    return;
                };
                machine.write("/etc/fstab", &format!("{} /usr ext4 rw 0 0\n", disk.device));
                machine.write("/etc/usr-policy.conf", "[Policy]\nMode=strict\n");
                machine.write("/empty", "");
                machine.write("/cmdline", "rw\n");
                machine.program(
                    "/sbin/init",
                    "#!/bin/busybox sh\n[ -e /usr/on-the-disk ] && busybox touch /usr/probe && busybox echo writable\n",
                );
                let said = |script: &str| {
                    machine.write("/dev/console", "");
                    let output = machine.in_namespaces(script).output().unwrap();
                    String::from_utf8(output.stdout).unwrap()
                };
                // Its mount cannot be found.
                let script = "busybox mount -t proc proc /proc &&
                    busybox mount -o bind /cmdline /proc/cmdline &&
                    busybox mount -o bind /empty /proc/1/mountinfo &&
                    exec /usr-policy-init";
                assert_eq!(said(script), "writable\n");
                let console = machine.console();
                assert!(console.starts_with("/proc/self/mountinfo: "), "{console}");
                assert!(console.ends_with(WAY_OUT), "{console}");
                // There is no command line, which could say off.
                fs::remove_dir(machine.root().join("proc")).unwrap();
                assert_eq!(said("exec /usr-policy-init"), "writable\n");
                let console = machine.console();
                assert!(console.contains("/proc/cmdline: cannot read"), "{console}");
                assert!(console.ends_with(WAY_OUT), "{console}");
            });
        },
    ),
    (
        "usr is checked where fstab asks, and stays read-only where fsck could not mend it",
        || {
            Machine::with(|machine| {
                let Some(disk) = Disk::make(machine, &label("checked")) else {
                    return;
                };
                let device = &disk.device;
                for (passno, exit, checked, writable) in [
                    (0, 4, false, true),
                    (2, 0, true, true),
                    (2, 1, true, true),
                    (2, 2, true, false),
                    (2, 4, true, false),
                ] {
                    machine.write("/etc/fstab", &format!("{device} /usr ext4 rw 0 {passno}\n"));
                    machine.program(
                    "/sbin/fsck.ext4",
                    &format!("#!/bin/busybox sh\n[ ! -e /usr/on-the-disk ] && busybox echo \"$*\" >/checked\nexit {exit}\n"),
                );
                    let _ = fs::remove_file(machine.root().join("checked"));
                    machine.write("/dev/console", "");
                    let boot = machine.boot("rw");
                    let arguments = fs::read_to_string(machine.root().join("checked")).ok();
                    assert_eq!(arguments, checked.then(|| format!("-a {device}\n")));
                    assert_eq!(boot.usr_is_read_only(), !writable, "{exit}");
                    let (_, _, file_system) = boot.mount_at("/usr").unwrap();
                    assert_eq!(file_system.starts_with("rw"), writable, "{file_system}");
                    let message = format!(
                        "{device}: fsck could not mend everything; /usr stays read-only, and fsck by hand from another system is needed\n"
                    );
                    assert_eq!(boot.console, if writable { "" } else { &message });
                }
            });
        },
    ),
    (
        "a helper that cannot be started, or ends before it looks, is said and usr is mounted unchecked",
        || {
            Machine::with(|machine| {
                let Some(disk) = Disk::make(machine, &label("unchecked")) else {
                    return;
                };
                machine.write("/etc/fstab", &format!("{} /usr ext4 rw 0 2\n", disk.device));
                // The second is what a loader does that finds no libraries.
                for helper in ["#!/usr/bin/interpreter\n", "#!/bin/busybox sh\nexit 127\n"] {
                    machine.program("/sbin/fsck.ext4", helper);
                    machine.write("/dev/console", "");
                    let boot = machine.boot(STRICT);
                    assert!(boot.usr_is_read_only());
                    assert_eq!(boot.events(), RECORD);
                    let (_, _, file_system) = boot.mount_at("/usr").unwrap();
                    assert!(file_system.starts_with("rw"), "{file_system}");
                    let rest = boot.console.strip_prefix("/sbin/fsck.ext4: ");
                    assert!(
                        rest.is_some_and(|rest| rest.ends_with("; /usr is mounted unchecked, as without a helper on the root file system\n")),
                        "{}",
                        boot.console
                    );
                }
            });
        },
    ),
    (
        "as the first process of a container it does what its words say and starts nothing",
        || {
            Machine::with(|machine| {
                machine.write("/cmdline", STRICT);
                let ran = |words: &str| {
                    let script = format!(
                        "busybox mount -t proc proc /proc &&
                        busybox mount -o bind /cmdline /proc/cmdline &&
                        busybox mkdir -p /run/1 /run/2 /run/3 &&
                        exec {words}"
                    );
                    machine.in_namespaces(&script).output().unwrap()
                };
                let program = "/usr/lib/usr-policy/usr-policy-generator";
                for (words, exit) in [
                    // What it would close is seen by nobody else.
                    ("sync", 1),
                    ("apply --root / --stage host", 0),
                    ("/run/1 /run/2 /run/3", 0),
                ] {
                    let output = ran(&format!("{program} {words}"));
                    assert_eq!(output.status.code(), Some(exit), "{words}: {output:?}");
                    assert_eq!(output.stdout, b"", "{words}");
                }
                // What a kernel may give an init is no role; and by this name it is pre-init whatever its words.
                for (words, given) in [
                    (program, ""),
                    (
                        "/usr/lib/usr-policy/usr-policy-generator single 3",
                        "single 3",
                    ),
                    (
                        "/usr/lib/usr-policy/usr-policy-generator /vmlinuz",
                        "/vmlinuz",
                    ),
                    ("/usr-policy-init sync", "sync"),
                ] {
                    let output = ran(words);
                    let said = String::from_utf8(output.stdout).unwrap();
                    let first = format!("pid=1 name=/sbin/init arguments={given}\n");
                    assert!(said.starts_with(&first), "{words}: {said}");
                }
            });
        },
    ),
    (
        "as any other process the boot program says how pre-init is started",
        || {
            Machine::with(|machine| {
                let script =
                    "busybox mount -t proc proc /proc; /usr-policy-init init; busybox echo $?";
                let output = machine.in_namespaces(script).output().unwrap();
                assert_eq!(output.stdout, b"2\n");
                let said = String::from_utf8(output.stderr).unwrap();
                assert!(
                    said.contains("init=/usr-policy-init on the kernel command line"),
                    "{said}"
                );
            });
        },
    ),
];
