//! Tests of personalisation.

use std::sync::Arc;

use super::*;
use crate::types::Timestamp;

/// 2026-11-23T12:00:00Z.
const NOW: Timestamp = Timestamp::from_millis(1_795_435_200_000);

const ROW: &str = r#"{"email":"zoë@example.com","name":"Zoë \u00d6z <b>","tz":"Europe/Berlin","vars":{"town":"Lyon","age":"34","total":"1204.5",
    "born":"1990-12-01","bought":"2026-11-20","at":"2026-11-23T09:30:00Z","empty":"","evil":"a\r\nBcc: x@y.z\u0000","größe":"XL",
    "items":[{"name":"Hut","price":3},{"name":"Schal"}]},"metadata":{"id":7,"deep":{"x":null}}}"#;

fn vars(row: &str) -> Vars {
    let globals = Globals::new()
        .with("campaign", &serde_json::json!({"name": "Spring"}))
        .with("shop", &serde_json::json!("Blumen"));
    let mut vars = Vars::parse(row.as_bytes(), &Arc::new(globals)).expect("a row");
    vars.set("unsubscribe_url", "https://u.example/?a=1&b=2");
    vars
}

fn compile(subject: &str) -> Result<Compiled, TemplateError> {
    Compiled::new(&Sources { subject, ..Sources::default() }, &Options::default())
}

fn subject(template: &str) -> Result<String, RenderError> {
    let compiled = compile(template).expect("a template");
    compiled.render(Part::Subject, &vars(ROW), NOW).map(|r| r.text)
}

/// A template as text gives this.
fn check(template: &str, wanted: &str) {
    let sources = Sources { subject: "x", text: Some(template), ..Sources::default() };
    let compiled = Compiled::new(&sources, &Options::default()).expect("a template");
    let got = compiled.render(Part::Text, &vars(ROW), NOW).map(|r| r.text);
    assert_eq!(got.as_deref(), Ok(wanted), "{template}");
}

#[test]
fn each_filter_and_function() {
    for (template, wanted) in [
        ("{{ at|date('%d %B %Y %H:%M') }}", "23 November 2026 10:30"),
        ("{{ at|date('%H:%M', 'America/New_York') }}", "04:30"),
        ("{{ at|date('%A, %d. %B', '', 'de') }}", "Montag, 23. November"),
        ("{{ born|date('%d %b %Y', '', 'fr') }}", "01 déce. 1990"),
        ("{{ born|date }}", "1990-12-01"),
        ("{{ 0|date('%Y') }}", "1970"),
        ("{{ total|number(2) }}", "1,204.50"),
        ("{{ 1234567.891|number(1, '.', ',') }}", "1.234.567,9"),
        ("{{ -0.4|number }}", "0"),
        ("{{ 2.675|number(2) }}", "2.68"),
        ("{{ total|currency('EUR') }}", "€1,204.50"),
        ("{{ total|currency('eur', 'de') }}", "1.204,50\u{a0}€"),
        ("{{ total|currency('CHF') }}", "CHF\u{a0}1,204.50"),
        ("{{ -5|currency('USD') }}", "-$5.00"),
        ("{{ 1200|currency('JPY') }}", "¥1,200"),
        ("{{ name|salutation('Dear %s', 'Hello') }}", "Dear Zoë Öz <b>"),
        ("{{ nobody|salutation('Dear %s', 'Hello') }}", "Hello"),
        ("{{ name|first_word }}", "Zoë"),
        ("{{ 'one two three'|truncate(9) }}", "one two…"),
        ("{{ 'one two'|truncate(7) }}", "one two"),
        ("{{ 'Donaudampf'|truncate(5, '..') }}", "Don.."),
        ("{{ 'a b'|urlencode }}", "a%20b"),
        ("{{ 'LYON east'|title }}", "Lyon East"),
        ("{{ bought|days_since }}", "3"),
        ("{{ days_until('2026-12-01') }}", "8"),
        ("{{ born|age }}", "35"),
        ("{{ now() }}", "2026-11-23T12:00:00.000Z"),
        ("{{ town }} {{ vars.town }} {{ größe }}", "Lyon Lyon XL"),
        ("{{ metadata.id }} {{ campaign.name }} {{ shop }}", "7 Spring Blumen"),
        ("{{ empty|default('none') }} {{ nobody|default('x') }}", "none x"),
        ("{% if nobody %}a{% else %}b{% endif %}{% if nobody is missing %}c{% endif %}", "bc"),
        ("{% if town is containing('yo') and town is matching('^L') %}y{% endif %}", "y"),
        ("{% for i in items %}{{ i.name }} {% endfor %}", "Hut Schal "),
        ("{{ name }}", "Zoë Öz <b>"),
        ("{% raw %}{{ x|nonsense }}{% endraw %}", "{{ x|nonsense }}"),
    ] {
        check(template, wanted);
    }
}

#[test]
fn html_is_escaped_and_marked_text_is_not() {
    let html = "<a href=\"{{ unsubscribe_url }}\">{{ name }}</a>{{ '<i>'|safe }}{{ evil|nl2br }}";
    let sources = Sources { subject: "x", html: Some(html), preheader: Some("{{ name }}"), ..Sources::default() };
    let compiled = Compiled::new(&sources, &Options::default()).expect("a template");
    let row = ROW.replace(r#"\r\nBcc: x@y.z\u0000"#, r#"\n<b"#);
    let got = compiled.render(Part::Html, &vars(&row), NOW).expect("html").text;
    assert_eq!(got, "<a href=\"https://u.example/?a=1&amp;b=2\">Zoë Öz &lt;b&gt;</a><i>a<br>\n&lt;b");
    assert_eq!(compiled.render(Part::Preheader, &vars(&row), NOW).expect("line").text, "Zoë Öz &lt;b&gt;");
}

#[test]
fn no_variable_begins_a_header() {
    // A name with CR LF would add a header of its sender's choice.
    let headers = [("X-A".to_owned(), "{{ evil }}".to_owned()), ("X-B".to_owned(), "{{ town }}\r\n  b\n".to_owned())];
    let sources = Sources {
        subject: "Hi {{ evil|safe }}{% set e = evil %}{{ e ~ '!' }}",
        headers: &headers,
        ..Sources::default()
    };
    let compiled = Compiled::new(&sources, &Options::default()).expect("a template");
    let subject = compiled.render(Part::Subject, &vars(ROW), NOW).expect("subject");
    assert_eq!(subject, Rendered { text: "Hi a Bcc: x@y.za Bcc: x@y.z !".to_owned(), cleaned: true });
    let first = compiled.render(Part::Header(0), &vars(ROW), NOW).expect("header");
    assert_eq!(first, Rendered { text: "a Bcc: x@y.z".to_owned(), cleaned: true });
    let second = compiled.render(Part::Header(1), &vars(ROW), NOW).expect("header");
    assert_eq!(second, Rendered { text: "Lyon b".to_owned(), cleaned: false });
}

#[test]
fn what_has_no_end_ends() {
    let long = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
    assert!(matches!(subject(long), Err(RenderError::Fuel { .. })));
    assert!(matches!(
        subject("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        Err(RenderError::Other { .. } | RenderError::Fuel { .. })
    ));
    let big = Options { output_max: 100, ..Options::default() };
    let compiled =
        Compiled::new(&Sources { subject: "{{ 'x' * 101 }}", ..Sources::default() }, &big).expect("a template");
    let got = compiled.render(Part::Subject, &vars(ROW), NOW);
    assert_eq!(got, Err(RenderError::TooLarge { part: "subject".to_owned(), max: 100 }));
    assert!(matches!(subject("{{ 'x' * 99999999 }}"), Err(RenderError::Fuel { .. })));
}

#[test]
fn errors_have_a_place_and_a_hint() {
    for (template, line, column, message, hint) in [
        ("a\nü {{ name|trunkate(3) }}", 2, 11, "there is no filter `trunkate`", Some("did you mean `truncate`?")),
        ("{{ day_since(x) }}", 1, 4, "there is no function `day_since`", Some("did you mean `days_since`?")),
        ("{% if x is misssing %}{% endif %}", 1, 12, "there is no test `misssing`", Some("did you mean `missing`?")),
    ] {
        let error = compile(template).expect_err(template);
        assert_eq!(
            (error.line, error.column, error.message.as_str(), error.hint.as_deref()),
            (line, column, message, hint)
        );
        assert_eq!(error.part, "subject");
    }
    for template in
        ["{{ name", "a\n{% if x %}", "{{ 1 + }}", "{% include 'html' %}", "{% extends 'html' %}", "{{ debug() }}"]
    {
        let error = compile(template).expect_err(template);
        assert!(error.line >= 1 && !error.message.is_empty(), "{error}");
    }
    let error = subject("\n{{ town|date }}").expect_err("no date");
    assert!(
        matches!(&error, RenderError::Other { line: 2, message, .. } if message.contains("\"Lyon\" is no date")),
        "{error}"
    );
}

#[test]
fn names_of_this_list_exist() {
    // A name that is allowed here and unknown to the engine would fail at the last recipient.
    for filter in names::FILTERS {
        check(&format!("{{{{ '{filter}' is filter }}}}"), "True");
    }
    for test in names::TESTS {
        check(&format!("{{{{ '{test}' is test }}}}"), "True");
    }
}

fn missing_of(template: &str) -> Vec<String> {
    compile(template).expect("a template").missing(&vars(ROW), NOW)
}

#[test]
fn what_is_missing_is_what_is_used() {
    for (template, wanted) in [
        ("{{ town }} {{ name }} {{ campaign.name }} {{ now() }}", &[][..]),
        ("{{ first_name }} {{ town }} {{ vars.street|upper }} {{ first_name }}", &["first_name", "vars.street"]),
        ("{{ a|default('x') }}{% if b %}{{ b }}{% endif %}{{ c is defined }}{{ d|salutation('%s','x') }}", &[]),
        ("{% if town == 'Lyon' %}{{ x }}{% else %}{{ y }}{% endif %}", &["x"]),
        ("{{ empty }}", &["empty"]),
        ("{{ metadata.deep.x }}{{ metadata.other.y }}", &["metadata.deep.x", "metadata.other"]),
        ("{% for i in items %}{{ i.price }}{% endfor %}", &["i.price"]),
        ("{% for i in nothing %}{{ i.price }}{% endfor %}", &["nothing"]),
        ("{{ bday|date }}{{ bday|age }}{{ days_since(other) }}{{ sum|number }}", &["bday", "other", "sum"]),
        ("{{ campaign.nme }}", &["campaign.nme"]),
    ] {
        assert_eq!(missing_of(template), wanted, "{template}");
    }
    let error = subject("a\n{{ first_name }}").expect_err("missing");
    assert_eq!(error, RenderError::Missing { name: "first_name".to_owned(), part: "subject".to_owned(), line: 2 });
    let blank = Options { on_missing: OnMissing::Blank, ..Options::default() };
    let source =
        "a{{ x }}{{ x.y.z }}{{ x|date }}{{ x|number }}{{ days_since(x) }}{{ x|currency('EUR') }}{{ x|upper }}b";
    let compiled = Compiled::new(&Sources { subject: source, ..Sources::default() }, &blank).expect("a template");
    assert_eq!(compiled.render(Part::Subject, &vars(ROW), NOW).map(|r| r.text), Ok("ab".to_owned()));
    assert_eq!(compiled.missing(&vars(ROW), NOW), ["x"]);
    let compiled = compile("{{ a }}{{ vars.b }}{{ now() }}{{ campaign.name }}").expect("a template");
    let needed: Vec<&str> = compiled.undeclared().collect();
    assert_eq!(needed, ["a", "campaign.name", "vars.b"]);
}

#[test]
fn reserved_names_are_not_replaced_by_a_row() {
    let row = r#"{"email":"a@b.c","vars":{"email":"x","unsubscribe_url":"https://evil","campaign":"y","shop":"mine"}}"#;
    let compiled = compile("{{ email }} {{ unsubscribe_url }} {{ campaign.name }} {{ shop }}").expect("a template");
    let got = compiled.render(Part::Subject, &vars(row), NOW).expect("subject").text;
    assert_eq!(got, "a@b.c https://u.example/?a=1&b=2 Spring mine");
    for bad in ["", "[]", "{\"vars\":3}", "{\"email\":\"a\"} x"] {
        assert!(Vars::parse(bad.as_bytes(), &Arc::default()).is_err(), "{bad}");
    }
}

#[test]
fn text_is_made_from_html() {
    let html = "<html><head><title>T</title><style>p{}</style></head><body><div style='display: none'>pre</div>\
        <h1>Caf&eacute; &amp; more</h1><p>One\n  two <b>three</b>.<br>Next</p><ul><li>a</li><li><p>b</p></li></ul>\
        <ol><li>x<li>y</ol><table><tr><td>A</td><td>B</td></tr><tr><td>C</td></tr></table>\
        <p><a href='https://e.example/?a=1&amp;b=2'>Shop</a> <a href=\"https://e.example\">https://e.example</a> \
        <a href='#x'>up</a></p><script>alert('<p>')</script><blockquote>quoted</blockquote><!-- c --><img alt='Logo' src=x></body>";
    let wanted = "Café & more\n\nOne two three.\nNext\n\n- a\n\n- b\n\n1. x\n2. y\n\nA  B\nC\n\nShop <https://e.example/?a=1&b=2> \
        https://e.example up\n\n> quoted\n\nLogo\n";
    assert_eq!(html_to_text(html), wanted);
    let long = html_to_text(&format!("<p>{}</p>", "word ".repeat(100)));
    assert!(long.lines().all(|line| line.chars().count() <= 76), "{long}");
    // Broken HTML costs no more than its length, and loses no text.
    for piece in
        ["<", "<a ", "<div style='display:none'>", "<a href=\"", "<ul><li>", "{{", "&", "<!--", "<p", "</", "<style>"]
    {
        html_to_text(&piece.repeat(20_000));
        links(&piece.repeat(20_000));
    }
    assert_eq!(html_to_text("<div style=display:none>never closed"), "never closed\n");
}

#[test]
fn text_from_a_template_of_html() {
    let html = "<p>Hi {{ name|salutation('Dear %s', \"<you>\") }},</p>{% if town == 'Lyon' %}<p>Lyon</p>{% endif %}\
        <ul>{% for i in items %}<li>{{ i.name }}</li>{% endfor %}</ul><p><a href=\"{{ unsubscribe_url }}\">Leave</a></p>";
    let sources = Sources { subject: "x", html: Some(html), ..Sources::default() };
    let compiled = Compiled::new(&sources, &Options::default()).expect("a template");
    let got = compiled.render(Part::Text, &vars(ROW), NOW).expect("text").text;
    assert_eq!(got, "Hi Dear Zoë Öz <b>,\n\nLyon\n\n- Hut\n- Schal\n\nLeave <https://u.example/?a=1&b=2>\n");
    assert!(compiled.has(Part::Text));
}

#[test]
fn links_and_images_are_found() {
    let html = "<a href='https://a.example'>One <b>two</b></a>\n<!-- <a href=x> --><a href=\"{{ u }}\" {% if x > 1 %}b{% endif %}><img alt='Pic' src=p>\
        </a><a name=x>no</a>\n<img src='y.png'><img src=z alt=''><img src=t width=1>";
    let found = links(html);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].url.as_str(), found[0].text.as_str(), found[0].line), ("https://a.example", "One two", 1));
    assert_eq!((found[1].url.as_str(), found[1].text.as_str(), found[1].line), ("{{ u }}", "Pic", 2));
    assert_eq!(images_without_alt(html), [Image { src: "y.png".to_owned(), line: 3 }]);
}
