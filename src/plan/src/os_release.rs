//! os-release(5) and extension-release files, and whether the one suits the other.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::text::{Shown, numbered_lines};

/// What a file in the format of os-release(5) says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease(Vec<(Vec<u8>, Vec<u8>)>);

impl OsRelease {
    /// Reads the lines `KEY=value`, quotes removed. Total: what is no such line is left out.
    ///
    /// Source: os-release(5); it is the subset of shell syntax that systemd src/basic/env-file.c reads.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let assignments = numbered_lines(text).filter_map(|(_, line)| {
            let line = line.trim_ascii();
            let at = line.iter().position(|&byte| byte == b'=')?;
            let (key, value) = (line[..at].trim_ascii(), line[at + 1..].trim_ascii());
            (!key.is_empty() && !key.starts_with(b"#")).then(|| (key.to_vec(), unquoted(value)))
        });
        OsRelease(assignments.collect())
    }

    /// The last value of a key; an empty one counts as none, as for systemd-sysext(8).
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        let mut those = self.0.iter().rev().filter(|(k, _)| k == key.as_bytes());
        those
            .next()
            .map(|(_, value)| value.as_slice())
            .filter(|value| !value.is_empty())
    }
}

fn unquoted(value: &[u8]) -> Vec<u8> {
    let mut quote = None;
    let mut text = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, quote) {
            (b'\\', None | Some(b'"')) => text.extend(bytes.next()),
            (b'"' | b'\'', None) => quote = Some(byte),
            (_, Some(open)) if byte == open => quote = None,
            _ => text.push(byte),
        }
    }
    text
}

/// Whether an extension suits a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suits {
    /// Every release of systemd-sysext(8) merges it.
    Yes,
    /// That depends on the release of systemd, or on what cannot be seen.
    Perhaps,
    /// It is left out, and why.
    No(String),
}

/// Whether systemd-sysext(8) takes an extension for this system.
///
/// Source: systemd src/shared/extension-util.c (`extension_release_validate`); 252, 257 and 262 were read and tried.
#[must_use]
pub fn suits(extension: &OsRelease, system: &OsRelease, architecture: &str) -> Suits {
    if let Some(scope) = extension.value("SYSEXT_SCOPE")
        && !words(scope).any(|word| word == b"system")
    {
        return Suits::No(format!("its SYSEXT_SCOPE={} is not system", Shown(scope)));
    }
    if let Some(wanted) = extension.value("ARCHITECTURE")
        && wanted != b"_any"
        && wanted != architecture.as_bytes()
    {
        return Suits::No(format!("its ARCHITECTURE={} is another", Shown(wanted)));
    }
    let by_relation = match (extension.value("ID"), system.value("ID")) {
        (None, _) => return Suits::No("its extension-release has no ID=".into()),
        (Some(b"_any"), _) => return Suits::Yes,
        (Some(id), of_system) if Some(id) == of_system => false,
        // Counts from v258 on.
        (Some(id), _) if words(system.value("ID_LIKE").unwrap_or_default()).any(|w| w == id) => {
            true
        }
        (Some(id), _) => return Suits::No(format!("its ID={} is another", Shown(id))),
    };
    let pair = |key| (extension.value(key), system.value(key));
    let reason = match (pair("SYSEXT_LEVEL"), pair("VERSION_ID")) {
        ((Some(of_extension), Some(of_system)), _) => {
            (of_extension != of_system).then_some(("SYSEXT_LEVEL", of_extension))
        }
        (_, (of_extension, Some(of_system))) => (of_extension != Some(of_system))
            .then_some(("VERSION_ID", of_extension.unwrap_or_default())),
        // Neither is asked for, or the system has a level and the extension has none.
        _ => None,
    };
    match reason {
        Some((key, value)) => Suits::No(format!("its {key}={} is another", Shown(value))),
        None if by_relation => Suits::Perhaps,
        None => Suits::Yes,
    }
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> OsRelease {
        OsRelease::parse(text.as_bytes())
    }

    #[test]
    fn quotes_comments_and_the_last_assignment() {
        let release = of("# ID=no\nID=\"arch\"\nNAME='a \"b\"'\nV=\"\\\"x\\\"\"\nID=debian\nE=\n");
        assert_eq!(release.value("ID"), Some(&b"debian"[..]));
        assert_eq!(release.value("NAME"), Some(&b"a \"b\""[..]));
        assert_eq!(release.value("V"), Some(&b"\"x\""[..]));
        assert_eq!(release.value("E"), None);
        assert_eq!(release.value("# ID"), None);
    }

    #[test]
    fn an_extension_suits_as_systemd_has_it() {
        const ARCH: &str = "ID=arch\n";
        const LEVEL: &str = "ID=arch\nSYSEXT_LEVEL=2\n";
        const DEBIAN: &str = "ID=debian\nVERSION_ID=12\n";
        const LIKE: &str = "ID=manjaro\nID_LIKE=\"arch linux\"\n";
        for (system, extension, suits_it) in [
            (ARCH, "ID=arch", true),
            (ARCH, "ID=arch\nSYSEXT_LEVEL=99\nVERSION_ID=5", true),
            (ARCH, "ID=debian", false),
            (ARCH, "", false),
            (LEVEL, "ID=arch", true),
            (LEVEL, "ID=arch\nSYSEXT_LEVEL=1", false),
            (LEVEL, "ID=arch\nSYSEXT_LEVEL=2", true),
            (LEVEL, "ID=arch\nVERSION_ID=7", true),
            (DEBIAN, "ID=debian", false),
            (DEBIAN, "ID=debian\nVERSION_ID=12", true),
            (DEBIAN, "ID=_any\nVERSION_ID=99", true),
            (DEBIAN, "ID=_any\nARCHITECTURE=arm64", false),
            (DEBIAN, "ID=_any\nARCHITECTURE=x86_64", false),
            (DEBIAN, "ID=_any\nARCHITECTURE=x86-64", true),
            (DEBIAN, "ID=_any\nARCHITECTURE=_any", true),
            (DEBIAN, "ID=_any\nSYSEXT_SCOPE=initrd", false),
            (DEBIAN, "ID=_any\nSYSEXT_SCOPE=\"portable system\"", true),
        ] {
            let answer = suits(&of(extension), &of(system), "x86-64");
            assert_eq!(
                answer == Suits::Yes,
                suits_it,
                "{system}{extension}: {answer:?}"
            );
        }
        assert_eq!(suits(&of("ID=arch"), &of(LIKE), "x86-64"), Suits::Perhaps);
    }
}
