//! The console in headless Chromium: what it draws of a lab that works, of a hostile node, and of a discovery that is gone.
//!
//! Its screenshots are left in the target directory, `tmp/console`.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use browser::Chromium;
use discovery_client::Settings;
use identity::document;
use lab::plan::{CONSOLE_PORT, DISCOVERY};
use lab::process::FileKind;
use lab::{Lab, Network, mesh, netns, wait};
use model::Role;
use net::Clock;
use protocol::document::{Registration, Service, document::Body};
use scenarios::{ORDERS, lab};
use serde_json::Value;

/// Reports come every 5 s, pictures every 2 s.
const SOON: Duration = Duration::from_secs(30);
const DESK: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (360, 740);
const HOSTILE: &str =
    "<img src=x onerror=document.title='pwned'><script>document.title='pwned'</script>";

/// What of the texts on a page is hard to read (WCAG 2.2, 1.4.3: 4.5 to 1).
const FAINT: &str = r#"(() => {
  const numbers = color => color.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      if (color[3] !== 0) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("h1, h2, h3, p, a, td div, th, .badge, .path, .live, button, dt, dd, .tile span")]
    .filter(e => e.textContent.trim() && e.getClientRects().length)
    .map(e => {
      const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))].sort((a, b) => b - a);
      return [(a + .05) / (b + .05), e.className || e.tagName, e.textContent.slice(0, 30)];
    })
    .filter(([contrast]) => contrast < 4.5).map(String);
})()"#;

struct Page {
    browser: Chromium,
    shots: PathBuf,
}

impl Page {
    fn open(lab: &Lab) -> Result<Self> {
        let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console");
        fs::create_dir_all(&shots)?;
        let mut browser = Chromium::start(lab, "discovery")?;
        browser.set_screen(DESK, false)?;
        browser.open(&format!("http://127.0.0.1:{CONSOLE_PORT}/"))?;
        Ok(Self { browser, shots })
    }

    fn ask(&mut self, expression: &str) -> Result<Value> {
        let answer = self.browser.evaluate(expression);
        answer.with_context(|| expression.to_owned())
    }

    /// Waits until an expression is true in the page.
    fn when(&mut self, expression: &str) -> Result<()> {
        wait::until(expression, SOON, || {
            if self.ask(expression)? == true {
                return Ok(Some(()));
            }
            anyhow::bail!("{}", self.ask("document.body.innerText")?)
        })
    }

    fn shoot(&mut self, name: &str, size: (u32, u32), dark: bool) -> Result<()> {
        self.browser.set_screen(size, dark)?;
        // Two frames later everything has its place.
        let drawn = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 100))))";
        self.ask(drawn)?;
        let fits = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        let over = self.ask(fits)?;
        ensure!(over == 0, "{name}: {over} pixels wider than the screen");
        let faint = self.ask(FAINT)?;
        ensure!(
            faint == Value::Array(Vec::new()),
            "{name}: hard to read: {faint}"
        );
        let file = self.shots.join(format!("{name}.png"));
        self.browser.screenshot(&file)?;
        println!("{}", file.display());
        Ok(())
    }
}

/// Downloads without end, about 200 kB/s. Not one slow one: its beginning fills the buffers, and then nothing passes for
/// half a minute.
struct Download(Child);

impl Download {
    fn start(lab: &Lab) -> Result<Self> {
        let script =
            format!("while :; do curl -sS -o /dev/null {ORDERS}/bytes/20000; sleep 0.1; done");
        let curl = ["sh", "-c", &script];
        lab.spawn("west/app", &curl).map(Self)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn draws_the_mesh(lab: &Lab, page: &mut Page) -> Result<()> {
    page.when("document.getElementById('live').textContent === 'live'")?;
    page.when("document.querySelectorAll('.island').length === 2")?;
    // The path is what the activator itself says it is, and something passes.
    let path = wait::until("the link", SOON, || {
        let status = lab.node_status("east/activator")?;
        Ok(status["links"][0]["path"].as_str().map(str::to_owned))
    })?;
    let kind = if path == "direct" { "direct" } else { "relay" };
    page.when(&format!("!!document.querySelector('.map g.{kind}.busy')"))?;
    page.when(&format!(
        "document.querySelector('table[aria-label=Links] .path')?.textContent === '{path}'"
    ))?;
    page.when("/[0-9] [km]bit\\/s/i.test(document.querySelector('.map .label').textContent)")?;
    page.when("document.querySelector('h1').textContent === 'Nothing is wrong'")?;
    let row = page.ask("document.querySelector('table[aria-label=Links] tbody tr').innerText")?;
    let row = row.as_str().context("a row")?;
    ensure!(
        row.contains("west/workload/") && row.contains("east/activator/"),
        "{row}"
    );
    let map = page.ask("document.querySelector('.map svg').getAttribute('aria-label')")?;
    ensure!(
        map.as_str()
            .is_some_and(|it| it.starts_with("Map of 2 networks and 1 link;")),
        "{map}"
    );
    page.shoot("overview-light", DESK, false)?;
    page.shoot("overview-dark", DESK, true)?;
    page.shoot("overview-narrow", PHONE, false)
}

/// With nothing but Tab and Enter; every control says what it is.
fn is_used_with_the_keyboard(page: &mut Page) -> Result<()> {
    page.browser.set_screen(DESK, false)?;
    let nameless = "[...document.querySelectorAll('a, button')].filter(e => !(e.getAttribute('aria-label') || e.textContent.trim())).length";
    ensure!(page.ask(nameless)? == 0, "controls without a name");
    page.ask("document.activeElement.blur()")?;
    for steps in 0.. {
        ensure!(steps < 40, "Tab does not get to the map");
        page.browser.press("Tab")?;
        if page.ask("document.activeElement.classList.contains('island')")? == true {
            break;
        }
    }
    // The next picture does not take the focus away.
    let time = page.ask("document.getElementById('clock').textContent")?;
    page.when(&format!(
        "document.getElementById('clock').textContent !== {time}"
    ))?;
    ensure!(
        page.ask("document.activeElement.classList.contains('island')")? == true,
        "the focus is lost"
    );
    page.browser.press("Enter")?;
    page.when("location.hash === '#/network/east' && document.querySelector('h1').textContent.startsWith('Network east')")?;
    ensure!(
        page.ask("document.activeElement.id")? == "main",
        "the new page is not where the reader is"
    );
    Ok(())
}

fn explains_a_service(page: &mut Page) -> Result<()> {
    page.ask("location.hash = '#/service/east/orders'")?;
    page.when("document.querySelector('h1').textContent === 'orders.east'")?;
    page.when("document.querySelector('.finding.ok')?.textContent.includes('Every other network has a way to it')")?;
    // Whom it is for comes with the report.
    page.when("document.querySelector('main').innerText.includes('every workload of the mesh')")?;
    let text = page.ask("document.querySelector('main').innerText")?;
    let text = text.as_str().context("text")?;
    for part in [
        "s left",
        "On relay west",
        "tcp 8080",
        "turnpike explain orders.east",
        "Only east/activator/",
    ] {
        ensure!(text.contains(part), "no `{part}` in {text}");
    }
    page.shoot("service-light", DESK, false)?;
    page.shoot("service-dark-narrow", PHONE, true)
}

/// An activator that was enrolled and means no good: its service is called like markup.
async fn hostile(lab: &Lab) -> Result<discovery_client::Directory> {
    let turnpike = lab.binaries().join("turnpike").display().to_string();
    let directory = lab.files().mesh().display().to_string();
    let token = mesh::create_token(&turnpike, &directory, Network::East, "activator", &[])?;
    let settings = Settings {
        discovery: format!("https://{DISCOVERY}"),
        state_directory: lab.files().of_process("hostile", FileKind::State),
        join_token: Some(token),
        node_name: Some("hostile".to_owned()),
        network: "east".parse()?,
        role: Role::Activator,
    };
    let identity = discovery_client::join(&settings).await?;
    let registration = Registration {
        network: "east".into(),
        node: "hostile".into(),
        services: vec![Service {
            name: HOSTILE.into(),
            tcp_ports: vec![80],
            ..Service::default()
        }],
        ..Registration::default()
    };
    let body = Body::Registration(registration);
    let signed = document(body, None, Duration::from_secs(3_600), Clock.unix_time());
    let signed = identity.current().sign(&signed)?;
    let (directory, mut events) =
        discovery_client::start(settings, identity, std::future::pending());
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    directory.publish(Some(signed));
    Ok(directory)
}

fn shows_hostile_names_as_text(lab: &Lab, page: &mut Page) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let node = runtime.block_on(hostile(lab))?;
    page.ask("location.hash = '#/'")?;
    let name = serde_json::to_string(HOSTILE)?;
    // Names are kept to 130 characters, which this one is shorter than.
    page.when(&format!(
        "[...document.querySelectorAll('main a')].some(a => a.textContent === {name})"
    ))?;
    page.when("document.querySelector('h1').textContent.includes('a look')")?;
    let link = format!(
        "[...document.querySelectorAll('main a')].find(a => a.textContent === {name}).click()"
    );
    page.ask(&link)?;
    page.when(&format!(
        "document.querySelector('h1').textContent === {name} + '.east'"
    ))?;
    let markup =
        page.ask("document.querySelectorAll('main img, main script, main iframe').length")?;
    ensure!(markup == 0, "the name became markup");
    let commands = "[...document.querySelectorAll('code')].filter(code => code.textContent.startsWith('turnpike')).length";
    let commands = page.ask(commands)?;
    ensure!(commands == 0, "the name is in a command that people copy");
    let title = page.ask("document.title")?;
    ensure!(
        title
            .as_str()
            .is_some_and(|title| title.contains("· lab ·")),
        "the name was run: {title}"
    );
    page.shoot("hostile-narrow", PHONE, false)?;
    runtime.block_on(node.shutdown());
    Ok(())
}

fn says_when_discovery_is_gone(lab: &Lab, page: &mut Page) -> Result<()> {
    page.ask("location.hash = '#/'")?;
    lab.kill9("discovery")?;
    page.when("document.getElementById('live').textContent.includes('does not answer')")?;
    ensure!(
        page.ask("document.querySelectorAll('.island').length")? == 2,
        "the last picture is gone"
    );
    lab.start("discovery")?;
    page.when("document.getElementById('live').textContent === 'live'")
}

#[test]
fn the_console_shows_the_mesh_its_links_and_what_is_wrong() {
    let lab = lab("console");
    let download = Download::start(&lab).expect("a download");
    // Only the thread that talks to discovery must stand there; the browser goes there by itself.
    let ended = netns::inside(&lab.namespace("discovery"), || {
        let mut page = Page::open(&lab)?;
        draws_the_mesh(&lab, &mut page)?;
        is_used_with_the_keyboard(&mut page)?;
        explains_a_service(&mut page)?;
        shows_hostile_names_as_text(&lab, &mut page)?;
        says_when_discovery_is_gone(&lab, &mut page)
    });
    drop(download);
    if let Err(error) = ended.and_then(|ended| ended) {
        panic!("{error:#}");
    }
}
