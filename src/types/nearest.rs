//! The known name that a misspelt one was probably meant to be: for keys of a configuration, of JSON, of a query.

/// The candidate nearest to `word`, where it is near enough that it may have been meant: at most a third of its
/// letters changed (rounded up).
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.chars().count().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance with swapped neighbours as one change, letter case ignored.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut cost = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(before[j - 2] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_typing_errors_and_no_more() {
        let keys = ["hostname", "data_dir", "tls", "http"];
        assert_eq!(nearest("hostnmae", keys), Some("hostname"));
        assert_eq!(nearest("data-dir", keys), Some("data_dir"));
        assert_eq!(nearest("htpp", keys), Some("http"));
        assert_eq!(nearest("queue", keys), None);
    }

    #[test]
    fn a_stranger_is_nobodys_slip() {
        let known = ["from", "to", "subject", "metadata"];
        assert_eq!(nearest("subjct", known), Some("subject"));
        assert_eq!(nearest("meta_data", known), Some("metadata"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }
}
