//! Tests of `target`.

use super::*;
use crate::expressions::variables::Allowed;
use http::Uri;
use proptest::prelude::*;

struct Call {
    text: String,
    spelled: String,
}

impl Source for Call {
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "h").then_some(Cow::Borrowed(&self.text))
    }

    fn path(&self) -> Option<&str> {
        Some(&self.spelled)
    }

    fn path_parameter(&self, _: &str) -> Option<Cow<'_, str>> {
        Some("a & b".into())
    }

    fn spelled_path_parameter(&self, name: &str) -> Option<&str> {
        (name == "p").then_some(&self.spelled)
    }

    fn stage_variable(&self, name: &str) -> Option<&str> {
        (name == "s").then_some("v1/%41")
    }
}

fn target(template: &str, text: &str, spelled: &str) -> Result<String, DotSegment> {
    let template = Template::parse(template, Allowed::REQUEST).unwrap();
    let call = Call { text: text.into(), spelled: spelled.into() };
    let whole = path_and_query(&template, &call);
    if !template.parts().iter().any(|part| matches!(part, Part::Literal(text) if text.contains('?'))) {
        let path = path(&template, &call).map(|path| path.unwrap_or_else(|| "/".into()));
        assert_eq!(path, whole, "without a query both are the same");
    }
    whole
}

#[track_caller]
fn check(template: &str, text: &str, expected: &str) {
    let found = target(template, text, text).unwrap_or_else(|_| "refused".into());
    assert_eq!(found, expected, "{template} with {text:?}");
}

#[test]
fn a_path_begins_at_the_root_and_is_encoded() {
    check("/a b/é", "", "/a%20b/%C3%A9");
    check("a%20b%zz%", "", "/a%20b%25zz%25");
    check("${request.header.h}", "", "/");
    check("${request.header.nope}", "", "/");
    check("${request.header.h}", "x/y", "/x/y");
    check("/${request.header.h}/z", "a?b#c", "/a%3Fb%23c/z");
    check("/${request.header.h}", "50%", "/50%25");
    check("/${request.header.h}", "%41", "/%2541");
    check("/${request.header.h}", "a\r\nb\0\\{}", "/a%0D%0Ab%00%5C%7B%7D");
    check("/${request.header.h}", "~!$&'()*+,;=:@-._", "/~!$&'()*+,;=:@-._");
    check("/${stageVariables.s}", "", "/v1/%41");
}

#[test]
fn what_was_on_the_wire_keeps_its_escapes() {
    check("${request.path}", "/a%2Fb/%C3%A9", "/a%2Fb/%C3%A9");
    check("/x/${request.path.p}", "a%2Fb", "/x/a%2Fb");
    check("/x/${request.path.p}", "50%", "/x/50%25");
    check("/x/${request.path.p}", "a?b", "/x/a%3Fb");
}

#[test]
fn no_path_has_a_step_in_it() {
    check("/a/../b", "", "refused");
    check("/a/.", "", "refused");
    for step in ["..", ".", "%2e%2E", "a/../b", "a%2F..%2Fb", "..\\x", "a\\..", "..;x", ".%2e;x=1/y"] {
        check("/x/${request.path.p}", step, "refused");
    }
    for step in ["..", ".", "a/../b", "a\\..", "..;x"] {
        check("/x/${request.header.h}", step, "refused");
    }
    check("/.${request.header.h}", ".", "refused");
    check("/x/${request.header.h}", "%2e%2e", "/x/%252e%252e");
    check("/x/${request.header.h}", "...", "/x/...");
    check("/x/${request.header.h}", "a..b", "/x/a..b");
}

#[test]
fn a_query_begins_where_the_operator_says() {
    check("/a?b=${request.header.h}", "c&d=e?f#g/h i%", "/a?b=c%26d%3De%3Ff%23g%2Fh%20i%25");
    check("/a?b=%20 ${request.path}&c=?", "/x", "/a?b=%20%20%2Fx&c=?");
    check("/${request.header.h}?x", "a?b", "/a%3Fb?x");
    check("/${request.path.p}?x=${request.path.p}", "a%20&%20b", "/a%20&%20b?x=a%20%26%20b");
    check("?x=..", "", "/?x=..");
}

proptest! {
    #[test]
    fn nothing_leaves_its_place(
        text in prop_oneof![any::<String>(), r"[./\\%;?#25eEfF\r\n\x00 a]{0,12}"],
        spelled in prop_oneof![any::<String>(), r"[./\\%;?#25eEfF\r\n\x00 a]{0,12}"],
    ) {
        let template = "/own/${request.header.h}/${request.path.p}?a=${request.header.h}&b=${request.path.p}";
        let Ok(found) = target(template, &text, &spelled) else { return Ok(()) };
        prop_assert!(found.bytes().all(|byte| byte.is_ascii_graphic()), "{}", found);
        prop_assert_eq!(found.matches(['?', '#', '&']).filter(|mark| *mark != "&").count(), 1);
        let uri: Uri = found.parse().unwrap();
        prop_assert!(uri.host().is_none() && uri.path().starts_with("/own/"));
        prop_assert_eq!(uri.query().unwrap().matches('&').count(), 1);
        let decoded = percent_decode_str(uri.path()).decode_utf8_lossy().into_owned();
        prop_assert!(!decoded.split('/').any(|segment| matches!(segment, "." | "..")), "{}", decoded);
    }
}
