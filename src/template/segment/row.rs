//! The values that a segment needs, read from a row's JSON in one pass; all else is skipped.

use std::borrow::Cow;
use std::fmt;

use minijinja::Value;
use minijinja::value::ValueKind;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::template::segment::SegmentError;

/// A value of a row, or of an expression.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) enum Val<'a> {
    /// Nothing is known: no such variable, `null`, or an empty text.
    #[default]
    Missing,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Val<'a>>),
    /// An object: it has fields, and no use of its own.
    Object,
}

/// The names that are needed, as a tree: `vars.town` is under `vars`.
#[derive(Default, Debug)]
pub(super) struct Trie {
    children: Vec<(Box<str>, Trie)>,
    place: Option<usize>,
}

impl Trie {
    pub(super) fn new(names: &[String]) -> Self {
        let mut root = Self::default();
        for (place, name) in names.iter().enumerate() {
            let first = name.split('.').next().unwrap_or(name);
            let is_own = matches!(first, "email" | "name" | "tz" | "vars" | "metadata");
            // A variable may be named with `vars.` or without; both may occur in one expression, and each has its place.
            root.add((!is_own).then_some("vars").into_iter().chain(name.split('.')), place);
        }
        root
    }

    fn add<'n>(&mut self, path: impl Iterator<Item = &'n str>, place: usize) {
        let mut node = self;
        for part in path {
            let at = node.children.iter().position(|(name, _)| **name == *part).unwrap_or_else(|| {
                node.children.push((part.into(), Trie::default()));
                node.children.len() - 1
            });
            node = &mut node.children[at].1;
        }
        node.place.get_or_insert(place);
        if node.place != Some(place) {
            node.children.push(("".into(), Trie { children: Vec::new(), place: Some(place) }));
        }
    }

    fn child(&self, name: &str) -> Option<&Trie> {
        self.children.iter().find(|(known, _)| **known == *name).map(|(_, child)| child)
    }

    /// The other places of the same value.
    fn twins(&self) -> impl Iterator<Item = usize> {
        self.children.iter().filter(|(name, _)| name.is_empty()).filter_map(|(_, twin)| twin.place)
    }

    /// The values of a row.
    pub(super) fn read<'a>(&self, row: &'a [u8], names: usize) -> Result<Vec<Val<'a>>, SegmentError> {
        let mut values = vec![Val::Missing; names];
        let mut json = serde_json::Deserializer::from_slice(row);
        let read = RowSeed { trie: self, values: &mut values }.deserialize(&mut json).and_then(|()| json.end());
        read.map_err(|e| SegmentError::Row(e.to_string()))?;
        Ok(values)
    }
}

/// Reads an object into the places that are asked for; a value that is no object leaves them missing.
struct RowSeed<'t, 'v, 'a> {
    trie: &'t Trie,
    values: &'v mut Vec<Val<'a>>,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(name)) = map.next_key()? {
            match self.trie.child(&name) {
                Some(child) => map.next_value_seed(AnySeed { trie: child, values: self.values })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A key, borrowed where it has no escapes: `Cow` alone would be copied.
struct Key<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(v)))
            }

            fn visit_str<E>(self, v: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(v.to_owned())))
            }
        }
        json.deserialize_str(KeyVisitor)
    }
}

/// Reads any value into a place; of an object also its fields.
struct AnySeed<'t, 'v, 'a> {
    trie: &'t Trie,
    values: &'v mut Vec<Val<'a>>,
}

impl<'a> AnySeed<'_, '_, 'a> {
    fn put<E>(self, value: Val<'a>) -> Result<(), E> {
        for twin in self.trie.twins() {
            self.values[twin] = value.clone();
        }
        if let Some(place) = self.trie.place {
            self.values[place] = value;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for AnySeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnySeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<(), E> {
        self.put(Val::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<(), E> {
        self.put(Val::Int(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<(), E> {
        self.put(i64::try_from(v).map_or(Val::Float(v as f64), Val::Int))
    }

    fn visit_f64<E>(self, v: f64) -> Result<(), E> {
        self.put(Val::Float(v))
    }

    fn visit_borrowed_str<E>(self, v: &'de str) -> Result<(), E> {
        self.put(if v.is_empty() { Val::Missing } else { Val::Text(Cow::Borrowed(v)) })
    }

    fn visit_str<E>(self, v: &str) -> Result<(), E> {
        self.put(if v.is_empty() { Val::Missing } else { Val::Text(Cow::Owned(v.to_owned())) })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.put(Val::Missing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let item_trie = Trie { children: Vec::new(), place: Some(0) };
        let mut items = Vec::new();
        let mut item = vec![Val::Missing];
        while seq.next_element_seed(AnySeed { trie: &item_trie, values: &mut item })?.is_some() {
            items.push(std::mem::take(&mut item[0]));
        }
        self.put(Val::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Self { trie, values } = self;
        RowSeed { trie, values: &mut *values }.visit_map(map)?;
        AnySeed { trie, values }.put(Val::Object)
    }
}

/// A template's value as a segment's.
pub(super) fn of_value(value: &Value) -> Val<'_> {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Val::Missing,
        ValueKind::Bool => Val::Bool(value.is_true()),
        ValueKind::Number => match i64::try_from(value.clone()) {
            Ok(n) if value.is_integer() => Val::Int(n),
            _ => f64::try_from(value.clone()).map_or(Val::Missing, Val::Float),
        },
        ValueKind::String => match value.as_str() {
            Some("") | None => Val::Missing,
            Some(text) => Val::Text(Cow::Borrowed(text)),
        },
        ValueKind::Seq => {
            let items = value.try_iter().into_iter().flatten();
            Val::List(items.map(|item| owned(of_value(&item))).collect())
        }
        _ => Val::Object,
    }
}

fn owned<'o>(value: Val<'_>) -> Val<'o> {
    match value {
        Val::Missing => Val::Missing,
        Val::Bool(b) => Val::Bool(b),
        Val::Int(n) => Val::Int(n),
        Val::Float(n) => Val::Float(n),
        Val::Text(text) => Val::Text(Cow::Owned(text.into_owned())),
        Val::List(items) => Val::List(items.into_iter().map(owned).collect()),
        Val::Object => Val::Object,
    }
}
