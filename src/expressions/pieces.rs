//! Cuts a text into what stands there literally and the variables between.

use super::Error;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    Literal(String),
    /// What stands between `${` and `}`, or after a bare `$`, and the byte at which that begins.
    Variable {
        at: usize,
        text: &'t str,
    },
}

/// What a `$` means that no brace follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BareDollar {
    Literal,
    Variable,
}

/// One pass from left to right. No two literals are neighbours, and none is empty.
pub(super) fn split(text: &str, bare: BareDollar) -> Result<Vec<Piece<'_>>, Error> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if rest.starts_with(r"\$") {
            literal.push('$');
            at += 2;
        } else if let Some(inside) = rest.strip_prefix("${") {
            let end = closing_brace(inside)
                .ok_or_else(|| Error::new(at, "`${` is never closed", r"add the `}`, or write `\$` for a dollar"))?;
            end_literal(&mut pieces, &mut literal);
            pieces.push(Piece::Variable { at: at + 2, text: &inside[..end] });
            at += end + 3;
        } else if first == '$' && bare == BareDollar::Variable {
            let path = &rest[1..];
            let end = path.find(|c| !may_stand_bare(c)).unwrap_or(path.len());
            end_literal(&mut pieces, &mut literal);
            pieces.push(Piece::Variable { at: at + 1, text: &path[..end] });
            at += end + 1;
        } else {
            let next = first.len_utf8();
            let run = rest[next..].find(['$', '\\']).map_or(rest.len(), |found| found + next);
            literal.push_str(&rest[..run]);
            at += run;
        }
    }
    end_literal(&mut pieces, &mut literal);
    Ok(pieces)
}

fn end_literal(pieces: &mut Vec<Piece<'_>>, literal: &mut String) {
    if !literal.is_empty() {
        pieces.push(Piece::Literal(std::mem::take(literal)));
    }
}

/// Where the `}` is that closes a variable: not one within the quotes of a JSONPath, as in `['a}b']`.
fn closing_brace(inside: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, byte) in inside.bytes().enumerate() {
        match (quote, byte) {
            _ if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), _) if byte == open => quote = None,
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'}') => return Some(at),
            _ => {}
        }
    }
    None
}

fn may_stand_bare(character: char) -> bool {
    character.is_ascii_alphanumeric() || r#"_.[]'"*@?()=-"#.contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bare: BareDollar, text: &str, expected: &str) {
        let found = match split(text, bare) {
            Err(error) => format!("{} {}", error.at, error.message),
            Ok(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Literal(literal) => format!("'{literal}'"),
                    Piece::Variable { at, text } => format!("{at}:{text}"),
                })
                .collect::<Vec<_>>()
                .join(" "),
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn literals_and_variables_alternate() {
        use BareDollar::{Literal, Variable};
        check(Variable, "", "");
        check(Variable, "join", "'join'");
        check(Variable, "$a.b", "1:a.b");
        check(Variable, "x/$a.b/y", "'x/' 3:a.b '/y'");
        check(Variable, "${a}-${b}", "2:a '-' 7:b");
        check(Variable, r"\$default", "'$default'");
        check(Variable, r"a\$\$b\c", r"'a$$b\c'");
        check(Variable, "$", "1:");
        check(Variable, "$$a", "1: 2:a");
        check(Variable, "$a['x y']", "1:a['x ' y']'");
        check(Variable, "a${b", "1 `${` is never closed");
        check(Literal, "costs $5 ${a}", "'costs $5 ' 11:a");
        check(Literal, "${a['}']}b", "2:a['}'] 'b'");
        check(Literal, r"${a['\'}']}b", r"2:a['\'}'] 'b'");
        check(Literal, "${a['}", "0 `${` is never closed");
        check(Literal, "é${ü}é", "'é' 4:ü 'é'");
    }
}
