//! Mailbox providers: found by the names of the MX hosts, so that hosted domains count towards them.

/// The name where no provider matches.
pub const OTHER: &str = "other";

/// Suffixes of MX host names, and whose they are. A suffix matches whole labels.
const PROVIDERS: &[(&str, &str)] = &[
    ("google.com", "google"),
    ("googlemail.com", "google"),
    ("smtp.goog", "google"),
    ("yahoodns.net", "yahoo"),
    ("yahoo.com", "yahoo"),
    ("yahoo.co.jp", "yahoo_japan"),
    ("outlook.com", "microsoft"),
    ("hotmail.com", "microsoft"),
    ("office365.us", "microsoft"),
    ("mx.microsoft", "microsoft"),
    ("icloud.com", "apple"),
    ("apple.com", "apple"),
    ("comcast.net", "comcast"),
    ("cmp.comcast.net", "comcast"),
    ("orange.fr", "orange"),
    ("wanadoo.fr", "orange"),
    ("laposte.net", "laposte"),
    ("free.fr", "free"),
    ("sfr.fr", "sfr"),
    ("gmx.net", "gmx"),
    ("gmx.com", "gmx"),
    ("web.de", "gmx"),
    ("kundenserver.de", "ionos"),
    ("perfora.net", "ionos"),
    ("t-online.de", "tonline"),
    ("mail.ru", "mailru"),
    ("yandex.ru", "yandex"),
    ("yandex.net", "yandex"),
    ("yandex.com", "yandex"),
    ("qq.com", "qq"),
    ("163.com", "netease"),
    ("126.com", "netease"),
    ("netease.com", "netease"),
    ("naver.com", "naver"),
    ("protonmail.ch", "proton"),
    ("zoho.com", "zoho"),
    ("zoho.eu", "zoho"),
    ("messagingengine.com", "fastmail"),
    ("pphosted.com", "proofpoint"),
    ("ppe-hosted.com", "proofpoint"),
    ("mimecast.com", "mimecast"),
    ("barracudanetworks.com", "barracuda"),
    ("amazonaws.com", "amazon"),
    ("secureserver.net", "godaddy"),
    ("emailsrvr.com", "rackspace"),
    ("ovh.net", "ovh"),
    ("charter.net", "spectrum"),
    ("cox.net", "cox"),
    ("att.net", "yahoo"),
    ("aol.com", "yahoo"),
    ("libero.it", "libero"),
    ("seznam.cz", "seznam"),
    ("wp.pl", "wp"),
    ("onet.pl", "onet"),
];

/// The provider of a set of MX hosts (lowercase, without trailing dot): the first host that matches decides.
pub fn provider_of<'a>(hosts: impl IntoIterator<Item = &'a str>) -> &'static str {
    let within =
        |host: &str, suffix: &str| host.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    hosts
        .into_iter()
        .find_map(|host| PROVIDERS.iter().find(|(suffix, _)| within(host, suffix)).map(|(_, name)| *name))
        .unwrap_or(OTHER)
}

/// The names of all providers, sorted, with [`OTHER`]: the values of a metric's label.
pub fn all() -> Vec<&'static str> {
    let mut names: Vec<&str> = PROVIDERS.iter().map(|(_, name)| *name).chain([OTHER]).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &[&str], want: &str) {
        assert_eq!(provider_of(hosts.iter().copied()), want, "{hosts:?}");
    }

    #[test]
    fn providers_by_suffix_of_whole_labels() {
        check(&["aspmx.l.google.com"], "google");
        check(&["example-com.mail.protection.outlook.com"], "microsoft");
        check(&["mta5.am0.yahoodns.net"], "yahoo");
        check(&["mx01.mail.icloud.com"], "apple");
        // A look-alike must not count towards the provider.
        check(&["mx.notgoogle.com"], "other");
        check(&["google.com.evil.example"], "other");
        check(&["mx.example.org", "alt1.aspmx.l.google.com"], "google");
        check(&[], "other");
    }
}
