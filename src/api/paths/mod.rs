//! Which HTTP route a request takes, by its method and path.
//!
//! Every route key is a walk through one tree of segments. A request can take several walks: a literal
//! segment and a variable may both fit. Of all that fit, the most specific path wins, and then, among the
//! keys of that very path, the exact method before `ANY`:
//!
//! 1. paths without `{name+}`, the most literal segments first, on a tie the one literal further left;
//! 2. paths with `{name+}`, the most segments before it first, then as above;
//! 3. `$default`.
//!
//! A path that has no key for the request's method is passed over. How specific a path is does not depend
//! on the request, so it is a rank given once, and a branch that holds nothing better than what is already
//! found is not walked. In a tree no place is reached twice, and a request's segments are looked up before
//! the walk: the costliest request reads its path once and then each segment of the route keys once.

mod key;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

pub use key::RouteKey;
use key::{Segment, Target};

/// The routes of an HTTP API by their keys, with a `T` for each.
pub struct Paths<T> {
    routes: Vec<Route<T>>,
    /// The index of `$default` in `routes`.
    default: Option<usize>,
    /// The tree; the first is its root, before any segment.
    nodes: Vec<Node>,
    /// Every literal segment of the keys, numbered, so that a request's are compared as numbers.
    words: HashMap<Box<str>, u32>,
    /// The segments of the longest key; of a longer request no more are looked at.
    depth: usize,
}

struct Route<T> {
    segments: Vec<Segment>,
    value: T,
}

struct Node {
    /// What a literal segment leads to, in the order of the words' numbers.
    literals: Vec<(u32, usize)>,
    /// What a variable leads to.
    variable: Option<usize>,
    /// The keys that end here.
    full: Option<Leaf>,
    /// The keys that have a `{name+}` here.
    greedy: Option<Leaf>,
    /// The best rank from here on.
    best: usize,
}

/// All keys that are the same but for their methods and the names of their variables.
struct Leaf {
    /// 0 is the most specific. Of two that share a rank the walk reaches the better one first.
    rank: usize,
    /// `None` is `ANY`; the number is the route's.
    methods: Vec<(Option<Method>, usize)>,
}

/// Where a request leads.
#[derive(Debug, PartialEq)]
pub enum Outcome<'r, T> {
    Found(Found<'r, T>),
    /// No route key matches.
    Nothing,
    /// The path has a `.` or `..` segment, plain or as `%2e`. Backends resolve these, each in its own way, and
    /// would answer for a path that no route let through.
    DotSegment,
}

/// A route, and what the variables of its key stand for.
#[derive(Debug, PartialEq)]
pub struct Found<'r, T> {
    pub route: &'r T,
    /// In the order of the key, as they are on the wire.
    pub parameters: Vec<(Arc<str>, String)>,
}

/// Two route keys of which one would never be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{second}` matches the same requests as `{first}`")]
pub struct Clash {
    pub first: String,
    pub second: String,
}

impl<T> Paths<T> {
    /// Fails with every clash. Names of variables make no difference to what a key matches: `GET /a/{x}` and
    /// `GET /a/{y}` clash.
    pub fn new(routes: Vec<(RouteKey, T)>) -> Result<Paths<T>, Vec<Clash>> {
        let mut paths =
            Paths { routes: Vec::new(), default: None, nodes: vec![Node::new()], words: HashMap::new(), depth: 0 };
        let ranks = ranks(routes.iter().filter_map(|(key, _)| key.target()));
        let (mut texts, mut clashes) = (Vec::new(), Vec::new());
        for (key, value) in routes {
            let index = paths.routes.len();
            let (text, target) = key.into_parts();
            let taken = match &target {
                Some(target) => paths.plant(target, &ranks, index),
                None => {
                    let taken = paths.default;
                    paths.default = taken.or(Some(index));
                    taken
                }
            };
            if let Some(taken) = taken {
                let first: &String = &texts[taken];
                clashes.push(Clash { first: first.clone(), second: text.clone() });
            }
            texts.push(text);
            let segments = target.map_or_else(Vec::new, |target| target.segments);
            paths.routes.push(Route { segments, value });
        }
        if clashes.is_empty() { Ok(paths) } else { Err(clashes) }
    }

    /// The route that a request takes. The path is as it is on the wire; that it begins with `/` goes without
    /// saying. Escapes of characters that need none are equal to these (`%70ets` is `pets`), and `%2F` is no
    /// separator.
    pub fn find(&self, method: &Method, path: &str) -> Outcome<'_, T> {
        let Some((pieces, count)) = self.pieces(path) else { return Outcome::DotSegment };
        match self.search(method, &pieces, count).or(self.default) {
            Some(index) => Outcome::Found(self.routes[index].found(&pieces)),
            None => Outcome::Nothing,
        }
    }

    /// All routes, in the order they came in.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.routes.iter().map(|route| &route.value)
    }

    /// As many segments of a path as any key has, and how many the path has; `None` if one is a dot segment.
    fn pieces<'p>(&self, path: &'p str) -> Option<(Vec<Piece<'p>>, usize)> {
        let (mut pieces, mut count) = (Vec::with_capacity(self.depth), 0);
        let mut left = Some(path.strip_prefix('/').unwrap_or(path));
        while let Some(rest) = left {
            let (text, after) = rest.split_once('/').map_or((rest, None), |(text, after)| (text, Some(after)));
            if is_dot_segment(text) {
                return None;
            }
            if count < self.depth {
                pieces.push(Piece { text, rest, word: self.words.get(&*plain(text)).copied() });
            }
            count += 1;
            left = after;
        }
        Some((pieces, count))
    }

    /// The route of the best rank among all that fit, and of those the first: literal branches are walked
    /// before variables, so that on a tie the one with a literal further left is taken. At most one branch
    /// waits at each segment.
    fn search(&self, method: &Method, pieces: &[Piece], count: usize) -> Option<usize> {
        let (mut best, mut found) = (usize::MAX, None);
        let mut to_walk = Vec::with_capacity(pieces.len() + 1);
        to_walk.push((0, 0));
        while let Some((at, depth)) = to_walk.pop() {
            let node: &Node = &self.nodes[at];
            if node.best >= best {
                continue;
            }
            let leaf = match pieces.get(depth) {
                // Only at the root may a `{name+}` be empty: `/{proxy+}` matches `/` as well.
                Some(piece) if depth == 0 || !piece.rest.is_empty() => node.greedy.as_ref(),
                None if depth == count => node.full.as_ref(),
                _ => None,
            };
            let leaf = leaf.filter(|leaf| leaf.rank < best);
            if let Some((leaf, index)) = leaf.and_then(|leaf| Some((leaf, leaf.route(method)?))) {
                (best, found) = (leaf.rank, Some(index));
            }
            let Some(piece) = pieces.get(depth) else { continue };
            let variable = node.variable.filter(|_| !piece.text.is_empty());
            let literal = piece.word.and_then(|word| node.literal(word));
            to_walk.extend([variable, literal].into_iter().flatten().map(|node| (node, depth + 1)));
        }
        found
    }

    /// Adds a key to the tree, unless it has its like there: then gives that one's index.
    fn plant(&mut self, target: &Target, ranks: &[Specificity], index: usize) -> Option<usize> {
        let own = Specificity::of(target);
        let rank = ranks.partition_point(|other| *other < own);
        self.depth = self.depth.max(target.segments.len());
        let (mut at, mut is_greedy) = (0, false);
        for segment in &target.segments {
            self.nodes[at].best = self.nodes[at].best.min(rank);
            match segment {
                Segment::Literal(text) => at = self.grow_literal(at, text),
                Segment::Variable(_) => at = self.grow_variable(at),
                Segment::Greedy(_) => is_greedy = true,
            }
        }
        let node = &mut self.nodes[at];
        node.best = node.best.min(rank);
        let leaf = if is_greedy { &mut node.greedy } else { &mut node.full };
        let methods = &mut leaf.get_or_insert(Leaf { rank, methods: Vec::new() }).methods;
        let taken = methods.iter().find(|(method, _)| *method == target.method).map(|(_, index)| *index);
        if taken.is_none() {
            methods.push((target.method.clone(), index));
        }
        taken
    }

    fn grow_literal(&mut self, at: usize, text: &str) -> usize {
        let number = self.words.len() as u32;
        let word = *self.words.entry(text.into()).or_insert(number);
        let grown = self.nodes.len();
        let literals = &mut self.nodes[at].literals;
        match literals.binary_search_by_key(&word, |(word, _)| *word) {
            Ok(place) => literals[place].1,
            Err(place) => {
                literals.insert(place, (word, grown));
                self.nodes.push(Node::new());
                grown
            }
        }
    }

    fn grow_variable(&mut self, at: usize) -> usize {
        let grown = self.nodes.len();
        let variable = *self.nodes[at].variable.get_or_insert(grown);
        if variable == grown {
            self.nodes.push(Node::new());
        }
        variable
    }
}

impl<T> Route<T> {
    fn found(&self, pieces: &[Piece]) -> Found<'_, T> {
        let parameters = self.segments.iter().zip(pieces).filter_map(|(segment, piece)| match segment {
            Segment::Literal(_) => None,
            Segment::Variable(name) => Some((name.clone(), piece.text.to_owned())),
            Segment::Greedy(name) => Some((name.clone(), piece.rest.to_owned())),
        });
        Found { route: &self.value, parameters: parameters.collect() }
    }
}

impl Node {
    fn new() -> Node {
        Node { literals: Vec::new(), variable: None, full: None, greedy: None, best: usize::MAX }
    }

    fn literal(&self, word: u32) -> Option<usize> {
        let place = self.literals.binary_search_by_key(&word, |(word, _)| *word).ok()?;
        Some(self.literals[place].1)
    }
}

impl Leaf {
    fn route(&self, method: &Method) -> Option<usize> {
        let of = |wanted| self.methods.iter().find(|(own, _)| own.as_ref() == wanted).map(|(_, index)| *index);
        of(Some(method)).or_else(|| of(None))
    }
}

/// One segment of a request's path.
struct Piece<'p> {
    text: &'p str,
    /// The path from this segment on.
    rest: &'p str,
    /// Its number, if it is a literal of any key.
    word: Option<u32>,
}

/// How specific a path is; the most specific is the least. Which literal is further left is for the walk.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Specificity {
    is_greedy: bool,
    /// Without a `{name+}` all paths that match a request are of one length.
    before_greedy: Reverse<usize>,
    literals: Reverse<usize>,
}

impl Specificity {
    fn of(target: &Target) -> Specificity {
        let is_literal = |segment: &&Segment| matches!(segment, Segment::Literal(_));
        let is_greedy = matches!(target.segments.last(), Some(Segment::Greedy(_)));
        Specificity {
            is_greedy,
            before_greedy: Reverse(if is_greedy { target.segments.len() } else { 0 }),
            literals: Reverse(target.segments.iter().filter(is_literal).count()),
        }
    }
}

/// The specificities that there are; the place of one is its rank.
fn ranks<'k>(targets: impl Iterator<Item = &'k Target>) -> Vec<Specificity> {
    let mut ranks: Vec<_> = targets.map(Specificity::of).collect();
    ranks.sort();
    ranks.dedup();
    ranks
}

fn is_dot_segment(text: &str) -> bool {
    text.starts_with(['.', '%']) && text.len() <= "%2e%2e".len() && matches!(&*plain(text), "." | "..")
}

/// A segment with the escapes undone that nobody needed: those of letters, digits and `-._~` (RFC 3986, 6.2.2.2).
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('%') {
        plain.push_str(before);
        match unreserved(escape) {
            Some(character) => {
                plain.push(character);
                rest = &escape[2..];
            }
            None => {
                plain.push('%');
                rest = escape;
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// What the two digits at the beginning stand for, if that needs no escape.
fn unreserved(digits: &str) -> Option<char> {
    let digit = |at: usize| char::from(*digits.as_bytes().get(at)?).to_digit(16);
    let character = char::from_u32(digit(0)? * 16 + digit(1)?)?;
    (character.is_ascii_alphanumeric() || "-._~".contains(character)).then_some(character)
}
