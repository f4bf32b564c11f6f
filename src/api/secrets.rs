//! What in the text of a routes.toml may be a secret, so that no report repeats it.
//!
//! It works on the text, since a file that is no TOML is reported as well, and errs on the side of hiding: whatever
//! stands in a table of secrets is one, save at the keys that are known to hold none, and so is what stands at a key
//! whose name is nearly a secret's.

use std::ops::Range;

use crate::model::settings::nearest;

/// Tables in which every value is a secret, but for those at `HARMLESS`.
const TABLES: [&str; 2] = ["credentials", "api_keys"];

const HARMLESS: [&str; 5] = ["access_key_id", "allow", "deny", "usage_plan", "enabled"];

/// Keys that hold secrets anywhere.
const KEYS: [&str; 9] = [
    "value",
    "secret",
    "secret_access_key",
    "session_token",
    "bearer_token",
    "admin_token",
    "eab_hmac_key",
    "password",
    "x-api-key",
];

/// The literals of one text that may be secrets.
pub struct Secrets<'s> {
    source: &'s str,
    ranges: Vec<Range<usize>>,
}

impl<'s> Secrets<'s> {
    pub fn of(source: &'s str) -> Self {
        let mut ranges = Vec::new();
        let (mut at, mut section, mut is_line_start) = (0, "", true);
        // Headers for the collector of traces are whatever it asks for.
        let (mut is_of_headers, mut headers_end) = (false, 0);
        while at < source.len() {
            let end = source[at..].find('\n').map_or(source.len(), |end| at + end + 1);
            let line = &source[at..end];
            if let Some(header) = line.trim_start().strip_prefix('[').filter(|_| is_line_start) {
                section = first_name(header.trim_start_matches('['));
                is_of_headers = section == "gateway" && header.contains("header");
                at = end;
                continue;
            }
            let Some(equals) = line.find('=') else {
                (at, is_line_start) = (end, true);
                continue;
            };
            let before = &line[..equals];
            let table = if section.is_empty() && is_line_start { first_name(before) } else { section };
            let value_at = at + equals + 1;
            let length = literal(&source[value_at..]);
            let value = &source[value_at..value_at + length];
            if table == "gateway" && before.contains("header") && value.trim_start().starts_with('{') {
                headers_end = source[value_at..].find('}').map_or(source.len(), |end| value_at + end);
            }
            let is_header =
                is_of_headers || value_at < headers_end || table == "gateway" && before.contains("headers.");
            if is_header && !value.trim_start().starts_with('{') || is_secret(table, last_name(before), value) {
                ranges.push(value_at..value_at + length);
                at = value_at + length;
            } else {
                at = value_at;
            }
            is_line_start = false;
        }
        Self { source, ranges }
    }

    /// The text with stars in place of the secrets, byte for byte, so that spans still fit.
    pub fn starred(&self) -> String {
        let mut shown = String::with_capacity(self.source.len());
        let mut at = 0;
        for range in &self.ranges {
            shown.push_str(&self.source[at..range.start]);
            star(&self.source[range.clone()], &mut shown);
            at = range.end;
        }
        shown.push_str(&self.source[at..]);
        shown
    }

    /// A text about the file with the secrets hidden that it repeats, whole or shortened.
    pub fn hidden_in(&self, text: &str) -> String {
        // What a problem repeats stands in backticks; outside, a word that is a secret somewhere is just a word.
        let pieces = text.split('`').enumerate();
        let pieces = pieces.map(|(at, piece)| if at % 2 == 1 { self.hidden(piece) } else { piece.to_owned() });
        pieces.collect::<Vec<_>>().join("`")
    }

    fn hidden(&self, repeated: &str) -> String {
        let mut hidden = repeated.to_owned();
        for range in &self.ranges {
            let secret = self.source[range.clone()].trim().trim_matches(['"', '\'']).trim();
            let shortened: String = secret.chars().take(SHORTENED).collect();
            for part in [secret, &shortened] {
                if part.len() > 1 && !part.contains("${env.") {
                    hidden = hidden.replace(part, "…");
                }
            }
        }
        hidden
    }
}

/// How much of a value a problem repeats.
const SHORTENED: usize = 60;

fn is_secret(table: &str, key: &str, value: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let value = value.trim_start();
    if value.starts_with('{') {
        // A table of its own, whose keys are looked at one by one.
        return false;
    }
    if value.contains("PRIVATE KEY") || key == "public_key" && value.replace('\\', "").contains("\"d\"") {
        return true;
    }
    if has_login(value) {
        return true;
    }
    let is_harmless =
        HARMLESS.contains(&key.as_str()) || nearest(&key, HARMLESS).is_some() && nearest(&key, KEYS).is_none();
    let is_named = ["secret", "token", "password", "hmac_key"].iter().any(|word| key.contains(word));
    is_named
        || KEYS.contains(&key.as_str())
        || TABLES.contains(&table) && !is_harmless
        // A slip in the name must not give the secret away.
        || nearest(&key, KEYS).is_some()
}

/// A URL with a user in it, and perhaps a password.
fn has_login(value: &str) -> bool {
    value.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split(['/', '?', '#', '"', '\'']).next().unwrap_or_default();
        authority.contains('@')
    })
}

/// The first name of a dotted path, without quotes.
fn first_name(path: &str) -> &str {
    let end = path.find(['.', ']', '=']).unwrap_or(path.len());
    path[..end].trim().trim_matches(['"', '\''])
}

/// The name right before an `=`, without quotes.
fn last_name(before: &str) -> &str {
    let key = before.trim_end().trim_end_matches(['"', '\'']);
    key.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').next().unwrap_or_default()
}

fn star(secret: &str, shown: &mut String) {
    let mut rest = secret;
    loop {
        // A reference to the environment tells nothing, and a problem may well be about it.
        let reference = rest.find("${env.").map(|at| (at, rest[at..].find('}').map_or(rest.len(), |end| at + end + 1)));
        let (until, after) = reference.unwrap_or((rest.len(), rest.len()));
        for c in rest[..until].chars() {
            match c {
                '"' | '\'' | '\n' | '\r' | ' ' | '\t' => shown.push(c),
                c => shown.extend(std::iter::repeat_n('*', c.len_utf8())),
            }
        }
        shown.push_str(&rest[until..after]);
        rest = &rest[after..];
        if rest.is_empty() {
            return;
        }
    }
}

/// How long the value at the beginning of `text` is: to its closing quotes, or to the next comma, brace or line end. Of a
/// list it is the whole line.
fn literal(text: &str) -> usize {
    let start = text.len() - text.trim_start_matches([' ', '\t']).len();
    let value = &text[start..];
    let line_end = value.find(['\n', '\r']).unwrap_or(value.len());
    for quotes in ["\"\"\"", "\'\'\'"] {
        if let Some(inside) = value.strip_prefix(quotes) {
            return start + inside.find(quotes).map_or(value.len(), |end| end + 2 * quotes.len());
        }
    }
    if value.starts_with('[') {
        return start + line_end;
    }
    let Some(quote) = value.chars().next().filter(|c| *c == '"' || *c == '\'') else {
        return start + value.find([',', '}', '\n', '\r', '#']).unwrap_or(value.len());
    };
    let mut escaped = false;
    for (at, c) in value.char_indices().skip(1) {
        match c {
            '\n' | '\r' => break,
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return start + at + 1,
            _ => {}
        }
    }
    start + line_end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_starred_and_references_are_not() {
        let check = |source: &str, shown: &str| assert_eq!(Secrets::of(source).starred(), shown);
        check("secret_access_key = \"hunter2\" # x", "secret_access_key = \"*******\" # x");
        check("c = { bearer_token = 'ab=c', allow = [] }", "c = { bearer_token = '****', allow = [] }");
        check("\"session_token\"=\"a\\\"b", "\"session_token\"=\"**\"*");
        check("bearer_token = abc, x = 1", "bearer_token = ***, x = 1");
        check("bearer_token = \"${env.T}\"", "bearer_token = \"${env.T}\"");
        check("bearer_token = \"ab${env.T}c\"", "bearer_token = \"**${env.T}*\"");
        check("uri = \"http://a?token=b\"", "uri = \"http://a?token=*\"");
        check("uri = \"http://a\"\nx = [1]\n", "uri = \"http://a\"\nx = [1]\n");
        check("uri = 'http://me:pw@a/b'", "uri = '****************'");
        check(
            "[gateway.tracing.headers]\nx-team = \"ab\"\n[apis]",
            "[gateway.tracing.headers]\nx-team = \"**\"\n[apis]",
        );
        check(
            "[gateway]\ntracing = { headers = { x = 'ab' }, sample = 1 }",
            "[gateway]\ntracing = { headers = { x = '**' }, sample = 1 }",
        );
        check("secret = \"\"\"a\nb\"\"\"\nx = 1", "secret = \"\"\"*\n*\"\"\"\nx = 1");
        check("secret = \'\'\'a, b\'\'\' # c", "secret = \'\'\'** *\'\'\' # c");
        check("eab_hmac_key = \"abc\"", "eab_hmac_key = \"***\"");
        check("public_key = \"-----BEGIN PRIVATE KEY-----\"", "public_key = \"********** ******* ********\"");
        check("public_key = \"-----BEGIN PUBLIC KEY-----\"", "public_key = \"-----BEGIN PUBLIC KEY-----\"");
    }

    #[test]
    fn tables_of_secrets_show_what_is_known_to_be_none() {
        let check = |source: &str, shown: &str| assert_eq!(Secrets::of(source).starred(), shown);
        check("[api_keys]\na = \"abc\"\n", "[api_keys]\na = \"***\"\n");
        check(
            "[api_keys.a]\nvale = \"abc\"\nusage_plan = \"gold\"",
            "[api_keys.a]\nvale = \"***\"\nusage_plan = \"gold\"",
        );
        check("api_keys.a.x = 'abc'\nlisten = 'x'", "api_keys.a.x = '***'\nlisten = 'x'");
        check("[credentials.b]\naccess_key_id = 'A'\nx = [\n", "[credentials.b]\naccess_key_id = 'A'\nx = *\n");
        check("[apis.a]\nvale = 'x'\nname = 'y'\n", "[apis.a]\nvale = '*'\nname = 'y'\n");
    }

    #[test]
    fn problems_do_not_repeat_them() {
        let secrets = Secrets::of("secret = hunter2\n[api_keys]\na = \"the key\"\n");
        assert_eq!(secrets.hidden_in("`hunter2` needs quotes; write `\"hunter2\"`"), "`…` needs quotes; write `\"…\"`");
        assert_eq!(secrets.hidden_in("`the key` is no table"), "`…` is no table");
        assert_eq!(secrets.hidden_in("the key of hunter2"), "the key of hunter2");
    }
}
