//! How many columns of a terminal text takes: most characters one, those of East Asia and pictures two, and what is put on top
//! of another character none.

/// Blocks of characters that are two columns wide, as Unicode's East Asian Width has them (W and F), and those of pictures.
const WIDE: [(u32, u32); 14] = [
    (0x1100, 0x115f),
    (0x231a, 0x231b),
    (0x2e80, 0x303e),
    (0x3041, 0x33ff),
    (0x3400, 0x4dbf),
    (0x4e00, 0xa4cf),
    (0xa960, 0xa97f),
    (0xac00, 0xd7a3),
    (0xf900, 0xfaff),
    (0xfe30, 0xfe6f),
    (0xff00, 0xff60),
    (0xffe0, 0xffe6),
    (0x1f300, 0x1faff),
    (0x20000, 0x3fffd),
];

/// Blocks of characters that combine with the one before.
const NONE: [(u32, u32); 8] = [
    (0x0300, 0x036f),
    (0x0483, 0x0489),
    (0x0591, 0x05bd),
    (0x064b, 0x065f),
    (0x1ab0, 0x1aff),
    (0x20d0, 0x20ff),
    (0xfe00, 0xfe0f),
    (0xfe20, 0xfe2f),
];

/// The columns that a character takes.
pub fn of_char(character: char) -> usize {
    let number = u32::from(character);
    let is_in = |blocks: &[(u32, u32)]| blocks.iter().any(|(first, last)| (*first..=*last).contains(&number));
    match number {
        0..0x300 => 1,
        _ if is_in(&NONE) => 0,
        _ if is_in(&WIDE) => 2,
        _ => 1,
    }
}

/// The columns that a text takes.
pub fn of(text: &str) -> usize {
    text.chars().map(of_char).sum()
}

/// As much of the beginning of a text as has room in so many columns.
pub fn cut(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, character)| {
        used += of_char(*character);
        used > columns
    });
    end.map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_as_wide_as_a_terminal_shows_it() {
        for (text, width) in
            [("worker-1", 8), ("für", 3), ("探针", 4), ("センサー", 8), ("감지기", 6), ("e\u{301}", 1), ("🦀!", 3)]
        {
            assert_eq!(of(text), width, "{text}");
        }
    }

    #[test]
    fn what_is_cut_is_never_wider_and_never_half_a_character() {
        assert_eq!(cut("探针", 3), "探");
        assert_eq!(cut("探针", 4), "探针");
        assert_eq!(cut("a探", 1), "a");
        assert_eq!(cut("e\u{301}x", 1), "e\u{301}");
        assert_eq!(cut("abc", 0), "");
    }
}
