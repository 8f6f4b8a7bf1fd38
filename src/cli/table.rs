//! Aligned columns, free of tabs and of trailing spaces.

use anstyle::Style;

use super::screen::{Piece, Screen, plain, tame};
use super::width;

/// How much of a remark in the last column is worth other columns, in characters.
pub const READABLE: usize = 32;
/// How much of a name is shown where there is no room for more, in characters.
pub const NAME: usize = 24;

/// One column.
pub struct Column {
    pub title: &'static str,
    /// Numbers stand flush right.
    pub right: bool,
    /// Left out where the last column would be too narrow to read.
    pub spare: bool,
}

impl Column {
    /// The same, given up where it is too narrow for all.
    pub const fn spare(self) -> Self {
        Self { spare: true, ..self }
    }
}

/// A column of words.
pub const fn words(title: &'static str) -> Column {
    Column { title, right: false, spare: false }
}

/// A column of numbers.
pub const fn numbers(title: &'static str) -> Column {
    Column { title, right: true, spare: false }
}

/// One field of a row.
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Text in a style; nothing shows as `-`.
    pub fn styled(text: &str, style: Style) -> Self {
        Self { text: if text.is_empty() { "-".into() } else { tame(text) }, style }
    }

    /// Free text for the last column, where nothing is nothing.
    pub fn remark(text: &str) -> Self {
        Self { text: tame(text), style: Style::new() }
    }
}

impl<T: ToString> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        Self::styled(&value.map(|value| value.to_string()).unwrap_or_default(), Style::new())
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::styled(text, Style::new())
    }
}

/// The lines of a table. Where the screen has a width, long words are shortened and then spare columns given up for the
/// last one, and what still does not fit is cut with an ellipsis.
pub fn lines(columns: &[Column], rows: &[Vec<Cell>], screen: Screen) -> Vec<String> {
    let mut widths: Vec<usize> = columns.iter().enumerate().map(|(at, column)| widest(at, column, rows)).collect();
    shorten(&mut widths, screen);
    let shown = shown(columns, &widths, screen);
    let title = |column: &Column| Cell::styled(column.title, Style::new().bold());
    let header: Vec<Cell> = columns.iter().map(title).collect();
    let line =
        |row: &Vec<Cell>| line(shown.iter().filter_map(|&at| Some((row.get(at)?, &columns[at], widths[at]))), screen);
    std::iter::once(&header).chain(rows).map(line).collect()
}

/// Makes room for the last column in those that are longer than a name usually is.
fn shorten(widths: &mut [usize], screen: Screen) {
    let Some((last, before)) = widths.split_last_mut() else { return };
    let wanted = before.iter().map(|width| width + 2).sum::<usize>() + (*last).min(READABLE);
    if screen.width.is_some_and(|width| wanted > width) {
        before.iter_mut().for_each(|width| *width = (*width).min(NAME));
    }
}

/// Which columns there is room for: all but the first spare ones, until the last column can be read.
fn shown(columns: &[Column], widths: &[usize], screen: Screen) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let wanted = |shown: &[usize]| match shown {
        [before @ .., last] => before.iter().map(|&at| widths[at] + 2).sum::<usize>() + widths[*last].min(READABLE),
        [] => 0,
    };
    while screen.width.is_some_and(|width| wanted(&shown) > width) {
        let Some(spare) = shown.iter().position(|&at| columns[at].spare) else { break };
        shown.remove(spare);
    }
    shown
}

fn widest(at: usize, column: &Column, rows: &[Vec<Cell>]) -> usize {
    let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| width::of(&cell.text));
    cells.chain([column.title.len()]).max().unwrap_or_default()
}

fn line<'a>(row: impl Iterator<Item = (&'a Cell, &'a Column, usize)>, screen: Screen) -> String {
    let mut pieces: Vec<Piece> = Vec::new();
    for (cell, column, room) in row {
        if !pieces.is_empty() {
            pieces.push(plain("  "));
        }
        let text = match width::of(&cell.text) > room {
            true => format!("{}…", width::cut(&cell.text, room.saturating_sub(1))),
            false => cell.text.clone(),
        };
        let padding = plain(" ".repeat(room.saturating_sub(width::of(&text))));
        let text = (text, cell.style);
        pieces.extend(if column.right { [padding, text] } else { [text, padding] });
    }
    screen.line(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec!["worker-1".into(), Some(7).into(), Cell::remark("a reason\tthat\nis long")],
            vec!["x".into(), None::<u32>.into(), Cell::remark("")],
        ]
    }

    const COLUMNS: [Column; 3] = [words("NODE"), numbers("PID"), words("REASON")];

    #[test]
    fn a_pipe_gets_whole_lines_without_tabs_or_trailing_spaces() {
        let want = ["NODE      PID  REASON", "worker-1    7  a reason that is long", "x           -"];
        assert_eq!(lines(&COLUMNS, &rows(), Screen::pipe()), want);
    }

    #[test]
    fn a_terminal_gets_lines_that_fit() {
        let screen = Screen { width: Some(22), height: None, colour: false };
        assert_eq!(lines(&COLUMNS, &rows(), screen)[1], "worker-1    7  a reas…");
        for width in 1..40 {
            for line in lines(&COLUMNS, &rows(), Screen { width: Some(width), ..screen }) {
                assert!(line.chars().count() <= width, "{line:?} is wider than {width}");
            }
        }
    }

    #[test]
    fn spare_columns_make_room_for_the_last_one() {
        const COLUMNS: [Column; 4] = [words("NODE"), words("ROLE").spare(), words("ON").spare(), words("REASON")];
        let reason = "cannot run `/nonexistent/program`";
        let rows = [vec!["w-1".into(), "worker".into(), "a".into(), Cell::remark(reason)]];
        let titles = |width| {
            let lines = lines(&COLUMNS, &rows, Screen { width, height: None, colour: false });
            lines[0].split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(titles(None), "NODE ROLE ON REASON");
        assert_eq!(titles(Some(50)), "NODE ROLE ON REASON");
        assert_eq!(titles(Some(49)), "NODE ON REASON");
        assert_eq!(titles(Some(41)), "NODE REASON");
        assert_eq!(titles(Some(10)), "NODE REA…");
    }

    #[test]
    fn one_long_name_leaves_room_for_the_rest_on_a_terminal_and_is_whole_in_a_pipe() {
        let long = "x".repeat(128);
        let rows = [
            vec![long.as_str().into(), Some(7).into(), Cell::remark("a reason")],
            vec!["w".into(), Some(8).into(), Cell::remark("")],
        ];
        let at = |width| lines(&COLUMNS, &rows, Screen { width, height: None, colour: false });
        let want = [
            "NODE                      PID  REASON".to_owned(),
            format!("{}…    7  a reason", "x".repeat(23)),
            "w                           8".to_owned(),
        ];
        assert_eq!(at(Some(80)), want);
        assert!(at(Some(200))[1].starts_with(&long), "there is room for it");
        assert!(at(None)[1].starts_with(&long));
    }

    #[test]
    fn columns_stand_below_one_another_whatever_is_written_in_them() {
        let rows = [
            vec!["探针".into(), Some(7).into(), Cell::remark("数据包丢失")],
            vec!["worker".into(), Some(8).into(), Cell::remark("fine")],
        ];
        let at = |width| lines(&COLUMNS, &rows, Screen { width, height: None, colour: false });
        assert_eq!(at(None), ["NODE    PID  REASON", "探针      7  数据包丢失", "worker    8  fine"]);
        assert_eq!(at(Some(22))[1], "探针      7  数据包丢…");
    }

    #[test]
    fn colour_surrounds_the_word_and_not_the_padding() {
        let screen = Screen { width: Some(80), height: None, colour: true };
        let green = anstyle::AnsiColor::Green.on_default();
        let rows = [vec![Cell::styled("UP", green), "x".into()]];
        assert_eq!(lines(&[words("LINK"), words("NAME")], &rows, screen)[1], format!("{green}UP{green:#}    x"));
    }
}
