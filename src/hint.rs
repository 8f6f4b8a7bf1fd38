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

/// What may be written instead of `text`: the known word that is most like it, or else all of them.
pub(crate) fn instead<'a>(text: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let text: String = text.chars().take(SHOWN).collect::<String>().to_lowercase();
    let likeness = |word: &str| strsim::jaro_winkler(&text, &word.to_lowercase());
    let nearest = known.clone().into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(word) if likeness(word) >= ALIKE => format!("did you mean `{word}`?"),
        _ => format!("known are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
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
    fn a_long_or_wild_text_is_tamed() {
        assert_eq!(shown("a\nb"), "`a\\nb`");
        assert_eq!(shown(&"x".repeat(10_000)), format!("`{}...`", "x".repeat(64)));
    }
}
