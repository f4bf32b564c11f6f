//! The dashboard's own files, which are part of the binary.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::model::answer::{self, Answer};

struct File {
    path: &'static str,
    kind: &'static str,
    content: &'static [u8],
}

macro_rules! files {
    ($($path:literal $file:literal $kind:literal,)*) => {
        &[$(File { path: $path, kind: $kind, content: include_bytes!(concat!("page/", $file)) }),*]
    };
}

const FILES: &[File] = files! {
    "/api.js" "api.js" "text/javascript; charset=utf-8",
    "/charts.js" "charts.js" "text/javascript; charset=utf-8",
    "/connections.js" "connections.js" "text/javascript; charset=utf-8",
    "/dashboard.css" "dashboard.css" "text/css; charset=utf-8",
    "/dashboard.js" "dashboard.js" "text/javascript; charset=utf-8",
    "/dom.js" "dom.js" "text/javascript; charset=utf-8",
    "/favicon.svg" "favicon.svg" "image/svg+xml",
    "/format.js" "format.js" "text/javascript; charset=utf-8",
    "/" "index.html" "text/html; charset=utf-8",
    "/live.js" "live.js" "text/javascript; charset=utf-8",
    "/metrics.js" "metrics.js" "text/javascript; charset=utf-8",
    "/overview.js" "overview.js" "text/javascript; charset=utf-8",
    "/playground.js" "playground.js" "text/javascript; charset=utf-8",
    "/push.js" "push.js" "text/javascript; charset=utf-8",
    "/routes.js" "routes.js" "text/javascript; charset=utf-8",
    "/status.js" "status.js" "text/javascript; charset=utf-8",
    "/uplot.css" "uplot.css" "text/css; charset=utf-8",
    "/uplot.js" "uplot.js" "text/javascript; charset=utf-8",
};

/// The file at this path. A browser asks each time whether it has changed, so that a new gateway has its own page.
pub fn answer(path: &str, headers: &HeaderMap) -> Option<Answer> {
    let file = FILES.iter().find(|file| file.path == path)?;
    let etag = etag(file.content);
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| *known == etag);
    let mut answer = match is_known {
        true => answer::plain(StatusCode::NOT_MODIFIED, ""),
        false => answer::plain(StatusCode::OK, file.content),
    };
    let answer_headers = answer.headers_mut();
    answer_headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.kind));
    answer_headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer_headers.insert(ETAG, etag);
    Some(answer)
}

fn etag(content: &[u8]) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    HeaderValue::from_str(&format!("\"{:016x}\"", hasher.finish())).expect("hexadecimal digits are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/transports/dashboard/page");
        for file in std::fs::read_dir(folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let path = if name == "index.html" { "/".to_owned() } else { format!("/{name}") };
            let is_served = FILES.iter().any(|file| file.path == path);
            assert_eq!(is_served, !name.ends_with(".LICENSE"), "{name}");
        }
    }

    #[test]
    fn a_known_file_is_not_sent_again() {
        let answer = |headers: &HeaderMap| answer("/", headers).unwrap();
        let first = answer(&HeaderMap::new());
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        assert_eq!((first.status(), answer(&headers).status()), (StatusCode::OK, StatusCode::NOT_MODIFIED));
        assert!(super::answer("/nope.js", &headers).is_none());
    }
}
