//! The known name that a misspelt one was probably meant to be.

/// The candidate with the fewest edits, if it is near enough to be a slip: at most a third of the letters.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (given.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(given, candidate), candidate))
        .filter(|(edits, _)| *edits <= most)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, by two rows.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            let replace = diagonal + usize::from(!x.eq_ignore_ascii_case(y));
            row[j + 1] = replace.min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn names_slips_and_nothing_else() {
        let known = ["from", "to", "subject", "metadata"];
        assert_eq!(nearest("subjct", known), Some("subject"));
        assert_eq!(nearest("meta_data", known), Some("metadata"));
        assert_eq!(nearest("colour", known), None);
    }
}
