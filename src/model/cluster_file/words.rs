//! Lists of words in one value, quoted as in a shell; nothing is ever expanded.
//!
//! Single quotes keep everything, double quotes all but `\"` and `\\`, a backslash the next character. A backslash
//! at the end of a line joins it with the next. `$'...'` alone writes control characters, such as `\n` and `\x1b`.

use std::iter::Peekable;
use std::str::Chars;

/// Why a text is no list of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WordsError {
    #[error("the quote {0} is never closed")]
    Unclosed(char),
    #[error("a backslash has nothing behind it: write two for one")]
    Trailing,
    #[error("$'...' knows only \\n, \\t, \\r, \\\\, \\', \\\" and \\x with two hexadecimal digits up to 7f")]
    Escape,
}

/// The words of `text`, which spaces and line ends part.
pub(super) fn split(text: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(char::is_ascii_whitespace).is_some() {}
        if rest.peek().is_none() {
            return Ok(words);
        }
        words.extend(word(&mut rest)?);
    }
}

/// The word that begins here; `None` if nothing but joined line ends is left of it.
fn word(rest: &mut Peekable<Chars>) -> Result<Option<String>, WordsError> {
    let mut word = String::new();
    let mut is_word = false;
    while let Some(c) = rest.next_if(|c| !c.is_ascii_whitespace()) {
        match c {
            '\\' if rest.next_if_eq(&'\n').is_some() => continue,
            '\\' => word.push(rest.next().ok_or(WordsError::Trailing)?),
            '\'' => single(rest, &mut word)?,
            '"' => double(rest, &mut word)?,
            '$' if rest.next_if_eq(&'\'').is_some() => escaped(rest, &mut word)?,
            c => word.push(c),
        }
        is_word = true;
    }
    Ok(is_word.then_some(word))
}

fn single(rest: &mut Peekable<Chars>, word: &mut String) -> Result<(), WordsError> {
    loop {
        match rest.next().ok_or(WordsError::Unclosed('\''))? {
            '\'' => return Ok(()),
            c => word.push(c),
        }
    }
}

fn double(rest: &mut Peekable<Chars>, word: &mut String) -> Result<(), WordsError> {
    loop {
        match rest.next().ok_or(WordsError::Unclosed('"'))? {
            '"' => return Ok(()),
            '\\' if rest.next_if_eq(&'\n').is_some() => {}
            '\\' => word.push(rest.next_if(|c| matches!(c, '"' | '\\')).unwrap_or('\\')),
            c => word.push(c),
        }
    }
}

fn escaped(rest: &mut Peekable<Chars>, word: &mut String) -> Result<(), WordsError> {
    loop {
        let c = match rest.next().ok_or(WordsError::Unclosed('\''))? {
            '\'' => return Ok(()),
            '\\' => match rest.next().ok_or(WordsError::Unclosed('\''))? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                c @ ('\\' | '\'' | '"') => c,
                'x' => hexadecimal(rest).ok_or(WordsError::Escape)?,
                _ => return Err(WordsError::Escape),
            },
            c => c,
        };
        word.push(c);
    }
}

fn hexadecimal(rest: &mut Peekable<Chars>) -> Option<char> {
    let (high, low) = (rest.next()?.to_digit(16)?, rest.next()?.to_digit(16)?);
    char::from_u32(16 * high + low).filter(char::is_ascii)
}

/// `word` as [`split`] reads it back; in quotes only where it needs them.
pub(super) fn quote(word: &str) -> String {
    if word.contains(|c: char| c.is_ascii_control()) {
        let escape = |c: char| match c {
            '\n' => r"\n".to_owned(),
            '\t' => r"\t".to_owned(),
            '\r' => r"\r".to_owned(),
            '\\' | '\'' => format!("\\{c}"),
            c if c.is_ascii_control() => format!("\\x{:02x}", u32::from(c)),
            c => c.to_string(),
        };
        return format!("$'{}'", word.chars().map(escape).collect::<String>());
    }
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '\\')) {
        return format!("\"{}\"", word.replace('\\', r"\\").replace('"', "\\\""));
    }
    word.to_owned()
}

/// The words on one line, as [`split`] reads them back.
pub(crate) fn join<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    words.into_iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_split_as_in_a_shell() {
        for (text, want) in [
            ("", &[][..]),
            (" a\tb\n c ", &["a", "b", "c"]),
            (r#"sh -c 'while :; do echo "x"; done'"#, &["sh", "-c", r#"while :; do echo "x"; done"#]),
            (r#"a"b c"'d e'\ f"#, &["ab cd e f"]),
            (r#""\"\\\$""#, &[r#""\\$"#]),
            ("'' \"\"", &["", ""]),
            ("a \\\n b \\\n", &["a", "b"]),
            ("\"a\\\nb\"", &["ab"]),
            (r"$'\n\t\x1b\'' $HOME a$", &["\n\t\u{1b}'", "$HOME", "a$"]),
        ] {
            assert_eq!(
                split(text).as_deref(),
                Ok(want.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).as_deref(),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_closed_is_named() {
        for (text, want) in [
            ("'a", WordsError::Unclosed('\'')),
            ("a \"b", WordsError::Unclosed('"')),
            ("a\\", WordsError::Trailing),
            (r"$'\q'", WordsError::Escape),
            (r"$'\xff'", WordsError::Escape),
            (r"$'\x1", WordsError::Escape),
        ] {
            assert_eq!(split(text), Err(want), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_words_read_back_as_they_were(words in prop::collection::vec(any::<String>(), 0..5)) {
            let line = join(&words);
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(split(&line), Ok(words));
        }

        #[test]
        fn any_text_is_split_or_refused(text in r#"[ab $'"\\\n x]*"#) {
            let _ = split(&text);
        }
    }
}
