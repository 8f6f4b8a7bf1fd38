//! Aligned columns, free of tabs and of trailing spaces.

use anstyle::Style;

use super::screen::{Piece, Screen, plain, tame};

/// One column.
pub struct Column {
    pub title: &'static str,
    /// Numbers stand flush right.
    pub right: bool,
}

/// A column of words.
pub const fn words(title: &'static str) -> Column {
    Column { title, right: false }
}

/// A column of numbers.
pub const fn numbers(title: &'static str) -> Column {
    Column { title, right: true }
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

/// The lines of a table. Where the screen has a width, they are cut to it with an ellipsis.
pub fn lines(columns: &[Column], rows: &[Vec<Cell>], screen: Screen) -> Vec<String> {
    let widths: Vec<usize> = columns.iter().enumerate().map(|(at, column)| width(at, column, rows)).collect();
    let title = |column: &Column| Cell::styled(column.title, Style::new().bold());
    let header: Vec<Cell> = columns.iter().map(title).collect();
    std::iter::once(&header).chain(rows).map(|row| line(columns, &widths, row, screen)).collect()
}

fn width(at: usize, column: &Column, rows: &[Vec<Cell>]) -> usize {
    let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.text.chars().count());
    cells.chain([column.title.len()]).max().unwrap_or_default()
}

fn line(columns: &[Column], widths: &[usize], row: &[Cell], screen: Screen) -> String {
    let mut pieces: Vec<Piece> = Vec::new();
    for ((cell, column), width) in row.iter().zip(columns).zip(widths) {
        if !pieces.is_empty() {
            pieces.push(plain("  "));
        }
        let padding = plain(" ".repeat(width.saturating_sub(cell.text.chars().count())));
        let text = (cell.text.clone(), cell.style);
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
    fn colour_surrounds_the_word_and_not_the_padding() {
        let screen = Screen { width: Some(80), height: None, colour: true };
        let green = anstyle::AnsiColor::Green.on_default();
        let rows = [vec![Cell::styled("UP", green), "x".into()]];
        assert_eq!(lines(&[words("LINK"), words("NAME")], &rows, screen)[1], format!("{green}UP{green:#}    x"));
    }
}
