//! The answer for one item, and the words for an answer that is not a number.

use crate::frame::outcome::{Outcome, UNAVAILABLE};

/// The answer for an item.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A finite score.
    Score(f64),
    /// Not worth a score, with the reason.
    Rejected(String),
    /// No score, with the reason.
    Failed(String),
    /// The score is not a number; holds a description. The item fails if other items of the request have valid scores.
    NotANumber(String),
    /// The scorer did not look at the item, with the reason. This is no answer: the item is requested again.
    Unavailable(String),
}

/// Why an answer has no valid score.
pub(super) enum InvalidScore {
    /// The score is missing, with the reason.
    Missing(String),
    /// The score is not a number; holds a description.
    NotANumber(String),
}

impl Answer {
    /// Combines a score (or why it is missing) with the `reason` and the `outcome` that the scorer returned.
    pub(super) fn new(score: Result<f64, InvalidScore>, reason: Option<&str>, outcome: Option<&str>) -> Self {
        if outcome == Some(UNAVAILABLE) {
            return Answer::Unavailable(reason.unwrap_or("the scorer did not look at the item").into());
        }
        match (outcome.and_then(Outcome::from_name), score) {
            (Some(Outcome::Rejected), _) => Answer::Rejected(reason.unwrap_or("rejected by the scorer").into()),
            (Some(Outcome::Failed), Ok(_)) => Answer::Failed(reason.unwrap_or("no score").into()),
            (_, Ok(score)) if score.is_nan() => Answer::Failed("NaN".into()),
            (_, Ok(score)) if score.is_infinite() => Answer::Failed("infinite".into()),
            (_, Ok(score)) => Answer::Score(score),
            (_, Err(InvalidScore::Missing(reason))) => Answer::Failed(reason),
            (_, Err(InvalidScore::NotANumber(what))) => Answer::NotANumber(what),
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Answer::Score(_) => Outcome::Scored,
            Answer::Rejected(_) => Outcome::Rejected,
            Answer::Failed(_) | Answer::NotANumber(_) | Answer::Unavailable(_) => Outcome::Failed,
        }
    }

    pub(super) fn score(&self) -> Option<f64> {
        if let Answer::Score(score) = self { Some(*score) } else { None }
    }

    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Answer::Score(_) => None,
            Answer::Rejected(reason)
            | Answer::Failed(reason)
            | Answer::NotANumber(reason)
            | Answer::Unavailable(reason) => Some(reason),
        }
    }
}

/// The reason for an item whose score is text.
pub(super) fn text_for_number(text: &str) -> String {
    format!("returned text instead of a number: {}", excerpt(text.as_bytes()))
}

/// The beginning of a scorer's output, on one line, in backquotes.
pub(super) fn excerpt(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(240)]);
    let line = text.trim().lines().next().unwrap_or_default();
    let short: String = line.chars().take(60).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let more = if short.chars().count() < text.trim().chars().count() { "…" } else { "" };
    format!("`{short}{more}`")
}
