//! The grammar of segments: Jinja's expressions, by descent.
//!
//! `or` < `and` < `not` < comparisons, `in`, `is` < `+ - ~` < `* / // %` < minus < filters, fields.

use regex::Regex;

use crate::template::TemplateError;
use crate::template::error::position;
use crate::template::lexer::{self, Kind, Token, Wrong};
use crate::template::segment::{EXPRESSION_MAX, pattern};
use crate::types::nearest;

/// Brackets and operators within each other.
const DEPTH_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Concat,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Test {
    Defined,
    Missing,
    String,
    Number,
    StartingWith,
    EndingWith,
    Containing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    DaysSince,
    DaysUntil,
    Age,
    Now,
    Lower,
    Upper,
    Trim,
    Length,
    Int,
    Float,
    Abs,
    First,
    Last,
    FirstWord,
    Default,
}

#[derive(Clone, Debug)]
pub(super) enum Expr {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
    Name(usize),
    List(Vec<Expr>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Compare(Cmp, Box<Expr>, Box<Expr>),
    In { negated: bool, item: Box<Expr>, list: Box<Expr> },
    Arithmetic(Op, Box<Expr>, Box<Expr>),
    Negative(Box<Expr>),
    Is { negated: bool, test: Test, value: Box<Expr>, argument: Option<Box<Expr>> },
    Matches { negated: bool, value: Box<Expr>, pattern: Box<Regex> },
    Call(Call, Vec<Expr>),
}

const FUNCTIONS: [(&str, Call); 4] =
    [("days_since", Call::DaysSince), ("days_until", Call::DaysUntil), ("age", Call::Age), ("now", Call::Now)];

const FILTERS: [(&str, Call); 16] = [
    ("days_since", Call::DaysSince),
    ("days_until", Call::DaysUntil),
    ("age", Call::Age),
    ("lower", Call::Lower),
    ("upper", Call::Upper),
    ("trim", Call::Trim),
    ("length", Call::Length),
    ("count", Call::Length),
    ("int", Call::Int),
    ("float", Call::Float),
    ("abs", Call::Abs),
    ("first", Call::First),
    ("last", Call::Last),
    ("first_word", Call::FirstWord),
    ("default", Call::Default),
    ("d", Call::Default),
];

const TESTS: [(&str, Test); 9] = [
    ("defined", Test::Defined),
    ("missing", Test::Missing),
    ("undefined", Test::Missing),
    ("none", Test::Missing),
    ("string", Test::String),
    ("number", Test::Number),
    ("startingwith", Test::StartingWith),
    ("endingwith", Test::EndingWith),
    ("containing", Test::Containing),
];

/// Reads an expression: the tree, and the names in it.
pub(super) fn parse(source: &str) -> Result<(Expr, Vec<String>), TemplateError> {
    let error = |(at, message): Wrong, hint: Option<String>| {
        let (line, column) = position(source, at);
        TemplateError { part: "segment".to_owned(), line, column, message, hint }
    };
    if source.len() > EXPRESSION_MAX {
        return Err(error((0, format!("the expression is longer than {EXPRESSION_MAX} octets")), None));
    }
    let mut parser = Parser { source, at: 0, token: None, names: Vec::new(), depth: 0, hint: None };
    let parsed = parser.advance().and_then(|()| parser.or()).and_then(|expr| match &parser.token {
        None => Ok(expr),
        Some(token) if token.word == "=" => Err((token.at, "`=` compares nothing: write `==`".to_owned())),
        Some(token) => Err((token.at, format!("`{}` is not expected here", token.word))),
    });
    match parsed {
        Ok(expr) => Ok((expr, parser.names)),
        Err(wrong) => Err(error(wrong, parser.hint)),
    }
}

struct Parser<'s> {
    source: &'s str,
    at: usize,
    token: Option<Token<'s>>,
    names: Vec<String>,
    depth: usize,
    hint: Option<String>,
}

type Parsed = Result<Expr, Wrong>;

impl<'s> Parser<'s> {
    fn advance(&mut self) -> Result<(), Wrong> {
        self.token = lexer::next(self.source, self.at)?;
        if let Some(token) = &self.token {
            self.at = token.at + token.word.len();
        }
        Ok(())
    }

    fn here(&self) -> usize {
        self.token.as_ref().map_or(self.source.trim_end().len(), |token| token.at)
    }

    /// Whether the next word is this one, as a sign or a keyword.
    fn is(&self, word: &str) -> bool {
        self.token.as_ref().is_some_and(|t| t.word == word && matches!(t.kind, Kind::Sign | Kind::Name))
    }

    fn take(&mut self, word: &str) -> Result<bool, Wrong> {
        let is = self.is(word);
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    fn expect(&mut self, word: &str) -> Result<(), Wrong> {
        if self.take(word)? { Ok(()) } else { Err(self.wrong(&format!("`{word}` is missing"))) }
    }

    fn wrong(&self, what: &str) -> Wrong {
        match &self.token {
            Some(token) => (token.at, format!("{what} before `{}`", token.word)),
            None => (self.here(), format!("{what} at the end")),
        }
    }

    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, Wrong>) -> Result<T, Wrong> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err((self.here(), format!("more than {DEPTH_MAX} brackets and operators within each other")));
        }
        let result = f(self);
        self.depth -= 1;
        result
    }

    fn or(&mut self) -> Parsed {
        self.deeper(|p| {
            let mut left = p.and()?;
            while p.take("or")? {
                left = Expr::Or(left.into(), p.and()?.into());
            }
            Ok(left)
        })
    }

    fn and(&mut self) -> Parsed {
        let mut left = self.not()?;
        while self.take("and")? {
            left = Expr::And(left.into(), self.not()?.into());
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed {
        if self.take("not")? {
            return Ok(Expr::Not(self.deeper(Self::not)?.into()));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Parsed {
        let mut left = self.sum()?;
        let mut chain: Option<Expr> = None;
        loop {
            let next = if let Some(cmp) = self.take_cmp()? {
                let right = self.sum()?;
                let next = Expr::Compare(cmp, left.into(), right.clone().into());
                left = right;
                next
            } else if self.is("in") || self.is("not") {
                let negated = self.take("not")?;
                self.expect("in")?;
                let right = self.sum()?;
                let next = Expr::In { negated, item: left.into(), list: right.clone().into() };
                left = right;
                next
            } else {
                break;
            };
            // `18 <= age < 30` is both.
            chain = Some(match chain {
                Some(before) => Expr::And(before.into(), next.into()),
                None => next,
            });
        }
        Ok(chain.unwrap_or(left))
    }

    fn take_cmp(&mut self) -> Result<Option<Cmp>, Wrong> {
        let known =
            [("==", Cmp::Eq), ("!=", Cmp::Ne), ("<", Cmp::Lt), ("<=", Cmp::Le), (">", Cmp::Gt), (">=", Cmp::Ge)];
        for (word, cmp) in known {
            if self.is(word) {
                self.advance()?;
                return Ok(Some(cmp));
            }
        }
        Ok(None)
    }

    fn sum(&mut self) -> Parsed {
        self.binary(&[("+", Op::Add), ("-", Op::Sub), ("~", Op::Concat)], Self::product)
    }

    fn product(&mut self) -> Parsed {
        self.binary(&[("*", Op::Mul), ("/", Op::Div), ("//", Op::FloorDiv), ("%", Op::Rem)], Self::negative)
    }

    fn binary(&mut self, ops: &[(&str, Op)], inner: fn(&mut Self) -> Parsed) -> Parsed {
        let mut left = inner(self)?;
        while let Some((_, op)) = ops.iter().find(|(word, _)| self.is(word)) {
            self.advance()?;
            left = Expr::Arithmetic(*op, left.into(), inner(self)?.into());
        }
        Ok(left)
    }

    fn negative(&mut self) -> Parsed {
        if self.take("-")? {
            return Ok(match self.deeper(Self::negative)? {
                Expr::Int(n) => Expr::Int(-n),
                Expr::Float(n) => Expr::Float(-n),
                other => Expr::Negative(other.into()),
            });
        }
        let value = self.primary()?;
        self.postfix(value)
    }

    fn postfix(&mut self, mut value: Expr) -> Parsed {
        loop {
            if self.take("|")? {
                let (at, name) = self.name("a filter")?;
                let call = self.known(at, "filter", name, &FILTERS)?;
                let mut arguments = vec![value];
                if self.take("(")? {
                    arguments.extend(self.arguments(")")?);
                }
                value = Self::call(at, name, call, arguments)?;
            } else if self.take("is")? {
                value = self.test(value)?;
            } else if self.is(".") || self.is("[") {
                return Err(self.wrong("a field is asked for of what has none"));
            } else {
                return Ok(value);
            }
        }
    }

    fn test(&mut self, value: Expr) -> Parsed {
        let negated = self.take("not")?;
        let (at, name) = self.name("a test")?;
        if name == "in" {
            let list = self.argument(at, name)?;
            return Ok(Expr::In { negated, item: value.into(), list: list.into() });
        }
        if name == "matching" {
            let place = self.here();
            let Expr::Text(text) = self.argument(at, name)? else {
                return Err((place, "the pattern must stand here as a text in quotes".to_owned()));
            };
            let pattern = pattern(&text).map_err(|message| (place, message))?;
            return Ok(Expr::Matches { negated, value: value.into(), pattern: pattern.into() });
        }
        let test = self.known(at, "test", name, &TESTS)?;
        let takes = matches!(test, Test::StartingWith | Test::EndingWith | Test::Containing);
        let argument = if takes { Some(self.argument(at, name)?.into()) } else { None };
        Ok(Expr::Is { negated, test, value: value.into(), argument })
    }

    /// The argument of a test, in brackets or without.
    fn argument(&mut self, at: usize, name: &str) -> Parsed {
        if self.take("(")? {
            let mut arguments = self.arguments(")")?;
            return match (arguments.len(), arguments.pop()) {
                (1, Some(argument)) => Ok(argument),
                _ => Err((at, format!("`{name}` takes one argument"))),
            };
        }
        self.deeper(Self::primary)
    }

    fn arguments(&mut self, close: &str) -> Result<Vec<Expr>, Wrong> {
        let mut arguments = Vec::new();
        while !self.take(close)? {
            arguments.push(self.or()?);
            if !self.is(close) && !self.take(",")? {
                return Err(self.wrong(&format!("`,` or `{close}` is missing")));
            }
        }
        Ok(arguments)
    }

    fn name(&mut self, what: &str) -> Result<(usize, &'s str), Wrong> {
        match &self.token {
            Some(token) if token.kind == Kind::Name => {
                let found = (token.at, token.word);
                self.advance()?;
                Ok(found)
            }
            _ => Err(self.wrong(&format!("{what} is missing"))),
        }
    }

    fn known<T: Copy>(&mut self, at: usize, what: &str, name: &str, known: &[(&'static str, T)]) -> Result<T, Wrong> {
        if let Some((_, found)) = known.iter().find(|(word, _)| *word == name) {
            return Ok(*found);
        }
        let near = nearest(name, known.iter().map(|(word, _)| *word));
        self.hint = Some(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", known.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")),
        });
        Err((at, format!("there is no {what} `{name}` in a segment")))
    }

    fn call(at: usize, name: &str, call: Call, arguments: Vec<Expr>) -> Parsed {
        let wanted = match call {
            Call::Now => 0,
            Call::Default => 2,
            _ => 1,
        };
        if arguments.len() != wanted {
            return Err((at, format!("`{name}` takes {wanted} argument(s) with its value, not {}", arguments.len())));
        }
        Ok(Expr::Call(call, arguments))
    }

    fn primary(&mut self) -> Parsed {
        let Some(token) = self.token.clone() else { return Err(self.wrong("a value is missing")) };
        match token.kind {
            Kind::Text(text) => self.literal(Expr::Text(text.into())),
            Kind::Int(n) => self.literal(Expr::Int(n)),
            Kind::Float(n) => self.literal(Expr::Float(n)),
            Kind::Sign if token.word == "(" => {
                self.advance()?;
                let mut items = vec![self.or()?];
                let is_tuple = self.is(",");
                while self.take(",")? {
                    if !self.is(")") {
                        items.push(self.or()?);
                    }
                }
                self.expect(")")?;
                Ok(if is_tuple { Expr::List(items) } else { items.remove(0) })
            }
            Kind::Sign if token.word == "[" => {
                self.advance()?;
                Ok(Expr::List(self.deeper(|p| p.arguments("]"))?))
            }
            Kind::Sign => Err(self.wrong("a value is missing")),
            Kind::Name => self.name_or_call(&token),
        }
    }

    fn literal(&mut self, literal: Expr) -> Parsed {
        self.advance()?;
        Ok(literal)
    }

    fn name_or_call(&mut self, token: &Token<'s>) -> Parsed {
        self.advance()?;
        match token.word {
            "true" | "True" => return Ok(Expr::Bool(true)),
            "false" | "False" => return Ok(Expr::Bool(false)),
            "none" | "None" => return Ok(Expr::Null),
            "and" | "or" | "not" | "in" | "is" | "if" | "else" => {
                return Err((token.at, format!("a value is missing before `{}`", token.word)));
            }
            _ => {}
        }
        if self.take("(")? {
            let call = self.known(token.at, "function", token.word, &FUNCTIONS)?;
            let arguments = self.arguments(")")?;
            return Self::call(token.at, token.word, call, arguments);
        }
        let mut path = token.word.to_owned();
        loop {
            if self.take(".")? {
                let (_, field) = self.name("the name of a field")?;
                path.push('.');
                path.push_str(field);
            } else if self.take("[")? {
                // `vars["shoe size"]`: the way to names that are no words.
                let Some(Token { kind: Kind::Text(field), .. }) = self.token.clone() else {
                    return Err(self.wrong("the name of a field in quotes is missing"));
                };
                self.advance()?;
                self.expect("]")?;
                path.push('.');
                path.push_str(&field);
            } else {
                break;
            }
        }
        let place = self.names.iter().position(|name| *name == path).unwrap_or_else(|| {
            self.names.push(path);
            self.names.len() - 1
        });
        Ok(Expr::Name(place))
    }
}
