//! The clients of the table: programs that workloads use, and what they print as [`Got`].

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use tempfile::TempDir;

use super::{Case, Got};

const HOST: &str = "west/app";
/// Longer than dns-signal waits for its upstreams.
const PATIENCE: &str = "7";

/// Programs made for this test; gone with it.
#[derive(Debug)]
pub struct Clients {
    directory: TempDir,
}

impl Clients {
    /// Compiles what must be compiled.
    ///
    /// # Errors
    /// When a compiler is missing, or does not like the program.
    pub fn build() -> Result<Self> {
        let directory = tempfile::tempdir().context("a directory for the clients")?;
        let sources = [
            ("lookup.c", include_str!("../../dns/lookup.c")),
            ("lookup.go", include_str!("../../dns/lookup.go")),
            ("lookup.js", include_str!("../../dns/lookup.js")),
            ("lookup.py", include_str!("../../dns/lookup.py")),
            ("signed.key", include_str!("../../dns/signed.key")),
        ];
        for (name, text) in sources {
            fs::write(directory.path().join(name), text).context("writing a client")?;
        }
        let compile = |program: &str, arguments: &[&str]| -> Result<()> {
            let mut command = Command::new(program);
            command
                .args(arguments)
                .current_dir(directory.path())
                .envs([("GO111MODULE", "off"), ("GOFLAGS", "")])
                .env("GOCACHE", directory.path().join("cache"));
            let output = command
                .output()
                .with_context(|| format!("`{program}` cannot be run: is it installed?"))?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{program}: {said}");
            Ok(())
        };
        compile("musl-gcc", &["-O1", "-o", "lookup-musl", "lookup.c"])?;
        compile("go", &["build", "-o", "lookup-go", "lookup.go"])?;
        Ok(Self { directory })
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Asks as the row says.
    ///
    /// # Errors
    /// When there is no such client, or it cannot be run.
    pub fn ask(&self, lab: &Lab, case: &Case) -> Result<Got> {
        let question: Vec<&str> = case.question.iter().map(String::as_str).collect();
        let over_tcp = case.transport == "tcp";
        let run = |program: &str, arguments: &[&str]| -> Result<Output> {
            let mut command = lab.command(HOST, program)?;
            // Of glibc.
            if over_tcp {
                command.env("RES_OPTIONS", "use-vc");
            }
            command
                .args(arguments)
                .env("GODEBUG", "netdns=go")
                .output()
                .with_context(|| format!("running {program}"))
        };
        // TYPE NAME, not NAME TYPE.
        let turned: Vec<&str> = question.iter().rev().copied().collect();
        let lines = |output: Output| Ok(from_lines(&String::from_utf8_lossy(&output.stdout)));
        match case.client.as_str() {
            "dig" => {
                let transport = match case.transport.as_str() {
                    "tcp" => &["+tcp"][..],
                    "udp" => &["+notcp"],
                    _ => &[],
                };
                let time = format!("+time={PATIENCE}");
                let fixed = ["+tries=1", &time, "+noidnin", "+noidnout"];
                let output = run("dig", &[&fixed, transport, &question].concat())?;
                Ok(from_dig(
                    &String::from_utf8_lossy(&output.stdout),
                    question.first().copied().unwrap_or_default(),
                ))
            }
            "delv" => {
                let anchor = format!("-a{}", self.path("signed.key"));
                let fixed = [&anchor, "+root=signed.example.org"];
                let output = run("delv", &[&fixed, &question[..]].concat())?;
                Ok(from_delv(&String::from_utf8_lossy(&output.stdout)))
            }
            "getent" => {
                let database = match question.get(1) {
                    Some(&"A") => "ahostsv4",
                    Some(&"AAAA") => "ahostsv6",
                    Some(&"PTR") => "hosts",
                    _ => "ahosts",
                };
                let name = question.first().copied().unwrap_or_default();
                from_getent(&run("getent", &[database, name])?, database)
            }
            "curl" => {
                let output = run("curl", &[&["-sS", "-m", PATIENCE], &question[..]].concat())?;
                let page = String::from_utf8_lossy(&output.stdout);
                let who = page.split_whitespace().take(1);
                let mut got = from_lines(&who.collect::<String>());
                if !output.status.success() {
                    got.seen.insert(":failed".to_owned());
                }
                Ok(got)
            }
            "python" => lines(run(
                "/usr/bin/python3",
                &[&[&*self.path("lookup.py")], &turned[..]].concat(),
            )?),
            "node" | "node-own" => lines(run(
                "node",
                &[&[&*self.path("lookup.js")], &turned[..]].concat(),
            )?),
            "go" => lines(run(&self.path("lookup-go"), &turned)?),
            "musl" => lines(run(&self.path("lookup-musl"), &turned)?),
            other => anyhow::bail!("there is no client `{other}`"),
        }
    }
}

fn from_lines(printed: &str) -> Got {
    let mut got = Got::default();
    for line in printed.lines().filter(|line| !line.is_empty()) {
        if line.starts_with(':') && !line.starts_with("::") {
            got.seen.insert(line.to_owned());
        } else {
            got.answers.insert(word(line));
        }
    }
    many_texts(&mut got);
    got
}

/// One word out of several; only the beginning of what is very long.
fn word(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join("_").chars().take(80).collect()
}

/// The ten long texts of `long.example.com` would not fit a row.
fn many_texts(got: &mut Got) {
    let long = |text: &String| text.contains("xxxxxxxx");
    let count = got.answers.iter().filter(|text| long(text)).count();
    if count > 0 {
        got.answers.retain(|text| !long(text));
        got.answers.insert(format!("{count}-texts"));
    }
}

fn from_getent(output: &Output, database: &str) -> Result<Got> {
    let printed = String::from_utf8_lossy(&output.stdout);
    let column = usize::from(database == "hosts");
    let words = printed
        .lines()
        .filter_map(|line| line.split_whitespace().nth(column));
    let mut got = Got {
        answers: words.map(str::to_owned).collect(),
        seen: BTreeSet::new(),
    };
    match output.status.code() {
        Some(0) => {}
        // It does not say why.
        Some(2) => drop(got.seen.insert(":notfound".to_owned())),
        code => anyhow::bail!("getent ended with {code:?}"),
    }
    Ok(got)
}

/// From dig's usual text. Of a SOA record only zone and contact count as an answer, for its serial is the directory's.
fn from_dig(printed: &str, name: &str) -> Got {
    let mut got = Got::default();
    let mut section = "";
    for line in printed.lines() {
        if let Some(rest) = line.strip_prefix(";; ") {
            section = rest;
            if let Some((_, after)) = rest.split_once("status: ") {
                let status = after.split(',').next().unwrap_or_default();
                got.seen.insert(format!(":{status}"));
            }
            if let Some(flags) = rest.strip_prefix("flags: ") {
                let flags = flags.split(';').next().unwrap_or_default();
                got.seen
                    .extend(flags.split_whitespace().map(|flag| format!(":{flag}")));
            }
            continue;
        }
        if line.starts_with("; Transfer failed.") {
            got.seen.insert(":failed".to_owned());
        }
        if line.starts_with("; EDNS:") {
            got.seen.insert(":edns".to_owned());
        }
        if section == "QUESTION SECTION:" && line.contains(name) {
            got.seen.insert(":same-spelling".to_owned());
        }
        if line.starts_with(';') || line.is_empty() {
            continue;
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, kind, data @ ..] = &fields[..] else {
            continue;
        };
        match (section, *kind) {
            ("AUTHORITY SECTION:", "SOA") => drop(got.seen.insert(":soa".to_owned())),
            ("ANSWER SECTION:", "RRSIG") => drop(got.seen.insert(":rrsig".to_owned())),
            ("ANSWER SECTION:", "SOA") => {
                got.answers
                    .insert(data.iter().take(2).copied().collect::<Vec<_>>().join("_"));
            }
            ("ANSWER SECTION:", _) => {
                let data = data.join(" ");
                got.answers.insert(word(data.trim_matches('"')));
            }
            _ => {}
        }
    }
    many_texts(&mut got);
    got
}

fn from_delv(printed: &str) -> Got {
    let mut got = Got::default();
    for line in printed.lines() {
        if line.starts_with("; fully validated") {
            got.seen.insert(":validated".to_owned());
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [_, _, "IN", "A" | "AAAA", data] = fields[..] {
            got.answers.insert(data.to_owned());
        }
    }
    got
}
