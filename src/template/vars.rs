//! What a template sees: one recipient's row, beside what is the same for all.
//!
//! 1. [`Vars::parse`] reads the row `{email, name?, tz?, vars{}, metadata{}}` once, straight into template values,
//! 2. a name is looked for among the reserved names, then in `vars`, then in the globals; a short list is searched, no map is built,
//! 3. an empty text and `null` are missing: an empty cell of a table means that nothing is known.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::template::RowError;
use crate::types::Timestamp;

/// Names and values in the order of their source; the few that a row has are found faster by search than by hash.
#[derive(Clone, Default, Debug)]
pub(super) struct Fields(Vec<(Box<str>, Value)>);

impl Fields {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    fn set(&mut self, name: &str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.into(), value)),
        }
    }
}

impl Object for Fields {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?).cloned()
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(name, _)| Value::from(&**name)).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }
}

/// What is the same for all recipients of a campaign: its own variables, and `campaign`.
#[derive(Clone, Default, Debug)]
pub struct Globals(Fields);

impl Globals {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable, or replaces it.
    pub fn set(&mut self, name: &str, value: &serde_json::Value) -> &mut Self {
        self.0.set(name, of_json(value));
        self
    }

    /// With one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &serde_json::Value) -> Self {
        self.set(name, value);
        self
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.0.iter().map(|(name, _)| &**name)
    }
}

/// One recipient's variables.
#[derive(Clone, Debug)]
pub struct Vars(Arc<Recipient>);

#[derive(Clone, Debug, Default)]
struct Recipient {
    email: Value,
    name: Value,
    tz: Value,
    /// Set by us for this recipient: links of his own. They stand before his variables.
    own: Fields,
    vars: Arc<Fields>,
    metadata: Arc<Fields>,
    globals: Arc<Globals>,
}

impl Vars {
    /// Reads a row: a JSON object with `email`, and `name`, `tz`, `vars` and `metadata` where known. Other keys are left out.
    ///
    /// # Errors
    /// When it is not JSON, or not of this form.
    pub fn parse(row: &[u8], globals: &Arc<Globals>) -> Result<Self, RowError> {
        let mut recipient = Recipient { globals: Arc::clone(globals), ..Recipient::default() };
        let mut json = serde_json::Deserializer::from_slice(row);
        let fields = FieldsSeed.deserialize(&mut json).map_err(|e| RowError(e.to_string()))?;
        json.end().map_err(|e| RowError(e.to_string()))?;
        for (name, value) in fields.0 {
            let part = match &*name {
                "email" => &mut recipient.email,
                "name" => &mut recipient.name,
                "tz" => &mut recipient.tz,
                "vars" | "metadata" => {
                    let fields = value.downcast_object::<Fields>();
                    let fields = fields.ok_or_else(|| RowError(format!("`{name}` is no object")))?;
                    *(if &*name == "vars" { &mut recipient.vars } else { &mut recipient.metadata }) = fields;
                    continue;
                }
                _ => continue,
            };
            *part = value;
        }
        Ok(Self(Arc::new(recipient)))
    }

    /// Sets a variable of this recipient that none of its own may replace: `unsubscribe_url`, `view_url`.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        Arc::make_mut(&mut self.0).own.set(name, Value::from(value));
        self
    }

    /// The value of a name, or of a path with dots; `None` when it is missing.
    pub(super) fn get(&self, path: &str) -> Option<Value> {
        let mut parts = path.split('.');
        let mut value = self.0.lookup(parts.next()?)?;
        for part in parts {
            value = value.get_attr(part).ok().filter(|v| !v.is_undefined())?;
        }
        Some(value)
    }

    /// Whether a name, or a path with dots, has a value.
    pub fn has(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    /// The names of the recipient's own variables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.vars.0.iter().map(|(name, _)| &**name)
    }

    /// The object that one rendering sees.
    pub(super) fn root(&self, now: Timestamp, blanks: &[String]) -> Arc<Root> {
        Arc::new(Root {
            recipient: Arc::clone(&self.0),
            now,
            cleaned: AtomicBool::new(false),
            blanks: blanks.iter().map(|b| b.as_str().into()).collect(),
        })
    }
}

impl Recipient {
    fn lookup(&self, name: &str) -> Option<Value> {
        let value = match name {
            "email" => self.email.clone(),
            "name" if !self.name.is_undefined() => self.name.clone(),
            "tz" => self.tz.clone(),
            "vars" => Value::from_dyn_object(Arc::clone(&self.vars)),
            "metadata" => Value::from_dyn_object(Arc::clone(&self.metadata)),
            _ => {
                let found = self.own.get(name);
                let found = found.or_else(|| if name == "campaign" { None } else { self.vars.get(name) });
                found.or_else(|| self.globals.0.get(name))?.clone()
            }
        };
        (!value.is_undefined()).then_some(value)
    }
}

/// What one rendering sees: the recipient, the time, and a place for a warning.
#[derive(Debug)]
pub(super) struct Root {
    recipient: Arc<Recipient>,
    pub(super) now: Timestamp,
    /// A variable in a header had a line end.
    cleaned: AtomicBool,
    /// Names, with dots, that are taken as blank: those found missing before.
    blanks: Vec<Box<str>>,
}

/// The name under which the functions find the root; no template can say it.
pub(super) const ROOT: &str = "@root";

impl Root {
    pub(super) fn note_cleaned(&self) {
        self.cleaned.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cleaned(&self) -> bool {
        self.cleaned.load(Ordering::Relaxed)
    }

    /// The recipient's time zone.
    pub(super) fn tz(&self) -> Option<&str> {
        self.recipient.tz.as_str()
    }
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if key == ROOT {
            return Some(Value::from_dyn_object(Arc::clone(self)));
        }
        if !self.blanks.is_empty()
            && let Some(value) = self.blank(key)
        {
            return Some(value);
        }
        self.recipient.lookup(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Empty
    }
}

impl Root {
    /// A name with a blank at it or below it.
    fn blank(&self, name: &str) -> Option<Value> {
        let below: Vec<Box<str>> =
            self.blanks.iter().filter_map(|b| b.strip_prefix(name)?.strip_prefix('.')).map(Into::into).collect();
        if below.is_empty() {
            return self.blanks.iter().any(|b| **b == *name).then(|| Value::from_object(Blank));
        }
        let under = self.recipient.lookup(name).unwrap_or_default();
        Some(Value::from_object(Overlay { under, blanks: below }))
    }
}

/// An object with some of its fields, or of theirs, taken as blank.
#[derive(Debug)]
struct Overlay {
    under: Value,
    blanks: Vec<Box<str>>,
}

impl Object for Overlay {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str().unwrap_or_default();
        if self.blanks.iter().any(|b| **b == *name) {
            return Some(Value::from_object(Blank));
        }
        let under = self.under.get_item(key).ok().filter(|v| !v.is_undefined());
        let below: Vec<Box<str>> =
            self.blanks.iter().filter_map(|b| b.strip_prefix(name)?.strip_prefix('.')).map(Into::into).collect();
        if below.is_empty() {
            return under;
        }
        Some(Value::from_object(Overlay { under: under.unwrap_or_default(), blanks: below }))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.under.try_iter().map_or(Enumerator::Empty, |keys| Enumerator::Values(keys.collect()))
    }
}

/// Stands for a missing value while the others are looked for: empty, false, without items, and so are its fields.
#[derive(Debug)]
struct Blank;

impl Object for Blank {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        key.as_str().map(|_| Value::from_object(Blank))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(0)
    }

    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Whether a value counts as missing.
fn is_missing(value: &Value) -> bool {
    value.is_undefined() || value.is_none() || value.as_str().is_some_and(str::is_empty)
}

fn of_json(json: &serde_json::Value) -> Value {
    ValueSeed.deserialize(json).unwrap_or_default()
}

#[derive(Clone, Copy)]
struct ValueSeed;

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::from(()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::from(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        Ok(Value::from_object(FieldsSeed.visit_map(map)?))
    }
}

struct FieldsSeed;

impl<'de> DeserializeSeed<'de> for FieldsSeed {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Fields, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let value = map.next_value_seed(ValueSeed)?;
            if !is_missing(&value) {
                fields.push((name.into(), value));
            }
        }
        Ok(Fields(fields))
    }
}
