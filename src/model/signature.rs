//! The parts of a request that a SigV4 signature is made of: they are for the gateway alone, and go no further.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

const X_AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

const PARAMETERS: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
];

/// Drops the signature, and the session that it was made in.
pub fn drop_from_headers(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    headers.remove(X_AMZ_SECURITY_TOKEN);
}

/// The query without the parameters of a presigned URL; `None` if nothing is left.
pub fn without(query: &str) -> Option<String> {
    let is_ours = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        PARAMETERS.iter().any(|parameter| parameter.eq_ignore_ascii_case(name))
    };
    let kept: Vec<_> = query.split('&').filter(|pair| !is_ours(pair)).collect();
    let kept = kept.join("&");
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_presigned_query_loses_its_signature() {
        let check = |query: &str, kept: Option<&str>| assert_eq!(without(query).as_deref(), kept, "{query}");
        check("a=1&X-Amz-Signature=x&b=%26&X-Amz-Credential=y", Some("a=1&b=%26"));
        check("X-Amz-Algorithm=a&x-amz-date=b&X-Amz-Expires=1&X-Amz-SignedHeaders=host&X-Amz-Security-Token=t", None);
        check("a&&b=X-Amz-Signature", Some("a&&b=X-Amz-Signature"));
    }
}
