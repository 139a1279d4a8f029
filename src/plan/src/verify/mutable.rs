//! What systemd-sysext.service is told of how writable a merge is to be.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::judge::Judge;
use super::next_boot::{SYSEXT_SERVICE, Unit};
use crate::cmdline::Cmdline;
use crate::config;
use crate::text::{Shown, numbered_lines};

/// What tells systemd-sysext(8) so in its environment.
const VARIABLE: &[u8] = b"SYSTEMD_SYSEXT_MUTABLE_MODE";

/// A mutable mode, and where it is asked for.
pub(super) struct AskedMode {
    pub(super) value: Vec<u8>,
    pub(super) path: String,
    /// With the line.
    pub(super) from: String,
}

impl AskedMode {
    fn new(value: Vec<u8>, path: &dyn ToString, line: u32) -> Self {
        let path = path.to_string();
        AskedMode {
            value,
            from: format!("{path}:{line}"),
            path,
        }
    }
}

impl Unit {
    /// The files that its `EnvironmentFile=` names, in order. Not those of a pattern, or with a specifier: what they stand
    /// for only the service manager knows.
    #[must_use]
    pub fn environment_files(&self) -> Vec<String> {
        let (settings, _) = self.values("Service", "EnvironmentFile");
        let paths = settings.into_iter().filter_map(|setting| {
            let path = String::from_utf8(setting.value).ok()?;
            // A file that need not be there.
            Some(path.strip_prefix('-').unwrap_or(&path).to_string())
        });
        paths
            .filter(|path| path.starts_with('/') && !path.contains(['%', '*', '?', '[']))
            .collect()
    }
}

impl Judge<'_> {
    /// The mutable mode that systemd-sysext.service is told. The command line of systemd-sysext(8) beats its environment; of
    /// that the files beat what stands in the unit, and this what PID 1 gives to all.
    ///
    /// Source: systemd.exec(5), "Environment"; systemd-system.conf(5), `DefaultEnvironment=`; kernel-command-line(7).
    pub(super) fn mode_of_service(&self) -> Option<AskedMode> {
        let service = self.unit_named(SYSEXT_SERVICE)?;
        let last = |key, word| {
            let (settings, _) = service.values("Service", key);
            let mut modes = settings.iter().rev();
            modes.find_map(|setting| {
                let value = value_of(&setting.value, word)?;
                Some(AskedMode::new(value, &setting.path, setting.line))
            })
        };
        last("ExecStart", b"--mutable")
            .or_else(|| self.mode_of_files())
            .or_else(|| last("Environment", VARIABLE))
            .or_else(|| self.mode_of_command_line())
            .or_else(|| self.mode_of_manager())
    }

    fn mode_of_files(&self) -> Option<AskedMode> {
        let files = self.observed.system.environment_files.iter().rev();
        let mut modes = files.filter_map(|file| {
            let modes = numbered_lines(&file.text).filter_map(|(line, text)| {
                let value = value_of(text, VARIABLE)?;
                Some(AskedMode::new(value, &Shown(&file.path), line))
            });
            modes.last()
        });
        modes.next()
    }

    fn mode_of_command_line(&self) -> Option<AskedMode> {
        let cmdline = &self.observed.system.cmdline;
        let words = cmdline.with_key("systemd.setenv").rev();
        let mut values = words.filter_map(|word| value_of(word.value.as_ref()?, VARIABLE));
        let value = values.next()?;
        Some(AskedMode {
            value,
            path: "/proc/cmdline".into(),
            from: "systemd.setenv= on the kernel command line".into(),
        })
    }

    fn mode_of_manager(&self) -> Option<AskedMode> {
        let mut mode = None;
        for file in &self.observed.system.manager {
            for one in config::parse(&file.text).0 {
                if one.section == b"Manager" && one.key == b"DefaultEnvironment" {
                    if one.value.is_empty() {
                        mode = None;
                    } else if let Some(value) = value_of(&one.value, VARIABLE) {
                        mode = Some(AskedMode::new(value, &Shown(&file.path), one.line));
                    }
                }
            }
        }
        mode
    }
}

/// The last value of a key among the words of a setting.
fn value_of(setting: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let line = Cmdline::parse(setting);
    let words = line.words().filter(|word| word.key == key);
    words.last()?.value.clone()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{machine, plan};
    use super::super::{UnitPart, report};
    use super::*;
    use crate::config::ConfigFile;

    const TABLE: &str = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n4 1 0:1 /var/lib/pacman /var/lib/pacman ro - ext4 a rw\n";

    fn unit(text: &str) -> Unit {
        Unit {
            name: SYSEXT_SERVICE.into(),
            parts: [UnitPart {
                path: "/etc/systemd/system/systemd-sysext.service".into(),
                text: text.into(),
                is_drop_in: false,
            }]
            .into(),
            ..Unit::default()
        }
    }

    fn file(path: &str, text: &str) -> ConfigFile {
        ConfigFile {
            path: path.into(),
            text: text.into(),
        }
    }

    /// Who is warned about, where these ask.
    fn asks(service: &str, files: &[&str], cmdline: &str, manager: &str) -> Option<String> {
        let plan = plan("usrpolicy=strict");
        let mut seen = machine(&plan, TABLE);
        seen.system.units = [unit(&format!("[Service]\n{service}"))].into();
        let files = files.iter().enumerate();
        let files = files.map(|(at, text)| file(&format!("/etc/default/{at}"), text));
        seen.system.environment_files = files.collect();
        seen.system.cmdline = Cmdline::parse(cmdline.as_bytes());
        seen.system.manager = [file("/etc/systemd/system.conf", manager)].into();
        let report = report(&plan, &seen);
        let mut findings = report.findings.into_iter();
        let finding = findings.find(|finding| finding.what.contains("mutable mode yes"))?;
        Some(finding.subject)
    }

    const MANAGER: &str = "[Manager]\nDefaultEnvironment=A=b \"SYSTEMD_SYSEXT_MUTABLE_MODE=yes\"\n";
    const CMDLINE: &str = "quiet systemd.setenv=SYSTEMD_SYSEXT_MUTABLE_MODE=yes";
    const YES: &str = "SYSTEMD_SYSEXT_MUTABLE_MODE=yes\n";
    const NO: &str = "SYSTEMD_SYSEXT_MUTABLE_MODE=no\n";

    #[test]
    fn a_mutable_mode_is_found_wherever_a_service_takes_its_environment_from() {
        let system_conf = Some("/etc/systemd/system.conf");
        let of_unit = Some("/etc/systemd/system/systemd-sysext.service");
        for (service, files, cmdline, manager, subject) in [
            ("", &[][..], "", "", None),
            ("", &[], "", MANAGER, system_conf),
            (
                "",
                &[],
                "",
                "[Manager]\nDefaultEnvironment=SYSTEMD_SYSEXT_MUTABLE_MODE=yes\nDefaultEnvironment=\n",
                None,
            ),
            ("", &[], CMDLINE, "", Some("/proc/cmdline")),
            (
                "",
                &[],
                "systemd.setenv=SYSTEMD_SYSEXT_MUTABLE_MODE=no",
                MANAGER,
                None,
            ),
            ("", &[], "systemd.setenv=A=b", MANAGER, system_conf),
            (
                "Environment=SYSTEMD_SYSEXT_MUTABLE_MODE=no\n",
                &[],
                CMDLINE,
                MANAGER,
                None,
            ),
            (
                "Environment=SYSTEMD_SYSEXT_MUTABLE_MODE=yes\n",
                &[],
                "",
                "",
                of_unit,
            ),
            (
                "Environment=SYSTEMD_SYSEXT_MUTABLE_MODE=no\n",
                &[YES],
                "",
                "",
                Some("/etc/default/0"),
            ),
            (
                "Environment=SYSTEMD_SYSEXT_MUTABLE_MODE=yes\n",
                &[NO],
                CMDLINE,
                "",
                None,
            ),
            ("", &[YES, NO], "", "", None),
            ("", &[NO, YES], "", "", Some("/etc/default/1")),
            ("", &["#SYSTEMD_SYSEXT_MUTABLE_MODE=yes\n"], "", "", None),
            (
                "",
                &["SYSTEMD_SYSEXT_MUTABLE_MODE=\"yes\"\n"],
                "",
                "",
                Some("/etc/default/0"),
            ),
            (
                "ExecStart=systemd-sysext refresh --mutable=no\n",
                &[YES],
                CMDLINE,
                MANAGER,
                None,
            ),
        ] {
            let asked = asks(service, files, cmdline, manager);
            assert_eq!(
                asked.as_deref(),
                subject,
                "{service} {files:?} {cmdline} {manager}"
            );
        }
    }

    #[test]
    fn the_files_of_an_environment_are_those_that_are_named() {
        let files = |text: &str| unit(&format!("[Service]\n{text}")).environment_files();
        assert_eq!(
            files(
                "EnvironmentFile=/a\nEnvironmentFile=-/b\nEnvironmentFile=/c/*\nEnvironmentFile=/%n\nEnvironmentFile=d\n"
            ),
            ["/a", "/b"]
        );
        assert_eq!(files("EnvironmentFile=/a\nEnvironmentFile=\n"), [""; 0]);
    }
}
