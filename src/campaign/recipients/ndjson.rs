//! NDJSON: an object a line, `{email, name?, tz?, vars{}, metadata{}}`; a member that is not known is an error, not a variable, so that a
//! misspelt one does not vanish.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::limits::{DEPTH_MAX, VARIABLE_NAME_MAX};
use super::row::{Given, Rejected};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    email: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tz: Option<Cow<'a, str>>,
    #[serde(default)]
    vars: Option<Map<String, Value>>,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
}

/// The row of a line; the address is not parsed yet.
pub fn row<T>(line: &[u8], then: impl FnOnce(Given<'_>) -> Result<T, Rejected>) -> Result<T, Rejected> {
    let text = std::str::from_utf8(line).map_err(|_| Rejected::invalid("", "not valid UTF-8"))?;
    // A list would be taken for the members in order.
    if !text.trim_start().starts_with('{') {
        return Err(Rejected::invalid("", "a row is a JSON object: {\"email\": …}"));
    }
    let parsed: Line<'_> = serde_json::from_str(text).map_err(|e| Rejected::invalid(&address_of(text), reason(&e)))?;
    let object = |what: &str, members: Option<Map<String, Value>>| match members {
        None => Ok(Vec::new()),
        Some(members) => members_of(&members).map_err(|why| Rejected::invalid(&parsed.email, format!("{what}: {why}"))),
    };
    let vars = object("vars", parsed.vars)?;
    let metadata = object("metadata", parsed.metadata)?;
    let set = |text: &Cow<'_, str>| !text.trim().is_empty();
    then(Given {
        email: parsed.email.trim(),
        name: parsed.name.as_ref().filter(|t| set(t)).map(|t| t.trim()),
        tz: parsed.tz.as_ref().filter(|t| set(t)).map(|t| t.trim()),
        vars: &vars,
        metadata: &metadata,
    })
}

/// The members of an object, without its braces.
pub fn members_of(members: &Map<String, Value>) -> Result<Vec<u8>, String> {
    if let Some(name) = members.keys().find(|name| name.len() > VARIABLE_NAME_MAX) {
        let name = super::row::cut(name, 40);
        return Err(format!("the name {name}… is longer than {VARIABLE_NAME_MAX} octets"));
    }
    if members.values().any(|value| depth(value) >= DEPTH_MAX) {
        return Err(format!("nested deeper than {DEPTH_MAX}"));
    }
    // A map with text keys can always be written.
    let mut octets = serde_json::to_vec(members).unwrap_or_default();
    octets.pop();
    if !octets.is_empty() {
        octets.remove(0);
    }
    Ok(octets)
}

/// How deep a value nests. The parser's own bound (128) keeps this recursion small.
fn depth(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
    }
}

/// What is wrong, with the column: the line is known from the row's place.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) => format!("column {}: {what}", error.column()),
        None => text,
    }
}

/// The address of a line that is no row, where one can be made out.
fn address_of(text: &str) -> String {
    #[derive(Deserialize)]
    struct Only<'a> {
        #[serde(borrow)]
        email: Cow<'a, str>,
    }
    serde_json::from_str::<Only<'_>>(text).map(|only| only.email.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::recipients::row::write_value;

    fn check(line: &str, want: Result<&str, &str>) {
        let got = row(line.as_bytes(), |given| {
            let mut out = Vec::new();
            write_value(&mut out, &given);
            Ok(String::from_utf8(out).expect("UTF-8"))
        });
        let got = got.map_err(|r| format!("{}|{}", r.address, r.detail));
        match want {
            Ok(want) => assert_eq!(got.as_deref(), Ok(want), "{line}"),
            Err(part) => {
                let text = got.expect_err(line);
                assert!(text.contains(part), "{text:?} for {line}");
            }
        }
    }

    #[test]
    fn a_row_is_written_in_its_fixed_form() {
        check(r#"{"email":"a@b.example"}"#, Ok(r#"{"email":"a@b.example"}"#));
        check(
            r#" { "vars" : { "b": 1, "a": [true, null, "x\u00e9\n"] }, "name": " Jo ", "tz": "Europe/Paris", "metadata": {}, "email": "A@b.example" } "#,
            Ok(r#"{"email":"A@b.example","name":"Jo","tz":"Europe/Paris","vars":{"a":[true,null,"xé\n"],"b":1}}"#),
        );
        check(r#"{"email":"a@b.example","name":null,"vars":null}"#, Ok(r#"{"email":"a@b.example"}"#));
    }

    #[test]
    fn what_is_no_row_says_why() {
        check(r#"{"email":"a@b.example""#, Err("EOF while parsing"));
        check(r#"{"email":7}"#, Err("invalid type: integer `7`, expected a"));
        check(r#"{"name":"x"}"#, Err("missing field `email`"));
        check(r#"{"email":"a@b.example","vars":[1]}"#, Err("a@b.example|"));
        check(r#"{"email":"a@b.example","town":"Lyon"}"#, Err("unknown field `town`"));
        check(r#"{"email":"a@b.example","email":"c@b.example"}"#, Err("duplicate field `email`"));
        check(r#"{"email":"a@b.example","vars":{"x":"\ud800"}}"#, Err("unexpected end of hex escape"));
        check(r#"{"email":"a@b.example","vars":{"x":1e999}}"#, Err("number out of range"));
        check(r#"["a@b.example"]"#, Err("a row is a JSON object"));
        check("7", Err("a row is a JSON object"));
        let deep = format!(r#"{{"email":"a@b.example","vars":{{"x":{}{}}}}}"#, "[".repeat(17), "]".repeat(17));
        check(&deep, Err("nested deeper than 16"));
        // A stack that overflows would end the daemon.
        let abyss = format!(r#"{{"email":"a@b.example","vars":{{"x":{}"#, "[".repeat(60_000));
        check(&abyss, Err("recursion limit"));
        assert!(row::<()>(b"{\"email\":\"\xff@b.example\"}", |_| Ok(())).is_err());
    }
}
