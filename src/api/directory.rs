//! Where a request goes, by its host and path.
//!
//! Every stage has one place for each domain of its API: a host pattern and a path. The places are
//! kept in the order in which they are asked: an exact host, a wildcard, no host; then the longest
//! base path; then a named stage before `$default`.

use std::cmp::Reverse;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::stage::Stage;

#[derive(Default)]
pub struct Directory {
    places: Vec<Place>,
}

/// One address of a stage.
#[derive(Clone)]
pub struct Place {
    pub host: Host,
    /// The API's base path there: "" or "/chat".
    pub base_path: String,
    /// The stage's own segment, unless it has none: a `$default` stage, or a domain that names its stage.
    pub segment: Option<String>,
    pub stage: Arc<Stage>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    Exact(String),
    /// `*.example.com`, kept as `.example.com`.
    Wildcard(String),
    Any,
}

/// What a path names.
pub enum Destination<'d> {
    /// The stage itself: where clients connect.
    Stage(&'d Place),
    /// `{stage}/@connections/{id}`, with the id decoded.
    Connection(&'d Place, String),
    /// Somewhere below a stage where nothing is.
    Below(&'d Place),
    /// A path of the `@connections` API that names no stage.
    StrayConnection,
    Nowhere,
}

impl Host {
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix('*') {
            Some(suffix) => Host::Wildcard(suffix.to_ascii_lowercase()),
            None => Host::Exact(text.to_ascii_lowercase()),
        }
    }

    pub fn matches(&self, host: &str) -> bool {
        match self {
            Host::Exact(exact) => exact.eq_ignore_ascii_case(host),
            // One label stands for the star, as in certificates.
            Host::Wildcard(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .filter(|label| *label > 0 && host.is_char_boundary(*label))
                .is_some_and(|label| host[label..].eq_ignore_ascii_case(suffix) && !host[..label].contains('.')),
            Host::Any => true,
        }
    }
}

impl Place {
    /// The path of the place: "", "/prod", "/chat/prod".
    pub fn path(&self) -> String {
        match &self.segment {
            Some(segment) => format!("{}/{segment}", self.base_path),
            None => self.base_path.clone(),
        }
    }

    /// What is left of a path behind this place; `None` if it does not lead here.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(self.base_path.as_str())?;
        let rest = match &self.segment {
            Some(segment) => {
                rest.trim_start_matches('/').strip_prefix(segment.as_str()).filter(|_| rest.starts_with('/'))?
            }
            None => rest,
        };
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

impl Directory {
    pub fn new(mut places: Vec<Place>) -> Self {
        places.sort_by_key(|place| {
            let host = match place.host {
                Host::Exact(_) => 0,
                Host::Wildcard(_) => 1,
                Host::Any => 2,
            };
            (host, Reverse(place.base_path.len()), place.segment.is_none())
        });
        Self { places }
    }

    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// `host` is without its port. The path is as it was on the wire; a stage's name never needs escapes.
    pub fn find(&self, host: &str, path: &str) -> Destination<'_> {
        let mut below = None;
        for place in self.places.iter().filter(|place| place.host.matches(host)) {
            let Some(rest) = place.rest(path) else { continue };
            let mut segments = rest.split('/').filter(|segment| !segment.is_empty());
            match (segments.next(), segments.next(), segments.next()) {
                (None, ..) => return Destination::Stage(place),
                (Some(first), Some(id), None) if is_connections(first) => {
                    let id = percent_decode_str(id).decode_utf8_lossy().into_owned();
                    return Destination::Connection(place, id);
                }
                _ => below = below.or(Some(place)),
            }
        }
        if path.split('/').any(is_connections) {
            // A stage's own `@connections` without an id is no path of the API; any other names no stage.
            let is_own = |place: &&Place| {
                place
                    .rest(path)
                    .and_then(|rest| rest.split('/').find(|segment| !segment.is_empty()))
                    .is_some_and(is_connections)
            };
            return below.filter(is_own).map_or(Destination::StrayConnection, Destination::Below);
        }
        below.map_or(Destination::Nowhere, Destination::Below)
    }
}

fn is_connections(segment: &str) -> bool {
    segment == "@connections" || segment.eq_ignore_ascii_case("%40connections")
}
