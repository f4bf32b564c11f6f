//! What a request says about its own signature: who signed, when, for what, and which headers.

use std::borrow::Cow;

use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::canonical::{Query, bounded};
use super::{Error, Request, SERVICE, is_access_key_id};

pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
pub(super) const TERMINATOR: &str = "aws4_request";

/// How far the signer's clock may be from ours, either way (AWS's five minutes).
const SKEW: SignedDuration = SignedDuration::from_secs(300);

/// The longest life of a presigned URL (AWS's seven days).
const LONGEST: i64 = 604_800;

/// An `Authorization` header; SDKs write about 300 bytes.
const AUTHORIZATION: usize = 4096;

/// A date in any of its spellings, an access key id's scope, and the like.
const SHORT: usize = 256;

pub(super) struct Claim<'a> {
    /// `id/date/region/service/aws4_request` as it was written; the next five are its parts.
    pub(super) credential: &'a str,
    pub(super) access_key_id: &'a str,
    pub(super) date: &'a str,
    pub(super) region: &'a str,
    service: &'a str,
    terminator: &'a str,
    pub(super) signed_headers: &'a str,
    pub(super) signature: &'a str,
    /// The moment of signing as it is written in the string to sign.
    pub(super) amz_date: Cow<'a, str>,
    signed_at: Timestamp,
    /// Of a presigned URL, from the moment of signing.
    life: Option<SignedDuration>,
}

/// The claim of the header if there is one, else of the query. Both at once is neither: the two could
/// disagree on who is calling.
pub(super) fn read<'a>(request: &Request<'a>, query: &'a Query<'_>) -> Result<Claim<'a>, Error> {
    let presigned =
        ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature"].iter().any(|name| query.all(name).next().is_some());
    let mut headers = request.headers.get_all(http::header::AUTHORIZATION).iter();
    match (headers.next(), headers.next()) {
        (None, _) if presigned => from_query(query),
        (None, _) => Err(Error::MissingAuthenticationToken),
        (Some(_), Some(_)) => Err(Error::Incomplete("there is more than one Authorization header")),
        (Some(_), None) if presigned => {
            Err(Error::Incomplete("there is an Authorization header and a presigned query; send one of them"))
        }
        (Some(header), None) => from_header(header.as_bytes(), request.headers),
    }
}

fn from_header<'a>(authorization: &'a [u8], headers: &'a http::HeaderMap) -> Result<Claim<'a>, Error> {
    bounded("the length of the Authorization header", authorization.len(), AUTHORIZATION)?;
    let fields = std::str::from_utf8(authorization)
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(algorithm, _)| *algorithm == ALGORITHM)
        .map(|(_, fields)| fields)
        .ok_or(Error::Incomplete("the Authorization header begins with `AWS4-HMAC-SHA256` and a space"))?;

    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for field in fields.split(',') {
        let (name, value) = field
            .trim_matches(' ')
            .split_once('=')
            .ok_or(Error::Incomplete("the Authorization header is a list of `name=value` with commas between them"))?;
        let slot = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed_headers,
            "Signature" => &mut signature,
            _ => {
                return Err(Error::Incomplete(
                    "the Authorization header has `Credential`, `SignedHeaders` and `Signature`, and nothing else",
                ));
            }
        };
        if slot.replace(value).is_some() {
            return Err(Error::Incomplete("the Authorization header names something twice"));
        }
    }
    let (amz_date, signed_at) = date_of(headers)?;
    Ok(Claim {
        signed_headers: some(signed_headers, "the Authorization header has no `SignedHeaders`")?,
        signature: some(signature, "the Authorization header has no `Signature`")?,
        ..scoped(some(credential, "the Authorization header has no `Credential`")?, amz_date, signed_at)?
    })
}

fn from_query<'a>(query: &'a Query<'_>) -> Result<Claim<'a>, Error> {
    let algorithm = one(query.all("X-Amz-Algorithm"), "X-Amz-Algorithm stands in the query once")?;
    if algorithm != Some(ALGORITHM) {
        return Err(Error::Incomplete("X-Amz-Algorithm is `AWS4-HMAC-SHA256`"));
    }
    let parameter = |name, without| some(one(query.all(name), without)?, without);
    let amz_date = parameter("X-Amz-Date", "X-Amz-Date stands in the query once")?;
    let signed_at = basic(amz_date).ok_or(Error::Incomplete("X-Amz-Date is written like `20261121T003945Z`"))?;
    let expires = parameter("X-Amz-Expires", "X-Amz-Expires stands in the query once")?;
    let credential = parameter("X-Amz-Credential", "X-Amz-Credential stands in the query once")?;
    Ok(Claim {
        signed_headers: parameter("X-Amz-SignedHeaders", "X-Amz-SignedHeaders stands in the query once")?,
        signature: parameter("X-Amz-Signature", "X-Amz-Signature stands in the query once")?,
        life: Some(life(expires)?),
        ..scoped(credential, Cow::Borrowed(amz_date), signed_at)?
    })
}

/// When a request with an `Authorization` header was signed: `X-Amz-Date` counts before `Date`, because
/// proxies and HTTP libraries set the latter on their own.
fn date_of(headers: &http::HeaderMap) -> Result<(Cow<'_, str>, Timestamp), Error> {
    let values = |name: &str| headers.get_all(name).into_iter().map(|value| value.as_bytes());
    if let Some(text) = one(values("x-amz-date"), "there is more than one X-Amz-Date header")? {
        let signed_at = basic(text).ok_or(Error::Incomplete("X-Amz-Date is written like `20261121T003945Z`"))?;
        return Ok((Cow::Borrowed(text), signed_at));
    }
    let text = one(values("date"), "there is more than one Date header")?;
    let text = some(text, "there is no X-Amz-Date header")?;
    bounded("the length of the Date header", text.len(), SHORT)?;
    if let Some(signed_at) = basic(text) {
        return Ok((Cow::Borrowed(text), signed_at));
    }
    let signed_at = rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .map_err(|_| Error::Incomplete("the Date header is written like `Sat, 21 Nov 2026 00:39:45 GMT`"))?;
    Ok((Cow::Owned(signed_at.strftime("%Y%m%dT%H%M%SZ").to_string()), signed_at))
}

fn scoped<'a>(credential: &'a str, amz_date: Cow<'a, str>, signed_at: Timestamp) -> Result<Claim<'a>, Error> {
    bounded("the length of the credential", credential.len(), SHORT)?;
    let parts: Vec<&str> = credential.split('/').collect();
    let &[access_key_id, date, region, service, terminator] = parts.as_slice() else {
        return Err(Error::Incomplete("the credential is `<access key id>/<date>/<region>/execute-api/aws4_request`"));
    };
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_access_key_id(access_key_id) || ![date, region, service, terminator].into_iter().all(is_word) {
        return Err(Error::Incomplete("a part of the credential is empty or has characters that none has"));
    }
    Ok(Claim {
        credential,
        access_key_id,
        date,
        region,
        service,
        terminator,
        signed_headers: "",
        signature: "",
        amz_date,
        signed_at,
        life: None,
    })
}

impl Claim<'_> {
    pub(super) fn scope(&self) -> &str {
        &self.credential[self.access_key_id.len() + 1..]
    }

    pub(super) fn check_scope(&self) -> Result<(), Error> {
        if self.service != SERVICE {
            return Err(Error::Service(self.service.to_owned()));
        }
        if self.terminator != TERMINATOR {
            return Err(Error::Terminator(self.terminator.to_owned()));
        }
        if !self.amz_date.starts_with(self.date) || self.date.len() != 8 {
            return Err(Error::Day { scope: self.date.to_owned(), signed_at: self.signed_at });
        }
        Ok(())
    }

    pub(super) fn check_time(&self, now: Timestamp) -> Result<(), Error> {
        let signed_at = self.signed_at;
        let age = now.duration_since(signed_at);
        if age < -SKEW {
            return Err(Error::NotYet { signed_at, now });
        }
        let life = self.life.unwrap_or(SKEW);
        if age > life {
            // Past the end of time there is nothing to show but the end of time.
            let until = signed_at.checked_add(life).unwrap_or(Timestamp::MAX);
            return Err(Error::Expired { signed_at, until, now });
        }
        Ok(())
    }
}

/// The one value, as text; `otherwise` says what is wrong with two, or with bytes that are no text.
fn one<'v>(mut values: impl Iterator<Item = &'v [u8]>, otherwise: &'static str) -> Result<Option<&'v str>, Error> {
    let first = values.next();
    if values.next().is_some() {
        return Err(Error::Incomplete(otherwise));
    }
    first.map(|bytes| std::str::from_utf8(bytes).map_err(|_| Error::Incomplete(otherwise))).transpose()
}

fn some<'v>(value: Option<&'v str>, otherwise: &'static str) -> Result<&'v str, Error> {
    value.filter(|value| !value.is_empty()).ok_or(Error::Incomplete(otherwise))
}

fn life(expires: &str) -> Result<SignedDuration, Error> {
    let digits = expires.bytes().all(|byte| byte.is_ascii_digit());
    expires
        .parse()
        .ok()
        .filter(|seconds| digits && (1..=LONGEST).contains(seconds))
        .map(SignedDuration::from_secs)
        .ok_or(Error::Incomplete("X-Amz-Expires is whole seconds from 1 to 604800"))
}

/// A moment in ISO 8601's basic form, `20261121T003945Z`, and in no other.
fn basic(text: &str) -> Option<Timestamp> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    if date.len() != 8 || time.len() != 6 || !date.bytes().chain(time.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let two = |text: &str, at: usize| text.get(at..at + 2)?.parse::<i8>().ok();
    let year = date.get(..4)?.parse().ok()?;
    let moment = DateTime::new(year, two(date, 4)?, two(date, 6)?, two(time, 0)?, two(time, 2)?, two(time, 4)?, 0);
    Some(moment.ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_one_basic_form() {
        let check = |text, seconds| assert_eq!(basic(text).map(Timestamp::as_second), seconds, "{text}");
        check("20261121T003945Z", Some(1_795_221_585));
        check("19700101T000000Z", Some(0));
        check("20260229T000000Z", None);
        check("20261121T003960Z", None);
        check("20261121T003945", None);
        check("2026-11-21T00:39:45Z", None);
        check("2026112ZT003945Z", None);
        check("+2261121T003945Z", None);
        check("ä261121T003945Z", None);
        check("", None);
    }

    #[test]
    fn lives_are_whole_seconds_up_to_a_week() {
        let check = |text, seconds| {
            assert_eq!(life(text).ok().map(|life| life.as_secs()), seconds, "{text}");
        };
        check("1", Some(1));
        check("604800", Some(604_800));
        check("604801", None);
        check("0", None);
        check("-1", None);
        check("+5", None);
        check("5.5", None);
        check("", None);
        check("99999999999999999999", None);
    }
}
