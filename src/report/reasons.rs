//! Why items have no score: reasons that differ only in numbers, ids and what is quoted are one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// An outcome, its reason, and the items of which it is the reason.
pub(super) type Reason = (&'static str, String, u64);

/// Values that are all shown, where a reason has no more of them.
const FEW: usize = 3;

/// The reasons of one text but for what varies in it, the most frequent first. What is among the known names (of parts,
/// gates and columns) does not vary.
pub(super) fn grouped(reasons: impl Iterator<Item = Reason>, known: &BTreeSet<String>) -> Vec<Reason> {
    let mut groups: BTreeMap<(&'static str, Vec<String>), Group> = BTreeMap::new();
    for (outcome, reason, items) in reasons {
        let (fixed, varying) = pieces(&reason, known);
        let fixed = fixed.into_iter().map(String::from).collect();
        groups.entry((outcome, fixed)).or_default().add(&varying, items);
    }
    let mut reasons: Vec<Reason> =
        groups.into_iter().map(|((outcome, fixed), group)| (outcome, group.text(&fixed), group.items)).collect();
    reasons.sort_by_key(|(_, _, items)| std::cmp::Reverse(*items));
    reasons
}

/// Reasons that are alike.
#[derive(Default)]
struct Group {
    items: u64,
    /// Of each place that varies.
    values: Vec<Values>,
}

impl Group {
    fn add(&mut self, varying: &[&str], items: u64) {
        self.items += items;
        self.values.resize_with(varying.len(), Values::default);
        self.values.iter_mut().zip(varying).for_each(|(values, text)| values.add(text));
    }

    /// What is the same in all, and the values between.
    fn text(&self, fixed: &[String]) -> String {
        let values = self.values.iter().map(Values::text).chain([String::new()]);
        fixed.iter().zip(values).map(|(fixed, value)| fixed.clone() + &value).collect()
    }
}

/// What stood in one place.
#[derive(Default)]
struct Values {
    /// The first that came, one more than are shown.
    first: Vec<String>,
    /// The least and the greatest, with their texts; of numbers only.
    range: Option<[(f64, String); 2]>,
    has_others: bool,
}

impl Values {
    fn add(&mut self, text: &str) {
        if self.first.len() <= FEW && !self.first.iter().any(|other| other == text) {
            self.first.push(text.into());
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => {
                let [least, most] =
                    self.range.get_or_insert_with(|| [(value, text.to_string()), (value, text.to_string())]);
                if value < least.0 {
                    *least = (value, text.into());
                }
                if value > most.0 {
                    *most = (value, text.into());
                }
            }
            _ => self.has_others = true,
        }
    }

    fn text(&self) -> String {
        match (&self.range, self.first.as_slice()) {
            (_, few) if few.len() <= FEW => few.join(", "),
            (Some([(_, least), (_, most)]), _) if !self.has_others => format!("{least} to {most}"),
            (_, first) => first.iter().take(1).map(|first| format!("{first}, …")).collect(),
        }
    }
}

/// What is fixed in a reason, and what varies between: one less.
fn pieces<'a>(reason: &'a str, known: &BTreeSet<String>) -> (Vec<&'a str>, Vec<&'a str>) {
    // A part's reasons begin with its name, whatever that is made of.
    let is_part = |name: &&String| reason.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(": "));
    let mut at = known.iter().filter(is_part).map(String::len).max().unwrap_or(0);
    let (mut fixed, mut varying, mut begin) = (Vec::new(), Vec::new(), 0);
    while at < reason.len() {
        let (varies, end) = token(&reason[at..], reason[..at].chars().next_back());
        let (from, to) = (at + varies.start, at + varies.end);
        if from < to && !known.contains(&reason[from..to]) {
            fixed.push(&reason[begin..from]);
            varying.push(&reason[from..to]);
            begin = to;
        }
        at += end;
    }
    fixed.push(&reason[begin..]);
    (fixed, varying)
}

/// What may vary at the beginning of a text, after some letter: a word with a digit in it, or what stands in quotes; and
/// where the rest begins.
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
        // Of numbers, times and ids.
        let joins = has_digit && "+-.:".contains(letter) && next.is_alphanumeric();
        if !(letter.is_alphanumeric() || letter == '_' || is_sign || joins) {
            break;
        }
        has_digit |= letter.is_ascii_digit();
        end = at + letter.len_utf8();
    }
    (0..if has_digit { end } else { 0 }, end.max(first.len_utf8()))
}
