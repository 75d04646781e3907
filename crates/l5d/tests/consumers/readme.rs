//! The configuration blocks that the README prints.

const README: &str = include_str!("../../../../README.md");

/// The fenced block of that language that contains `mark`.
///
/// # Panics
/// When there is none, or more than one.
pub(crate) fn block(language: &str, mark: &str) -> &'static str {
    let opening = format!("```{language}\n");
    let found: Vec<&str> = README
        .split(&opening)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .filter(|block| block.contains(mark))
        .collect();
    match found.as_slice() {
        [one] => one,
        many => panic!("{} blocks of {language} in the README name {mark}", many.len()),
    }
}

/// `text` with the one occurrence of `old` replaced.
///
/// # Panics
/// When `old` occurs never or more than once: then the block was changed and the test must be looked at.
pub(crate) fn replaced(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "{old:?} in:\n{text}");
    text.replace(old, new)
}
