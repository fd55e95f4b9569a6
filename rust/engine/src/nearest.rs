//! The name that was meant.

/// The nearest name by edits, if at most half of it differs.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let short = |name: &str| name.to_lowercase().chars().take(200).collect::<String>();
    let wanted = short(name);
    let near = names.map(|other| (strsim::levenshtein(&wanted, &short(other)), other));
    near.filter(|(edits, _)| edits * 2 <= wanted.chars().count()).min().map(|(_, other)| other)
}
