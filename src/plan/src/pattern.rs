//! [`matches()`]: names against patterns of glob(7), as far as pacman.conf(5) needs them.

/// Whether a name matches a pattern: `*`, `?` and `[…]` with ranges and `!`. A leading dot must be in the pattern.
#[must_use]
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.starts_with(b".") && !pattern.starts_with(b".") {
        return false;
    }
    // Where to go on after the last `*`, and with how much of the name eaten by it: no stack, and no exponent.
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match step(&pattern[p..], name[n]) {
            Step::One(length) => {
                p += length;
                n += 1;
            }
            Step::Any => {
                p += 1;
                star = Some((p, n));
            }
            Step::No => match star {
                Some((after, eaten)) => {
                    star = Some((after, eaten + 1));
                    p = after;
                    n = eaten + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Whether a pattern is more than a name.
#[must_use]
pub fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[".contains(byte))
}

enum Step {
    /// The byte fits so much of the pattern.
    One(usize),
    /// The pattern takes any bytes.
    Any,
    No,
}

fn step(pattern: &[u8], byte: u8) -> Step {
    match pattern {
        [b'*', ..] => Step::Any,
        [b'?', ..] => Step::One(1),
        [b'[', set @ ..] => match set_end(set) {
            Some(end) if is_in(&set[..end], byte) => Step::One(end + 2),
            None if byte == b'[' => Step::One(1),
            _ => Step::No,
        },
        [first, ..] if *first == byte => Step::One(1),
        _ => Step::No,
    }
}

/// Where the set ends: a `]` that is its first member does not end it.
fn set_end(set: &[u8]) -> Option<usize> {
    let first = usize::from(matches!(set.first(), Some(b'!' | b'^')));
    let members = set.get(first + 1..)?;
    members
        .iter()
        .position(|&byte| byte == b']')
        .map(|at| at + first + 1)
}

fn is_in(set: &[u8], byte: u8) -> bool {
    let (is_not, mut set) = match set {
        [b'!' | b'^', set @ ..] => (true, set),
        set => (false, set),
    };
    let mut is_in = false;
    loop {
        set = match set {
            [from, b'-', to, rest @ ..] => {
                is_in |= (*from..=*to).contains(&byte);
                rest
            }
            [member, rest @ ..] => {
                is_in |= *member == byte;
                rest
            }
            [] => return is_in != is_not,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{is_pattern, matches};

    #[test]
    fn names_match_as_glob_has_it() {
        for (pattern, name, expected) in [
            ("a.conf", "a.conf", true),
            ("a.conf", "b.conf", false),
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", false),
            (".*", ".conf", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[ab]c", "bc", true),
            ("[ab]c", "cc", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]a]x", "]x", true),
            ("[a", "[a", true),
            ("[a", "a", false),
            ("a-b", "a-b", true),
            ("[a-]x", "-x", true),
            ("*a", "aaaab", false),
        ] {
            let found = matches(pattern.as_bytes(), name.as_bytes());
            assert_eq!(found, expected, "{pattern} {name}");
        }
        // In steps that double with each star this would take for ever.
        let name = [b'a'; 200];
        let pattern = [&b"*a".repeat(60)[..], b"b"].concat();
        assert!(!matches(&pattern, &name));
    }

    #[test]
    fn only_what_means_more_than_itself_is_a_pattern() {
        assert!(is_pattern(b"a*") && is_pattern(b"?") && is_pattern(b"[a]"));
        assert!(!is_pattern(b"a.conf") && !is_pattern(b"") && !is_pattern(b"a]"));
    }
}
