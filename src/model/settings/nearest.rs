//! The known word nearest to a mistyped one.

/// The candidate a typist most likely meant, or `None` when nothing is near enough to be worth saying.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = plain(word);
    let tolerance = (typed.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&typed, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= tolerance && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// camelCase and kebab-case are AWS's and other tools' spelling of the same key, so they are no distance.
fn plain(word: &str) -> Vec<char> {
    word.chars().filter(|c| *c != '_' && *c != '-').map(|c| c.to_ascii_lowercase()).collect()
}

/// Insertions, removals, replacements and swaps of neighbours from one word to the other.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            rows[i][j] = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            let swapped = i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
            if swapped {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, wanted: Option<&str>) {
        let keys = ["idle_timeout", "pong_timeout", "max_frame", "uri", "$connect", "routes"];
        assert_eq!(nearest(word, keys), wanted, "{word}");
    }

    #[test]
    fn a_typo_finds_its_key_and_a_stranger_none() {
        check("idle_timout", Some("idle_timeout"));
        check("idleTimeout", Some("idle_timeout"));
        check("max-frame", Some("max_frame"));
        check("url", Some("uri"));
        check("ruotes", Some("routes"));
        check("$conect", Some("$connect"));
        check("x", None);
        check("colour", None);
    }
}
