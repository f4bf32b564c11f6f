//! Rebuilds the text that was signed from the request that came.
//!
//! The rule that fits every SDK recorded so far: the path is collapsed as it stood on the wire and then
//! encoded once more, so `%3D` becomes `%253D`; the query is decoded and encoded anew, so spellings do not matter.

use std::borrow::Cow;

use http::HeaderName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::{Error, Request};

/// Header names in one signature. SDKs sign about ten.
const SIGNED_HEADERS: usize = 64;

/// All signed header values together; above what one request head may hold.
const SIGNED_BYTES: usize = 16 * 1024;

/// Path, and query: AWS's quota on a URL.
const URL: usize = 4096;

/// Parameters of one query. A presigned URL has eight and its own few.
const PARAMETERS: usize = 128;

const OUTSIDE_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const OUTSIDE_PATH: &AsciiSet = &OUTSIDE_UNRESERVED.remove(b'/');

/// The decoded parameters of a query, in the order of the wire. A `+` stays a plus: the signers of the
/// SDKs write a space as `%20`.
pub(super) struct Query<'a> {
    pairs: Vec<Parameter<'a>>,
}

/// A name and its value.
type Parameter<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

impl<'a> Query<'a> {
    pub(super) fn read(query: Option<&'a str>) -> Result<Query<'a>, Error> {
        let query = query.unwrap_or_default();
        bounded("the length of the query", query.len(), URL)?;
        let parts = || query.split('&').filter(|part| !part.is_empty());
        bounded("the number of query parameters", parts().count(), PARAMETERS)?;
        let pairs = parts()
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .map(|(name, value)| (percent_decode_str(name).into(), percent_decode_str(value).into()))
            .collect();
        Ok(Query { pairs })
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.pairs.iter().filter(move |pair| &*pair.0 == name.as_bytes()).map(|pair| &*pair.1)
    }

    fn canonical(&self) -> String {
        let encode = |bytes| percent_encode(bytes, OUTSIDE_UNRESERVED).to_string();
        let mut pairs: Vec<(String, String)> = self
            .pairs
            .iter()
            .filter(|(name, _)| &**name != b"X-Amz-Signature")
            .map(|(name, value)| (encode(name), encode(value)))
            .collect();
        pairs.sort_unstable();
        let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("&")
    }
}

/// The canonical request, in bytes because header values need not be UTF-8.
pub(super) fn request(
    request: &Request<'_>,
    query: &Query<'_>,
    signed_headers: &str,
    payload: &str,
) -> Result<Vec<u8>, Error> {
    bounded("the length of the path", request.path.len(), URL)?;
    let path = collapse(request.path);
    let path = percent_encode(path.as_bytes(), OUTSIDE_PATH);
    let mut text = format!("{}\n{path}\n{}\n", request.method, query.canonical()).into_bytes();
    write_headers(&mut text, request.headers, signed_headers)?;
    text.extend_from_slice(format!("\n{signed_headers}\n{payload}").as_bytes());
    Ok(text)
}

/// The path without empty and dot segments, as SDKs sign it: `/prod//@connections/x` is
/// `/prod/@connections/x`. Whoever routes a signed request has to look at this form, or a signature for one
/// resource would reach another. Escapes are left alone, so `%2E%2E` is an ordinary segment.
pub fn collapse(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let mut segments = Vec::new();
    let mut ends_in_slash = true;
    for segment in path.split('/') {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let mut collapsed = String::with_capacity(path.len() + 1);
    for segment in &segments {
        collapsed.push('/');
        collapsed.push_str(segment);
    }
    if ends_in_slash || segments.is_empty() {
        collapsed.push('/');
    }
    Cow::Owned(collapsed)
}

fn write_headers(text: &mut Vec<u8>, headers: &http::HeaderMap, signed_headers: &str) -> Result<(), Error> {
    let names = || signed_headers.split(';');
    bounded("the number of signed headers", names().count(), SIGNED_HEADERS)?;
    // Names that are no header names would not be found anyway, but a decoded newline must not reach a log.
    let is_lower_case_name = |name: &str| HeaderName::from_lowercase(name.as_bytes()).is_ok();
    if !names().is_sorted_by(|a, b| a < b) || !names().all(is_lower_case_name) {
        return Err(Error::Incomplete("SignedHeaders are lower-case names, sorted, each once, with `;` between them"));
    }
    if !names().any(|name| name == "host") {
        return Err(Error::HostNotSigned);
    }
    let start = text.len();
    for name in names() {
        let mut values = headers.get_all(name).iter();
        let first = values.next().ok_or_else(|| Error::HeaderAbsent(name.to_owned()))?;
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        write_collapsed(text, first.as_bytes());
        for value in values {
            text.push(b',');
            write_collapsed(text, value.as_bytes());
        }
        text.push(b'\n');
        bounded("the length of the signed headers", text.len() - start, SIGNED_BYTES)?;
    }
    Ok(())
}

/// A value without outer spaces and with one space where there were several. Tabs stay: signers
/// trim spaces only.
fn write_collapsed(text: &mut Vec<u8>, value: &[u8]) {
    let words = value.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    for (index, word) in words.enumerate() {
        if index > 0 {
            text.push(b' ');
        }
        text.extend_from_slice(word);
    }
}

pub(super) fn bounded(what: &'static str, size: usize, most: usize) -> Result<(), Error> {
    if size > most {
        return Err(Error::TooLong { what, most });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_collapse_as_signers_do_it() {
        let check = |path, collapsed: &str| assert_eq!(collapse(path), collapsed, "{path}");
        check("/prod/@connections/a%3D", "/prod/@connections/a%3D");
        check("/prod//@connections/a", "/prod/@connections/a");
        check("", "/");
        check("/", "/");
        check("//", "/");
        check("prod", "/prod");
        check("/a/./b/../c", "/a/c");
        check("/a/..", "/");
        check("/a/b/..", "/a/");
        check("/a/.", "/a/");
        check("/../../a/", "/a/");
        check("/.well-known/a.b", "/.well-known/a.b");
        check("/a/%2E%2E/b", "/a/%2E%2E/b");
    }

    #[test]
    fn queries_are_sorted_and_encoded_anew() {
        let check = |query, canonical: &str| {
            let read = Query::read(Some(query)).expect("a short query");
            assert_eq!(read.canonical(), canonical, "{query}");
        };
        check("", "");
        check("b=2&a=1&a=0", "a=0&a=1&b=2");
        check("a", "a=");
        check("&&a=b=c&", "a=b%3Dc");
        check("a-b=1&a=1", "a=1&a-b=1");
        check("%61=%7e%2f", "a=~%2F");
        check("a=b+c", "a=b%2Bc");
        check("a=%zz", "a=%25zz");
        check("a=1&X-Amz-Signature=f", "a=1");
    }
}
