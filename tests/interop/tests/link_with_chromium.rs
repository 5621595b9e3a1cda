//! A link between a page in headless Chromium and our activator.

use anyhow::{Context as _, Result, ensure};
use browser::Chromium;
use interop::workload::{self, HOST, SOURCE, VIRTUAL_IP, Workload};
use interop::{control, echo, sdp};
use lab::Lab;
use lab::plan::UDP_ECHO_PORT;
use serde_json::{Value, json};
use turnpike_interop as interop;

struct Page(Chromium);

impl Page {
    /// Calls a function of the page.
    fn call(&mut self, function: &str, argument: &Value) -> Result<Value> {
        let called = self.0.evaluate(&format!("peer.{function}({argument})"));
        called.with_context(|| format!("peer.{function}"))
    }
}

impl control::Peer for Page {
    fn say(&mut self, message: Vec<u8>) -> Result<()> {
        self.call("say", &json!(message)).map(drop)
    }

    fn hear(&mut self) -> Result<Vec<u8>> {
        let heard = self.0.evaluate("peer.hear()")?;
        Ok(serde_json::from_value(heard)?)
    }
}

fn moves_100_megabytes(lab: &Lab) -> Result<()> {
    // The directory's task goes on while the browser is waited for.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut workload = runtime.block_on(Workload::enroll(lab))?;
    let mut browser = Chromium::start(lab, HOST)?;
    browser.evaluate(include_str!("page.js"))?;
    let mut page = Page(browser);

    let offer = page.0.evaluate("peer.offer()")?;
    let offer = offer.as_str().context("an offer")?;
    let answer = runtime.block_on(workload.offer(sdp::description_of(offer)?))?;
    let ids = page.call("accept", &json!(sdp::answer(offer, &answer)?))?;
    ensure!(ids == json!([0, 2]), "the channels' ids are {ids}");
    control::converse(&mut page)?;

    let plan = json!({
        "datagrams": echo::DATAGRAMS,
        "length": echo::LENGTH,
        "window": echo::WINDOW,
        "joined": echo::JOINED,
        "again": echo::AGAIN.as_millis(),
        "source": SOURCE,
        "target": VIRTUAL_IP,
        "port": UDP_ECHO_PORT,
    });
    let moved = page.call("echo", &plan)?;
    println!("100 MB there and back: {moved}");
    workload::check_counts(lab)
}

#[test]
fn chromium_opens_a_link_and_moves_100_megabytes_there_and_back() {
    workload::in_its_place("interopweb", moves_100_megabytes);
}
