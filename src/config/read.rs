//! From the tree to the types, with all errors at once.
//!
//! 1. A serde deserializer walks the tree; it passes over unknown keys, and reports each with the nearest known one;
//! 2. the first wrong value ends serde's run: it is reported, taken out of the tree, and the run begins again,
//! 3. until what is left is right. So each error is told with its own place, and none hides another.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::Config;
use super::problem::{KeyPath, Problem, Step};
use super::source::{Kind, Node, Place, Sources};
use crate::types::nearest;

/// The most wrong values that are told of one configuration; then reading ends.
const ERRORS_MAX: usize = 100;

/// What was read, and whether anything had to be taken out for it.
pub(super) struct Reading {
    pub config: Config,
    pub problems: Vec<Problem>,
    /// Paths whose values were wrong: what depends on them is not checked.
    pub removed: Vec<KeyPath>,
}

/// Reads the tree of `sources`; what is wrong in it is taken out of it.
pub(super) fn read(sources: &mut Sources) -> Reading {
    let mut problems = Vec::new();
    let mut removed: Vec<KeyPath> = Vec::new();
    let unknown = RefCell::new(BTreeMap::new());
    let config = loop {
        let de = De { node: &sources.root, path: KeyPath::default(), unknown: &unknown };
        let error = match Config::deserialize(de) {
            Ok(config) => break config,
            Err(error) => error,
        };
        let path = error.path.clone().unwrap_or_default();
        let consequence = error.missing.is_some_and(|field| removed.contains(&path.join(field)));
        if !consequence {
            let place = error.place.unwrap_or_else(|| sources.place_of(&path));
            problems.push(sources.problem(place, &path, error.message, error.hint));
        }
        if problems.len() >= ERRORS_MAX || !remove(&mut sources.root, &path.0) {
            break Config::default();
        }
        removed.push(path);
    };
    for (place, unknown) in unknown.into_inner() {
        problems.push(sources.problem(place, &unknown.path, "unknown key".into(), Some(unknown.hint)));
    }
    Reading { config, problems, removed }
}

/// Takes a value out; an item of an array leaves its place empty, so that the others keep their numbers.
fn remove(node: &mut Node, path: &[Step]) -> bool {
    match (path, &mut node.kind) {
        ([Step::Key(key)], Kind::Table(table)) => table.remove(key).is_some(),
        ([Step::Index(index)], Kind::Array(items)) => match items.get_mut(*index) {
            Some(item) => {
                item.kind = Kind::Removed;
                true
            }
            None => false,
        },
        ([Step::Key(key), rest @ ..], Kind::Table(table)) => {
            table.get_mut(key).is_some_and(|(_, node)| remove(node, rest))
        }
        ([Step::Index(index), rest @ ..], Kind::Array(items)) => {
            items.get_mut(*index).is_some_and(|node| remove(node, rest))
        }
        _ => false,
    }
}

struct Unknown {
    path: KeyPath,
    hint: String,
}

/// A wrong value: serde's words, and the place as soon as it is known.
#[derive(Debug)]
struct Error {
    message: String,
    hint: Option<String>,
    missing: Option<&'static str>,
    path: Option<KeyPath>,
    place: Option<Place>,
}

impl Error {
    /// The innermost place wins.
    fn at(mut self, path: &KeyPath, place: Place) -> Self {
        if self.path.is_none() {
            self.path = Some(path.clone());
            self.place = Some(place);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = match message.to_string().as_str() {
            "invalid socket address syntax" => {
                "not an address with its port, as \"127.0.0.1:25\" or \"[::1]:25\"".into()
            }
            "invalid IP address syntax" => "not an IP address, as \"192.0.2.10\" or \"2001:db8::1\"".into(),
            words => words.to_owned(),
        };
        Self { message, hint: None, missing: None, path: None, place: None }
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("expected {}, found {found}", plain(expected)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("expected {}, found {found}", plain(expected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mut error = Self::custom(format_args!("{variant:?} is not one of {}", expected.join(", ")));
        error.hint = nearest(variant, expected.iter().copied()).map(|near| format!("did you mean {near:?}?"));
        error
    }

    fn missing_field(field: &'static str) -> Self {
        let mut error = Self::custom(format_args!("the key `{field}` is missing"));
        error.missing = Some(field);
        error
    }
}

/// Serde's names of Rust types in an operator's words.
fn plain(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" | "u16" | "u32" | "u64" => {
            let max = match text.as_str() {
                "u8" => u64::from(u8::MAX),
                "u16" => u64::from(u16::MAX),
                "u32" => u64::from(u32::MAX),
                _ => i64::MAX as u64,
            };
            format!("a number from 0 to {max}")
        }
        "a boolean" => "true or false".into(),
        "a sequence" => "an array".into(),
        "path string" => "a file name".into(),
        "a map" => "a table".into(),
        _ if text.starts_with("struct ") => "a table".into(),
        _ if text.starts_with("variant ") || text.starts_with("enum ") => "a string".into(),
        _ => text,
    }
}

/// A deserializer of one value.
struct De<'a> {
    node: &'a Node,
    path: KeyPath,
    unknown: &'a RefCell<BTreeMap<Place, Unknown>>,
}

impl<'de> de::Deserializer<'de> for De<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let (path, place) = (self.path.clone(), self.node.place);
        let result = match &self.node.kind {
            Kind::String(text) => visitor.visit_borrowed_str(text),
            Kind::Integer(number) => visitor.visit_i64(*number),
            Kind::Float(number) => visitor.visit_f64(*number),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Datetime(text) => visitor.visit_borrowed_str(text),
            Kind::Array(items) => visitor.visit_seq(Items { items: items.iter().enumerate(), of: &self }),
            Kind::Table(table) => {
                let mut entries = Entries { entries: table.iter(), value: None, of: &self, known: None };
                visitor.visit_map(&mut entries)
            }
            Kind::Removed => visitor.visit_unit(),
        };
        result.map_err(|e| e.at(&path, place))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Kind::Table(table) = &self.node.kind else { return self.deserialize_any(visitor) };
        let (path, place) = (self.path.clone(), self.node.place);
        for (key, (place, _)) in table {
            if !fields.contains(&key.as_str()) {
                let hint = hint_for_unknown(key, fields, name);
                self.unknown.borrow_mut().insert(*place, Unknown { path: path.join(key.as_str()), hint });
            }
        }
        let mut entries = Entries { entries: table.iter(), value: None, of: &self, known: Some(fields) };
        visitor.visit_map(&mut entries).map_err(|e| e.at(&path, place))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (path, place) = (self.path.clone(), self.node.place);
        match &self.node.kind {
            Kind::String(text) => {
                let de: StrDeserializer<'_, Error> = text.as_str().into_deserializer();
                visitor.visit_enum(de).map_err(|e| e.at(&path, place))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// The nearest key here, else the tables that know the key, else what is known here.
fn hint_for_unknown(key: &str, fields: &[&str], name: &str) -> String {
    if let Some(near) = nearest(key, fields.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    let elsewhere = super::reference::tables_with(key);
    match elsewhere.is_empty() {
        false => format!("`{key}` belongs into {}", elsewhere.join(" or ")),
        true if name == "Config" => "`posthaste config reference` lists all keys".into(),
        true => format!("known here: {}", fields.join(", ")),
    }
}

struct Items<'a, 'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
    of: &'a De<'de>,
}

impl<'de> de::SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((i, node)) = self.items.by_ref().find(|(_, node)| !matches!(node.kind, Kind::Removed)) else {
            return Ok(None);
        };
        let path = self.of.path.join(i);
        let place = node.place;
        let de = De { node, path: path.clone(), unknown: self.of.unknown };
        seed.deserialize(de).map(Some).map_err(|e| e.at(&path, place))
    }
}

struct Entries<'a, 'de> {
    entries: std::collections::btree_map::Iter<'de, String, (Place, Node)>,
    value: Option<(&'de str, &'de Node)>,
    of: &'a De<'de>,
    known: Option<&'static [&'static str]>,
}

impl<'de> de::MapAccess<'de> for &mut Entries<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let known = self.known;
        let wanted = |key: &str| known.is_none_or(|known| known.contains(&key));
        let Some((key, (place, node))) = self.entries.by_ref().find(|(key, _)| wanted(key)) else { return Ok(None) };
        self.value = Some((key, node));
        let de: StrDeserializer<'_, Error> = key.as_str().into_deserializer();
        seed.deserialize(de).map(Some).map_err(|e| e.at(&self.of.path.join(key.as_str()), *place))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let Some((key, node)) = self.value.take() else { return Err(de::Error::custom("a value without a key")) };
        let path = self.of.path.join(key);
        let place = node.place;
        let de = De { node, path: path.clone(), unknown: self.of.unknown };
        seed.deserialize(de).map_err(|e| e.at(&path, place))
    }
}
