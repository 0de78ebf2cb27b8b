//! Reads the doc comments of structs and enums from Rust source as rustfmt writes it: one item a line.

/// A struct or an enum.
#[derive(Debug, Default)]
pub(super) struct TypeDoc {
    pub name: String,
    pub fields: Vec<FieldDoc>,
    pub variants: Vec<VariantDoc>,
}

/// A field of a struct.
#[derive(Debug)]
pub(super) struct FieldDoc {
    pub name: String,
    pub ty: String,
    pub doc: String,
    /// Whether the file must have it: neither the field nor the struct has a serde default.
    pub required: bool,
}

/// A variant of an enum, by its name in the file.
#[derive(Debug)]
pub(super) struct VariantDoc {
    pub name: String,
    pub doc: String,
}

/// All public structs and enums of a source file that serde reads.
pub(super) fn parse(source: &str) -> Vec<TypeDoc> {
    let mut types = Vec::new();
    let mut doc = String::new();
    let mut attributes = String::new();
    let mut open: Option<(TypeDoc, String)> = None;
    for line in source.lines() {
        let text = line.trim();
        if let Some(words) = text.strip_prefix("///") {
            if !doc.is_empty() {
                doc.push(' ');
            }
            doc.push_str(words.trim());
            continue;
        }
        if text.starts_with("#[") {
            attributes.push_str(text);
            continue;
        }
        match &mut open {
            None => {
                let opened = ["pub struct ", "pub enum "].iter().find_map(|kind| text.strip_prefix(kind));
                if let Some(name) = opened.and_then(|rest| rest.strip_suffix(" {")) {
                    let named = TypeDoc { name: name.into(), ..TypeDoc::default() };
                    if attributes.contains("Deserialize") {
                        open = Some((named, attributes.clone()));
                    }
                }
            }
            Some((ty, of_type)) => {
                if line == "}" {
                    types.extend(open.take().map(|(ty, _)| ty));
                } else if let Some((name, field_type)) = text
                    .strip_prefix("pub ")
                    .and_then(|rest| rest.strip_suffix(','))
                    .and_then(|rest| rest.split_once(": "))
                {
                    let required = !of_type.contains("#[serde(default)]") && !attributes.contains("default");
                    let doc = std::mem::take(&mut doc);
                    ty.fields.push(FieldDoc { name: name.into(), ty: field_type.into(), doc, required });
                } else if let Some(name) = text.strip_suffix(',').filter(|name| name.chars().all(char::is_alphanumeric))
                {
                    let renamed = attributes.split_once("rename = \"").and_then(|(_, rest)| rest.split('"').next());
                    let name = renamed.map_or_else(|| name.to_lowercase(), str::to_owned);
                    ty.variants.push(VariantDoc { name, doc: std::mem::take(&mut doc) });
                }
            }
        }
        doc.clear();
        attributes.clear();
    }
    types
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_with_their_docs_and_defaults() {
        let types = parse(
            "/// A thing.\n#[derive(Deserialize)]\npub struct Thing {\n    /// Its name,\n    /// in two lines.\n    \
             pub name: String,\n    /// Maybe.\n    #[serde(default)]\n    pub size: Option<u32>,\n}\n\
             /// How.\n#[derive(Deserialize)]\n#[serde(rename_all = \"lowercase\")]\npub enum How {\n    /// Well.\n    Well,\n    \
             /// So.\n    #[serde(rename = \"so-so\")]\n    SoSo,\n}\n",
        );
        let [thing, how] = types.as_slice() else { panic!("two types: {types:?}") };
        assert_eq!((thing.name.as_str(), how.name.as_str()), ("Thing", "How"));
        let fields: Vec<_> = thing.fields.iter().map(|f| (f.name.as_str(), f.doc.as_str(), f.required)).collect();
        assert_eq!(fields, [("name", "Its name, in two lines.", true), ("size", "Maybe.", false)]);
        let variants: Vec<_> = how.variants.iter().map(|v| (v.name.as_str(), v.doc.as_str())).collect();
        assert_eq!(variants, [("well", "Well."), ("so-so", "So.")]);
    }
}
