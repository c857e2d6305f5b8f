//! Scripts through the real binary: a fake node in the test's process, the binary in its own.
//!
//! A golden file is a transcript: lines that begin with `$ ` are commands, what follows is their output.
//! `GOLDEN=write` writes what came out in place of what was expected.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use dacapo_api::fake::FakeApi;
use dacapo_server::{Access, Hosts, bind, router, serve};
use regex_lite::Regex;
use tokio::runtime::Runtime;

/// A fake node that is served on a loopback address.
pub struct Node {
    pub fake: Arc<FakeApi>,
    pub url: String,
    // The server lives as long as its runtime.
    _runtime: Runtime,
}

/// A fake node that is not served at the moment.
pub struct Stopped {
    fake: Arc<FakeApi>,
    address: String,
}

impl Stopped {
    /// Serves it again at the same address.
    pub fn start(self) -> Node {
        Node::serving(self.fake, &self.address)
    }
}

impl Node {
    pub fn start() -> Self {
        Self::serving(Arc::new(FakeApi::default()), "127.0.0.1:0")
    }

    /// Ends its connections and listens no more.
    pub fn stop(self) -> Stopped {
        let address = self.url.trim_start_matches("http://").to_owned();
        Stopped { fake: self.fake, address }
    }

    fn serving(fake: Arc<FakeApi>, address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(bind(address.parse().unwrap(), Access::Loopback)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = router(fake.clone(), &Hosts::default());
        runtime.spawn(serve(listener, app, std::future::pending()));
        Self { fake, url, _runtime: runtime }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        dacapo(args, &self.url)
    }

    /// Runs the transcript `name` with this node; see [`script`].
    pub fn script(&self, name: &str, dir: &Path) {
        script(name, dir, &self.url);
    }
}

/// Runs the transcript `name` for a node at `url` and compares; `dir` is where the commands run, and is
/// named DIR.
pub fn script(name: &str, dir: &Path, url: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("txt");
    let expected = std::fs::read_to_string(&path).unwrap();
    let mut found = String::new();
    for line in expected.lines().filter(|line| line.starts_with("$ ")) {
        found.push_str(line);
        found.push('\n');
        found.push_str(&run(line, dir, url));
    }
    if std::env::var_os("GOLDEN").is_some_and(|word| word == "write") {
        std::fs::write(&path, &found).unwrap();
        return;
    }
    assert!(found == expected, "{} differs; GOLDEN=write accepts it. Found:\n{found}", path.display());
}

/// Runs `$ dacapo ARGS`, `$ COLUMNS=80 dacapo ARGS` or `$ echo TEXT | dacapo ARGS`; words are split at spaces outside of quotes.
fn run(line: &str, dir: &Path, url: &str) -> String {
    let line = line.trim_start_matches("$ ");
    let (input, command) = match line.split_once(" | ") {
        Some((echo, command)) => (words(echo)[1..].join(" ") + "\n", command),
        None => (String::new(), line),
    };
    let (columns, command) = match command.strip_prefix("COLUMNS=").and_then(|rest| rest.split_once(' ')) {
        Some((columns, command)) => (columns, command),
        None => ("100", command),
    };
    let args = words(command);
    assert_eq!(args[0], "dacapo");
    let args: Vec<&str> = args[1..].iter().map(String::as_str).collect();
    let output = with_input(dacapo(&args, url).current_dir(dir).env("COLUMNS", columns), &input);
    let mut text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    if !output.status.success() {
        text.push_str(&format!("[exit {}]\n", output.status.code().unwrap()));
    }
    masked(&text.replace(url, "http://NODE").replace(dir.to_str().unwrap(), "DIR"))
}

/// The binary, for a node at `url`, with an environment of its own.
pub fn dacapo(args: &[&str], url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dacapo"));
    command.args(args).env_clear().env("DACAPO_AT", url).env("USER", "ana");
    command
}

/// Runs it to its end with something to read.
pub fn with_input(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that does not read its input may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// The text without what differs from run to run. A time of the fake node does not.
fn masked(text: &str) -> String {
    let masks = [
        (r"(?m), [\d,.]+/s$", ", RATE"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{4,6}Z", "TIME"),
        (r"\b(pid|process) \d+\b", "$1 PID"),
        (r"\bup \d+ s,", "up UPTIME,"),
    ];
    masks.into_iter().fold(text.to_owned(), |text, (pattern, with)| {
        Regex::new(pattern).unwrap().replace_all(&text, with).into_owned()
    })
}

fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (vec![], String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}
