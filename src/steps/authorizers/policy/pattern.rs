//! A text of a policy, with wildcards and variables: `arn:aws:execute-api:*:*:*/prod/GET/${aws:username}/?`.
//!
//! `*` stands for any text, slashes and colons too, and `?` for any one character. What a variable stands for is
//! text even where it has a star in it: that may be a client's own. Matching goes back to the latest star and
//! never further, so no pattern is slow.

use std::borrow::Cow;
use std::mem;

use super::Context;

/// What `read` takes, for the log.
pub(super) const WANTED: &str = "text with variables like `${aws:SourceIp}` or `${aws:username, 'nobody'}`";

#[derive(Debug, Clone, Default)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone)]
enum Piece {
    /// `*`
    Any,
    /// `?`
    One,
    Text(String),
    /// The key is in lower case.
    Variable {
        key: String,
        default: Option<String>,
    },
}

/// A piece, once the call is known.
enum Resolved<'a> {
    Any,
    One,
    Text(Cow<'a, str>),
}

/// What is more than text in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Special {
    pub(super) wildcards: bool,
    pub(super) variables: bool,
}

impl Pattern {
    /// `None` if a variable is not written like one.
    pub(super) fn read(text: &str, special: Special) -> Option<Pattern> {
        Pattern::read_parts(text, special, 1)?.pop()
    }

    /// The parts between the first colons, at most so many. Colons within variables divide nothing.
    pub(super) fn read_parts(text: &str, special: Special, most: usize) -> Option<Vec<Pattern>> {
        let mut parts = Vec::new();
        let mut part = Pattern::default();
        let mut rest = text.chars();
        while let Some(char) = rest.next() {
            match char {
                ':' if parts.len() + 1 < most => parts.push(mem::take(&mut part)),
                '*' if special.wildcards => part.0.push(Piece::Any),
                '?' if special.wildcards => part.0.push(Piece::One),
                '$' if special.variables && rest.as_str().starts_with('{') => {
                    let (variable, after) = rest.as_str()[1..].split_once('}')?;
                    rest = after.chars();
                    part.push_variable(variable)?;
                }
                char => part.push_char(char),
            }
        }
        parts.push(part);
        Some(parts)
    }

    fn push_char(&mut self, char: char) {
        match self.0.last_mut() {
            Some(Piece::Text(text)) => text.push(char),
            _ => self.0.push(Piece::Text(char.into())),
        }
    }

    /// What stands between the braces: a key, perhaps with a default, or a character that would be special.
    fn push_variable(&mut self, text: &str) -> Option<()> {
        if let "*" | "?" | "$" = text {
            self.0.push(Piece::Text(text.to_owned()));
            return Some(());
        }
        let (key, default) = match text.split_once(',') {
            None => (text, None),
            Some((key, default)) => (key, Some(default.trim().strip_prefix('\'')?.strip_suffix('\'')?.to_owned())),
        };
        let key = key.trim().to_lowercase();
        let piece = (!key.is_empty()).then_some(Piece::Variable { key, default })?;
        self.0.push(piece);
        Some(())
    }

    /// `None` if a variable has neither a value nor a default: IAM has it equal nothing, and unequal to all.
    pub(super) fn matches(&self, text: &str, context: &Context<'_>) -> Option<bool> {
        let pieces: Option<Vec<_>> = self.0.iter().map(|piece| piece.resolve(context)).collect();
        Some(fits(&pieces?, text))
    }
}

impl Piece {
    fn resolve<'r, 'c: 'r>(&'r self, context: &Context<'c>) -> Option<Resolved<'r>> {
        Some(match self {
            Piece::Any => Resolved::Any,
            Piece::One => Resolved::One,
            Piece::Text(text) => Resolved::Text(Cow::Borrowed(text)),
            Piece::Variable { key, default } => Resolved::Text(context(key).or(default.as_deref().map(Cow::Borrowed))?),
        })
    }
}

fn fits(mut pieces: &[Resolved<'_>], mut text: &str) -> bool {
    let after_one = |text: &str| text.chars().next().map(char::len_utf8);
    // What follows the latest star, and the text where that was last looked for.
    let mut star = None;
    loop {
        let fitting = match pieces.split_first() {
            None if text.is_empty() => return true,
            None => None,
            Some((Resolved::Any, [])) => return true,
            Some((Resolved::Any, after)) => {
                star = Some((after, text));
                Some((after, text))
            }
            // Further on there would be even less text for it.
            Some((Resolved::One, _)) if text.is_empty() => return false,
            Some((Resolved::Text(wanted), _)) if text.len() < wanted.len() => return false,
            Some((Resolved::One, after)) => after_one(text).map(|end| (after, &text[end..])),
            Some((Resolved::Text(wanted), after)) => text.strip_prefix(wanted.as_ref()).map(|rest| (after, rest)),
        };
        if let Some(next) = fitting {
            (pieces, text) = next;
            continue;
        }
        let further_on = star.and_then(|(after, from)| Some((after, &from[after_one(from)?..])));
        let Some(next) = further_on else {
            return false;
        };
        star = further_on;
        (pieces, text) = next;
    }
}
