//! Callers who sign (SigV4): whose signature it is, and AWS's words for what is wrong with one.

use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;

use crate::outbound::sigv4::{self, Error, Request};

use super::credentials::{Credential, Credentials, Denied, ErrorType, INVOKE};
use super::{Asked, Passed};
use crate::model::identity::Signer;
use crate::model::refusal::{Cause, Kind, Refusal};

/// Turns those away, before their body is read, whose signature cannot be good whatever that is.
pub fn precheck(credentials: &Credentials, request: &Request<'_>) -> Result<(), Refusal> {
    sigv4::precheck(request, credentials, SystemTime::now()).map_err(denied).map_err(refused(Cause::Unauthorized))
}

fn refused(cause: Cause) -> impl Fn(Denied) -> Refusal {
    move |denied| Kind::Forbidden.because(denied.detail).by(cause)
}

/// Lets a caller of a route pass who signed, and whose credential allows the call. What is wrong with a signature goes
/// to the log alone: a client of a route is told `Forbidden`.
pub(super) fn authorize(asked: &Asked<'_>) -> Result<Passed, Refusal> {
    let credential =
        identify(asked.credentials, &asked.signed, SystemTime::now()).map_err(refused(Cause::Unauthorized))?;
    let otherwise = asked.otherwise.iter().map(|(_, resource)| resource.as_str());
    for resource in otherwise.chain([asked.resource]) {
        credential.may(INVOKE, resource).map_err(refused(Cause::Denied))?;
    }
    let access_key = credential.key.as_ref().map(|key| key.access_key_id().to_owned()).unwrap_or_default();
    let (user, account_id) = (credential.name.clone(), asked.account_id.to_owned());
    let user_arn = format!("arn:aws:iam::{account_id}:user/{user}");
    let signer = Some(Arc::new(Signer { access_key, account_id, user, user_arn }));
    Ok(Passed { signer, ..Passed::default() })
}

pub(super) fn identify<'c>(
    credentials: &'c Credentials,
    request: &Request<'_>,
    now: SystemTime,
) -> Result<&'c Credential, Denied> {
    sigv4::verify(request, credentials, now).map_err(denied)
}

fn denied(error: Error) -> Denied {
    Denied { error_type: error_type(&error), message: message(&error), detail: error.to_string() }
}

fn error_type(error: &Error) -> ErrorType {
    match error {
        Error::MissingAuthenticationToken => ErrorType::MissingAuthenticationToken,
        Error::Incomplete(_) | Error::TooLong { .. } | Error::HeaderAbsent(_) => ErrorType::IncompleteSignature,
        Error::UnknownKey(_) | Error::SessionToken => ErrorType::UnrecognizedClient,
        // An old signature is an invalid one at AWS; ExpiredToken is about the session's own end.
        Error::Expired { .. }
        | Error::NotYet { .. }
        | Error::HostNotSigned
        | Error::Service(_)
        | Error::Terminator(_)
        | Error::Day { .. }
        | Error::Payload
        | Error::Mismatch(_) => ErrorType::InvalidSignature,
    }
}

/// AWS's wording where it is known, since people search for it; our own where it is not.
fn message(error: &Error) -> String {
    match error {
        Error::MissingAuthenticationToken => "Missing Authentication Token".to_owned(),
        Error::UnknownKey(_) | Error::SessionToken => {
            "The security token included in the request is invalid.".to_owned()
        }
        Error::Service(_) => "Credential should be scoped to correct service: 'execute-api'.".to_owned(),
        Error::HostNotSigned => "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".to_owned(),
        Error::Expired { signed_at, until, now } => {
            let life = until.duration_since(*signed_at);
            let span = match life.as_secs() {
                300 => "5 min.".to_owned(),
                seconds => format!("{seconds} sec."),
            };
            format!(
                "Signature expired: {} is now earlier than {} ({} - {span})",
                basic(*signed_at),
                now.checked_sub(life).map_or_else(|_| String::new(), basic),
                basic(*now),
            )
        }
        Error::NotYet { signed_at, now } => {
            format!("Signature not yet current: {} is still later than {} (+ 5 min.)", basic(*signed_at), basic(*now),)
        }
        Error::Mismatch(mismatch) => format!(
            "The request signature we calculated does not match the signature you provided. \
             Check your AWS Secret Access Key and signing method. Consult the service documentation for details.\n\n\
             The Canonical String for this request should have been\n'{}'\n\n\
             The String-to-Sign should have been\n'{}'\n",
            mismatch.canonical_request, mismatch.string_to_sign,
        ),
        Error::Incomplete(_)
        | Error::TooLong { .. }
        | Error::HeaderAbsent(_)
        | Error::Terminator(_)
        | Error::Day { .. }
        | Error::Payload => error.to_string(),
    }
}

fn basic(moment: Timestamp) -> String {
    moment.strftime("%Y%m%dT%H%M%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::super::allow;
    use super::super::credentials;
    use super::super::push::{Authorization, authorize};
    use super::*;
    use crate::outbound::sigv4::Key;

    const PATH: &str = "/prod/@connections/R0oXAdfD0kwCH6w%3D";
    const AMZ_DATE: &str = "20261121T003945Z";
    // The recording of boto3 in `outbound/sigv4/tests.rs`.
    const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/us-east-1/execute-api/aws4_request, \
         SignedHeaders=host;x-amz-date;x-amz-security-token, \
         Signature=b973f2ecdabe1275af05cb16d5733bc2f13619b4374f0af3e67235c0eb0d57a6";

    /// What the caller gets who sends this header so many seconds after signing.
    fn ask(authorization: Option<&str>, session_token: Option<&str>, allow: &str, later: i64) -> Result<(), Denied> {
        let allow = (!allow.is_empty()).then(|| allow::Pattern::parse(allow).unwrap());
        let credentials = Credentials::new(vec![Credential {
            name: "backend".to_owned(),
            key: Some(Key::new("AKIDEXAMPLE", "secret", session_token).unwrap()),
            bearer_token: None,
            allow: allow.into_iter().collect(),
            deny: Vec::new(),
        }])
        .unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("127.0.0.1:8911"));
        headers.insert("x-amz-date", HeaderValue::from_static(AMZ_DATE));
        headers.insert("x-amz-security-token", HeaderValue::from_static("tok"));
        if let Some(authorization) = authorization {
            headers.insert("authorization", HeaderValue::from_str(authorization).unwrap());
        }
        let request = Request { method: "POST", path: PATH, query: None, headers: &headers, body: b"hello" };
        let now = Timestamp::from_second(1_795_221_585 + later).unwrap();
        authorize(
            Authorization::AwsIam,
            &credentials,
            &request,
            credentials::MANAGE_CONNECTIONS,
            || allow::resource("chat", "prod", "POST", "R0oXAdfD0kwCH6w="),
            || now.into(),
        )
        .map(|_| ())
    }

    #[test]
    fn callers_are_turned_away_in_the_words_of_aws() {
        let all = "* *";
        let check = |asked: Result<(), Denied>, name: &str, message: &str| {
            let denied = asked.unwrap_err();
            assert_eq!(denied.error_type.name(), name);
            assert!(denied.message.starts_with(message), "{}", denied.message);
        };
        assert_eq!(ask(Some(SIGNED), None, all, 0), Ok(()));
        assert_eq!(ask(Some(SIGNED), Some("tok"), all, 300), Ok(()));
        check(ask(None, None, all, 0), "MissingAuthenticationTokenException", "Missing Authentication Token");
        let invalid = "The security token included in the request is invalid.";
        check(ask(Some(SIGNED), Some("other"), all, 0), "UnrecognizedClientException", invalid);
        let stranger = SIGNED.replace("AKIDEXAMPLE", "AKIDSTRANGER");
        check(ask(Some(&stranger), None, all, 0), "UnrecognizedClientException", invalid);
        check(
            ask(Some("AWS4-HMAC-SHA256 Credential=a"), None, all, 0),
            "IncompleteSignatureException",
            "the signature cannot be read: the Authorization header has no `SignedHeaders`",
        );
        check(
            ask(Some(SIGNED), None, all, 301),
            "InvalidSignatureException",
            "Signature expired: 20261121T003945Z is now earlier than 20261121T003946Z (20261121T004446Z - 5 min.)",
        );
        check(
            ask(Some(SIGNED), None, all, -301),
            "InvalidSignatureException",
            "Signature not yet current: 20261121T003945Z is still later than 20261121T003444Z (+ 5 min.)",
        );
        for allow in ["", "* chat/dev/*", "execute-api:Invoke *"] {
            check(ask(Some(SIGNED), None, allow, 0), "ForbiddenException", "Forbidden");
        }
    }

    #[test]
    fn a_wrong_signature_shows_the_caller_what_was_to_be_signed_and_the_log_nothing() {
        let wrong = SIGNED.replace("Signature=b", "Signature=c");
        let denied = ask(Some(&wrong), None, "* *", 0).unwrap_err();
        assert_eq!(denied.error_type, ErrorType::InvalidSignature);
        let says = |part: &str| assert!(denied.message.contains(part), "{}", denied.message);
        says("The request signature we calculated does not match the signature you provided. Check your AWS");
        says("have been\n'POST\n/prod/%40connections/R0oXAdfD0kwCH6w%253D\n\nhost:127.0.0.1:8911\n");
        says("\n'AWS4-HMAC-SHA256\n20261121T003945Z\n20261121/us-east-1/execute-api/aws4_request\n");
        assert!(!denied.message.contains("b973f2ec"), "the right signature is not given away");
        assert!(!denied.detail.contains("tok\n") && !denied.detail.contains("POST"), "{}", denied.detail);
    }
}
