//! Which coding a client gets: what `Accept-Encoding` says by RFC 9110 section 12.5.3, then our own preference.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use crate::model::headers;

/// What a body can be compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    /// The first that a client weighs as much as any other is taken: the quickest for what it saves.
    const PREFERRED: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    /// Its name in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }

    fn is_named(self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.name()) || self == Coding::Gzip && name.eq_ignore_ascii_case("x-gzip")
    }
}

/// The coding a client likes best; `None` means as it is. That is also what it gets if it accepts nothing at all:
/// an answer it may not want is better than none.
pub fn choose(request: &HeaderMap) -> Option<Coding> {
    let members: Vec<(&str, u16)> = headers::members(request, &ACCEPT_ENCODING).filter_map(weighed).collect();
    let weight_of = |is_it: &dyn Fn(&str) -> bool| {
        let found =
            members.iter().find(|(name, _)| is_it(name)).or_else(|| members.iter().find(|(name, _)| *name == "*"));
        found.map_or(0, |(_, weight)| *weight)
    };
    // One that names codings and not `identity` takes it as well, but asked for something else.
    let plain = weight_of(&|name| name.eq_ignore_ascii_case("identity"));
    let weighed = Coding::PREFERRED.map(|coding| (coding, weight_of(&|name| coding.is_named(name))));
    let best = weighed.into_iter().reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.filter(|(_, weight)| *weight > 0 && *weight >= plain).map(|(coding, _)| coding)
}

/// `gzip;q=0.5` as the name and its weight in thousandths; what cannot be read was not said.
fn weighed(member: &str) -> Option<(&str, u16)> {
    let mut parts = member.split(';').map(str::trim);
    let name = parts.next()?;
    let weight = parts.find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    Some((name, weight.map_or(Some(1000), thousandths)?))
}

fn thousandths(weight: &str) -> Option<u16> {
    let (whole, decimals) = weight.split_once('.').unwrap_or((weight, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let decimals: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(decimals),
        "1" if decimals == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(lines: &[&str], wanted: Option<Coding>) {
        let value = |line: &&str| (ACCEPT_ENCODING, HeaderValue::from_bytes(line.as_bytes()).expect("a header value"));
        let mut request = HeaderMap::new();
        request.extend(lines.iter().map(value));
        assert_eq!(choose(&request), wanted, "{lines:?}");
    }

    #[test]
    fn a_client_gets_what_it_likes_best() {
        check(&["gzip"], Some(Coding::Gzip));
        check(&["gzip, deflate, br, zstd"], Some(Coding::Zstd));
        check(&["gzip, deflate, br"], Some(Coding::Brotli));
        check(&["gzip", "br"], Some(Coding::Brotli));
        check(&["gzip;q=1.0, br;q=0.9, zstd;q=0.899"], Some(Coding::Gzip));
        check(&["gzip;q=0.001"], Some(Coding::Gzip));
        check(&["GZip ; Q=0.5 , BR ;q=0.4"], Some(Coding::Gzip));
        check(&["x-gzip"], Some(Coding::Gzip));
        check(&["*"], Some(Coding::Zstd));
        check(&["*;q=0.5, gzip"], Some(Coding::Gzip));
        check(&["zstd;q=0, *"], Some(Coding::Brotli));
        check(&["gzip, *;q=0"], Some(Coding::Gzip));
        check(&["gzip, identity"], Some(Coding::Gzip));
        check(&["identity;q=0, br"], Some(Coding::Brotli));
        check(&["identity;q=0.5, br;q=0.5"], Some(Coding::Brotli));
        check(&["identity;q=0, *;q=0.1"], Some(Coding::Zstd));
    }

    #[test]
    fn otherwise_it_gets_the_answer_as_it_is() {
        check(&[], None);
        check(&[""], None);
        check(&["identity"], None);
        check(&["identity, br;q=0.9"], None);
        check(&["identity;q=0"], None);
        check(&["*;q=0"], None);
        check(&["gzip;q=0"], None);
        check(&["gzip;q=0, br;q=0.000"], None);
        check(&["deflate, compress, aws-chunked"], None);
        check(&["gzip;q=0.2, *;q=0.5, br;q=0, zstd;q=0"], None);
        check(&["gzipped", "bré"], None);
    }

    #[test]
    fn what_cannot_be_read_was_not_said() {
        for weight in ["2", "1.001", "-1", "0.1234", "", "x", "nan", "0.+1", "٠"] {
            check(&[&format!("gzip;q={weight}")], None);
        }
        check(&["gzip;q=x, br"], Some(Coding::Brotli));
        check(&["gzip;level=9;q=0.3, br;q=0.2"], Some(Coding::Gzip));
        check(&[",, ;q=1, gzip"], Some(Coding::Gzip));
    }
}
