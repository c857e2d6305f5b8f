//! Runs the commands of the README, as a reader would: each line of a block fenced with `sh` that
//! stands under the mark `<!-- ci -->`.

use std::path::Path;
use std::process::Command;

use crate::Done;

const MARK: &str = "<!-- ci -->";

pub(crate) fn run(root: &Path) -> Done {
    let path = root.join("README.md");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let commands = commands(&text);
    if commands.is_empty() {
        return Err(format!("{} has no commands under {MARK}", path.display()));
    }
    for line in commands {
        let mut command = Command::new("sh");
        command.args(["-ec", &line]).current_dir(root);
        crate::run(command, &line)?;
    }
    Ok(())
}

fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let (mut marked, mut inside) = (false, false);
    for line in text.lines() {
        match line.trim() {
            MARK => marked = true,
            "```sh" if marked => inside = true,
            "```" => (marked, inside) = (false, false),
            command if inside && !command.is_empty() && !command.starts_with('#') => commands.push(command.to_owned()),
            _ => {}
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_are_run() {
        let text = "```sh\nno\n```\n<!-- ci -->\n```sh\n# a comment\nyes --now\n```\n```sh\nno\n```\n";
        assert_eq!(commands(text), ["yes --now"]);
    }
}
