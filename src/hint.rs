//! Words for complaints: what was written, cut to a length that can be shown, and what may have been meant.

/// How much of somebody's text a complaint repeats, in characters.
const SHOWN: usize = 64;
/// From here on two words are alike (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;

/// The text on one line between backticks, shortened where it is long.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect::<String>().escape_debug().collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// The known word that somebody may have meant by `text`, if one is like it.
pub(crate) fn meant<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text: String = text.chars().take(SHOWN).collect::<String>().to_lowercase();
    let likeness = |word: &str| strsim::jaro_winkler(&text, &word.to_lowercase());
    let nearest = known.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest.filter(|word| likeness(word) >= ALIKE)
}

/// So many words are named where none is meant for certain; of more, those that are most like it.
const FEW: usize = 8;
const NEAREST: usize = 3;

/// What may be written instead of `text`: the known word that is most like it, or else all of them, or of many the nearest.
pub(crate) fn instead<'a>(text: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let text: String = text.chars().take(SHOWN).collect::<String>().to_lowercase();
    let likeness = |word: &str| strsim::jaro_winkler(&text, &word.to_lowercase());
    match meant(&text, known.clone()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => {
            let mut all: Vec<&str> = known.into_iter().collect();
            if all.len() <= FEW {
                return format!("known are {}", all.join(", "));
            }
            all.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
            format!("the nearest are {}", all[..NEAREST].join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_and_else_all_of_them() {
        let known = ["port", "role", "metrics_port"];
        assert_eq!(instead("prot", known), "did you mean `port`?");
        assert_eq!(instead("METRICSPORT", known), "did you mean `metrics_port`?");
        assert_eq!(instead("xyzzy", known), "known are port, role, metrics_port");
        assert_eq!(instead("", known), "known are port, role, metrics_port");
    }

    #[test]
    fn of_many_words_the_nearest_are_named() {
        let known = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota"];
        assert_eq!(instead("xyzzyta", known), "the nearest are delta, theta, zeta");
    }

    #[test]
    fn a_long_or_wild_text_is_tamed() {
        assert_eq!(shown("a\nb"), "`a\\nb`");
        assert_eq!(shown(&"x".repeat(10_000)), format!("`{}...`", "x".repeat(64)));
    }
}
