//! Headless Chromium with one blank page, driven over the
//! [DevTools protocol](https://chromedevtools.github.io/devtools-protocol/): JSON between NUL bytes, on the browser's file
//! descriptors 3 and 4 (`--remote-debugging-pipe`).
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lab::{Lab, netns, wait};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// What a test may wait for one answer of the browser.
const PATIENCE: Duration = Duration::from_secs(50);
const END: Duration = Duration::from_secs(5);

const FLAGS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--remote-debugging-pipe",
    // Host candidates are addresses, not names that only multicast DNS knows.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--no-first-run",
    "--mute-audio",
];

/// A browser, in a host of a lab or beside us. It ends, with all its processes, when this is dropped.
#[derive(Debug)]
pub struct Chromium {
    child: Child,
    stdin: Option<ChildStdin>,
    messages: mpsc::Receiver<Value>,
    /// Of the lab's host.
    namespace: Option<String>,
    profile: PathBuf,
    session: String,
    last_id: u64,
}

impl Chromium {
    /// Starts it in a host of the lab and attaches to a blank page.
    pub fn start(lab: &Lab, host: &str) -> Result<Self> {
        let root = lab.files().root();
        let log = root.join("log/chromium.log");
        let shell = lab.command(host, "sh")?;
        Self::launch(shell, root, &log, &[], Some(lab.namespace(host)))
    }

    /// Starts it beside us, with further flags and its files in `directory`, and attaches to a blank page.
    pub fn start_here(directory: &Path, flags: &[&str]) -> Result<Self> {
        let log = directory.join("chromium.log");
        Self::launch(Command::new("sh"), directory, &log, flags, None)
    }

    /// The same in a network namespace, named by its file.
    pub fn start_inside(namespace: &Path, directory: &Path) -> Result<Self> {
        let log = directory.join("chromium.log");
        let mut shell = Command::new("nsenter");
        shell
            .arg(format!("--net={}", namespace.display()))
            .arg("sh");
        Self::launch(shell, directory, &log, &[], None)
    }

    fn launch(
        mut shell: Command,
        directory: &Path,
        log: &Path,
        flags: &[&str],
        namespace: Option<String>,
    ) -> Result<Self> {
        let profile = directory.join("chromium");
        let file = File::create(log)?;
        // Its descriptors 3 and 4 are our pipes; nothing else of it reads or writes them.
        let mut child = shell
            .args([
                "-c",
                r#"exec "$@" 3<&0 4>&1 </dev/null >&2"#,
                "sh",
                "chromium",
            ])
            .args(FLAGS)
            .args(flags)
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .context("starting chromium")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("its descriptor 4")?;
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || read(stdout, &sender));
        let mut chromium = Self {
            child,
            stdin,
            messages,
            namespace,
            profile,
            session: String::new(),
            last_id: 0,
        };
        chromium.attach().with_context(|| {
            let said = fs::read_to_string(log).unwrap_or_default();
            format!("chromium (of Debian's package of that name) said: {said}")
        })?;
        Ok(chromium)
    }

    fn attach(&mut self) -> Result<()> {
        let made = self.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": made["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", &attach)?;
        let session = attached["sessionId"].as_str().context("a session")?;
        self.session = session.to_owned();
        Ok(())
    }

    /// Evaluates JavaScript in the page, waits for what it promises, and gives that back.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let what = json!({
            "expression": expression,
            "awaitPromise": true,
            "returnByValue": true,
        });
        let mut answer = self.call("Runtime.evaluate", &what)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            let text = thrown["exception"]["description"].as_str();
            bail!("the page threw {}", text.unwrap_or(&thrown.to_string()));
        }
        Ok(answer["result"]["value"].take())
    }

    /// Goes to an address, and waits until the page is loaded.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let gone = self.call("Page.navigate", &json!({"url": url}))?;
        ensure!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        wait::until_true(&format!("{url} to be loaded"), PATIENCE, || {
            let loaded = "document.readyState === 'complete' && location.href";
            Ok(self
                .evaluate(loaded)?
                .as_str()
                .is_some_and(|href| href != "about:blank"))
        })
    }

    /// The page on a screen of this many pixels, with the system's colors light or dark.
    pub fn set_screen(&mut self, (width, height): (u32, u32), dark: bool) -> Result<()> {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &media).map(drop)
    }

    /// The whole page, also what one would have to scroll to, as a PNG file.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        let what = json!({"format": "png", "captureBeyondViewport": true});
        let shot = self.call("Page.captureScreenshot", &what)?;
        let data = STANDARD.decode(shot["data"].as_str().context("a picture")?)?;
        fs::write(file, data).with_context(|| format!("writing {}", file.display()))
    }

    /// Presses a key as a person does: `Tab`, `Enter`.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            _ => bail!("no such key: {key}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
            });
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        let stdin = self.stdin.as_mut().context("its descriptor 3")?;
        stdin.write_all(&bytes).context("writing to the browser")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let received = self.messages.recv_timeout(left);
            let mut message = received.with_context(|| format!("no answer to {method}"))?;
            if message["id"] == id {
                ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                return Ok(message["result"].take());
            }
        }
    }

    /// Whatever of it still runs: it has many processes, and each names the profile.
    fn processes(&self) -> Result<Vec<u32>> {
        let profile = self.profile.display().to_string();
        let mut all = match &self.namespace {
            Some(namespace) => netns::processes(namespace)?,
            None => fs::read_dir("/proc")?
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .collect(),
        };
        all.retain(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&profile)
        });
        Ok(all)
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // It ends by itself when its descriptor 3 does.
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
        let ended = wait::until_true("the browser's processes to end", END, || {
            let left = self.processes()?;
            for pid in &left {
                lab::process::send(*pid, nix::sys::signal::Signal::SIGKILL)?;
            }
            Ok(left.is_empty())
        });
        if let Err(error) = ended {
            eprintln!("{error:#}");
        }
    }
}

fn read(stdout: ChildStdout, sender: &mpsc::Sender<Value>) {
    let mut reader = BufReader::new(stdout);
    let mut message = Vec::new();
    loop {
        message.clear();
        match reader.by_ref().read_until(0, &mut message) {
            Ok(length) if length > 0 => {}
            _ => return,
        }
        message.pop();
        // What is no answer is an event, and nobody waits for it.
        if let Ok(value) = serde_json::from_slice(&message)
            && sender.send(value).is_err()
        {
            return;
        }
    }
}
