use super::*;

const GOOD: &str = r#"
id = "spring"
from = "Shop <news@acme.example>"
subject = "Hello {{ first_name }}"
html = "<p>Hi</p>"
rate = "1000/min"

[schedule]
at = 2026-12-01T09:00:00
time_zone = "Europe/Berlin"
spread = "6h"
window = { days = ["mon", "fri"], from = "09:00", to = "18:00" }

[stop_if]
hard_bounce_rate = 0.05
"#;

#[track_caller]
fn problems(text: &str, format: Format) -> Vec<String> {
    parse(text, format).expect_err("this job is wrong").iter().map(ToString::to_string).collect()
}

/// With one line more than what a job needs, the problem is this one.
#[track_caller]
fn check(line: &str, want: &str) {
    let text = format!("from = \"a@acme.example\"\nsubject = \"s\"\ntext = \"t\"\n{line}\n");
    let got = problems(&text, Format::Toml);
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(got[0].contains(want), "{:?} has not {want:?}", got[0]);
}

#[test]
fn a_job_survives_its_json() {
    let job = parse(GOOD, Format::Toml).expect("a good job");
    let again = Job::from_json(&job.to_json()).expect("our own JSON");
    assert_eq!(again, job);
    assert_eq!(again.hash(), job.hash());
    let from_json = parse(&String::from_utf8(job.to_json()).expect("JSON"), Format::Json).expect("the same");
    assert_eq!(from_json.hash(), job.hash());
    assert!(job.differences(&Job { subject: "x".into(), priority: 9, ..job.clone() }) == ["priority", "subject"]);
}

#[test]
fn each_field_says_what_is_wrong_with_it() {
    check("id = \"a b\"", "4:1: id: a name has only letters");
    check("reply_to = \"nobody\"", "reply_to: \"nobody\" is not an address");
    check("preheader = 7", "preheader: invalid type: integer `7`, expected a string");
    check("headers = { \"List-Unsubscribe\" = \"x\" }", "headers.List-Unsubscribe: can't be set by a job");
    check("headers = { \"X-A\" = \"a\\nb\" }", "headers.X-A: has the character \\u{a}");
    check("attachments = [{ name = \"a\", content = \"?\" }]", "attachments[0].content: not base64");
    check(
        "attachments = [{ name = \"a\", content = \"\", type = \"x\" }]",
        "attachments[0].type: \"x\" is not a media type",
    );
    check(
        "attachments = [{ name = \"a\", contnet = \"\" }]",
        "attachments[0].contnet: is not a known field (did you mean content?)",
    );
    check("class = \"bulk\"", "class: unknown variant `bulk`");
    check("tags = [\"ok\", \"not ok\"]", "tags[1]: a name has only");
    check("metadata = 1", "metadata: invalid type");
    check("variables = { \"a-b\" = 1 }", "variables.a-b: is not a name that a template can use");
    check("segment = \" \"", "segment: is empty");
    check("exclude = { campagns = [\"x\"] }", "exclude.campagns: is not a known field (did you mean campaigns?)");
    check("rate = \"fast\"", "rate: \"fast\" is not a rate");
    check("expire_after = \"1s\"", "expire_after: 1s is not between 1m and 30d");
    check("on_missing = \"send\"", "on_missing: unknown variant `send`");
    check("test_recipients = [\"me@acme.example\", \"me\"]", "test_recipients[1]: \"me\" is not an address");
    check("stop_if = { hard_bounce_rate = 5 }", "stop_if.hard_bounce_rate: is not above 0 and at most 1 (5 % is 0.05)");
    check("stop_if = { minimum = 5 }", "stop_if: names no rate");
    check("priority = 11", "priority: 11 is not between 1 and 10");
    check("public_url = \"https://a.example/?x\"", "public_url:");
    check("html_file = \"mail.html\"", "html_file: files can't be read here");
    check("class = \"transactional\"\nlist = \"news\"", "5:1: list: transactional mail has no list");
}

#[test]
fn a_schedule_says_what_is_wrong_with_it() {
    check("schedule = { at = \"tomorrow\" }", "schedule.at: \"tomorrow\" is not a time");
    check("schedule = { time_zone = \"Berlin\" }", "schedule.time_zone: \"Berlin\" is not a time zone");
    check("schedule = { time_zone = \"recipient\" }", "needs schedule.at");
    check("schedule = { time_zone = \"recipient\", at = 2026-12-01T09:00:00Z }", "is the same for all time zones");
    check("schedule = { window = { from = \"09:00\" } }", "schedule.window.to: is missing");
    check(
        "schedule = { window = { from = \"09:00\", to = \"25:00\" } }",
        "schedule.window.to: \"25:00\" is not a time of the day",
    );
    check("schedule = { window = { from = \"09:00\", to = \"09:00\" } }", "the window is never open");
    check(
        "schedule = { window = { from = \"09:00\", to = \"18:00\", days = [\"funday\"] } }",
        "\"funday\" is not a day",
    );
    check("schedule = { spread = \"0s\" }", "schedule.spread");
}

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    // The first problem must not hide the others: who mends a job wants one round.
    let text = "{\n  \"from\": \"a@acme.example\",\n  \"subjct\": \"s\",\n  \"rate\": \"1\",\n  \"schedule\": {\"spread\": \"x\", \"att\": 1}\n}";
    assert_eq!(
        problems(text, Format::Json),
        [
            "subject: is missing (say what the mail is about)",
            "html: neither html nor text is given (give at least one of them)",
            "3:3: subjct: is not a known field (did you mean subject?)",
            "4:3: rate: \"1\" is not a rate: a number and /s, /min, /h or /d, as \"100/min\"",
            "5:16: schedule.spread: \"x\" is not a duration: a number with ms, s, m, h, d or w, as \"5m\" or \"1h30m\"",
            "5:31: schedule.att: is not a known field (did you mean at?)",
        ]
    );
}

#[test]
fn a_syntax_error_has_its_place() {
    assert!(problems("from = \nx = 1", Format::Toml)[0].starts_with("1:"));
    assert!(problems("{\"from\": }", Format::Json)[0].starts_with("1:10: not JSON: "));
    assert!(problems("[1]", Format::Json)[0].contains("a job is an object"));
}

#[test]
fn files_are_put_in_by_who_has_them() {
    let read = |file: &str| match file {
        "m.html" => Ok(b"<p>x".to_vec()),
        "d/p.pdf" => Ok(b"pdf".to_vec()),
        other => Err(format!("no file {other}")),
    };
    let text =
        "from = \"a@acme.example\"\nsubject = \"s\"\nhtml_file = \"m.html\"\n[[attachments]]\nfile = \"d/p.pdf\"\n";
    let whole = inline_files(text, Format::Toml, &read).expect("all files are there");
    let job = parse(&whole, Format::Json).expect("a good job");
    assert_eq!(job.html.as_deref(), Some("<p>x"));
    assert_eq!((job.attachments[0].name.as_str(), &job.attachments[0].content[..]), ("p.pdf", &b"pdf"[..]));
    let missing = inline_files("text_file = \"n\"", Format::Toml, &read).expect_err("no such file");
    assert_eq!(missing[0].to_string(), "1:1: text_file: no file n");
}

#[test]
fn a_hostile_path_or_text_does_not_break_the_search_for_places() {
    for text in [
        "{\"a\\\"b\": [1, {\"c\": \"}\"}], \"from\": 1}",
        "{\"\\u0066rom\": {}, \"x\": [[[[]]]]}",
        "{\"a.b[0]\": 1, \"from\":[]}",
    ] {
        assert!(!problems(text, Format::Json).is_empty());
    }
}
