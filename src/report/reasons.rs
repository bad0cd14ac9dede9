//! Groups of reasons why items have no score. Reasons that differ only in numbers, ids and quoted text form one group.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// An outcome, its reason, and the number of items with both.
pub(super) type Reason = (&'static str, String, u64);

/// Up to this number of different values, a group lists all of them.
const MAX_LISTED: usize = 3;

/// Groups reasons that are equal except for their varying parts, most frequent first. Words in `fixed_words` (names of parts,
/// gates and columns) do not vary.
pub(super) fn group_reasons(reasons: impl Iterator<Item = Reason>, fixed_words: &BTreeSet<String>) -> Vec<Reason> {
    let mut groups: BTreeMap<(&'static str, Vec<String>), ReasonGroup> = BTreeMap::new();
    for (outcome, reason, items) in reasons {
        let (fixed, varying) = split(&reason, fixed_words);
        let fixed = fixed.into_iter().map(String::from).collect();
        groups.entry((outcome, fixed)).or_default().add(&varying, items);
    }
    let mut reasons: Vec<Reason> =
        groups.into_iter().map(|((outcome, fixed), group)| (outcome, group.text(&fixed), group.items)).collect();
    reasons.sort_by_key(|(_, _, items)| std::cmp::Reverse(*items));
    reasons
}

/// Reasons with the same fixed parts.
#[derive(Default)]
struct ReasonGroup {
    items: u64,
    /// The values of each varying part.
    values: Vec<VaryingPart>,
}

impl ReasonGroup {
    fn add(&mut self, varying: &[&str], items: u64) {
        self.items += items;
        self.values.resize_with(varying.len(), VaryingPart::default);
        self.values.iter_mut().zip(varying).for_each(|(values, text)| values.add(text));
    }

    /// The fixed parts with the values in between.
    fn text(&self, fixed: &[String]) -> String {
        let values = self.values.iter().map(VaryingPart::text).chain([String::new()]);
        fixed.iter().zip(values).map(|(fixed, value)| fixed.clone() + &value).collect()
    }
}

/// The values of one varying part.
#[derive(Default)]
struct VaryingPart {
    /// The first different values, one more than are listed.
    first_values: Vec<String>,
    /// The smallest and the largest number, with their texts.
    range: Option<[(f64, String); 2]>,
    has_text: bool,
}

impl VaryingPart {
    fn add(&mut self, text: &str) {
        if self.first_values.len() <= MAX_LISTED && !self.first_values.iter().any(|other| other == text) {
            self.first_values.push(text.into());
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => {
                let [min, max] =
                    self.range.get_or_insert_with(|| [(value, text.to_string()), (value, text.to_string())]);
                if value < min.0 {
                    *min = (value, text.into());
                }
                if value > max.0 {
                    *max = (value, text.into());
                }
            }
            _ => self.has_text = true,
        }
    }

    fn text(&self) -> String {
        match (&self.range, self.first_values.as_slice()) {
            (_, few) if few.len() <= MAX_LISTED => few.join(", "),
            (Some([(_, min), (_, max)]), _) if !self.has_text => format!("{min} to {max}"),
            (_, first) => first.iter().take(1).map(|first| format!("{first}, …")).collect(),
        }
    }
}

/// Splits a reason into its fixed parts and the varying parts between them, one fewer.
fn split<'a>(reason: &'a str, fixed_words: &BTreeSet<String>) -> (Vec<&'a str>, Vec<&'a str>) {
    // The reason of a part starts with its name, which may contain any characters.
    let is_part = |name: &&String| reason.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(": "));
    let mut at = fixed_words.iter().filter(is_part).map(String::len).max().unwrap_or(0);
    let (mut fixed, mut varying, mut begin) = (Vec::new(), Vec::new(), 0);
    while at < reason.len() {
        let (varies, end) = token(&reason[at..], reason[..at].chars().next_back());
        let (from, to) = (at + varies.start, at + varies.end);
        if from < to && !fixed_words.contains(&reason[from..to]) {
            fixed.push(&reason[begin..from]);
            varying.push(&reason[from..to]);
            begin = to;
        }
        at += end;
    }
    fixed.push(&reason[begin..]);
    (fixed, varying)
}

/// The range at the start of a text that may vary (a word with a digit, or quoted text), and the start of the rest.
/// `before` is the character before the text.
fn token(text: &str, before: Option<char>) -> (Range<usize>, usize) {
    let begins = !before.is_some_and(char::is_alphanumeric);
    let mut letters = text.chars();
    let first = letters.next().unwrap_or_default();
    if begins && "\"'`".contains(first) {
        let inner = letters.as_str();
        let ends = |at: &usize| !inner[at + 1..].starts_with(char::is_alphanumeric);
        if let Some(length) = inner.match_indices(first).map(|(at, _)| at).find(ends).filter(|length| *length > 0) {
            return (1..1 + length, length + 2);
        }
    }
    let (mut has_digit, mut end) = (false, 0);
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let next = letters.peek().map_or(' ', |(_, next)| *next);
        let is_sign = at == 0 && begins && "+-.".contains(letter) && next.is_ascii_digit();
        // Inside of numbers, times and ids.
        let joins = has_digit && "+-.:".contains(letter) && next.is_alphanumeric();
        if !(letter.is_alphanumeric() || letter == '_' || is_sign || joins) {
            break;
        }
        has_digit |= letter.is_ascii_digit();
        end = at + letter.len_utf8();
    }
    (0..if has_digit { end } else { 0 }, end.max(first.len_utf8()))
}
