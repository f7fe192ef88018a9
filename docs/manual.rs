//! Writes the manual pages and the completions of shells, as the command line defines them, for packages:
//! `cargo run --example manual -- FOLDER`.

use std::fs;
use std::path::PathBuf;

use clap_complete::Shell;

fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(std::io::Error::other("usage: manual FOLDER"));
    };
    let command = portcullis::cli::command();
    let pages = folder.join("man");
    fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(command.clone(), &pages)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "portcullis", &folder)?;
    }
    Ok(())
}
