//! What is wrong with a JSON text, without repeating it: it may hold what no log should.

/// Where and of which kind the error is; `invalid type: string, expected u16 at line 1 column 20`.
pub fn fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    for kind in ["invalid type: ", "invalid value: "] {
        let Some(rest) = text.strip_prefix(kind) else { continue };
        // After the kind of what was found comes the value itself.
        let found = rest.split([' ', ',']).next().unwrap_or_default();
        let expected = rest.rfind(", expected ").map_or("", |at| &rest[at..]);
        return format!("{kind}{found}{expected}");
    }
    match text.starts_with("unknown variant") {
        true => format!("unknown word at line {} column {}", error.line(), error.column()),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Answer {
        #[serde(rename = "statusCode")]
        _status: u16,
    }

    #[test]
    fn the_fault_is_told_and_the_value_is_not() {
        let check = |text: &str, expected: &str| {
            assert_eq!(fault(&serde_json::from_str::<Answer>(text).unwrap_err()), expected);
        };
        check(r#"{"statusCode":"secret, expected nothing"}"#, "invalid type: string, expected u16 at line 1 column 40");
        check(r#"{"statusCode":4711471147114711}"#, "invalid value: integer, expected u16 at line 1 column 30");
        check(r#"{"statusCode":1.5}"#, "invalid type: floating, expected u16 at line 1 column 17");
        check("{}", "missing field `statusCode` at line 1 column 2");
        check("secret", "expected value at line 1 column 1");
    }
}
