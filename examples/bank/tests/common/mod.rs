//! The service as a process of its own, the binary `dacapo` beside it, and transcripts of both.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use regex_lite::Regex;
use tokio::time::Instant;

/// The longest that a test waits for something that must happen.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} has not happened within {} s", WAIT_MAX.as_secs());
        std::thread::yield_now();
    }
}

/// The service, until it is dropped or ended.
pub struct Service {
    pub url: String,
    process: Child,
    log: PathBuf,
}

impl Service {
    /// Starts it on `data`, with a free port, and waits until it listens. Its log lies beside `data`.
    pub fn start(data: &Path, versions: &str) -> Self {
        let log = data.with_extension("log");
        let written = std::fs::File::create(&log).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_bank"))
            .args(["--listen", "127.0.0.1:0", "--versions", versions, "--data"])
            .arg(data)
            .stderr(written)
            .spawn()
            .unwrap();
        let url = until("the service listens", || {
            let text = std::fs::read_to_string(&log).unwrap();
            assert!(process.try_wait().unwrap().is_none(), "the service did not start: {text}");
            let (_, rest) = text.split_once("listening on ")?;
            Some(rest.split_once('\n')?.0.to_owned())
        });
        Self { url, process, log }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Asks it to end, as an orchestrator does, and waits for that.
    pub fn terminate(mut self) -> ExitStatus {
        let asked = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap();
        assert!(asked.success());
        self.process.wait().unwrap()
    }

    /// Ends it at once: kill -9.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a line of shell in `dir` in which `dacapo` is the binary, for the node at `url`.
pub fn shell(line: &str, dir: &Path, url: &str) -> Output {
    // `cargo test` puts the examples of a package beside its tests.
    let tests = std::env::current_exe().unwrap();
    let binaries = tests.ancestors().nth(2).unwrap().join("examples");
    assert!(binaries.join("dacapo").exists(), "build all targets of this package: cargo test -p dacapo-example-bank");
    Command::new("/bin/sh")
        .args(["-c", line])
        .current_dir(dir)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", binaries.display()))
        .envs([("DACAPO_AT", url), ("USER", "bob"), ("COLUMNS", "160")])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// One line of shell, which must succeed.
pub fn dacapo(line: &str, dir: &Path, url: &str) -> String {
    let output = shell(&format!("dacapo {line}"), dir, url);
    assert!(output.status.success(), "dacapo {line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// An HTTP request to the service.
pub async fn http(url: &str, line: &str) -> Result<(u16, serde_json::Value), reqwest::Error> {
    let mut words = line.splitn(3, ' ');
    let (method, path) = (words.next().unwrap().parse().unwrap(), words.next().unwrap());
    let mut request = reqwest::Client::new().request(method, format!("{url}{path}"));
    if let Some(body) = words.next() {
        request = request.header("content-type", "application/json").body(body.to_owned());
    }
    let answer = request.send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

/// A transcript: lines that begin with `$ ` are commands, what follows is their output.
///
/// ```text
/// $ start 1,2             start the service with these versions, on DIR/bank
/// $ stop                  SIGTERM
/// $ kill                  kill -9
/// $ GET /accounts/1       a request to the service; HEAD is the position of the last append through HTTP
/// $ dacapo status         a line of shell, in DIR
/// $ until TEXT: dacapo …  the same, again and again until its output has TEXT
/// ```
///
/// `GOLDEN=write` writes what came out in place of what was expected.
pub struct Script {
    dir: tempfile::TempDir,
    service: Option<Service>,
    head: u64,
    http: tokio::runtime::Runtime,
}

impl Script {
    pub fn run(name: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("txt");
        let expected = std::fs::read_to_string(&path).unwrap();
        let http = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut script = Self { dir: tempfile::tempdir().unwrap(), service: None, head: 0, http };
        let mut found = String::new();
        for line in expected.lines().filter(|line| line.starts_with("$ ") || line.starts_with("# ")) {
            found.push_str(&format!("{line}\n"));
            if let Some(command) = line.strip_prefix("$ ") {
                found.push_str(&script.step(command));
            }
        }
        if std::env::var_os("GOLDEN").is_some_and(|word| word == "write") {
            std::fs::write(&path, &found).unwrap();
            return;
        }
        assert!(found == expected, "{} differs; GOLDEN=write accepts it. Found:\n{found}", path.display());
    }

    fn step(&mut self, command: &str) -> String {
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        match word {
            "start" => {
                self.service = Some(Service::start(&self.dir.path().join("bank"), rest));
                String::new()
            }
            "stop" => format!("[{}]\n", self.service.take().unwrap().terminate()),
            "kill" => {
                self.service.take().unwrap().kill();
                String::new()
            }
            "GET" | "POST" | "PUT" => self.request(command),
            "until" => {
                let (text, command) = rest.split_once(": ").unwrap();
                until(text, || Some(self.shell(command)).filter(|output| output.contains(text)))
            }
            _ => self.shell(command),
        }
    }

    fn request(&mut self, line: &str) -> String {
        let line = line.replace("HEAD", &self.head.to_string());
        let (status, body) = self.http.block_on(http(&self.service.as_ref().unwrap().url, &line)).unwrap();
        self.head = body["position"].as_u64().unwrap_or(self.head);
        self.masked(&format!("{status} {body}\n"))
    }

    fn shell(&self, line: &str) -> String {
        let url = self.service.as_ref().map_or("http://127.0.0.1:1", |service| &service.url);
        let output = shell(line, self.dir.path(), url);
        let mut text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        if !output.status.success() {
            text.push_str(&format!("[{}]\n", output.status));
        }
        self.masked(&text)
    }

    /// The text without what differs from run to run.
    fn masked(&self, text: &str) -> String {
        let mut text = text.replace(self.dir.path().to_str().unwrap(), "DIR");
        if let Some(service) = &self.service {
            text = text.replace(&service.url, "http://NODE");
        }
        let masks = [
            (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
            (r"\b(pid|process) \d+", "$1 PID"),
            (r"\(\S+/bank ", "(bank "),
            (r"up \d[^,]*,", "up UPTIME,"),
            // How long a hold lasted is not known if nobody measured it in time.
            (r"; \S+ was held for [a-z ]*\d+ ms", ""),
            (r"\b(position|covers|head) \d+(,\d{3})*", "$1 N"),
            (r#""(position|covers)":\d+"#, "\"$1\":N"),
            (r"stand-by, in .*", "stand-by, in SPAN"),
            (r", [\d,.]+/s", ", RATE"),
            // Positions begin the lines of tables and of events; a busy machine may postpone a flip.
            (r"(?m)^ *\d[\d,]*  ", "N  "),
            (r"(?m)^.* postponed: .*\n", ""),
            (r"  +", "  "),
            // Lag, rate and time left are those of the moment.
            (r"(?m)(  (Serving|StandingBy|Initializing, Ready)  \d+)  \d.*$", "$1  LAG"),
        ];
        for (pattern, with) in masks {
            text = Regex::new(pattern).unwrap().replace_all(&text, with).into_owned();
        }
        text
    }
}
