//! The rules' own examples, and what no rule may do.

use super::*;

#[test]
fn each_example_is_understood_by_its_rule() {
    let rules = Rules::built_in();
    assert!(rules.rules.iter().all(|rule| !rule.examples.is_empty()), "a rule has no example");
    assert_eq!(rules.misunderstood(), Vec::<String>::new());
}

#[test]
fn a_bad_file_is_refused_with_its_reason() {
    let head = "[[rules]]\nname = 'x'\ncategory = 'other'\nscope = 'path'\n";
    for (rest, want) in [
        (
            "fault = 'sender_ip'\nsuppress = true\npatterns = ['a']\n",
            "suppresses the recipient for a fault of sender_ip",
        ),
        ("fault = 'system'\n", "fits everything"),
        ("fault = 'system'\npatterns = ['(']\n", "unclosed group"),
        ("fault = 'nobody'\npatterns = ['a']\n", "unknown variant"),
        ("fault = 'system'\npatterns = ['a']\ncolour = 1\n", "unknown field"),
    ] {
        let error = Rules::parse(&format!("{head}{rest}")).map(|_| ()).expect_err(rest).to_string();
        assert!(error.contains(want), "{error}");
    }
}
