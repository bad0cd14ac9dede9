//! `uphill generate`: manual pages and shell completions.

use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use clap_complete::Shell;

use super::output::{to_file, to_stdout};

#[derive(clap::Args)]
pub struct Generate {
    /// man (a manual page for each command), or bash, zsh or fish (completions for that shell).
    #[arg(hide_possible_values = true)]
    target: Target,
    /// Write completions to this file, or manual pages into this folder, instead of standard output.
    #[arg(long, short)]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    Man,
    Bash,
    Zsh,
    Fish,
}

pub fn generate(arguments: Generate, mut command: clap::Command) -> anyhow::Result<()> {
    let shell = match arguments.target {
        Target::Man => None,
        Target::Bash => Some(Shell::Bash),
        Target::Zsh => Some(Shell::Zsh),
        Target::Fish => Some(Shell::Fish),
    };
    let mut pages: Vec<(String, Vec<u8>)> = Vec::new();
    match shell {
        Some(shell) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "uphill", &mut script);
            pages.push((String::new(), script));
        }
        None => manual(command, &mut pages)?,
    }
    match (arguments.output, shell) {
        (None, _) => to_stdout(|mut out, _| Ok(pages.iter().try_for_each(|(_, page)| out.write_all(page))?))?,
        (Some(path), Some(_)) => to_file(&path, |mut out| Ok(out.write_all(&pages[0].1)?))?,
        (Some(folder), None) => {
            crate::io::atomic::create_dir_all(&folder)?;
            for (name, page) in &pages {
                to_file(&folder.join(name), |mut out| Ok(out.write_all(page)?))?;
            }
        }
    }
    Ok(())
}

/// Adds the manual page of the program and those of its commands.
fn manual(command: clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    // Building gives commands their full names, such as `uphill search`.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    for page in [&command].into_iter().chain(command.get_subcommands()) {
        let mut text = Vec::new();
        clap_mangen::Man::new(page.clone()).render(&mut text)?;
        let name = page.get_display_name().unwrap_or(page.get_name());
        pages.push((format!("{name}.1"), text));
    }
    Ok(())
}
