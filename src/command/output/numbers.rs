//! Counts, durations, rates and series of numbers as short text.

/// A count with commas between thousands: `1,204`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let with_comma = |(position, digit): (usize, char)| {
        let comma = position > 0 && (digits.len() - position).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit]).collect::<String>()
    };
    digits.chars().enumerate().map(with_comma).collect()
}

/// A duration in readable units: `0.2 s`, `21 s`, `4 min 10 s`, `2 h 5 min`.
pub fn duration(seconds: f64) -> String {
    match seconds.max(0.0) {
        short if short < 9.95 => format!("{short:.1} s"),
        medium if medium < 59.5 => format!("{medium:.0} s"),
        minutes if minutes < 3599.5 => {
            let whole = minutes.round() as u64;
            format!("{} min {} s", whole / 60, whole % 60)
        }
        hours => {
            let minutes = (hours / 60.0).round() as u64;
            format!("{} h {} min", count(minutes / 60), minutes % 60)
        }
    }
}

/// A rate per second, minute or hour: the first for which the number is at least 1, else per hour. `2.5/s`, `7.0/min`, `3.1/h`.
pub fn rate(per_second: f64) -> String {
    let units = [(1.0, "s"), (60.0, "min"), (3600.0, "h")];
    let (factor, unit) = units.into_iter().find(|(factor, _)| per_second * factor >= 1.0).unwrap_or(units[2]);
    format!("{:.1}/{unit}", per_second * factor)
}

/// Numbers as a row of bars, at most `cells` of them. A bar that covers several numbers shows the last.
pub fn sparkline(numbers: &[f64], cells: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let (low, high) =
        numbers.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), n| (low.min(*n), high.max(*n)));
    let bar = |number: f64| {
        let height = if high > low { (number - low) / (high - low) } else { 0.0 };
        BARS[((height * 7.0).round() as usize).min(7)]
    };
    let cells = cells.min(numbers.len());
    (1..=cells).map(|cell| bar(numbers[cell * numbers.len() / cells - 1])).collect()
}
