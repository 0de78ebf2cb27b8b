//! The text and the HTML of a sample: what is there to read, where its links lead, what was never filled in.

use std::collections::BTreeSet;

use super::dns::{Ask, AskDns, Said, join_all};
use super::message::{bracketed, field_of, of};
use super::report::{Finding, error, grouped, warning};
use super::{Preflight, Sample};
use crate::types::Class;

/// Gmail clips HTML above this, in octets.
const HTML_MAX: usize = 102 * 1_024;
/// The most hosts of links that are looked up; further ones are passed over.
const HOSTS_MAX: usize = 32;

/// Hosts that only redirect.
const SHORTENERS: &[&str] = &[
    "bit.ly",
    "buff.ly",
    "cutt.ly",
    "goo.gl",
    "is.gd",
    "lnkd.in",
    "ow.ly",
    "rb.gy",
    "rebrand.ly",
    "shorturl.at",
    "t.co",
    "t.ly",
    "tiny.cc",
    "tinyurl.com",
    "v.gd",
];

/// Words by which people know the way out, in lowercase, in a link or its text.
const UNSUBSCRIBE: &[&str] = &[
    "unsubscribe",
    "unsub",
    "opt-out",
    "optout",
    "opt out",
    "preferences",
    "abmelden",
    "abbestellen",
    "désabonner",
    "desabonner",
    "désinscri",
    "desinscri",
    "darse de baja",
    "cancelar",
    "disiscri",
    "annulla",
    "uitschrijven",
    "afmelden",
    "avregistrera",
    "afmeld",
    "wypisz",
    "odhlásit",
    "отписаться",
];

/// What a reader of HTML would follow, see, or hear.
#[derive(Debug, Default)]
struct Html {
    /// Targets of links, with the text inside.
    links: Vec<(String, String)>,
    /// Images without `alt`; one that is empty on purpose counts as given.
    without_alt: Vec<String>,
    /// Whether there is text, or an image.
    has_content: bool,
}

/// Judges a sample's text and HTML.
pub(super) fn check(check: &Preflight<'_>, sample: &Sample<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let html = sample.html.map(read).unwrap_or_default();
    let text = sample.text.map(str::trim);
    if let Some(octets) = sample.html.map(str::len).filter(|octets| *octets > HTML_MAX) {
        let title = format!("the HTML has {} octets: Gmail shows the first 102 KB", grouped(octets as u64));
        found.push(warning("html-clipped", title, "Take out comments, unused styles and embedded images."));
    }
    let fix = "Give the job a text; it can be made from the HTML.";
    match (text, html.has_content) {
        (None | Some(""), false) => {
            found.push(error("body-empty", "the message has nothing to read", "Write something."))
        }
        (None, true) => found.push(warning("text-missing", "there is no plain text", fix)),
        (Some(""), true) => found.push(warning("text-empty", "the plain text is empty", fix)),
        _ => {}
    }
    if !html.without_alt.is_empty() {
        let title = format!("{} images have no alt text", html.without_alt.len());
        let fix = "Add alt=\"…\", or alt=\"\" where an image is mere decoration.";
        found.push(warning("alt-missing", title, fix).details(html.without_alt.iter().cloned()));
    }
    let mut links: Vec<&str> = html.links.iter().map(|(target, _)| target.as_str()).collect();
    links.extend(text.into_iter().flat_map(text_links));
    found.extend(judge_links(&links));
    let subject = field_of(sample.raw, "Subject").unwrap_or_default();
    let left: BTreeSet<&str> =
        [sample.html, text, Some(subject.as_str())].into_iter().flatten().flat_map(placeholders).collect();
    if !left.is_empty() {
        let fix = "Fill it in, or write it as a template does: {{ first_name }}.";
        found.push(
            error("placeholder-left", "a placeholder was not filled in", fix)
                .details(left.into_iter().map(str::to_owned)),
        );
    }
    if check.class == Class::Marketing && !has_way_out(sample, &html, text.unwrap_or("")) {
        let fix = "Add a link with {{ unsubscribe_url }}.";
        found.push(warning("unsubscribe-link-missing", "there is no unsubscribe link in the body", fix));
    }
    found.into_iter().map(|finding| of(sample, finding)).collect()
}

fn has_way_out(sample: &Sample<'_>, html: &Html, text: &str) -> bool {
    let known = |text: &str| {
        let text = text.to_lowercase();
        UNSUBSCRIBE.iter().any(|word| text.contains(word))
    };
    let field = field_of(sample.raw, "List-Unsubscribe").unwrap_or_default();
    let own = |target: &str| bracketed(&field).any(|uri| uri == target);
    html.links.iter().any(|(target, inner)| known(target) || known(inner) || own(target))
        || text_links(text).any(|target| known(target) || own(target))
}

fn judge_links(links: &[&str]) -> Vec<Finding> {
    let (mut relative, mut strange, mut plain, mut empty, mut short) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for link in links.iter().map(|link| link.trim()) {
        let scheme = link.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            _ if link.is_empty() || link == "#" => empty.push(link.to_owned()),
            // A place in the same mail.
            _ if link.starts_with('#') => {}
            _ if placeholders(link).next().is_some() => empty.push(link.to_owned()),
            Some("https" | "http") if host_of(link).is_none() => relative.push(link.to_owned()),
            Some("http") => plain.push(link.to_owned()),
            Some("https" | "mailto" | "tel" | "sms") => {}
            Some(scheme) if scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) => {
                strange.push(link.to_owned());
            }
            _ => relative.push(link.to_owned()),
        }
        if host_of(link).is_some_and(|host| SHORTENERS.contains(&host.trim_start_matches("www."))) {
            short.push(link.to_owned());
        }
    }
    let mut found = Vec::new();
    let mut add =
        |links: Vec<String>, make: fn(&'static str, String, &'static str) -> Finding, code, what: &str, fix| {
            let links: BTreeSet<String> = links.into_iter().collect();
            if !links.is_empty() {
                found.push(make(code, format!("{} {what}", links.len()), fix).details(links));
            }
        };
    add(relative, error, "link-not-absolute", "links are not absolute", "Write https:// and the host.");
    add(strange, warning, "link-not-http", "links are of another kind than http(s)", "Link to a web page.");
    add(plain, warning, "link-http", "links are not encrypted", "Write https:// instead of http://.");
    add(empty, error, "link-placeholder", "links lead nowhere", "Fill in the target.");
    add(short, warning, "link-shortener", "links go by a shortener", "Link to the page itself.");
    found
}

/// Whether the hosts of links, and of the one-click URI, exist.
pub(super) async fn link_hosts(samples: &[Sample<'_>], dns: &impl AskDns) -> Option<Finding> {
    let mut hosts = BTreeSet::new();
    for sample in samples {
        let html = sample.html.map(read).unwrap_or_default();
        let field = field_of(sample.raw, "List-Unsubscribe").unwrap_or_default();
        let targets = html.links.iter().map(|(target, _)| target.as_str());
        let all = targets.chain(sample.text.into_iter().flat_map(text_links)).chain(bracketed(&field));
        let filled = all.filter(|link| placeholders(link).next().is_none());
        hosts.extend(filled.filter_map(host_of).filter(|host| host.parse::<std::net::IpAddr>().is_err()));
    }
    let hosts: Vec<String> = hosts.into_iter().take(HOSTS_MAX).collect();
    let missing = join_all(hosts.into_iter().map(async |host| {
        // A host that can't be told now is not said to be missing.
        matches!(dns.ask(Ask::Addresses(host.clone())).await, Said::Nothing).then_some(host)
    }));
    let missing: Vec<String> = missing.await.into_iter().flatten().collect();
    (!missing.is_empty()).then(|| {
        let title = format!("{} hosts of links do not exist", missing.len());
        error("link-no-host", title, "Mend the link, or publish an address for the host.").details(missing)
    })
}

/// The host of an http(s) URL, in lowercase A-labels.
fn host_of(link: &str) -> Option<String> {
    let (scheme, rest) = link.trim().split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    if let Some(literal) = host.strip_prefix('[') {
        return literal.split_once(']').map(|(address, _)| address.to_owned());
    }
    let host = host.split(':').next()?;
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some(host.to_owned());
    }
    crate::types::Domain::parse(host.trim_end_matches('.')).ok().map(|domain| domain.to_string())
}

/// URLs in plain text.
fn text_links(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '(' | ')'));
    let urls = words.filter(|word| word.starts_with("https://") || word.starts_with("http://"));
    urls.map(|word| word.trim_end_matches(['.', ',', ';', ':', '!', '?']))
}

/// What looks like a place that a template would fill: `{{ x }}`, `{% x %}`, `%NAME%`, `*|NAME|*`, `[[NAME]]`.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    const PAIRS: [(&str, &str); 4] = [("{{", "}}"), ("{%", "%}"), ("*|", "|*"), ("[[", "]]")];
    let paired = PAIRS.into_iter().filter_map(move |(open, close)| {
        let start = text.find(open)?;
        let inner = &text[start + open.len()..];
        // One that is not closed soon is code, or a drawing.
        let end = inner.find(close).filter(|end| *end > 0 && *end <= 80)?;
        Some(&text[start..start + open.len() + end + close.len()])
    });
    let mut at = 0;
    let percent = std::iter::from_fn(move || {
        loop {
            let start = at + text[at..].find('%')?;
            let inner = text[start + 1..].bytes().take_while(|b| b.is_ascii_uppercase() || *b == b'_').count();
            at = start + 1;
            // Two capitals may be an escaped octet of a URL: %C3%A9.
            if inner >= 4 && text.as_bytes().get(start + 1 + inner) == Some(&b'%') {
                at = start + inner + 2;
                return Some(&text[start..at]);
            }
        }
    });
    paired.chain(percent)
}

/// Reads HTML as far as links, images and text go. Not a parser: what it does not know it passes over.
fn read(html: &str) -> Html {
    let mut out = Html::default();
    let mut rest = html;
    let mut open_link = false;
    while let Some((before, after)) = rest.split_once('<') {
        add_text(before, open_link, &mut out);
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
            continue;
        }
        let end = tag_end(after);
        let inner = &after[..end];
        rest = after.get(end + 1..).unwrap_or("");
        let name: String = inner.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '/').collect();
        match name.to_ascii_lowercase().as_str() {
            "a" | "area" => {
                if let Some(target) = attribute(inner, "href") {
                    out.links.push((target, String::new()));
                    open_link = name.eq_ignore_ascii_case("a");
                }
            }
            "/a" => open_link = false,
            "img" => {
                out.has_content = true;
                let alt = attribute(inner, "alt");
                if alt.is_none() {
                    out.without_alt.push(attribute(inner, "src").unwrap_or_default());
                }
                add_text(&alt.unwrap_or_default(), open_link, &mut out);
            }
            skipped @ ("style" | "script" | "title" | "head/") => {
                let close = format!("</{skipped}");
                let at = rest.as_bytes().windows(close.len()).position(|w| w.eq_ignore_ascii_case(close.as_bytes()));
                rest = at.map_or("", |at| &rest[at..]);
            }
            _ => {}
        }
    }
    add_text(rest, open_link, &mut out);
    out
}

fn add_text(text: &str, open_link: bool, out: &mut Html) {
    if text.trim().is_empty() {
        return;
    }
    out.has_content = true;
    if open_link && let Some((_, inner)) = out.links.last_mut() {
        inner.push_str(text);
    }
}

/// Where a tag ends: at a `>` outside of quotes.
fn tag_end(tag: &str) -> usize {
    let mut quote = None;
    for (i, b) in tag.bytes().enumerate() {
        match (quote, b) {
            (None, b'>') => return i,
            (None, b'"' | b'\'') => quote = Some(b),
            (Some(open), b) if b == open => quote = None,
            _ => {}
        }
    }
    tag.len()
}

/// The value of an attribute, with the commonest entity decoded; empty where it has none.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let mut rest = tag.split_once(|c: char| c.is_ascii_whitespace() || c == '/')?.1;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(|c: char| c.is_ascii_whitespace() || c == '=' || c == '/').unwrap_or(rest.len());
        let key = &rest[..end];
        rest = rest[end..].trim_start();
        let mut value = "";
        if let Some(given) = rest.strip_prefix('=') {
            let given = given.trim_start();
            let quote = given.chars().next().filter(|c| matches!(c, '"' | '\''));
            (value, rest) = match quote {
                Some(quote) => given[1..].split_once(quote).unwrap_or((&given[1..], "")),
                None => given.split_at(given.find(|c: char| c.is_ascii_whitespace()).unwrap_or(given.len())),
            };
        } else if end == 0 {
            // A character that begins nothing: passed over, so that the loop goes on.
            rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
        }
        if key.eq_ignore_ascii_case(name) {
            return Some(value.trim().replace("&amp;", "&"));
        }
    }
}
