//! Where a request goes, by its host and path.
//!
//! Every stage has one place for each domain of its API: a host pattern and a path. The places are
//! kept in the order in which they are asked: an exact host, a wildcard, no host; then the longest
//! base path; then a named stage before `$default`.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::http_stage::HttpStage;
use super::stage::Stage;
use crate::model::client::StageKey;

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
    pub served: Served,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    Exact(String),
    /// `*.example.com`, kept as `.example.com`.
    Wildcard(String),
    Any,
}

/// What stands at a place.
#[derive(Clone)]
pub enum Served {
    Sockets(Arc<Stage>),
    Requests(Arc<HttpStage>),
}

/// What a host and a path name, by the kinds of API that there are.
#[derive(Default)]
pub struct Destination<'d> {
    /// `{stage}/@connections/{id}` of a WebSocket API, with the id decoded.
    pub connection: Option<(&'d Place, &'d Arc<Stage>, String)>,
    /// A WebSocket stage itself: where clients connect.
    pub socket: Option<(&'d Place, &'d Arc<Stage>)>,
    /// The stage of an HTTP API that the path leads into.
    pub requests: Option<(&'d Place, &'d Arc<HttpStage>)>,
    /// That is a WebSocket stage's own, with no id behind it or too much.
    pub is_below_connections: bool,
    /// Somebody answers to the host.
    pub is_host_known: bool,
    /// Somebody who answers to the host speaks HTTP.
    pub is_host_of_requests: bool,
}

impl Served {
    pub fn key(&self) -> &StageKey {
        match self {
            Served::Sockets(stage) => &stage.key,
            Served::Requests(stage) => &stage.key,
        }
    }

    pub fn is_of_requests(&self) -> bool {
        matches!(self, Served::Requests(_))
    }
}

impl fmt::Display for Host {
    /// As the file has it; nothing for every host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Exact(host) => f.write_str(host),
            Host::Wildcard(rest) => write!(f, "*{rest}"),
            Host::Any => Ok(()),
        }
    }
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
    /// Host and path, as far as the file says any.
    pub fn shown(&self) -> String {
        let shown = self.host.to_string() + &self.path();
        if shown.is_empty() { "/".to_owned() } else { shown }
    }

    /// The path of the place: "", "/prod", "/chat/prod".
    pub fn path(&self) -> String {
        self.path_pieces().concat()
    }

    pub fn path_pieces(&self) -> [&str; 3] {
        match &self.segment {
            Some(segment) => [&self.base_path, "/", segment],
            None => [&self.base_path, "", ""],
        }
    }

    /// The stage that answers here.
    pub fn key(&self) -> &StageKey {
        self.served.key()
    }

    /// What is left of a path behind this place; `None` if it does not lead here.
    pub fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(self.base_path.as_str())?;
        let rest = match &self.segment {
            Some(segment) => {
                let below = match self.served {
                    // Slashes too many do a socket no harm; in a path of HTTP they stand for an empty segment.
                    Served::Sockets(_) => rest.trim_start_matches('/'),
                    Served::Requests(_) => rest.strip_prefix('/')?,
                };
                below.strip_prefix(segment.as_str()).filter(|_| rest.starts_with('/'))?
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
        let mut found = Destination::default();
        for place in self.places.iter().filter(|place| place.host.matches(host)) {
            found.is_host_known = true;
            found.is_host_of_requests |= matches!(place.served, Served::Requests(_));
            let Some(rest) = place.rest(path) else { continue };
            match &place.served {
                Served::Requests(stage) => {
                    found.requests.get_or_insert((place, stage));
                }
                Served::Sockets(stage) => match below(rest) {
                    Below::Nothing => {
                        found.socket.get_or_insert((place, stage));
                    }
                    Below::Connection(id) => {
                        found.connection.get_or_insert_with(|| (place, stage, decoded(id)));
                    }
                    Below::Connections => found.is_below_connections = true,
                    Below::Else => {}
                },
            }
        }
        found
    }
}

/// What of a WebSocket stage a path below it names.
enum Below<'p> {
    /// The stage itself.
    Nothing,
    Connection(&'p str),
    /// `@connections`, with no id behind it or too much.
    Connections,
    Else,
}

fn below(rest: &str) -> Below<'_> {
    // As every SDK writes it.
    if let Some(id) = rest.strip_prefix("/@connections/").filter(|id| !id.is_empty() && !id.contains('/')) {
        return Below::Connection(id);
    }
    let mut segments = rest.split('/').filter(|segment| !segment.is_empty());
    match (segments.next(), segments.next(), segments.next()) {
        (None, ..) => Below::Nothing,
        (Some(first), ..) if !is_connections(first) => Below::Else,
        (_, Some(id), None) => Below::Connection(id),
        _ => Below::Connections,
    }
}

/// Whether `@connections` stands in a path.
pub fn names_connections(path: &str) -> bool {
    path.bytes().any(|byte| matches!(byte, b'@' | b'%')) && path.split('/').any(is_connections)
}

fn decoded(id: &str) -> String {
    match id.strip_suffix("%3D") {
        // As every SDK writes one of ours.
        Some(start) if !start.contains('%') => [start, "="].concat(),
        _ => percent_decode_str(id).decode_utf8_lossy().into_owned(),
    }
}

fn is_connections(segment: &str) -> bool {
    segment == "@connections" || segment.eq_ignore_ascii_case("%40connections")
}
