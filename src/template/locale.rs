//! Months, days, numbers and amounts as the languages of most senders write them.

use jiff::civil::Date;

/// The languages, for messages.
pub(super) const KNOWN: &str = "de, en, es, fr, it, nl, pt are known";

struct Language {
    code: &'static str,
    months: [&'static str; 12],
    days: [&'static str; 7],
    /// Letters of a short month and a short day, with a full stop where the language sets one.
    short: (usize, usize, &'static str),
    thousands: &'static str,
    point: &'static str,
    /// Whether the sign of the currency stands behind the amount.
    sign_behind: bool,
}

const LANGUAGES: [Language; 6] = [
    Language {
        code: "de",
        months: [
            "Januar",
            "Februar",
            "März",
            "April",
            "Mai",
            "Juni",
            "Juli",
            "August",
            "September",
            "Oktober",
            "November",
            "Dezember",
        ],
        days: ["Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"],
        short: (3, 2, ""),
        thousands: ".",
        point: ",",
        sign_behind: true,
    },
    Language {
        code: "fr",
        months: [
            "janvier",
            "février",
            "mars",
            "avril",
            "mai",
            "juin",
            "juillet",
            "août",
            "septembre",
            "octobre",
            "novembre",
            "décembre",
        ],
        days: ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"],
        short: (4, 3, "."),
        thousands: "\u{202f}",
        point: ",",
        sign_behind: true,
    },
    Language {
        code: "es",
        months: [
            "enero",
            "febrero",
            "marzo",
            "abril",
            "mayo",
            "junio",
            "julio",
            "agosto",
            "septiembre",
            "octubre",
            "noviembre",
            "diciembre",
        ],
        days: ["lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"],
        short: (3, 3, ""),
        thousands: ".",
        point: ",",
        sign_behind: true,
    },
    Language {
        code: "it",
        months: [
            "gennaio",
            "febbraio",
            "marzo",
            "aprile",
            "maggio",
            "giugno",
            "luglio",
            "agosto",
            "settembre",
            "ottobre",
            "novembre",
            "dicembre",
        ],
        days: ["lunedì", "martedì", "mercoledì", "giovedì", "venerdì", "sabato", "domenica"],
        short: (3, 3, ""),
        thousands: ".",
        point: ",",
        sign_behind: true,
    },
    Language {
        code: "nl",
        months: [
            "januari",
            "februari",
            "maart",
            "april",
            "mei",
            "juni",
            "juli",
            "augustus",
            "september",
            "oktober",
            "november",
            "december",
        ],
        days: ["maandag", "dinsdag", "woensdag", "donderdag", "vrijdag", "zaterdag", "zondag"],
        short: (3, 2, ""),
        thousands: ".",
        point: ",",
        sign_behind: false,
    },
    Language {
        code: "pt",
        months: [
            "janeiro",
            "fevereiro",
            "março",
            "abril",
            "maio",
            "junho",
            "julho",
            "agosto",
            "setembro",
            "outubro",
            "novembro",
            "dezembro",
        ],
        days: ["segunda-feira", "terça-feira", "quarta-feira", "quinta-feira", "sexta-feira", "sábado", "domingo"],
        short: (3, 3, ""),
        thousands: ".",
        point: ",",
        sign_behind: true,
    },
];

/// `None` for English, which the formats have by themselves; `Err` for a language that is not known.
fn language(code: &str) -> Result<Option<&'static Language>, ()> {
    let code = code.split(['-', '_']).next().unwrap_or(code).to_ascii_lowercase();
    if code == "en" {
        return Ok(None);
    }
    LANGUAGES.iter().find(|language| language.code == code).map(Some).ok_or(())
}

/// A format of dates with the names of months and days of a language in it; `None` when the language is not known.
pub(super) fn localised(format: &str, code: &str, date: Date) -> Option<String> {
    let Some(language) = language(code).ok()? else { return Some(format.to_owned()) };
    let month = language.months[usize::from(date.month().unsigned_abs()).clamp(1, 12) - 1];
    let day = language.days[usize::from(date.weekday().to_monday_zero_offset().unsigned_abs()).min(6)];
    let (month_len, day_len, stop) = language.short;
    let short = |name: &str, len: usize| {
        let is_whole = name.chars().count() <= len;
        name.chars().take(len).collect::<String>() + if is_whole { "" } else { stop }
    };
    let mut out = String::with_capacity(format.len() + 16);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('B') => out.push_str(month),
            Some('b' | 'h') => out.push_str(&short(month, month_len)),
            Some('A') => out.push_str(day),
            Some('a') => out.push_str(&short(day, day_len)),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    Some(out)
}

/// A number with so many decimals, half away from zero.
pub(super) fn number(figure: f64, decimals: usize, thousands: &str, point: &str) -> String {
    let plain = format!("{:.decimals$}", rounded(figure, decimals).abs());
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let is_zero = plain.bytes().all(|b| matches!(b, b'0' | b'.'));
    let mut out = String::with_capacity(plain.len() + 8);
    if figure < 0.0 && !is_zero {
        out.push('-');
    }
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push_str(thousands);
        }
        out.push(digit);
    }
    if !fraction.is_empty() {
        out.push_str(point);
        out.push_str(fraction);
    }
    out
}

/// People expect 2.675 as 2.68, though the number in binary is a little less.
fn rounded(figure: f64, decimals: usize) -> f64 {
    let nudge = figure * f64::EPSILON;
    let scale = 10_f64.powi(i32::try_from(decimals).unwrap_or(0));
    let scaled = (figure + nudge) * scale;
    if scaled.abs() < 9e15 { scaled.round() / scale } else { figure }
}

/// An amount with the sign of its currency; `None` when the language is not known.
pub(super) fn currency(figure: f64, code: &str, language_code: &str) -> Option<String> {
    let language = language(language_code).ok()?;
    let code = code.to_ascii_uppercase();
    let sign = match code.as_str() {
        "EUR" => "€",
        "USD" => "$",
        "GBP" => "£",
        "JPY" => "¥",
        "INR" => "₹",
        "KRW" => "₩",
        other => other,
    };
    let decimals = if matches!(code.as_str(), "JPY" | "KRW" | "ISK" | "CLP" | "VND") { 0 } else { 2 };
    let (thousands, point) = language.map_or((",", "."), |l| (l.thousands, l.point));
    let amount = number(figure.abs(), decimals, thousands, point);
    let minus = if figure < 0.0 && amount.contains(|c: char| matches!(c, '1'..='9')) { "-" } else { "" };
    // A space that does not break, so that no amount is cut in two.
    Some(match language {
        Some(l) if l.sign_behind => format!("{minus}{amount}\u{a0}{sign}"),
        Some(_) => format!("{sign}\u{a0}{minus}{amount}"),
        None if sign.len() == 3 && sign.is_ascii() => format!("{minus}{sign}\u{a0}{amount}"),
        None => format!("{minus}{sign}{amount}"),
    })
}
