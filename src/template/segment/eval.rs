//! The evaluation of a segment over a row's values.
//!
//! Missing values first: a comparison, `in` or string test with one is false, and so is its opposite `!=` or `not in`; arithmetic and
//! functions over one give a missing value. Then types: text that is written as a number is one beside a number; what is left is an error
//! that names the variable.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::template::dates;
use crate::template::segment::parse::{Call, Cmp, Expr, Op, Test};
use crate::template::segment::row::Val;
use crate::template::segment::{Missing, SegmentError};
use crate::types::Timestamp;

/// Characters of a value that a message shows.
const SHOWN_MAX: usize = 40;

pub(super) struct Eval<'a, 'm> {
    pub(super) values: &'a [Val<'a>],
    pub(super) names: &'a [String],
    pub(super) now: Timestamp,
    pub(super) missing: &'m mut Missing,
}

type Valued<'a> = Result<Cow<'a, Val<'a>>, SegmentError>;

fn val<'a>(value: Val<'a>) -> Valued<'a> {
    Ok(Cow::Owned(value))
}

impl<'a> Eval<'a, '_> {
    /// Whether an expression is true. A missing value is false, and not counted: `subscribed and …` asks only whether.
    pub(super) fn truth(&mut self, expr: &'a Expr) -> Result<bool, SegmentError> {
        match expr {
            Expr::Not(inner) => Ok(!self.truth(inner)?),
            Expr::And(a, b) => Ok(self.truth(a)? && self.truth(b)?),
            Expr::Or(a, b) => Ok(self.truth(a)? || self.truth(b)?),
            Expr::Compare(cmp, a, b) => self.compare(*cmp, a, b),
            Expr::In { negated, item, list } => self.is_in(*negated, item, list),
            Expr::Is { negated, test, value, argument } => self.is(*negated, *test, value, argument.as_deref()),
            Expr::Matches { negated, value, pattern } => {
                let text = self.value(value)?;
                let Some(text) = self.text(&text, value, "matching")? else { return Ok(false) };
                Ok(pattern.is_match(&text) != *negated)
            }
            Expr::Null
            | Expr::Bool(_)
            | Expr::Int(_)
            | Expr::Float(_)
            | Expr::Text(_)
            | Expr::Name(_)
            | Expr::List(_)
            | Expr::Arithmetic(..)
            | Expr::Negative(_)
            | Expr::Call(..) => Ok(match &*self.value(expr)? {
                Val::Missing => false,
                Val::Bool(b) => *b,
                Val::Int(n) => *n != 0,
                Val::Float(n) => *n != 0.0,
                // The cells of a table hold the word.
                Val::Text(text) => !text.is_empty() && !text.eq_ignore_ascii_case("false"),
                Val::List(items) => !items.is_empty(),
                Val::Object => true,
            }),
        }
    }

    fn value(&mut self, expr: &'a Expr) -> Valued<'a> {
        match expr {
            Expr::Null => val(Val::Missing),
            Expr::Bool(b) => val(Val::Bool(*b)),
            Expr::Int(n) => val(Val::Int(*n)),
            Expr::Float(n) => val(Val::Float(*n)),
            Expr::Text(text) => val(Val::Text(Cow::Borrowed(text))),
            Expr::Name(place) => Ok(self.values.get(*place).map_or(Cow::Owned(Val::Missing), Cow::Borrowed)),
            Expr::List(items) => {
                let items = items.iter().map(|item| self.value(item).map(Cow::into_owned)).collect::<Result<_, _>>()?;
                val(Val::List(items))
            }
            Expr::Arithmetic(op, a, b) => self.arithmetic(*op, a, b),
            Expr::Negative(inner) => {
                let value = self.value(inner)?;
                match self.number(&value, inner, "-")? {
                    None => val(Val::Missing),
                    Some(Num::Int(n)) => val(n.checked_neg().map_or(Val::Float(-(n as f64)), Val::Int)),
                    Some(Num::Float(n)) => val(Val::Float(-n)),
                }
            }
            Expr::Call(call, arguments) => self.call(*call, arguments),
            Expr::Not(_)
            | Expr::And(..)
            | Expr::Or(..)
            | Expr::Compare(..)
            | Expr::In { .. }
            | Expr::Is { .. }
            | Expr::Matches { .. } => val(Val::Bool(self.truth(expr)?)),
        }
    }

    /// Counts the variable that an expression is about.
    fn note(&mut self, expr: &Expr) {
        match expr {
            Expr::Name(place) => self.missing.note(*place),
            Expr::Call(Call::Default, _) => {}
            Expr::Call(_, arguments) => arguments.iter().for_each(|argument| self.note_if_missing(argument)),
            Expr::Arithmetic(_, a, b) => {
                self.note_if_missing(a);
                self.note_if_missing(b);
            }
            Expr::Negative(inner) => self.note(inner),
            _ => {}
        }
    }

    fn note_if_missing(&mut self, expr: &Expr) {
        match expr {
            Expr::Name(place) if !matches!(self.values.get(*place), None | Some(Val::Missing)) => {}
            _ => self.note(expr),
        }
    }

    fn compare(&mut self, cmp: Cmp, a: &'a Expr, b: &'a Expr) -> Result<bool, SegmentError> {
        let left = self.value(a)?;
        let right = self.value(b)?;
        if matches!(*left, Val::Missing) || matches!(*right, Val::Missing) {
            self.note_if_missing(a);
            self.note_if_missing(b);
            return Ok(false);
        }
        if let Some(order) = order(&left, &right) {
            return Ok(match cmp {
                Cmp::Eq => order == Ordering::Equal,
                Cmp::Ne => order != Ordering::Equal,
                Cmp::Lt => order == Ordering::Less,
                Cmp::Le => order != Ordering::Greater,
                Cmp::Gt => order == Ordering::Greater,
                Cmp::Ge => order != Ordering::Less,
            });
        }
        match (&*left, &*right, cmp) {
            (Val::List(x), Val::List(y), Cmp::Eq) => return Ok(x == y),
            (Val::List(x), Val::List(y), Cmp::Ne) => return Ok(x != y),
            _ => {}
        }
        // The variable is whom the message is about, on whichever side it stands.
        let (about, about_expr, other) =
            if self.name_of(a).is_some() { (&left, a, &right) } else { (&right, b, &left) };
        Err(self.type_error(about_expr, about, &format!("is compared with {}", describe(other))))
    }

    fn is_in(&mut self, negated: bool, item: &'a Expr, list: &'a Expr) -> Result<bool, SegmentError> {
        let value = self.value(item)?;
        // The usual list of texts is searched as it stands.
        if let (Expr::List(items), false) = (list, matches!(*value, Val::Missing)) {
            let mut found = false;
            for candidate in items {
                let candidate = self.value(candidate)?;
                found |= order(&value, &candidate) == Some(Ordering::Equal);
            }
            return Ok(found != negated);
        }
        let within = self.value(list)?;
        let found = match (&*value, &*within) {
            (Val::Missing, _) | (_, Val::Missing) => {
                self.note_if_missing(item);
                self.note_if_missing(list);
                return Ok(false);
            }
            (item, Val::List(items)) => items.iter().any(|i| order(item, i) == Some(Ordering::Equal)),
            (Val::Text(part), Val::Text(text)) => text.contains(&**part),
            _ => return Err(self.type_error(list, &within, "is no list and no text to look in")),
        };
        Ok(found != negated)
    }

    fn is(
        &mut self,
        negated: bool,
        test: Test,
        value: &'a Expr,
        argument: Option<&'a Expr>,
    ) -> Result<bool, SegmentError> {
        let found = self.value(value)?;
        let holds = match test {
            Test::Defined => !matches!(*found, Val::Missing),
            Test::Missing => matches!(*found, Val::Missing),
            Test::String => matches!(*found, Val::Text(_)),
            Test::Number => matches!(*found, Val::Int(_) | Val::Float(_)),
            Test::StartingWith | Test::EndingWith | Test::Containing => {
                let Some(argument_expr) = argument else { return Ok(false) };
                let argument = self.value(argument_expr)?;
                if let (Val::List(items), Test::Containing) = (&*found, test) {
                    return Ok(items.iter().any(|i| order(i, &argument) == Some(Ordering::Equal)) != negated);
                }
                let Some(text) = self.text(&found, value, "a test of text")? else { return Ok(false) };
                let Some(part) = self.text(&argument, argument_expr, "a test of text")? else { return Ok(false) };
                match test {
                    Test::StartingWith => text.starts_with(&*part),
                    Test::EndingWith => text.ends_with(&*part),
                    _ => text.contains(&*part),
                }
            }
        };
        Ok(holds != negated)
    }

    fn arithmetic(&mut self, op: Op, a: &'a Expr, b: &'a Expr) -> Valued<'a> {
        let left = self.value(a)?;
        let right = self.value(b)?;
        if matches!(*left, Val::Missing) || matches!(*right, Val::Missing) {
            return val(Val::Missing);
        }
        if op == Op::Concat {
            let (Some(left), Some(right)) = (self.text(&left, a, "~")?, self.text(&right, b, "~")?) else {
                return val(Val::Missing);
            };
            return val(Val::Text(Cow::Owned(format!("{left}{right}"))));
        }
        let sign = ["+", "-", "*", "/", "//", "%", "~"][op as usize];
        let (Some(x), Some(y)) = (self.number(&left, a, sign)?, self.number(&right, b, sign)?) else {
            return val(Val::Missing);
        };
        if matches!(op, Op::Div | Op::FloorDiv | Op::Rem) && y.float() == 0.0 {
            return Err(self.type_error(b, &right, "divides, and is zero"));
        }
        if let (Num::Int(x), Num::Int(y)) = (x, y) {
            let exact = match op {
                Op::Add => x.checked_add(y),
                Op::Sub => x.checked_sub(y),
                Op::Mul => x.checked_mul(y),
                Op::FloorDiv => x.checked_div_euclid(y).map(|q| if y < 0 && x.rem_euclid(y) != 0 { q - 1 } else { q }),
                Op::Rem => x.checked_rem(y).map(|r| if r != 0 && (r < 0) != (y < 0) { r + y } else { r }),
                Op::Div | Op::Concat => None,
            };
            if let Some(exact) = exact {
                return val(Val::Int(exact));
            }
        }
        let (x, y) = (x.float(), y.float());
        val(Val::Float(match op {
            Op::Add => x + y,
            Op::Sub => x - y,
            Op::Mul => x * y,
            Op::Div | Op::Concat => x / y,
            Op::FloorDiv => (x / y).floor(),
            Op::Rem => x - y * (x / y).floor(),
        }))
    }

    fn call(&mut self, call: Call, arguments: &'a [Expr]) -> Valued<'a> {
        let Some(first) = arguments.first() else { return val(Val::Text(Cow::Owned(self.now.rfc3339()))) };
        let value = self.value(first)?;
        if matches!(*value, Val::Missing) {
            return match (call, arguments.get(1)) {
                (Call::Default, Some(default)) => self.value(default),
                _ => Ok(value),
            };
        }
        let words = |f: fn(&str) -> String, text: Cow<'_, str>| val(Val::Text(Cow::Owned(f(&text))));
        match call {
            Call::Default | Call::Now => return Ok(value),
            Call::Length => {
                return match &*value {
                    Val::List(items) => val(Val::Int(items.len() as i64)),
                    other => match self.text(other, first, "length")? {
                        Some(text) => val(Val::Int(text.chars().count() as i64)),
                        None => val(Val::Missing),
                    },
                };
            }
            Call::First | Call::Last => {
                return match &*value {
                    Val::List(items) => {
                        let item = if call == Call::First { items.first() } else { items.last() };
                        val(item.cloned().unwrap_or_default())
                    }
                    other => Err(self.type_error(first, other, "is no list")),
                };
            }
            Call::Int | Call::Float | Call::Abs => {
                let number = self.number(&value, first, "this filter")?;
                return match (call, number) {
                    (_, None) => val(Val::Missing),
                    (Call::Int, Some(Num::Float(n))) => val(Val::Int(n.trunc() as i64)),
                    (Call::Float, Some(n)) => val(Val::Float(n.float())),
                    (Call::Abs, Some(Num::Int(n))) => {
                        val(n.checked_abs().map_or(Val::Float((n as f64).abs()), Val::Int))
                    }
                    (Call::Abs, Some(Num::Float(n))) => val(Val::Float(n.abs())),
                    (_, Some(Num::Int(n))) => val(Val::Int(n)),
                    (_, Some(Num::Float(n))) => val(Val::Float(n)),
                };
            }
            Call::DaysSince | Call::DaysUntil | Call::Age => {
                let Some(text) = self.text(&value, first, "a date")? else { return val(Val::Missing) };
                let Some(when) = dates::parse(&text) else {
                    return Err(self.type_error(first, &value, "is used as a date: write 2026-11-23"));
                };
                return val(Val::Int(match call {
                    Call::Age => dates::age(when, self.now),
                    Call::DaysUntil => -dates::days_since(when, self.now),
                    _ => dates::days_since(when, self.now),
                }));
            }
            Call::Lower | Call::Upper | Call::Trim | Call::FirstWord => {}
        }
        let Some(text) = self.text(&value, first, "this filter")? else { return val(Val::Missing) };
        match call {
            Call::Lower => words(|t| t.to_lowercase(), text),
            Call::Upper => words(|t| t.to_uppercase(), text),
            Call::Trim => words(|t| t.trim().to_owned(), text),
            _ => words(|t| t.split_whitespace().next().unwrap_or("").to_owned(), text),
        }
    }

    /// A value as text; numbers as they are written. `None` for a missing one, which is counted.
    fn text<'v>(&mut self, value: &'v Val<'_>, expr: &Expr, what: &str) -> Result<Option<Cow<'v, str>>, SegmentError> {
        Ok(Some(match value {
            Val::Missing => {
                self.note(expr);
                return Ok(None);
            }
            Val::Text(text) => Cow::Borrowed(&**text),
            Val::Int(n) => Cow::Owned(n.to_string()),
            Val::Float(n) => Cow::Owned(n.to_string()),
            Val::Bool(_) | Val::List(_) | Val::Object => {
                return Err(self.type_error(expr, value, &format!("is no text, and {what} needs one")));
            }
        }))
    }

    fn number(&mut self, value: &Val<'_>, expr: &Expr, what: &str) -> Result<Option<Num>, SegmentError> {
        let number = match value {
            Val::Missing => {
                self.note(expr);
                return Ok(None);
            }
            other => number(other),
        };
        number.map(Some).ok_or_else(|| self.type_error(expr, value, &format!("is no number, and `{what}` needs one")))
    }

    fn name_of(&self, expr: &Expr) -> Option<&'a str> {
        match expr {
            Expr::Name(place) => self.names.get(*place).map(String::as_str),
            Expr::Call(_, arguments) => arguments.first().and_then(|argument| self.name_of(argument)),
            Expr::Negative(inner) => self.name_of(inner),
            Expr::Arithmetic(_, a, b) => self.name_of(a).or_else(|| self.name_of(b)),
            _ => None,
        }
    }

    #[cold]
    fn type_error(&self, expr: &Expr, value: &Val<'_>, what: &str) -> SegmentError {
        let name = self.name_of(expr).map(str::to_owned);
        let message = match &name {
            Some(name) => format!("`{name}` is {} and {what}", describe(value)),
            None => format!("{} {what}", describe(value)),
        };
        SegmentError::Type { name, message }
    }
}

#[derive(Clone, Copy)]
enum Num {
    Int(i64),
    Float(f64),
}

impl Num {
    fn float(self) -> f64 {
        match self {
            Num::Int(n) => n as f64,
            Num::Float(n) => n,
        }
    }
}

fn number(value: &Val<'_>) -> Option<Num> {
    match value {
        Val::Int(n) => Some(Num::Int(*n)),
        Val::Float(n) => Some(Num::Float(*n)),
        Val::Text(text) => {
            let text = text.trim();
            text.parse().map(Num::Int).ok().or_else(|| dates::number(text).map(Num::Float))
        }
        Val::Missing | Val::Bool(_) | Val::List(_) | Val::Object => None,
    }
}

/// How two values compare; `None` when they do not.
fn order(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    match (a, b) {
        (Val::Text(a), Val::Text(b)) => Some(a.as_ref().cmp(b.as_ref())),
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
        // The cells of a table hold the words.
        (Val::Text(a), Val::Bool(b)) => truth_word(a).map(|a| a.cmp(b)),
        (Val::Bool(a), Val::Text(b)) => truth_word(b).map(|b| a.cmp(&b)),
        (Val::Int(_) | Val::Float(_) | Val::Text(_), Val::Int(_) | Val::Float(_) | Val::Text(_)) => {
            match (number(a)?, number(b)?) {
                (Num::Int(a), Num::Int(b)) => Some(a.cmp(&b)),
                (a, b) => a.float().partial_cmp(&b.float()),
            }
        }
        _ => None,
    }
}

fn truth_word(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") { Some(true) } else { text.eq_ignore_ascii_case("false").then_some(false) }
}

fn describe(value: &Val<'_>) -> String {
    match value {
        Val::Missing => "missing".to_owned(),
        Val::Bool(b) => format!("the truth value {b}"),
        Val::Int(n) => format!("the number {n}"),
        Val::Float(n) => format!("the number {n}"),
        Val::Text(text) if text.chars().count() > SHOWN_MAX => {
            format!("the text \"{}…\"", text.chars().take(SHOWN_MAX).collect::<String>())
        }
        Val::Text(text) => format!("the text \"{text}\""),
        Val::List(_) => "a list".to_owned(),
        Val::Object => "an object".to_owned(),
    }
}
