//! Tests of segments.

use proptest::prelude::*;

use super::*;

/// 2026-11-23T12:00:00Z.
const NOW: Timestamp = Timestamp::from_millis(1_795_435_200_000);

const ROW: &str = r#"{"email":"a@example.com","name":"Zoë","vars":{"town":"Lyon","age":"34","kids":2,"vip":true,"news":"false",
    "bought":"2026-11-01","tags":["a","b"],"empty":"","nil":null,"shoe size":42,"x":{"y":5}},"metadata":{"id":7}}"#;

fn eval(source: &str) -> Result<bool, SegmentError> {
    Segment::compile(source).expect(source).eval_row(ROW.as_bytes(), NOW)
}

#[test]
fn truth_table() {
    for source in [
        "town == \"Lyon\" and age >= 30 and days_since(bought) < 90",
        "age == 34 and age == '34' and 34.0 == age and 18 <= age < 40",
        "town in ['Lyon', 'Paris'] and town not in ('Nice', 'Metz')",
        "'b' in tags and 'yo' in town and tags is containing 'a'",
        "town is startingwith('Ly') and town is endingwith 'on' and town is not containing('x')",
        "town is matching('^L[a-z]+$') and not town is matching('^x')",
        "vip and vip == true and not news and news == false",
        "empty is missing and nil is missing and nobody is not defined and town is defined",
        "not nobody and not (nobody == 1)",
        "kids * 2 + 1 == 5 and 7 // 2 == 3 and -7 // 2 == -4 and -7 % 3 == 2 and 1 / 2 == 0.5",
        "town|lower == 'lyon' and town|length == 4 and nobody|default(3) == 3 and name|upper == 'ZOË'",
        "vars.town == 'Lyon' and town == vars.town and vars[\"shoe size\"] > 41 and x.y == 5 and metadata.id == 7",
        "email is endingwith('@example.com') and name == \"Zoë\"",
        "age('1990-12-01') == 35 and bought|days_since == 22 and days_until('2026-12-01') == 8",
        "bought >= '2026-01-01' and now() > '2026-11-23'",
        "false or (true and not false)",
        "age in [33, 34]",
    ] {
        assert_eq!(eval(source), Ok(true), "{source}");
    }
    for source in [
        "nobody == 1",
        "nobody != 1",
        "nobody in [1]",
        "nobody not in [1]",
        "nobody < 3",
        "nobody is containing 'x'",
        "days_since(nobody) < 90",
        "none == none",
    ] {
        assert_eq!(eval(source), Ok(false), "{source}");
    }
}

#[test]
fn wrong_types_name_the_variable() {
    for (source, name, message) in [
        ("town > 3", Some("town"), "`town` is the text \"Lyon\" and is compared with the number 3"),
        ("3 == town", Some("town"), "`town` is the text \"Lyon\" and is compared with the number 3"),
        ("vip > 3", Some("vip"), "`vip` is the truth value true and is compared with the number 3"),
        ("days_since(town) < 3", Some("town"), "`town` is the text \"Lyon\" and is used as a date: write 2026-11-23"),
        ("town * 2 == 3", Some("town"), "`town` is the text \"Lyon\" and is no number, and `*` needs one"),
        ("tags is startingwith 'x'", Some("tags"), "`tags` is a list and is no text, and a test of text needs one"),
        ("1 / 0 == 3", None, "the number 0 divides, and is zero"),
    ] {
        let error = SegmentError::Type { name: name.map(str::to_owned), message: message.to_owned() };
        assert_eq!(eval(source), Err(error), "{source}");
    }
    let segment = Segment::compile("town == 1").expect("an expression");
    assert!(matches!(segment.eval_row(b"[1]", NOW), Err(SegmentError::Row(_))));
    assert!(matches!(segment.eval_row(b"{\"vars\":{\"x\":", NOW), Err(SegmentError::Row(_))));
}

#[test]
fn errors_have_a_place() {
    for (source, line, column, message) in [
        ("", 1, 1, "a value is missing at the end"),
        ("town = 'x'", 1, 6, "`=` compares nothing: write `==`"),
        ("a and\n  (b == 1", 2, 10, "`)` is missing at the end"),
        ("ünknown(1)", 1, 1, "there is no function `ünknown` in a segment"),
        ("a|lowr", 1, 3, "there is no filter `lowr` in a segment"),
        ("a == 'x", 1, 6, "this text has no closing quote"),
        ("a is matching('(')", 1, 14, "this is no pattern: error: unclosed group"),
        ("a ? b", 1, 3, "`?` has no meaning here"),
        ("a b", 1, 3, "`b` is not expected here"),
        ("age(1, 2)", 1, 1, "`age` takes 1 argument(s) with its value, not 2"),
    ] {
        let error = Segment::compile(source).expect_err(source);
        assert_eq!((error.line, error.column, error.message.as_str()), (line, column, message), "{source}");
    }
    assert_eq!(Segment::compile("a|lowr").expect_err("typo").hint.as_deref(), Some("did you mean `lower`?"));
    for deep in ["(", "not ", "-", "["] {
        assert!(Segment::compile(&deep.repeat(5_000)).is_err());
    }
    assert!(Segment::compile(&"1+".repeat(20_000)).is_err());
}

#[test]
fn missing_values_are_counted_by_name() {
    let segment = Segment::compile("town == 'Lyon' and age > 3 and vars.kids > 1 or vip").expect("an expression");
    let mut missing = Missing::default();
    for row in
        [r#"{"vars":{}}"#, r#"{"vars":{"town":"Lyon"}}"#, r#"{"vars":{"town":"Lyon","age":""}}"#, r#"{"email":"x"}"#]
    {
        assert_eq!(segment.eval_counting(row.as_bytes(), NOW, &mut missing), Ok(false));
    }
    let counts: Vec<_> = missing.counts(&segment).collect();
    assert_eq!(counts, [("town", 2), ("age", 2)]);
    let unknown = segment.unknown_names(&["twon", "age", "kids", "vip"]);
    assert_eq!(unknown, [("town", Some("twon"))]);
}

/// An expression whose values have one type on both sides, so that Jinja's own rules and ours mean the same.
fn expression() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        "[0-9]{1,3}",
        Just("kids".to_owned()),
        Just("n".to_owned()),
        "[0-9]\\.[0-9]",
        Just("x.y".to_owned())
    ];
    let number = number.prop_recursive(2, 8, 2, |inner| {
        (inner.clone(), prop_oneof![Just("+"), Just("-"), Just("*")], inner)
            .prop_map(|(a, op, b)| format!("({a} {op} {b})"))
    });
    let text =
        prop_oneof!["'[a-cL]{0,3}'", Just("town".to_owned()), Just("name".to_owned()), Just("(town|lower)".to_owned())];
    let cmp = || prop_oneof![Just("=="), Just("!="), Just("<"), Just("<="), Just(">"), Just(">=")];
    let leaf = prop_oneof![
        (number.clone(), cmp(), number.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (number.clone(), cmp(), number.clone(), cmp(), number.clone())
            .prop_map(|(a, o, b, p, c)| format!("{a} {o} {b} {p} {c}")),
        (text.clone(), cmp(), text.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (text.clone(), text.clone(), text.clone()).prop_map(|(a, b, c)| format!("{a} in [{b}, {c}]")),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("{a} not in {b}")),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("{a} is startingwith({b})")),
        Just("nobody is defined".to_owned()),
        Just("vip".to_owned()),
        Just("days_since(bought) < 30".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} and {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            inner.clone().prop_map(|a| format!("not {a}")),
        ]
    })
}

proptest! {
    /// A segment must not mean another thing than the same words in a template.
    #[test]
    fn segments_agree_with_templates(source in expression(), kids in 0_i64..9, n in -3.0_f64..3.0, town in "[a-cL]{1,3}", name in "[a-c]{1,2}", vip: bool) {
        let row = serde_json::json!({"email": "a@b.c", "name": name, "vars":
            {"kids": kids, "n": n, "town": town, "vip": vip, "bought": "2026-11-01", "x": {"y": kids + 1}}}).to_string();
        let vars = Vars::parse(row.as_bytes(), &std::sync::Arc::default()).expect("a row");
        let template = format!("{{% if {source} %}}true{{% else %}}false{{% endif %}}");
        let sources = crate::template::Sources { subject: &template, ..Default::default() };
        let compiled = crate::template::Compiled::new(&sources, &Default::default()).expect("a template");
        let engine = compiled.render(crate::template::Part::Subject, &vars, NOW).map(|r| r.text == "true");
        let segment = Segment::compile(&source).expect("an expression");
        let ours = segment.eval_row(row.as_bytes(), NOW);
        prop_assert_eq!(ours.clone().ok(), engine.ok());
        prop_assert_eq!(segment.eval(&vars, NOW).ok(), ours.ok());
    }
}
