//! A second machine beside the one that is booted: it has a part of the layout as a disk, and shares it over NFS.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::command::tail;
use super::error::{At, Error, Result};
use super::initramfs::Initramfs;
use super::qemu::{PROGRAM, bare, drive};
use super::tree::Extra;

/// The addresses of the two; those of documentation (RFC 5737), which no machine has.
pub const SERVER: &str = "192.0.2.1";
const CLIENT: &str = "192.0.2.2";

/// A part of a layout that is no disk of the machine that is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The label of the part.
    pub label: &'static str,
    /// What is at the other end of the network.
    pub server: Server,
}

/// What is at the other end of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// A machine that takes writes.
    ReadWrite,
    /// A machine that refuses them.
    ReadOnly,
    /// Nobody.
    IsDead,
}

impl Server {
    /// The option of exports(5); `None` where there is nobody.
    #[must_use]
    pub fn access(self) -> Option<&'static str> {
        match self {
            Self::ReadWrite => Some("rw"),
            Self::ReadOnly => Some("ro"),
            Self::IsDead => None,
        }
    }
}

/// What the machine does, in an initramfs of busybox.
const SCRIPT: &str = include_str!("../nfs/serve");

/// The hook of mkinitcpio that it is, and what installs it.
const HOOK: &str = "serve";
const INSTALL: &str = include_str!("../nfs/serve.install");

/// Memory in MiB.
const MEMORY: u32 = 384;

/// The words on its kernel command line.
const WORDS: &str = "console=ttyS0 loglevel=4 panic=-1 mitigations=off init_on_alloc=0 apparmor=0 audit=0 nokaslr net.ifnames=0";

/// Octets in a packet: each costs an emulated machine the same, whatever is in it.
const PACKET: u32 = 32768;

/// What it writes to its console when a client may come.
const READY: &str = "serving ";

/// How long that may take; a machine at rest needs a tenth.
const TIME_LIMIT: Duration = Duration::from_mins(2);

/// How often to look.
const TICK: Duration = Duration::from_millis(100);

/// Everything that decides what the machine does beside the suite, for the key of a boot.
#[must_use]
pub fn recipe(share: Share) -> String {
    let words = share.server.access().map(words);
    let client = words_of_the_client();
    format!("{share:?} {MEMORY} {PACKET} {words:?} {client} {INSTALL} {SCRIPT}")
}

/// What the machine that is booted has on its kernel command line: it gets its address before /usr is there.
pub(super) fn words_of_the_client() -> String {
    format!("net.ifnames=0 rd.neednet=1 ip={CLIENT}:::255.255.255.0::eth0:none")
}

/// Its kernel command line.
fn words(access: &str) -> String {
    format!("{WORDS} ip={SERVER}/24 client={CLIENT} access={access}")
}

/// What makes the machine's initramfs, and what is in the tree where it is made.
#[must_use]
pub fn initramfs() -> (Initramfs, [Extra; 2]) {
    let files = [
        Extra::file(&format!("/etc/initcpio/install/{HOOK}"), INSTALL),
        Extra::file(&format!("/etc/initcpio/hooks/{HOOK}"), SCRIPT),
    ];
    (Initramfs::Busybox(&[HOOK]), files)
}

/// A cable: a socket for each end, in a directory that is gone with it.
#[derive(Debug)]
pub struct Network(TempDir);

impl Network {
    fn new() -> Result<Self> {
        tempfile::tempdir()
            .at(Path::new("a temporary directory"))
            .map(Self)
    }

    /// The end of the machine that is booted, as QEMU's arguments.
    pub(super) fn of_the_client(&self) -> [String; 4] {
        self.end(["client", "server"], 2)
    }

    fn of_the_server(&self) -> [String; 4] {
        self.end(["server", "client"], 1)
    }

    /// Datagrams: neither end waits for the other, and what is sent to nobody is lost, as on a real one.
    fn end(&self, names: [&str; 2], number: u8) -> [String; 4] {
        let [here, there] = names.map(|name| {
            // QEMU splits at commas; a doubled one is one.
            let path = self.0.path().join(name).display().to_string();
            path.replace(',', ",,")
        });
        [
            "-netdev".to_owned(),
            format!(
                "dgram,id=net,local.type=unix,local.path={here},remote.type=unix,remote.path={there}"
            ),
            "-device".to_owned(),
            format!(
                "virtio-net-pci,netdev=net,mac=52:54:00:00:00:{number:02},host_mtu={PACKET},romfile="
            ),
        ]
    }
}

/// The network of a machine, and the other machine on it where there is one. Dropping it switches that off.
#[derive(Debug)]
pub struct Neighbour {
    machine: Option<Child>,
    network: Network,
}

/// What the other machine starts from.
#[derive(Debug, Clone, Copy)]
pub struct Serves<'a> {
    /// The kernel.
    pub kernel: &'a Path,
    /// What [`initramfs`] tells how to make.
    pub initramfs: &'a Path,
    /// The disk that is shared; what is written to it is forgotten.
    pub disk: &'a Path,
    /// How: an option of exports(5).
    pub access: &'static str,
}

impl Neighbour {
    /// A network with nobody at its other end.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn nobody() -> Result<Self> {
        Ok(Self {
            machine: None,
            network: Network::new()?,
        })
    }

    /// Starts the other machine, and waits until it serves. What QEMU says goes beside its console.
    ///
    /// # Errors
    /// It does not come so far.
    pub fn start(serves: &Serves<'_>, console: &Path, processors: u8) -> Result<Self> {
        let log = console.with_extension("qemu.log");
        let mut neighbour = Self::nobody()?;
        let machine = command(serves, processors, &neighbour.network, console, &log)?.spawn();
        neighbour.machine = Some(machine.map_err(|error| {
            Error::new(format!(
                "{PROGRAM}: {error}; tests/requirements boot installs what is needed"
            ))
        })?);
        let began = Instant::now();
        loop {
            let said = fs::read(console).unwrap_or_default();
            if String::from_utf8_lossy(&said)
                .lines()
                .any(|line| line.starts_with(READY))
            {
                return Ok(neighbour);
            }
            let stopped = neighbour
                .machine
                .as_mut()
                .map(Child::try_wait)
                .transpose()
                .at(&log)?;
            if stopped.flatten().is_some() || began.elapsed() > TIME_LIMIT {
                return Err(Error::new(format!(
                    "the server does not serve; {} ends with\n{}\n{}",
                    console.display(),
                    tail(console, 15),
                    tail(&log, 5)
                )));
            }
            sleep(TICK);
        }
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        if let Some(machine) = &mut self.machine {
            // It has no file that must be whole, and if it has stopped already, that is as well.
            let _ = machine.kill().and_then(|()| machine.wait());
        }
    }
}

fn command(
    serves: &Serves<'_>,
    processors: u8,
    network: &Network,
    console: &Path,
    log: &Path,
) -> Result<Command> {
    let file = File::create(log).at(log)?;
    let mut command = bare(MEMORY, processors);
    command
        .args(drive("usr", serves.disk, "snapshot=on"))
        .args(network.of_the_server())
        .args(["-serial", &format!("file:{}", console.display())])
        .arg("-kernel")
        .arg(serves.kernel)
        .arg("-initrd")
        .arg(serves.initramfs)
        .args(["-append", &words(serves.access)])
        .stdin(Stdio::null())
        .stdout(file.try_clone().at(log)?)
        .stderr(file);
    Ok(command)
}
