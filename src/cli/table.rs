//! Columns of text.

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

use super::output::{BOLD, PLAIN, paint};

/// What stands in one row and column.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// The text, on one line.
    pub text: String,
    /// How it looks.
    pub style: Style,
}

impl Cell {
    /// A text that looks like this.
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, PLAIN)
    }
}

/// How many columns a text takes.
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// The text, filled up with blanks.
pub fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// The text, or as much of it as fits, with a mark where it was cut.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if width(&kept) + width(c.encode_utf8(&mut [0; 4])) >= columns {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

/// The text on one line.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The rows under their headings, the last column cut where a row is longer than `most`.
pub fn render(headings: &[&str], rows: &[Vec<Cell>], most: Option<usize>) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| width(heading)).collect();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            widths[column] = widths[column].max(width(&cell.text));
        }
    }
    let heading = |text: &&str| Cell::styled(*text, BOLD);
    let head: Vec<Cell> = headings.iter().map(heading).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        let mut used = 0;
        let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
        for (column, cell) in row.iter().enumerate().take(last + 1) {
            let shown = match most {
                Some(most) if column + 1 == headings.len() => cut(&cell.text, most.saturating_sub(used).max(10)),
                _ => cell.text.clone(),
            };
            line.push_str(&paint(cell.style, &shown));
            if column < last {
                line.push_str(&" ".repeat(widths[column] + 3 - width(&shown)));
                used += widths[column] + 3;
            }
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_the_last_one_is_cut() {
        let rows = vec![
            vec!["web".into(), Cell::from("a message that is too long")],
            vec!["größer".into(), Cell::from("")],
        ];
        let text = anstream::adapter::strip_str(&render(&["NAME", "MESSAGE"], &rows, Some(20))).to_string();
        assert_eq!(text, "NAME     MESSAGE\nweb      a message …\ngrößer\n");
    }
}
