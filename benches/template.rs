//! Templates and segments: rows a second of a segment over JSON rows of about 200 octets, and the time of a rendered message.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use posthaste::template::{Compiled, Globals, Options, Part, Segment, Sources, Vars, html_to_text};
use posthaste::types::Timestamp;

const NOW: Timestamp = Timestamp::from_millis(1_795_435_200_000);
const ROWS: usize = 1_000;

fn main() {
    divan::main();
}

fn row(i: usize) -> String {
    let town = ["Lyon", "Paris", "Nice"][i % 3];
    let (age, day) = (18 + i % 60, 1 + i % 28);
    format!(
        r#"{{"email":"user{i}@example.com","name":"Zoë Martin","tz":"Europe/Paris","vars":{{"first_name":"Zoë","town":"{town}","age":"{age}","last_purchase":"2026-09-{day:02}","plan":"gold","ref":"{i:010}"}},"metadata":{{"id":{i}}}}}"#
    )
}

fn html() -> String {
    let names = [
        "first_name",
        "town",
        "age",
        "plan",
        "ref",
        "email",
        "name",
        "unsubscribe_url",
        "campaign.name",
        "metadata.id",
    ];
    let mut html = String::from("<html><body><table>");
    for name in names {
        html.push_str(&format!(
            "<tr><td><p>{}{{{{ {name} }}}}</p></td></tr>",
            "Lorem ipsum dolor sit amet. ".repeat(35)
        ));
    }
    html + "</table></body></html>"
}

/// The aim: 500,000 rows a second a core.
#[divan::bench]
fn segment_over_rows(bencher: Bencher) {
    let rows: Vec<String> = (0..ROWS).map(row).collect();
    let source = "town == \"Lyon\" and age >= 30 and days_since(last_purchase) < 90";
    let segment = Segment::compile(source).expect("an expression");
    bencher
        .counter(ItemsCount::new(ROWS))
        .bench(|| rows.iter().filter(|row| segment.eval_row(row.as_bytes(), NOW).is_ok_and(|is| is)).count());
}

fn compiled() -> (Compiled, Vars, String) {
    let html = html();
    let sources = Sources { subject: "Hello {{ first_name }}", html: Some(&html), ..Sources::default() };
    let compiled = Compiled::new(&sources, &Options::default()).expect("a template");
    let globals = Arc::new(Globals::new().with("campaign", &serde_json::json!({"name": "Spring"})));
    let mut vars = Vars::parse(row(7).as_bytes(), &globals).expect("a row");
    vars.set("unsubscribe_url", "https://links.example.com/u/abcdefghijklmnopqrstuvwxyz");
    (compiled, vars, html)
}

#[divan::bench]
fn parse_row(bencher: Bencher) {
    let (row, globals) = (row(7), Arc::default());
    bencher.bench(|| Vars::parse(row.as_bytes(), &globals));
}

#[divan::bench]
fn render_10_kb_html(bencher: Bencher) {
    let (compiled, vars, _) = compiled();
    bencher.bench(|| compiled.render(Part::Html, &vars, NOW));
}

#[divan::bench]
fn render_text_made_of_html(bencher: Bencher) {
    let (compiled, vars, _) = compiled();
    bencher.bench(|| compiled.render(Part::Text, &vars, NOW));
}

#[divan::bench]
fn scan_for_missing(bencher: Bencher) {
    let (compiled, vars, _) = compiled();
    bencher.bench(|| compiled.missing(&vars, NOW));
}

#[divan::bench]
fn text_of_html(bencher: Bencher) {
    let html = html();
    bencher.bench(|| html_to_text(&html));
}
