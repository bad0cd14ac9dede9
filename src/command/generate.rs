//! `uphill generate`: the manual, and what shells complete.

use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use clap_complete::Shell;

use super::output::{to_file, to_stdout};

#[derive(clap::Args)]
pub struct Generate {
    /// man: a manual page for each command; bash, zsh or fish: what that shell completes.
    #[arg(hide_possible_values = true)]
    what: What,
    /// Write to a file, the pages of the manual into a folder, instead of stdout.
    #[arg(long, short)]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Man,
    Bash,
    Zsh,
    Fish,
}

pub fn generate(arguments: Generate, mut command: clap::Command) -> anyhow::Result<()> {
    let shell = match arguments.what {
        What::Man => None,
        What::Bash => Some(Shell::Bash),
        What::Zsh => Some(Shell::Zsh),
        What::Fish => Some(Shell::Fish),
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

/// A page for the program, and one for each of its commands.
fn manual(command: clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    // So that each command is called by its whole name, `uphill search`.
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
