//! Text for a terminal: colours, columns, and nothing that a terminal would obey.

use std::io::IsTerminal as _;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Narrower than this, a column of text is read with pain.
const NARROWEST: usize = 12;

const GAP: &str = "  ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
}

/// Whether standard output is a terminal whose owner has not declined colours.
pub fn wants_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|declined| declined.is_empty())
}

pub fn painted(text: &str, colour: Option<Colour>) -> String {
    let code = match colour {
        None => return text.to_owned(),
        Some(Colour::Bold) => 1,
        Some(Colour::Dim) => 2,
        Some(Colour::Red) => 31,
        Some(Colour::Green) => 32,
        Some(Colour::Yellow) => 33,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Text of others on one line, without what would move the cursor, change a colour, or turn the line around.
pub fn plain(text: &str) -> String {
    let shown = text.trim_end().chars().filter_map(|c| match c {
        '\n' | '\t' => Some(' '),
        // These write backwards what follows.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => None,
        '\u{2028}' | '\u{2029}' => Some(' '),
        c if c.is_control() => None,
        c => Some(c),
    });
    shown.collect()
}

/// With blanks up to a width, in columns of the terminal.
pub fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", blanks(width, text))
}

/// One field of a table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    pub text: String,
    pub colour: Option<Colour>,
    /// At the right edge of its column, and never on more than one line.
    pub is_number: bool,
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    pub fn number(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_number: true, ..Self::default() }
    }

    pub fn coloured(self, colour: Option<Colour>) -> Self {
        Self { colour, ..self }
    }
}

/// Lines with columns, each as wide as its widest cell; where they do not fit, the widest columns of text are folded.
pub fn table(rows: &[Vec<Cell>], width: usize) -> Vec<String> {
    let widths = widths(rows, width);
    rows.iter().flat_map(|row| lines(row, &widths)).collect()
}

fn widths(rows: &[Vec<Cell>], width: usize) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let column = |at: usize| rows.iter().filter_map(move |row| row.get(at));
    let mut widths: Vec<usize> =
        (0..columns).map(|at| column(at).map(|cell| cell.text.width()).max().unwrap_or_default()).collect();
    let gaps = GAP.len() * columns.saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let foldable = (0..columns).filter(|at| column(*at).all(|cell| !cell.is_number));
        match foldable.max_by_key(|at| widths[*at]) {
            Some(widest) if widths[widest] > NARROWEST => widths[widest] -= 1,
            _ => break,
        }
    }
    widths
}

fn lines(row: &[Cell], widths: &[usize]) -> Vec<String> {
    let folded: Vec<_> = row.iter().zip(widths).map(|(cell, width)| folded(&cell.text, *width)).collect();
    let height = folded.iter().map(Vec::len).max().unwrap_or_default();
    let line = |at: usize| {
        let mut line = String::new();
        // Blanks before a cell wait for it, so that no line ends in them.
        let mut waiting = 0;
        for ((cell, pieces), width) in row.iter().zip(&folded).zip(widths) {
            let text = pieces.get(at).map_or("", String::as_str);
            let rest = width.saturating_sub(text.width());
            let (before, after) = if cell.is_number { (rest, 0) } else { (0, rest) };
            waiting += before;
            if !text.is_empty() {
                line += &" ".repeat(std::mem::take(&mut waiting));
                line += &painted(text, cell.colour);
            }
            waiting += if text.is_empty() { width - before } else { after } + GAP.len();
        }
        line
    };
    (0..height).map(line).collect()
}

/// The text in pieces of at most a width, cut at blanks where that goes.
pub fn folded(text: &str, width: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for word in text.split(' ') {
        let last = pieces.last_mut().expect("there is always a piece");
        if !last.is_empty() && last.width() + 1 + word.width() > width {
            pieces.push(String::new());
        } else if !last.is_empty() {
            last.push(' ');
        }
        for c in word.chars() {
            let last = pieces.last_mut().expect("there is always a piece");
            // What has no width of its own stays with the character that it belongs to.
            if !last.is_empty()
                && c.width().unwrap_or_default() > 0
                && last.width() + c.width().unwrap_or_default() > width
            {
                pieces.push(String::new());
            }
            pieces.last_mut().expect("there is always a piece").push(c);
        }
    }
    pieces
}

fn blanks(width: usize, text: &str) -> String {
    " ".repeat(width.saturating_sub(text.width()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_left_out() {
        let check = |text: &str, wanted: &str| assert_eq!(plain(text), wanted);
        check("tea \u{1f375} zoë", "tea \u{1f375} zoë");
        check("\x1b[31mred\x1b[0m\x07", "[31mred[0m");
        check("\u{9b}2Ja\x7fb\r\nc\td\n", "2Jab c d");
        check("abc\u{202e}def\u{2066}", "abcdef");
    }

    #[test]
    fn columns_are_as_wide_as_they_look() {
        let rows = [
            vec![Cell::text("NAME"), Cell::number("COUNT"), Cell::text("STATE")],
            vec![Cell::text("茶館"), Cell::number("7"), Cell::text("ok").coloured(Some(Colour::Green))],
            vec![Cell::text("zoe\u{308}"), Cell::number("12345"), Cell::text("")],
        ];
        assert_eq!(table(&rows, 80), ["NAME  COUNT  STATE", "茶館      7  \x1b[32mok\x1b[0m", "zoe\u{308}   12345"]);
    }

    #[test]
    fn what_does_not_fit_is_folded() {
        let rows = [vec![
            Cell::text("http://a-very-long-name.example.com:8080"),
            Cell::number("123456"),
            Cell::text("healthy as far as anyone knows"),
        ]];
        let lines = table(&rows, 40);
        assert!(lines.len() > 1 && lines.iter().all(|line| line.width() <= 40), "{lines:#?}");
        let first: String = lines.iter().map(|line| line.split("  ").next().unwrap_or_default().trim()).collect();
        assert_eq!(first, "http://a-very-long-name.example.com:8080");
    }

    #[test]
    fn text_is_cut_at_blanks_or_between_characters() {
        let check = |text: &str, width, wanted: &[&str]| assert_eq!(folded(text, width), wanted, "{text}");
        check("", 5, &[""]);
        check("one two three", 8, &["one two", "three"]);
        check("abcdefgh", 3, &["abc", "def", "gh"]);
        check("茶館茶館", 5, &["茶館", "茶館"]);
        check("e\u{308}e\u{308}e\u{308}", 2, &["e\u{308}e\u{308}", "e\u{308}"]);
        check("ab abcdef", 4, &["ab", "abcd", "ef"]);
    }
}
