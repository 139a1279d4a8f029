//! What makes the initramfs, and whether usr-policy is in the next one.

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;

use super::judge::Judge;
use super::shell::list;
use super::{Topic, Verdict};
use crate::config::ConfigFile;
use crate::plan::Stage;
use crate::text::Shown;

/// The programs that make an initramfs here, and their configuration, in the order in which they read it.
#[derive(Debug, Clone, Default)]
pub struct Builders {
    /// Whether mkinitcpio is installed.
    pub has_mkinitcpio: bool,
    /// mkinitcpio.conf and its drop-ins.
    pub mkinitcpio: Vec<ConfigFile>,
    /// The presets of mkinitcpio, which can name other files and hooks.
    pub presets: Vec<ConfigFile>,
    /// Whether dracut is installed.
    pub has_dracut: bool,
    /// dracut.conf and its drop-ins.
    pub dracut: Vec<ConfigFile>,
}

/// What both programs call the part of usr-policy.
const PART: &str = "usr-policy";

/// The list of what mkinitcpio puts into an image.
const HOOKS: &str = "HOOKS";

/// The file that mkinitcpio reads unless it is told another one.
const MKINITCPIO_CONF: &[u8] = b"/etc/mkinitcpio.conf";

impl Builders {
    /// Whether a preset may make images of something else than what [`Builders::mkinitcpio`] says.
    fn has_other_presets(&self) -> bool {
        self.presets.iter().any(|preset| {
            let lines = preset.text.split(|&byte| byte == b'\n');
            let mut lines = lines.map(<[u8]>::trim_ascii);
            lines.any(|line| {
                let Some(at) = line.iter().position(|&byte| byte == b'=') else {
                    return false;
                };
                let (name, value) = line.split_at(at);
                let is_of_default = || {
                    let value = value.get(1..).unwrap_or_default();
                    let is_quote = |byte: &u8| b"\"'".contains(byte);
                    let words = value.split(is_quote).filter(|part| !part.is_empty());
                    words.eq([MKINITCPIO_CONF])
                };
                // Options can add hooks, and name a file too.
                !line.starts_with(b"#")
                    && (name.ends_with(b"_config") && !is_of_default()
                        || name.ends_with(b"_options") && value.windows(2).any(has_option))
            })
        })
    }

    /// The file by which dracut leaves usr-policy out, and its word.
    fn omitted_by_dracut(&self) -> Option<(&[u8], &'static str)> {
        let omits = |word, if_there| {
            let list = list(&self.dracut, word).filter(|list| list.is_certain)?;
            (list.has(PART) == if_there && (if_there || !list.is_empty()))
                .then_some((list.path, word))
        };
        omits("omit_dracutmodules", true).or_else(|| omits("dracutmodules", false))
    }
}

/// Whether two bytes begin an option that matters: -A, -c, or a long one.
fn has_option(bytes: &[u8]) -> bool {
    [&b"-A"[..], b"-c", b"--"].contains(&bytes)
}

impl Judge<'_> {
    /// What to do where `/usr` became read-only only in the real root.
    pub(super) fn way_into_the_initramfs(&self) -> Cow<'static, str> {
        let builders = &self.observed.system.builders;
        if let Some(hooks) = list(&builders.mkinitcpio, HOOKS) {
            return if hooks.has(PART) {
                "the initramfs that ran was built without the hook usr-policy, which HOOKS has: rebuild it with mkinitcpio -P".into()
            } else {
                let path = Shown(hooks.path);
                format!("add usr-policy to HOOKS in {path}, and rebuild the initramfs with mkinitcpio -P").into()
            };
        }
        if !builders.has_dracut {
            return "add usr-policy to the initramfs and rebuild it".into();
        }
        match builders.omitted_by_dracut() {
            Some((path, word)) => {
                let path = Shown(path);
                format!("{word} in {path} leaves usr-policy out of the initramfs: change that, and rebuild it with dracut --force").into()
            }
            None => "the initramfs that ran was built without usr-policy: rebuild it with dracut --force".into(),
        }
    }

    /// Whether what closed `/usr` in the initramfs that ran is left out when the next one is made.
    pub(super) fn next_image(&mut self) {
        let stages = [Stage::Early, Stage::Late].map(|stage| format!("{stage}"));
        let mut events = self.observed.events.iter();
        if !events.any(|event| stages.contains(&event.stage)) {
            return;
        }
        let builders = &self.observed.system.builders;
        // Nothing in a running system says who made its image: where both are installed it may be either.
        match (builders.has_mkinitcpio, builders.has_dracut) {
            (true, false) => {
                let hooks = list(&builders.mkinitcpio, HOOKS);
                let lost = hooks.filter(|list| list.is_certain && !list.has(PART));
                if let Some(list) = lost.filter(|_| !builders.has_other_presets()) {
                    let what = "has no usr-policy in HOOKS, and the initramfs that ran had it: from the next one that mkinitcpio makes, /usr is writable until the real root";
                    let remedy = "add usr-policy to HOOKS there";
                    let path = Shown(list.path);
                    self.find(Verdict::Warning, Topic::NextBoot, &path, what, remedy);
                }
            }
            (false, true) => {
                if let Some((path, word)) = builders.omitted_by_dracut() {
                    let what = format!(
                        "leaves usr-policy out by {word}, and the initramfs that ran had it: from the next one that dracut makes, /usr is writable until the real root"
                    );
                    let remedy = format!("change {word} there");
                    let path = Shown(path);
                    self.find(Verdict::Warning, Topic::NextBoot, &path, what, remedy);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{machine, plan, says};
    use super::super::{Event, Report, report};
    use super::*;

    const TABLE: &str = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:1 /usr /usr ro - ext4 a rw\n";

    fn file(path: &str, text: &str) -> ConfigFile {
        ConfigFile {
            path: path.into(),
            text: text.into(),
        }
    }

    fn of(stage: &str, builders: &Builders) -> Report {
        let plan = plan("usrpolicy=strict");
        let mut seen = machine(&plan, TABLE);
        seen.events = Event::parse(format!("5 {stage} /usr read-only").as_bytes());
        seen.system.builders = builders.clone();
        report(&plan, &seen)
    }

    fn mkinitcpio(texts: &[&str]) -> Builders {
        let paths = ["/etc/mkinitcpio.conf", "/etc/mkinitcpio.conf.d/x.conf"];
        let files = paths.iter().zip(texts);
        Builders {
            has_mkinitcpio: true,
            mkinitcpio: files.map(|(path, text)| file(path, text)).collect(),
            ..Builders::default()
        }
    }

    fn dracut(text: &str) -> Builders {
        Builders {
            has_dracut: true,
            dracut: [file("/etc/dracut.conf.d/x.conf", text)].into(),
            ..Builders::default()
        }
    }

    const REBUILD: &str = "which HOOKS has: rebuild it with mkinitcpio -P";

    #[test]
    fn how_to_get_into_the_initramfs_is_said_in_the_words_of_its_builder() {
        let both = |text| Builders {
            has_dracut: true,
            ..mkinitcpio(&[text])
        };
        for (builders, remedy) in [
            (
                Builders::default(),
                "add usr-policy to the initramfs and rebuild it",
            ),
            (
                mkinitcpio(&["HOOKS=(base udev\n  usr-policy fsck)\n"]),
                REBUILD,
            ),
            (
                mkinitcpio(&["COMPRESSION=\"zstd\"\nHOOKS=(base usr-policy)\n"]),
                REBUILD,
            ),
            (
                both("COMPRESSION=\"zstd\"\nMODULES=(usr-policy)\nHOOKS=(base udev)\n"),
                "add usr-policy to HOOKS in /etc/mkinitcpio.conf,",
            ),
            // The last assignment counts.
            (
                mkinitcpio(&["HOOKS=(base usr-policy)\n", "HOOKS=(base udev)\n"]),
                "add usr-policy to HOOKS in /etc/mkinitcpio.conf.d/x.conf,",
            ),
            (
                mkinitcpio(&["HOOKS=(base usr-policy)\n", "HOOKS+=(udev)\n"]),
                REBUILD,
            ),
            (
                mkinitcpio(&["HOOKS=(base # usr-policy\n)\n"]),
                "add usr-policy to HOOKS",
            ),
            (dracut(""), "rebuild it with dracut --force"),
            (
                dracut("omit_dracutmodules+=\" nfs usr-policy \"\n"),
                "omit_dracutmodules in /etc/dracut.conf.d/x.conf leaves usr-policy out of the initramfs",
            ),
        ] {
            let report = of("host", &builders);
            let mut findings = report.findings.iter();
            assert!(
                findings
                    .any(|finding| finding.subject == "/usr" && finding.remedy.contains(remedy)),
                "{remedy}: {report:#?}"
            );
        }
    }

    fn is_lost(report: &Report) -> bool {
        let mut findings = report.findings.iter();
        findings.any(|finding| {
            finding
                .what
                .contains("/usr is writable until the real root")
        })
    }

    #[test]
    fn a_hook_that_the_next_image_will_not_have_is_a_warning() {
        for stage in ["early", "late"] {
            let report = of(stage, &mkinitcpio(&["A=b\nHOOKS=(base udev)\n"]));
            says(
                &report,
                Verdict::Warning,
                "/etc/mkinitcpio.conf",
                "has no usr-policy in HOOKS, and the initramfs that ran had it",
            );
        }
        let report = of(
            "late",
            &mkinitcpio(&["HOOKS=(usr-policy)\n", "HOOKS=(a)\n"]),
        );
        says(
            &report,
            Verdict::Warning,
            "/etc/mkinitcpio.conf.d/x.conf",
            "has no usr-policy in HOOKS",
        );
        for (text, word) in [
            (
                "omit_dracutmodules+=\" usr-policy \"\n",
                "omit_dracutmodules",
            ),
            ("dracutmodules=' base '\n", "dracutmodules"),
        ] {
            says(
                &of("early", &dracut(text)),
                Verdict::Warning,
                "/etc/dracut.conf.d/x.conf",
                &format!("leaves usr-policy out by {word}, and the initramfs that ran had it"),
            );
        }
    }

    #[test]
    fn an_image_that_may_be_made_otherwise_is_no_reason_to_warn() {
        const WITHOUT: &str = "HOOKS=(base udev)\n";
        for stage in ["host", "sync", "init"] {
            assert!(!is_lost(&of(stage, &mkinitcpio(&[WITHOUT]))), "{stage}");
        }
        for text in [
            "HOOKS=(base usr-policy)\n",
            "HOOKS=(base $MORE)\n",
            ". /etc/other\nHOOKS=(base)\n",
            "",
        ] {
            assert!(!is_lost(&of("late", &mkinitcpio(&[text]))), "{text}");
        }
        for text in ["", "dracutmodules=''\n", "omit_dracutmodules+=' nfs '\n"] {
            assert!(!is_lost(&of("late", &dracut(text))), "{text}");
        }
        let both = Builders {
            has_dracut: true,
            ..mkinitcpio(&[WITHOUT])
        };
        let left_over = Builders {
            has_mkinitcpio: false,
            ..mkinitcpio(&[WITHOUT])
        };
        for builders in [both, left_over] {
            assert!(!is_lost(&of("late", &builders)));
        }
    }

    #[test]
    fn a_preset_with_a_configuration_of_its_own_is_no_reason_to_warn() {
        for (preset, is_other) in [
            ("", false),
            ("#ALL_config=\"/etc/other.conf\"\n", false),
            ("ALL_config=\"/etc/mkinitcpio.conf\"\nALL_kver=x\n", false),
            ("fallback_options=\"-S autodetect\"\n", false),
            ("ALL_config=\"/etc/other.conf\"\n", true),
            ("default_options=\"-A usr-policy\"\n", true),
            ("default_options='--addhooks usr-policy'\n", true),
            ("default_options='-c /x'\n", true),
        ] {
            let mut builders = mkinitcpio(&["HOOKS=(base)\n"]);
            builders.presets = [file("/etc/mkinitcpio.d/linux.preset", preset)].into();
            assert_eq!(is_lost(&of("late", &builders)), !is_other, "{preset}");
        }
    }
}
