//! Names and their values in the three ways events list them: joined, the last of each name, all of each name.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// In the order of their names, as AWS lists them; the values of one name are in the order they came in.
pub struct Pairs<'a>(Vec<Pair<'a>>);

impl<'a> Pairs<'a> {
    pub fn new(mut pairs: Vec<Pair<'a>>) -> Self {
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self(pairs)
    }

    /// `None` if there are none: events show no empty maps.
    pub fn unless_empty(pairs: Vec<Pair<'a>>) -> Option<Self> {
        (!pairs.is_empty()).then(|| Self::new(pairs))
    }

    /// The pairs of each name.
    fn by_name(&self) -> impl Iterator<Item = &[Pair<'a>]> {
        self.0.chunk_by(|(one, _), (other, _)| one == other)
    }
}

/// Each name with its values joined by `,`.
pub struct Joined<'a>(pub Pairs<'a>);

/// Each name with its last value.
pub struct Last<'p>(pub &'p Pairs<'p>);

/// Each name with the list of its values.
pub struct All<'p>(pub &'p Pairs<'p>);

impl Serialize for Joined<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.by_name().map(|same| (&same[0].0, joined(same))))
    }
}

impl Serialize for Last<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.by_name().filter_map(<[_]>::last).map(|(name, value)| (name, value)))
    }
}

impl Serialize for All<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.by_name().map(|same| (&same[0].0, Values(same))))
    }
}

struct Values<'p>(&'p [Pair<'p>]);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(_, value)| value))
    }
}

fn joined<'p>(same: &'p [Pair<'_>]) -> Cow<'p, str> {
    match same {
        [(_, value)] => Cow::Borrowed(value),
        _ => Cow::Owned(same.iter().map(|(_, value)| &**value).collect::<Vec<_>>().join(",")),
    }
}
