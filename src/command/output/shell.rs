//! Quoting of arguments for commands that the user may copy into a shell.

/// An argument as a shell expects it.
pub fn quote(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:+,@%".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.into();
    }
    match argument.contains(['"', '$', '`', '\\', '!']) {
        false => format!("\"{argument}\""),
        true => format!("'{}'", argument.replace('\'', "'\\''")),
    }
}
