//! The words of the kernel command line and of the configuration, made into a [`Policy`].
//!
//! Every word that cannot be understood drops only itself and leaves a [`Problem`]; a mode that cannot be understood is
//! [`Mode::Off`], because a machine that starts as it always did is the smaller harm.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::cmdline::{Cmdline, Word};
use crate::config::{self, Assignment, ConfigFile, boolean};
use crate::mount_point::{MountPoint, NotAMountPoint};
use crate::package_manager::{NamedDatabase, PACMAN};
use crate::text::{Shown, decimal};
use crate::unit_name::mount_unit;

/// What `usrpolicy=` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing at all.
    Off,
    /// Nothing is mounted; `usr-policy verify` reports what strict would find.
    Audit,
    /// The policy is enforced.
    Strict,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Off => "off",
            Mode::Audit => "audit",
            Mode::Strict => "strict",
        })
    }
}

/// When the package database is locked, `usrpolicy.lock=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// From boot to shutdown; only a maintenance window opens it.
    Always,
    /// From boot on, and whenever an extension is merged.
    Merged,
    /// Not at boot.
    Off,
}

/// What is done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Nothing is mounted there.
    ReadWrite,
    /// A read-only bind of the path on itself.
    ReadOnly,
    /// A tmpfs over the path.
    Tmpfs(Tmpfs),
}

/// The options of a tmpfs that a rule may set, and those it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tmpfs {
    /// Upper bound. Source: tmpfs(5), `size=`.
    pub size: Size,
    /// Permissions of the root directory. Source: tmpfs(5), `mode=`.
    pub mode: u16,
    /// Whether programs may not be run from it.
    pub noexec: bool,
}

/// The size of a tmpfs, in the form in which it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    number: u64,
    unit: SizeUnit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SizeUnit {
    Percent,
    Bytes,
    Kibibytes,
    Mebibytes,
    Gibibytes,
}

impl Size {
    /// A share of the physical memory, in percent.
    #[must_use]
    pub const fn percent(percent: u8) -> Self {
        Size {
            number: percent as u64,
            unit: SizeUnit::Percent,
        }
    }

    /// Whether it is a share of the physical memory.
    #[must_use]
    pub fn is_share(self) -> bool {
        self.unit == SizeUnit::Percent
    }

    /// Reads `20%`, `512m`, `1G`, `65536`. Zero is refused: to tmpfs it means "no limit".
    fn parse(text: &[u8]) -> Option<Self> {
        let (digits, unit) = match text.split_last()? {
            (b'%', digits) => (digits, SizeUnit::Percent),
            (b'k' | b'K', digits) => (digits, SizeUnit::Kibibytes),
            (b'm' | b'M', digits) => (digits, SizeUnit::Mebibytes),
            (b'g' | b'G', digits) => (digits, SizeUnit::Gibibytes),
            _ => (text, SizeUnit::Bytes),
        };
        let number = decimal(digits)?;
        let size = Size { number, unit };
        let in_range = match unit {
            SizeUnit::Percent => (1..=100).contains(&number),
            _ => number > 0 && size.bytes(0).is_some(),
        };
        in_range.then_some(size)
    }

    /// The bound in bytes on a machine with that much physical memory; `None` where it exceeds 64 bits.
    #[must_use]
    pub fn bytes(self, memory: u64) -> Option<u64> {
        match self.unit {
            SizeUnit::Percent => {
                u64::try_from(u128::from(memory) * u128::from(self.number) / 100).ok()
            }
            SizeUnit::Bytes => Some(self.number),
            SizeUnit::Kibibytes => self.number.checked_mul(1 << 10),
            SizeUnit::Mebibytes => self.number.checked_mul(1 << 20),
            SizeUnit::Gibibytes => self.number.checked_mul(1 << 30),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.unit {
            SizeUnit::Percent => "%",
            SizeUnit::Bytes => "",
            SizeUnit::Kibibytes => "k",
            SizeUnit::Mebibytes => "m",
            SizeUnit::Gibibytes => "g",
        };
        write!(f, "{}{suffix}", self.number)
    }
}

impl fmt::Display for Tmpfs {
    /// The options as tmpfs(5) takes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noexec = if self.noexec { ",noexec" } else { "" };
        write!(
            f,
            "mode={:04o},size={},nosuid,nodev{noexec}",
            self.mode, self.size
        )
    }
}

impl fmt::Display for Treatment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Treatment::ReadWrite => f.write_str("writable"),
            Treatment::ReadOnly => f.write_str("read-only"),
            Treatment::Tmpfs(options) => write!(f, "tmpfs {options}"),
        }
    }
}

/// What a rule stands for, beyond its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `/usr` itself.
    Usr,
    /// The package database, which describes `/usr`.
    Database,
    /// The package manager's download cache.
    Cache,
    /// Any other path.
    Path,
}

/// A row of the policy: a path, what is done with it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The path.
    pub mount_point: MountPoint,
    /// What the path is to the policy.
    pub role: Role,
    /// What is done with it.
    pub treatment: Treatment,
    /// Why, for a person.
    pub because: &'static str,
    /// Who asked for it.
    pub origin: Origin,
}

impl Rule {
    /// The unit that mounts the path. No rule is made whose unit would have no name.
    #[must_use]
    pub fn unit(&self) -> String {
        mount_unit(&self.mount_point).map_or(String::new(), |name| name.as_str().to_owned())
    }
}

/// Where a word or a rule comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The table of this module.
    Table,
    /// The kernel command line.
    CommandLine,
    /// A line of a configuration file.
    File {
        /// The file's path.
        path: Vec<u8>,
        /// Line number, from 1.
        line: u32,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Table => f.write_str("by default"),
            Origin::CommandLine => f.write_str(CMDLINE_FILE),
            Origin::File { path, line } => write!(f, "{}:{line}", Shown(path)),
        }
    }
}

/// The file that shows the kernel command line, for messages.
pub const CMDLINE_FILE: &str = "/proc/cmdline";

/// A row of the built-in table.
struct Row {
    path: &'static str,
    role: Role,
    treatment: Treatment,
    because: &'static str,
}

const fn tmpfs(mode: u16, percent: u8, noexec: bool) -> Treatment {
    Treatment::Tmpfs(Tmpfs {
        size: Size::percent(percent),
        mode,
        noexec,
    })
}

/// What strict does where nothing else is said.
const TABLE: &[Row] = &[
    Row {
        path: "/usr",
        role: Role::Usr,
        treatment: Treatment::ReadOnly,
        because: "system image; it changes only through systemd-sysext",
    },
    Row {
        path: PACMAN.database,
        role: Role::Database,
        treatment: Treatment::ReadOnly,
        because: "the package database describes /usr and must not change without it",
    },
    Row {
        path: PACMAN.cache,
        role: Role::Cache,
        // No program is ever run from a download cache.
        treatment: tmpfs(0o755, 25, true),
        because: "disposable cache",
    },
    Row {
        path: "/var/tmp",
        role: Role::Path,
        // systemd's own bound for a /var in memory; initramfs generators build whole images here.
        treatment: tmpfs(0o1777, 25, false),
        because: "transient state",
    },
    Row {
        path: "/var/log",
        role: Role::Path,
        treatment: Treatment::ReadWrite,
        because: "logging",
    },
    Row {
        path: "/var/lib/systemd",
        role: Role::Path,
        treatment: Treatment::ReadWrite,
        because: "systemd's own state",
    },
];

/// A tmpfs on this path where neither size nor mode is said.
fn default_tmpfs(path: &[u8]) -> Tmpfs {
    let of_table = TABLE
        .iter()
        .find(|row| row.path.as_bytes() == path)
        .map(|row| row.treatment);
    match of_table {
        Some(Treatment::Tmpfs(options)) => options,
        _ => Tmpfs {
            size: Size::percent(10),
            mode: 0o755,
            noexec: path == b"/var/log",
        },
    }
}

/// The paths, besides the database, that stay as they are whoever asks.
const UNTOUCHABLE: [&str; 2] = ["/var/lib/systemd", "/var/lib/usr-policy"];

/// Why a path may not be treated as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no absolute, normal path.
    NotAMountPoint(NotAMountPoint),
    /// systemd reads unit files as lines of UTF-8 and strips blanks and backslashes at their end.
    NotForUnits,
    /// It is `/usr`, whose treatment is the mode's.
    Usr,
    /// It lies neither below `/var` nor below `/usr`.
    Elsewhere,
    /// It lies below `/usr` and is asked to be something other than writable.
    BelowUsr,
    /// It is, holds or lies in a directory that the policy keeps as it is.
    Kept(&'static str),
    /// It is, holds or lies in the package database.
    Database,
    /// Its unit's name would be longer than systemd takes.
    TooLong,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotAMountPoint(why) => why.fmt(f),
            Refusal::NotForUnits => f.write_str(
                "cannot be written in a unit file; use a path of UTF-8 text without control characters that ends in neither a blank nor a backslash",
            ),
            Refusal::Usr => f.write_str("takes no treatment of its own; usrpolicy=strict makes it read-only"),
            Refusal::Elsewhere => f.write_str("is neither below /var nor below /usr; remove it"),
            Refusal::BelowUsr => f.write_str("is below /usr, where only rw is possible; use rw or remove it"),
            Refusal::Kept(path) => write!(f, "would change {path}, which usr-policy keeps as it is; remove it"),
            Refusal::Database => f.write_str("would change the package database, which is locked as a whole; remove it"),
            Refusal::TooLong => f.write_str("makes a unit name of more than 255 bytes; use a shorter path"),
        }
    }
}

/// What is wrong with a word or a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complaint {
    /// `usrpolicy=` with a word that is no mode, or with none.
    Mode(Option<Vec<u8>>),
    /// `Mode=` with a word that is no mode.
    ConfiguredMode(Vec<u8>),
    /// `usrpolicy.lock=` or `Lock=` with a word that is no lock rule.
    Lock(Vec<u8>),
    /// `usrpolicy.stepdown=` or `StepDown=` with something that is no number.
    StepDown(Vec<u8>),
    /// A boolean that is none.
    Boolean(&'static str, Vec<u8>),
    /// `usrpolicy.init=` with something that is no absolute path.
    RealInit(Vec<u8>),
    /// A `usrpolicy.` word that this version does not know.
    UnknownWord(Vec<u8>),
    /// A key or a section that this version does not know.
    UnknownKey(Vec<u8>, Vec<u8>),
    /// `usrpolicy.path=` without `:treatment`.
    NoTreatment(Vec<u8>),
    /// A treatment that is none of rw, ro and tmpfs.
    Treatment(Vec<u8>),
    /// A size that tmpfs(5) would not take, or that means "no limit".
    Size(Vec<u8>),
    /// Permissions that are no octal number up to 7777.
    Permissions(Vec<u8>),
    /// A word after the treatment that is neither size= nor mode=.
    PathOption(Vec<u8>),
    /// Size or mode for a path that is no tmpfs.
    OptionWithoutTmpfs(Vec<u8>),
    /// A path that may not be treated so.
    Path(Vec<u8>, Refusal),
    /// A package database, of the package manager's configuration, that cannot be locked where it is.
    Database(Vec<u8>, Refusal),
    /// A line of a configuration file that is no line of one.
    Syntax(config::Problem),
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Complaint::Mode(None) => f.write_str(
                "usrpolicy without a value is not a mode; use usrpolicy=strict or remove it",
            ),
            Complaint::Mode(Some(word)) => {
                write!(
                    f,
                    "usrpolicy={} is not a mode; use usrpolicy=strict or remove it",
                    Shown(word)
                )
            }
            Complaint::ConfiguredMode(word) => {
                write!(
                    f,
                    "Mode={} is not a mode; use off, audit or strict",
                    Shown(word)
                )
            }
            Complaint::Lock(word) => write!(
                f,
                "\"{}\" is not a lock rule; use always, merged or off",
                Shown(word)
            ),
            Complaint::StepDown(word) => write!(
                f,
                "\"{}\" is not a number of boots; write one such as 3, or 0 for never",
                Shown(word)
            ),
            Complaint::Boolean(key, word) => {
                write!(f, "{key}={} is not a boolean; use yes or no", Shown(word))
            }
            Complaint::RealInit(word) => write!(
                f,
                "usrpolicy.init={} is not the path of a program; write an absolute one such as /sbin/init",
                Shown(word)
            ),
            Complaint::UnknownWord(word) => {
                write!(f, "{} is not a word of usr-policy; remove it", Shown(word))
            }
            Complaint::UnknownKey(section, key) => {
                write!(
                    f,
                    "{}= in [{}] is not a setting of usr-policy; remove it",
                    Shown(key),
                    Shown(section)
                )
            }
            Complaint::NoTreatment(value) => {
                write!(
                    f,
                    "usrpolicy.path={} names no treatment; write PATH:tmpfs, PATH:ro or PATH:rw",
                    Shown(value)
                )
            }
            Complaint::Treatment(word) => write!(
                f,
                "\"{}\" is not a treatment; use rw, ro or tmpfs",
                Shown(word)
            ),
            Complaint::Size(word) => {
                write!(
                    f,
                    "\"{}\" is not a size; write 1% to 100%, or a number with k, m or g",
                    Shown(word)
                )
            }
            Complaint::Permissions(word) => {
                write!(
                    f,
                    "\"{}\" is not a mode of a directory; write octal digits such as 0755",
                    Shown(word)
                )
            }
            Complaint::PathOption(word) => {
                write!(
                    f,
                    "\"{}\" is not an option of a path; use size= or mode=",
                    Shown(word)
                )
            }
            Complaint::OptionWithoutTmpfs(path) => {
                write!(
                    f,
                    "{} is no tmpfs and takes neither size nor mode; remove them",
                    Shown(path)
                )
            }
            Complaint::Path(path, why) => write!(f, "{} {why}", Shown(path)),
            Complaint::Database(path, why) => {
                write!(
                    f,
                    "the package database {} is not locked: it {why}",
                    Shown(path)
                )
            }
            Complaint::Syntax(problem) => problem.fmt(f),
        }
    }
}

/// Something that was asked for and could not be understood: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub origin: Origin,
    /// What is wrong.
    pub complaint: Complaint,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.complaint)
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether anything is done at all.
    pub mode: Mode,
    /// Who said so.
    pub mode_origin: Origin,
    /// When the database is locked.
    pub lock: Lock,
    /// Whether systemd-sysext is pulled in at boot.
    pub sysext_at_boot: bool,
    /// What pre-init starts when it is done; `None` for what it finds.
    pub real_init: Option<MountPoint>,
    /// The rows, `/usr` first, then the database, then the other paths by name.
    pub rules: Vec<Rule>,
    /// What could not be understood.
    pub problems: Vec<Problem>,
}

impl Policy {
    /// Puts the table, the configuration files (in the order in which they apply) and the command line together. The package
    /// database lies where the configuration of the package manager says.
    #[must_use]
    pub fn new(
        cmdline: &Cmdline,
        configuration: &[ConfigFile],
        database: Option<&NamedDatabase>,
    ) -> Self {
        let mut reader = Reader {
            policy: Policy {
                mode: Mode::Off,
                mode_origin: Origin::Table,
                lock: Lock::Merged,
                sysext_at_boot: false,
                real_init: None,
                rules: Vec::new(),
                problems: Vec::new(),
            },
            paths: Vec::new(),
            known: BTreeMap::new(),
            database: None,
        };
        if let Some(named) = database {
            reader.database(named);
        }
        for file in configuration {
            reader.configuration(file);
        }
        reader.command_line(cmdline);
        reader.finish()
    }
}

/// What has been said about one path so far; a word that is missing leaves the default.
struct PathWords {
    mount_point: MountPoint,
    origin: Origin,
    treatment: Option<Asked>,
    size: Option<Size>,
    mode: Option<u16>,
}

/// A treatment, before size and mode are known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Rw,
    Ro,
    Tmpfs,
}

struct Reader {
    policy: Policy,
    paths: Vec<PathWords>,
    /// Where in them a path is: a file may name thousands.
    known: BTreeMap<MountPoint, usize>,
    /// Where the package database lies instead of where the table has it.
    database: Option<MountPoint>,
}

impl Reader {
    fn complain(&mut self, origin: Origin, complaint: Complaint) {
        self.policy.problems.push(Problem { origin, complaint });
    }

    fn database(&mut self, named: &NamedDatabase) {
        match checked_database(&named.path) {
            Ok(database) => self.database = Some(database),
            Err(why) => {
                let origin = Origin::File {
                    path: named.file.clone(),
                    line: named.line,
                };
                self.complain(origin, Complaint::Database(named.path.clone(), why));
            }
        }
    }

    fn configuration(&mut self, file: &ConfigFile) {
        let (assignments, bad_lines) = config::parse(&file.text);
        let at = |line| Origin::File {
            path: file.path.clone(),
            line,
        };
        for bad in bad_lines {
            self.complain(at(bad.line), Complaint::Syntax(bad.problem));
        }
        for assignment in &assignments {
            if let Err(complaint) = self.assignment(assignment, at(assignment.line)) {
                self.complain(at(assignment.line), complaint);
            }
        }
    }

    fn assignment(&mut self, assignment: &Assignment<'_>, origin: Origin) -> Result<(), Complaint> {
        let value = assignment.value.as_slice();
        match (assignment.section, assignment.key) {
            (b"Policy", b"Mode") => {
                let mode = parse_mode(value);
                self.policy.mode = mode.unwrap_or(Mode::Off);
                self.policy.mode_origin = origin;
                mode.map(drop)
                    .ok_or_else(|| Complaint::ConfiguredMode(value.into()))
            }
            (b"Policy", b"Lock") => {
                self.policy.lock = parse_lock(value)?;
                Ok(())
            }
            (b"Policy", b"StepDown") => check_step_down(value),
            (b"Sysext", b"AtBoot") => {
                self.policy.sysext_at_boot =
                    boolean(value).ok_or_else(|| Complaint::Boolean("AtBoot", value.into()))?;
                Ok(())
            }
            (section, key) => match section.strip_prefix(b"Path:") {
                Some(path) => self.path_assignment(path, key, value, section, origin),
                None => Err(Complaint::UnknownKey(section.into(), key.into())),
            },
        }
    }

    fn path_assignment(
        &mut self,
        path: &[u8],
        key: &[u8],
        value: &[u8],
        section: &[u8],
        origin: Origin,
    ) -> Result<(), Complaint> {
        let mount_point = self.checked_path(path)?;
        // Read the value before the path is entered: a bad line must leave no trace.
        match key {
            b"Treatment" => {
                let treatment = parse_treatment(value)?;
                self.path(mount_point, origin).treatment = Some(treatment);
            }
            b"Size" => {
                let size = parse_size(value)?;
                self.path(mount_point, origin).size = Some(size);
            }
            b"Mode" => {
                let mode = parse_permissions(value)?;
                self.path(mount_point, origin).mode = Some(mode);
            }
            _ => return Err(Complaint::UnknownKey(section.into(), key.into())),
        }
        Ok(())
    }

    /// What was said about this path so far, to be added to.
    fn path(&mut self, mount_point: MountPoint, origin: Origin) -> &mut PathWords {
        let next = self.paths.len();
        let index = *self.known.entry(mount_point.clone()).or_insert(next);
        if index == next {
            self.paths.push(PathWords {
                mount_point,
                origin: origin.clone(),
                treatment: None,
                size: None,
                mode: None,
            });
        }
        self.paths[index].origin = origin;
        &mut self.paths[index]
    }

    fn command_line(&mut self, cmdline: &Cmdline) {
        for word in cmdline.words() {
            let Some(key) = word.key.strip_prefix(b"usrpolicy") else {
                continue;
            };
            let result = match (key, &word.value) {
                // Decided below, by all of them together.
                (b"", _) => Ok(()),
                (b".lock", value) => parse_lock(value.as_deref().unwrap_or_default())
                    .map(|lock| self.policy.lock = lock),
                (b".stepdown", value) => check_step_down(value.as_deref().unwrap_or_default()),
                (b".path", value) => self.path_word(value.as_deref().unwrap_or_default()),
                (b".init", value) => parse_real_init(value.as_deref().unwrap_or_default())
                    .map(|path| self.policy.real_init = Some(path)),
                ([b'.', ..], _) => Err(Complaint::UnknownWord(whole(word))),
                // A word of somebody else's that only begins like ours.
                _ => Ok(()),
            };
            if let Err(complaint) = result {
                self.complain(Origin::CommandLine, complaint);
            }
        }
        self.command_line_mode(cmdline);
    }

    fn command_line_mode(&mut self, cmdline: &Cmdline) {
        let Some(last) = cmdline.with_key("usrpolicy").next_back() else {
            return;
        };
        self.policy.mode_origin = Origin::CommandLine;
        // `off` anywhere wins: it is the way out of a machine that does not start.
        let off = is_off(cmdline);
        let mode = last.value.as_deref().and_then(parse_mode);
        self.policy.mode = if off {
            Mode::Off
        } else {
            mode.unwrap_or(Mode::Off)
        };
        if mode.is_none() && !off {
            self.complain(Origin::CommandLine, Complaint::Mode(last.value.clone()));
        }
    }

    /// `PATH:treatment[,size=…][,mode=…]`, split at the last colon: a path may hold one, a treatment cannot.
    fn path_word(&mut self, value: &[u8]) -> Result<(), Complaint> {
        let colon = value
            .iter()
            .rposition(|&b| b == b':')
            .ok_or_else(|| Complaint::NoTreatment(value.into()))?;
        let mount_point = self.checked_path(&value[..colon])?;
        let mut options = value[colon + 1..].split(|&b| b == b',');
        let treatment = parse_treatment(options.next().unwrap_or_default())?;
        let (mut size, mut mode) = (None, None);
        for option in options {
            if let Some(text) = option.strip_prefix(b"size=") {
                size = Some(parse_size(text)?);
            } else if let Some(text) = option.strip_prefix(b"mode=") {
                mode = Some(parse_permissions(text)?);
            } else {
                return Err(Complaint::PathOption(option.into()));
            }
        }
        // The whole word stands for the whole rule: nothing of the configuration's shines through.
        let words = self.path(mount_point, Origin::CommandLine);
        (words.treatment, words.size, words.mode) = (Some(treatment), size, mode);
        Ok(())
    }

    /// Checks that a person may ask something of this path; whether of this treatment too is seen when all words are read.
    fn checked_path(&self, path: &[u8]) -> Result<MountPoint, Complaint> {
        let refuse = |why| Complaint::Path(path.into(), why);
        let mount_point = checked_path(path).map_err(refuse)?;
        match &self.database {
            Some(database) if overlap(&mount_point, database) => Err(refuse(Refusal::Database)),
            _ => Ok(mount_point),
        }
    }

    fn finish(mut self) -> Policy {
        let mut rules: Vec<Rule> = Vec::with_capacity(TABLE.len() + self.paths.len());
        for row in TABLE {
            // A path of the table that is not a mount point would be a mistake in this file; a test shows there is none.
            let Ok(mount_point) = MountPoint::new(row.path.as_bytes()) else {
                continue;
            };
            let mut rule = Rule {
                mount_point,
                role: row.role,
                treatment: row.treatment,
                because: row.because,
                origin: Origin::Table,
            };
            match &self.database {
                Some(database) if row.role == Role::Database => {
                    rule.mount_point = database.clone();
                }
                Some(database) if row.role != Role::Usr && database.is_below(&rule.mount_point) => {
                    rule.treatment = Treatment::ReadWrite;
                    rule.because = "the package database lies in it";
                }
                _ => {}
            }
            rules.push(rule);
        }
        let of_table = rules.len();
        for words in core::mem::take(&mut self.paths) {
            // Every path is there once: only a row of the table can be for the same one.
            let known = rules[..of_table]
                .iter()
                .position(|rule| rule.mount_point == words.mount_point);
            let before = known.map(|index| rules[index].treatment);
            match words.treatment(before) {
                Err(complaint) => self.complain(words.origin, complaint),
                Ok(treatment) => {
                    let because = "asked for";
                    match known {
                        Some(index) => {
                            rules[index].treatment = treatment;
                            rules[index].origin = words.origin;
                        }
                        None => rules.push(Rule {
                            mount_point: words.mount_point,
                            role: Role::Path,
                            treatment,
                            because,
                            origin: words.origin,
                        }),
                    }
                }
            }
        }
        self.policy.rules = rules;
        self.policy
    }
}

impl PathWords {
    /// The treatment that the words add up to; `before` is the table's.
    fn treatment(&self, before: Option<Treatment>) -> Result<Treatment, Complaint> {
        let path = self.mount_point.as_bytes();
        let word = match (self.treatment, before) {
            (Some(word), _) => word,
            (None, Some(Treatment::Tmpfs(_))) => Asked::Tmpfs,
            (None, _) => return Err(Complaint::OptionWithoutTmpfs(path.into())),
        };
        if word != Asked::Tmpfs && (self.size.is_some() || self.mode.is_some()) {
            return Err(Complaint::OptionWithoutTmpfs(path.into()));
        }
        if word != Asked::Rw && self.mount_point.is_below_usr() {
            return Err(Complaint::Path(path.into(), Refusal::BelowUsr));
        }
        Ok(match word {
            Asked::Rw => Treatment::ReadWrite,
            Asked::Ro => Treatment::ReadOnly,
            Asked::Tmpfs => {
                let default = default_tmpfs(path);
                Treatment::Tmpfs(Tmpfs {
                    size: self.size.unwrap_or(default.size),
                    mode: self.mode.unwrap_or(default.mode),
                    noexec: default.noexec,
                })
            }
        })
    }
}

/// Whether the command line says off anywhere, which beats whatever else is said there or in a file.
#[must_use]
pub fn is_off(cmdline: &Cmdline) -> bool {
    cmdline
        .with_key("usrpolicy")
        .any(|word| word.value.as_deref() == Some(b"off"))
}

fn whole(word: &Word) -> Vec<u8> {
    let mut text = word.key.clone();
    if let Some(value) = &word.value {
        text.push(b'=');
        text.extend_from_slice(value);
    }
    text
}

fn parse_mode(word: &[u8]) -> Option<Mode> {
    match word {
        b"off" => Some(Mode::Off),
        b"audit" => Some(Mode::Audit),
        b"strict" => Some(Mode::Strict),
        _ => None,
    }
}

fn parse_lock(word: &[u8]) -> Result<Lock, Complaint> {
    match word {
        b"always" => Ok(Lock::Always),
        b"merged" => Ok(Lock::Merged),
        b"off" => Ok(Lock::Off),
        _ => Err(Complaint::Lock(word.into())),
    }
}

/// Nothing steps down in this version; a word that a later one knows is checked as that one will.
fn check_step_down(word: &[u8]) -> Result<(), Complaint> {
    decimal::<u32>(word)
        .map(drop)
        .ok_or_else(|| Complaint::StepDown(word.into()))
}

/// The root directory is an absolute path too, and no program.
fn parse_real_init(word: &[u8]) -> Result<MountPoint, Complaint> {
    MountPoint::new(word)
        .ok()
        .filter(|path| path.as_bytes() != b"/")
        .ok_or_else(|| Complaint::RealInit(word.into()))
}

fn parse_treatment(word: &[u8]) -> Result<Asked, Complaint> {
    match word {
        b"rw" => Ok(Asked::Rw),
        b"ro" => Ok(Asked::Ro),
        b"tmpfs" => Ok(Asked::Tmpfs),
        _ => Err(Complaint::Treatment(word.into())),
    }
}

fn parse_size(word: &[u8]) -> Result<Size, Complaint> {
    Size::parse(word).ok_or_else(|| Complaint::Size(word.into()))
}

fn parse_permissions(word: &[u8]) -> Result<u16, Complaint> {
    // At most five digits, so that sixteen bits hold them: a leading zero and four that mean something.
    let octal = (3..=5).contains(&word.len()) && word.iter().all(|b| (b'0'..=b'7').contains(b));
    let mode = if octal {
        word.iter()
            .fold(0, |mode, &b| mode * 8 + u16::from(b - b'0'))
    } else {
        u16::MAX
    };
    if mode <= 0o7777 {
        Ok(mode)
    } else {
        Err(Complaint::Permissions(word.into()))
    }
}

/// Checks a path that a person asks something of, as far as it says by itself.
fn checked_path(path: &[u8]) -> Result<MountPoint, Refusal> {
    let mount_point = MountPoint::new(path).map_err(Refusal::NotAMountPoint)?;
    if mount_point.as_bytes() == b"/usr" {
        return Err(Refusal::Usr);
    }
    let below_var = starts_with_directory(&mount_point, b"/var");
    if !below_var && !mount_point.is_below_usr() {
        return Err(Refusal::Elsewhere);
    }
    for kept in UNTOUCHABLE.into_iter().chain([PACMAN.database]) {
        if MountPoint::new(kept.as_bytes()).is_ok_and(|kept| overlap(&mount_point, &kept)) {
            return Err(Refusal::Kept(kept));
        }
    }
    fits_unit(&mount_point)?;
    Ok(mount_point)
}

/// Directories that are never read-only as a whole, beyond those of [`TABLE`].
const NEVER_READ_ONLY: [&str; 17] = [
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/srv",
    "/sys",
    "/tmp",
    "/usr/lib",
    "/var/lib",
    "/var/opt",
    "/var/spool",
];

/// Checks that the database may be locked where the package manager has it: anywhere, but not as a part of what the policy
/// keeps, nor with more than itself.
fn checked_database(path: &[u8]) -> Result<MountPoint, Refusal> {
    let database = MountPoint::new(path).map_err(Refusal::NotAMountPoint)?;
    may_be_database(&database)?;
    fits_unit(&database)?;
    Ok(database)
}

/// Whether a directory may be made read-only as the package database: nothing else that must be written lies in it.
///
/// # Errors
/// The reason.
pub fn may_be_database(database: &MountPoint) -> Result<(), Refusal> {
    let is_at_or_above = |kept: &&str| {
        MountPoint::new(kept.as_bytes()).is_ok_and(|kept| kept.is_at_or_below(database))
    };
    let others = TABLE.iter().filter(|row| row.role != Role::Database);
    let mut above = NEVER_READ_ONLY
        .into_iter()
        .chain(others.map(|row| row.path));
    if let Some(kept) = above.find(is_at_or_above) {
        return Err(Refusal::Kept(kept));
    }
    for kept in UNTOUCHABLE {
        if MountPoint::new(kept.as_bytes()).is_ok_and(|kept| overlap(database, &kept)) {
            return Err(Refusal::Kept(kept));
        }
    }
    Ok(())
}

/// Whether one of two paths holds the other, or they are the same.
fn overlap(one: &MountPoint, other: &MountPoint) -> bool {
    one.is_at_or_below(other) || other.is_at_or_below(one)
}

/// Checks that units can be written for a path: a condition names each directory on the way.
fn fits_unit(mount_point: &MountPoint) -> Result<(), Refusal> {
    let mut names = mount_point.as_bytes().split(|&byte| byte == b'/');
    if !names.all(crate::unit::can_hold) {
        return Err(Refusal::NotForUnits);
    }
    mount_unit(mount_point).map_err(|_| Refusal::TooLong)?;
    Ok(())
}

fn starts_with_directory(mount_point: &MountPoint, directory: &[u8]) -> bool {
    mount_point
        .as_bytes()
        .strip_prefix(directory)
        .is_some_and(|rest| rest.starts_with(b"/"))
}

impl MountPoint {
    /// Whether the path lies strictly below `/usr`.
    #[must_use]
    pub fn is_below_usr(&self) -> bool {
        starts_with_directory(self, b"/usr")
    }
}
