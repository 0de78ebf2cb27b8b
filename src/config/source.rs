//! The files of a configuration, merged into one tree in which each value knows where it stands.
//!
//! 1. [`Sources::read`] parses a file into a [`Table`], and reports each syntax error;
//! 2. its `include` files are read the same way, relative to it, and merged in: tables join, arrays of tables
//!    follow each other, and any other key given twice is an error that names both places;
//! 3. [`Sources::place_of`] finds where a value stands, for the errors of the later checks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::problem::{KeyPath, Problem, Step};

/// The deepest chain of includes; a deeper one is an error.
const INCLUDE_DEPTH_MAX: usize = 8;

/// The largest file that is read as configuration; a larger one is refused before it is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Where a value stands: the file's number and the offset in octets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Place {
    pub file: usize,
    pub offset: usize,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    pub kind: Kind,
}

/// The value itself.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    String(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
    /// It was wrong and has been reported; readers pass over it.
    Removed,
}

/// A table: each key with its own place.
pub(super) type Table = BTreeMap<String, (Place, Node)>;

/// A file that was read.
struct SourceFile {
    path: PathBuf,
    text: String,
}

/// The files and their merged tree.
pub(super) struct Sources {
    files: Vec<SourceFile>,
    pub root: Node,
    pub problems: Vec<Problem>,
}

impl Sources {
    /// Reads `path` and all that it includes.
    pub(super) fn read(path: &Path) -> Self {
        let root = Node { place: Place::default(), kind: Kind::Table(Table::new()) };
        let mut sources = Self { files: Vec::new(), root, problems: Vec::new() };
        let table = sources.read_file(path, None, 0);
        sources.root.kind = Kind::Table(table);
        sources
    }

    /// Puts the tables of a built-in file below those of the operator: in each table `[KEY.NAME]` a key that the operator did not give is taken
    /// from there, with its place. Nothing happens where the operator's value is no table; that is reported when it is read.
    pub(super) fn underlay(&mut self, key: &str, name: &str, text: &str) {
        let (document, _) = DeTable::parse_recoverable(text);
        let mut below = convert_table(document.into_inner(), self.files.len());
        self.files.push(SourceFile { path: PathBuf::from(name), text: text.to_owned() });
        let Kind::Table(root) = &mut self.root.kind else { return };
        let Some((place, below)) = below.remove(key) else { return };
        let Some((_, present)) = root.get_mut(key) else {
            root.insert(key.to_owned(), (place, below));
            return;
        };
        let (Kind::Table(present), Kind::Table(below)) = (&mut present.kind, below.kind) else { return };
        for (name, (place, node)) in below {
            match present.get_mut(&name) {
                None => drop(present.insert(name, (place, node))),
                Some((_, Node { kind: Kind::Table(own), .. })) => {
                    let Kind::Table(keys) = node.kind else { continue };
                    for (key, value) in keys {
                        own.entry(key).or_insert(value);
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// Where the value at `path` stands, or the nearest table or array around it that stands anywhere.
    pub(super) fn place_of(&self, path: &KeyPath) -> Place {
        let mut node = &self.root;
        let mut place = node.place;
        for step in &path.0 {
            let next = match (step, &node.kind) {
                (Step::Key(key), Kind::Table(table)) => table.get(key).map(|(_, node)| node),
                (Step::Index(index), Kind::Array(items)) => {
                    items.iter().filter(|item| !matches!(item.kind, Kind::Removed)).nth(*index)
                }
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
            place = node.place;
        }
        place
    }

    /// Where the key at `path` stands; `None` where it stands nowhere.
    pub(super) fn find(&self, path: &KeyPath) -> Option<Place> {
        let mut found = (&self.root.place, &self.root);
        for step in &path.0 {
            found = match (step, &found.1.kind) {
                (Step::Key(key), Kind::Table(table)) => table.get(key).map(|(place, node)| (place, node))?,
                _ => return None,
            };
        }
        Some(*found.0)
    }

    /// The folder of the file in which the value at `path` stands: relative paths start there.
    pub(super) fn folder_of(&self, path: &KeyPath) -> &Path {
        self.files
            .get(self.place_of(path).file)
            .and_then(|file| file.path.parent())
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
    }

    /// A problem at a place.
    pub(super) fn problem(&self, place: Place, key: &KeyPath, message: String, hint: Option<String>) -> Problem {
        let (file, line, column) = match self.files.get(place.file) {
            Some(file) => {
                let (line, column) = line_and_column(&file.text, place.offset);
                (file.path.clone(), line, column)
            }
            None => (PathBuf::new(), 0, 0),
        };
        Problem { file, line, column, key: key.to_string(), message, hint }
    }

    fn read_file(&mut self, path: &Path, included_at: Option<(Place, &KeyPath)>, depth: usize) -> Table {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(message) => {
                let problem = match included_at {
                    Some((place, key)) => self.problem(place, key, message, None),
                    None => Problem {
                        file: path.to_owned(),
                        line: 0,
                        column: 0,
                        key: String::new(),
                        message,
                        hint: Some("`posthaste init DIR` makes a configuration to begin with".into()),
                    },
                };
                self.problems.push(problem);
                return Table::new();
            }
        };
        let file = self.files.len();
        let (document, errors) = DeTable::parse_recoverable(&text);
        let mut table = convert_table(document.into_inner(), file);
        self.files.push(SourceFile { path: path.to_owned(), text: text.clone() });
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            let place = Place { file, offset };
            let problem = self.problem(place, &KeyPath::default(), error.message().trim().to_owned(), None);
            self.problems.push(problem);
        }
        if let Some((place, include)) = table.get("include").cloned() {
            if depth > 0 {
                // What an included file includes is of no use in the merged tree; the root's own list stays.
                table.remove("include");
            }
            self.read_includes(path, place, &include, &mut table, depth);
        }
        table
    }

    fn read_includes(&mut self, parent: &Path, key: Place, include: &Node, into: &mut Table, depth: usize) {
        let base = KeyPath(vec![Step::from("include")]);
        let Kind::Array(items) = &include.kind else {
            if depth > 0 {
                let problem = self.problem(key, &base, "expected an array of file names".into(), None);
                self.problems.push(problem);
            }
            return;
        };
        for (i, item) in items.iter().enumerate() {
            let at = base.join(i);
            let Kind::String(name) = &item.kind else { continue };
            let path = parent.parent().unwrap_or(Path::new("")).join(name);
            if depth >= INCLUDE_DEPTH_MAX {
                let message = format!("files include each other more than {INCLUDE_DEPTH_MAX} deep");
                let problem = self.problem(item.place, &at, message, None);
                self.problems.push(problem);
                continue;
            }
            let same = |file: &SourceFile| match (file.path.canonicalize(), path.canonicalize()) {
                (Ok(a), Ok(b)) => a == b,
                _ => false,
            };
            if self.files.iter().any(same) {
                let message = format!("{} is read already", path.display());
                let problem = self.problem(item.place, &at, message, Some("include each file once".into()));
                self.problems.push(problem);
                continue;
            }
            let table = self.read_file(&path, Some((item.place, &at)), depth + 1);
            self.merge(into, table, &KeyPath::default());
        }
    }

    /// Puts `from` into `into`; what stands in both is reported.
    fn merge(&mut self, into: &mut Table, from: Table, path: &KeyPath) {
        for (key, (place, node)) in from {
            let at = path.join(key.as_str());
            let Some((first, present)) = into.get_mut(&key) else {
                into.insert(key, (place, node));
                continue;
            };
            match (&mut present.kind, node.kind) {
                (Kind::Table(a), Kind::Table(b)) => self.merge(a, b, &at),
                (Kind::Array(a), Kind::Array(b)) if all_tables(a) && all_tables(&b) => a.extend(b),
                _ => {
                    let there = self.problem(*first, &at, String::new(), None);
                    let message = format!(
                        "given twice; the other one is at {}:{}:{}",
                        there.file.display(),
                        there.line,
                        there.column
                    );
                    let problem = self.problem(place, &at, message, Some("keep one of them".into()));
                    self.problems.push(problem);
                }
            }
        }
    }
}

fn all_tables(items: &[Node]) -> bool {
    items.iter().all(|item| matches!(item.kind, Kind::Table(_)))
}

fn read_text(path: &Path) -> Result<String, String> {
    let cannot = |e: std::io::Error| format!("can't read {}: {}", path.display(), io_reason(&e));
    let meta = std::fs::metadata(path).map_err(cannot)?;
    if meta.is_dir() {
        return Err(format!("can't read {}: it is a folder", path.display()));
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err(format!("can't read {}: larger than {FILE_BYTES_MAX} octets", path.display()));
    }
    std::fs::read_to_string(path).map_err(cannot)
}

/// The system's words without Rust's `(os error 2)`.
pub(super) fn io_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::InvalidData => "not UTF-8 text".into(),
        _ => error.to_string(),
    }
}

/// Line and column, both from 1; the column counts characters.
fn line_and_column(text: &str, offset: usize) -> (u32, u32) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line as u32, column as u32)
}

fn convert_table(table: DeTable<'_>, file: usize) -> Table {
    let mut out = Table::new();
    for (key, value) in table {
        let place = Place { file, offset: key.span().start };
        let node = convert(value.span().start, value.into_inner(), file, place);
        out.insert(key.into_inner().into_owned(), (place, node));
    }
    out
}

/// A table made by a header or by dotted keys stands where its key does; any other value where it begins.
fn convert(offset: usize, value: DeValue<'_>, file: usize, key: Place) -> Node {
    let place = Place { file, offset };
    let (place, kind) = match value {
        DeValue::String(text) => (place, Kind::String(text.into_owned())),
        DeValue::Integer(integer) => {
            let digits = integer.as_str().replace('_', "");
            // What is outside of 64 bits is larger than any limit here and fails the limit's own check.
            (place, Kind::Integer(i64::from_str_radix(&digits, integer.radix()).unwrap_or(i64::MAX)))
        }
        DeValue::Float(float) => (place, Kind::Float(float.as_str().replace('_', "").parse().unwrap_or(f64::NAN))),
        DeValue::Boolean(value) => (place, Kind::Bool(value)),
        DeValue::Datetime(datetime) => (place, Kind::Datetime(datetime.to_string())),
        DeValue::Array(items) => {
            let items = items
                .into_iter()
                .map(|item| {
                    let offset = item.span().start;
                    convert(offset, item.into_inner(), file, Place { file, offset })
                })
                .collect();
            (key, Kind::Array(items))
        }
        DeValue::Table(table) => (key, Kind::Table(convert_table(table, file))),
    };
    Node { place, kind }
}
