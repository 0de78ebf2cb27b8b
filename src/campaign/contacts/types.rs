//! The types of attributes that come as text: `age=number,member=bool,last_purchase=date,tags=list`.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::{Map, Value};

/// What an attribute is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttributeType {
    /// Text, as it is.
    String,
    /// A number; a comma before the decimals is taken for a point.
    Number,
    /// `true`, `yes`, `1`, or `false`, `no`, `0`.
    Bool,
    /// `2026-11-23`, or with a time.
    Date,
    /// Parts between `;` or `,`.
    List,
}

/// The types of attributes by their names; those that are not named stay as they are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Types(BTreeMap<String, AttributeType>);

impl FromStr for Types {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut types = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, kind) = part.split_once('=').ok_or_else(|| format!("{part:?}: expected name=type"))?;
            let kind = match kind.trim() {
                "string" => AttributeType::String,
                "number" => AttributeType::Number,
                "bool" => AttributeType::Bool,
                "date" => AttributeType::Date,
                "list" => AttributeType::List,
                other => return Err(format!("{other:?}: a type is string, number, bool, date or list")),
            };
            if types.insert(name.trim().to_owned(), kind).is_some() {
                return Err(format!("{:?} is given twice", name.trim()));
            }
        }
        Ok(Self(types))
    }
}

impl Types {
    /// Whether no type is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives texts their types; an error names the attribute.
    pub(super) fn apply(&self, attributes: &mut Map<String, Value>) -> Result<(), String> {
        for (name, kind) in &self.0 {
            let Some(value) = attributes.get_mut(name) else { continue };
            let Value::String(text) = value else { continue };
            *value = kind.read(text.trim()).map_err(|why| format!("{name}: {text:?} {why}"))?;
        }
        Ok(())
    }
}

impl AttributeType {
    fn read(self, text: &str) -> Result<Value, &'static str> {
        match self {
            AttributeType::String => Ok(text.into()),
            AttributeType::Number => number(text).ok_or("is no number"),
            AttributeType::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "y" | "1" => Ok(true.into()),
                "false" | "no" | "n" | "0" => Ok(false.into()),
                _ => Err("is neither true nor false"),
            },
            AttributeType::Date => {
                let date = text.parse::<jiff::civil::Date>().map(|d| d.to_string());
                let time = || text.parse::<jiff::Timestamp>().map(|t| t.to_string());
                date.or_else(|e| if text.len() > 10 { time() } else { Err(e) })
                    .map(Value::from)
                    .map_err(|_| "is no date: 2026-11-23, or 2026-11-23T17:00:00Z")
            }
            AttributeType::List => {
                let by = if text.contains(';') { ';' } else { ',' };
                Ok(text.split(by).map(str::trim).filter(|part| !part.is_empty()).collect())
            }
        }
    }
}

fn number(text: &str) -> Option<Value> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    let point = if text.contains('.') { text.to_owned() } else { text.replacen(',', ".", 1) };
    // `inf` and `nan` are words of Rust, not numbers of people.
    let plain = point.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    let number = point.parse::<f64>().ok().filter(|n| plain && n.is_finite())?;
    serde_json::Number::from_f64(number).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_get_their_types_or_say_why_not() {
        let types: Types = "age=number,member=bool,since=date,tags=list".parse().expect("types");
        let check = |json: &str, want: Result<&str, &str>| {
            let mut attributes: Map<String, Value> = serde_json::from_str(json).expect("JSON");
            let got = types.apply(&mut attributes).map(|()| Value::Object(attributes).to_string());
            match want {
                Ok(want) => assert_eq!(got.as_deref(), Ok(want)),
                Err(part) => assert!(got.is_err_and(|e| e.contains(part)), "{json}"),
            }
        };
        check(
            r#"{"age":"41","member":"Yes","since":"2026-11-23","tags":"a; b;","town":"7"}"#,
            Ok(r#"{"age":41,"member":true,"since":"2026-11-23","tags":["a","b"],"town":"7"}"#),
        );
        check(r#"{"age":"1,5"}"#, Ok(r#"{"age":1.5}"#));
        check(r#"{"age":7}"#, Ok(r#"{"age":7}"#));
        check(r#"{"age":"old"}"#, Err("age: \"old\" is no number"));
        check(r#"{"age":"nan"}"#, Err("is no number"));
        check(r#"{"member":"maybe"}"#, Err("neither"));
        check(r#"{"since":"23.11.2026"}"#, Err("is no date"));
        assert!("age".parse::<Types>().is_err());
        assert!("age=int".parse::<Types>().is_err());
        assert!("age=number,age=date".parse::<Types>().is_err());
    }
}
