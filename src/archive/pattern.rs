//! Names with `*`, `?` and `[a-z]` in them, as shells have them.

/// Whether a whole name is of that pattern. A `[` without its `]` stands for itself.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut of) = (0, 0);
    // Behind the last `*`, and where in the name it is tried: of several only the last need be tried again.
    let mut star = None;
    while at < name.len() {
        match one(&pattern[of..], name[at]) {
            Some(taken) => (at, of) = (at + 1, of + taken),
            None if pattern.get(of) == Some(&'*') => {
                of += 1;
                star = Some((of, at));
            }
            None => match &mut star {
                Some((behind, tried)) => {
                    *tried += 1;
                    (of, at) = (*behind, *tried);
                }
                None => return false,
            },
        }
    }
    pattern[of..].iter().all(|rest| *rest == '*')
}

/// How much of a pattern stands for this one character; `None` if it begins with something else, or a `*`.
fn one(pattern: &[char], character: char) -> Option<usize> {
    match pattern {
        [] | ['*', ..] => None,
        ['?', ..] => Some(1),
        ['[', rest @ ..] => match set(rest, character) {
            Some((is_in, length)) => is_in.then_some(length + 1),
            None => (character == '[').then_some(1),
        },
        [first, ..] => (*first == character).then_some(1),
    }
}

/// Whether a set, whose `[` was read, has this character, and its length with the `]`.
fn set(rest: &[char], character: char) -> Option<(bool, usize)> {
    let is_not = matches!(rest.first(), Some('!' | '^'));
    let begin = usize::from(is_not);
    // A `]` in the first place is one of the set.
    let end = rest.iter().skip(begin + 1).position(|c| *c == ']').map(|end| end + begin + 1)?;
    let (mut members, mut is_in) = (&rest[begin..end], false);
    while let [first, behind @ ..] = members {
        (is_in, members) = match behind {
            ['-', last, behind @ ..] => (is_in || (first..=last).contains(&&character), behind),
            _ => (is_in || *first == character, behind),
        };
    }
    Some((is_in != is_not, end + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (pattern, name, want) in [
            ("conn.*", "conn.10:00:00-11:00:00.log.gz", true),
            ("conn.*", "conn-summary.log", false),
            ("*summary*", "conn-summary.10.log", true),
            ("*.log", "a.log.log", true),
            ("*.log", "a.log.gz", false),
            ("?ns.*", "dns.x", true),
            ("?", "ü", true),
            ("[cd]*", "dns", true),
            ("[!cd]*", "dns", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[]]", "]", true),
            ("[a", "[a", true),
            ("a*b*c", "axxbyybzzc", true),
            ("a*b*c", "axxbyybzz", false),
            ("", "", true),
            ("*", "", true),
            ("a", "", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
        let long = "a".repeat(2000);
        assert!(!matches(&format!("{}b", "*a".repeat(200)), &long), "and it ends");
    }

    proptest! {
        #[test]
        fn a_name_is_of_itself_and_of_whatever_leaves_parts_of_it_open(name in "[a-z.0-9-]{0,20}", at in 0_usize..20) {
            let at = at.min(name.len());
            let (before, behind) = name.split_at(at);
            prop_assert!(matches(&name, &name));
            let (first, last) = (format!("{before}*"), format!("*{behind}"));
            prop_assert!(matches(&first, &name) && matches(&last, &name));
            prop_assert_eq!(matches(&format!("{name}x"), &name), false);
        }
    }
}
