//! Resource policies: who may call at all, by address, headers and what an authorizer found out.
//!
//! A policy is one level's list of statements, of an API, a stage or a route; a call has to pass each level's. In a
//! statement all conditions must hold, and of a condition's values any one. A deny wins over every allow. Where there
//! are allow statements one of them must match; where there are none, what is not denied is allowed.
//!
//! A policy is asked before the authorizer, so that who is refused in any case costs no call to it, and after.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::model::headers;

/// The statements of one level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourcePolicy {
    pub statements: Vec<Statement>,
}

/// One statement. A condition that is empty is none at all; without any, it matches everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub effect: Effect,
    /// IPv4 networks as such and not in IPv6 clothes, as `Cidr` reads them.
    pub source_ip: Vec<IpNet>,
    /// Every one of these headers must be there and have one of its values.
    pub headers: Vec<(HeaderName, Vec<Glob>)>,
    /// The same for what the authorizer found out, by name. Of a list any item will do.
    pub authorizer: Vec<(String, Vec<Glob>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
}

/// What a policy looks at. A condition on something that is not there does not hold.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    pub source_ip: IpAddr,
    /// `None` on messages, which have none.
    pub headers: Option<&'a HeaderMap>,
    /// What the authorizer found out by this name, a list's items one by one; not asked by `before`.
    pub authorizer: &'a dyn Fn(&str) -> Vec<Cow<'a, str>>,
}

/// What can be said before the authorizer was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing it finds out could change that the caller may.
    Open,
    /// Nothing it finds out could change that the caller may not.
    Refused(Refused),
    Undecided,
}

/// A policy does not let a caller in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// By a deny, rather than for want of an allow. The log is told.
    pub explicit: bool,
}

impl ResourcePolicy {
    pub fn before(&self, caller: &Caller<'_>) -> Verdict {
        self.judge(|statement| match statement.matches_without_authorizer(caller) {
            true if !statement.authorizer.is_empty() => None,
            matches => Some(matches),
        })
    }

    /// The whole policy.
    pub fn after(&self, caller: &Caller<'_>) -> Result<(), Refused> {
        let judged = self.judge(|statement| {
            Some(statement.matches_without_authorizer(caller) && statement.matches_authorizer(caller))
        });
        match judged {
            Verdict::Open => Ok(()),
            Verdict::Refused(refused) => Err(refused),
            Verdict::Undecided => unreachable!("every statement was decided"),
        }
    }

    /// Whether `before` can leave anything open.
    pub fn needs_authorizer(&self) -> bool {
        self.statements.iter().any(|statement| !statement.authorizer.is_empty())
    }

    pub fn needs_headers(&self) -> bool {
        self.statements.iter().any(|statement| !statement.headers.is_empty())
    }

    /// `matches` says whether a statement does, and `None` where that cannot be said yet.
    fn judge(&self, matches: impl Fn(&Statement) -> Option<bool>) -> Verdict {
        let mut is_allowed = self.statements.iter().all(|statement| statement.effect == Effect::Deny);
        let (mut may_be_allowed, mut may_be_denied) = (false, false);
        for statement in &self.statements {
            match (statement.effect, matches(statement)) {
                (Effect::Deny, Some(true)) => return Verdict::Refused(Refused { explicit: true }),
                (Effect::Deny, None) => may_be_denied = true,
                (Effect::Allow, Some(true)) => is_allowed = true,
                (Effect::Allow, None) => may_be_allowed = true,
                (_, Some(false)) => {}
            }
        }
        if is_allowed && !may_be_denied {
            return Verdict::Open;
        }
        if !is_allowed && !may_be_allowed {
            return Verdict::Refused(Refused { explicit: false });
        }
        Verdict::Undecided
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.explicit {
            true => "a statement of resource_policy denies it",
            false => "no statement of resource_policy allows it",
        })
    }
}

impl std::error::Error for Refused {}

impl Statement {
    fn matches_without_authorizer(&self, caller: &Caller<'_>) -> bool {
        let address = caller.source_ip.to_canonical();
        let is_from = self.source_ip.is_empty() || self.source_ip.iter().any(|network| network.contains(&address));
        is_from
            && self.headers.iter().all(|(name, globs)| {
                let values = caller.headers.into_iter().flat_map(|headers| headers.get_all(name));
                values.map(headers::text).any(|value| globs.iter().any(|glob| glob.matches(&value)))
            })
    }

    fn matches_authorizer(&self, caller: &Caller<'_>) -> bool {
        self.authorizer.iter().all(|(name, globs)| {
            (caller.authorizer)(name).iter().any(|value| globs.iter().any(|glob| glob.matches(value)))
        })
    }
}

/// A text in which `*` stands for any text and `?` for any one character; upper case is not lower case.
///
/// Matching takes the pieces between the stars one after the other and never goes back, so no pattern of stars is slow.
/// Only a piece with `?` is tried at every place, which takes at most its own length times the text's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// Between the stars; a lone piece is the whole text.
    pieces: Vec<Piece>,
}

/// A text in which `?` stands for any one character.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece(String);

impl Glob {
    pub fn new(text: &str) -> Glob {
        Glob { pieces: text.split('*').map(|piece| Piece(piece.to_owned())).collect() }
    }

    pub fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.pieces.split_first() else { return false };
        let Some(mut at) = first.length_at_start_of(text) else { return false };
        let Some((last, middle)) = rest.split_last() else { return at == text.len() };
        for piece in middle {
            // The leftmost place of a piece is as good as any: it leaves most for those after it.
            match piece.end_in(&text[at..]) {
                Some(end) => at += end,
                None => return false,
            }
        }
        last.is_at_end_of(&text[at..])
    }
}

impl Piece {
    fn length_at_start_of(&self, text: &str) -> Option<usize> {
        let mut characters = text.chars();
        let is_there = self.0.chars().all(|wanted| characters.next().is_some_and(|found| is_met(wanted, found)));
        is_there.then(|| text.len() - characters.as_str().len())
    }

    fn is_at_end_of(&self, text: &str) -> bool {
        let mut characters = text.chars().rev();
        self.0.chars().rev().all(|wanted| characters.next().is_some_and(|found| is_met(wanted, found)))
    }

    /// Where its first occurrence ends.
    fn end_in(&self, text: &str) -> Option<usize> {
        if !self.0.contains('?') {
            return Some(text.find(&self.0)? + self.0.len());
        }
        text.char_indices().find_map(|(at, _)| Some(at + self.length_at_start_of(&text[at..])?))
    }
}

fn is_met(wanted: char, found: char) -> bool {
    wanted == '?' || wanted == found
}

#[cfg(test)]
#[path = "resource_policies_tests.rs"]
mod tests;
