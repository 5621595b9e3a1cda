//! `deploy/kubernetes` without a cluster: each manifest against the schemas of Kubernetes (`kubernetes-validate` of PyPI,
//! which carries them), and that of the relay in a pod of podman.

use anyhow::{Context as _, Result, ensure};
use interop::pods::{Node, succeeded};
use interop::relay::SECRET;
use lab::wait;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use turnpike_interop as interop;

const VALIDATOR: &str = "kubernetes-validate==1.37.0";
const CONTAINER: &str = "turn-relay-turn-relay";
/// What the kubelet waits for a pod that it ends: `terminationGracePeriodSeconds` of the manifest.
const GRACE: u64 = 30;
const START: Duration = Duration::from_secs(30);

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes")
}

/// Python with the validator, kept in the target directory.
fn python() -> Result<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kubernetes-validate-1.37.0");
    let done = directory.join("done");
    if !done.is_file() {
        succeeded(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
        let mut install = Command::new(directory.join("bin/pip"));
        succeeded(install.args(["install", "--quiet", VALIDATOR]))?;
        std::fs::write(done, "")?;
    }
    Ok(directory.join("bin"))
}

/// The workload of a manifest as one pod, since podman makes none of a DaemonSet, with the Secret that it wants.
const AS_POD: &str = "
import base64, sys, yaml
manifest, secret, to = sys.argv[1:]
parts = list(yaml.safe_load_all(open(manifest)))
pods = []
for part in parts:
    if part['kind'] == 'DaemonSet':
        template = part['spec']['template']
        metadata = dict(template['metadata'], name=part['metadata']['name'])
        pods.append(dict(apiVersion='v1', kind='Pod', metadata=metadata, spec=template['spec']))
    else:
        pods.append(part)
yaml.safe_dump_all(pods, open(to + '/pod.yaml', 'w'))
data = {'relay-secret': base64.b64encode(secret.encode()).decode()}
secret = dict(apiVersion='v1', kind='Secret', metadata=dict(name='turn-relay'), data=data)
yaml.safe_dump(secret, open(to + '/secret.yaml', 'w'))
";

#[test]
fn every_manifest_is_one_of_a_current_kubernetes() -> Result<()> {
    let mut validate = Command::new(python()?.join("kubernetes-validate"));
    validate.arg("--strict");
    let mut count = 0;
    for entry in std::fs::read_dir(manifests())? {
        validate.arg(entry?.path());
        count += 1;
    }
    ensure!(count == 4, "{count} manifests");
    succeeded(&mut validate).map(drop)
}

/// The sum of a metric over its labels.
fn metric(node: &Node, name: &str) -> Result<u64> {
    let text = node.exec(
        CONTAINER,
        &["curl", "-fsS", "http://127.0.0.1:9101/metrics"],
    )?;
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(values.sum())
}

/// A client outside, with a user minted from the secret, and a peer inside.
fn client(node: &Node, secret: &str, messages: &str) -> Command {
    let mut client = node.run("timeout", &["60", "turnutils_uclient", "-c"]);
    client
        .args([
            "-u",
            "west/app",
            "-W",
            secret,
            "-e",
            "10.0.0.20",
            "-r",
            "7000",
        ])
        .args(["-m", "1", "-n", messages, "-l", "200", "203.0.113.12"]);
    client
}

fn came_back(said: &[u8], messages: u64) -> Result<()> {
    let said = String::from_utf8_lossy(said);
    let all = format!("tot_send_msgs={messages}, tot_recv_msgs={messages}");
    ensure!(said.contains(&all), "{said}");
    Ok(())
}

#[test]
fn a_relay_in_a_pod_relays_without_any_right_and_drains_within_its_grace_period() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut convert = Command::new(python()?.join("python"));
    convert.args(["-c", AS_POD]);
    convert.arg(manifests().join("turn-relay.yaml")).arg(SECRET);
    succeeded(convert.arg(directory.path()))?;
    let node = Node::start("turn-relay")?;
    node.play(&directory.path().join("secret.yaml"))?;
    node.play(&directory.path().join("pod.yaml"))?;

    // Both probes, as the manifest has them.
    for probe in ["readyz", "healthz"] {
        let url = format!("http://127.0.0.1:9101/{probe}");
        wait::until_true(probe, START, || {
            Ok(node.exec(CONTAINER, &["curl", "-fsS", &url]).is_ok())
        })?;
    }
    succeeded(&mut node.podman(&["healthcheck", "run", CONTAINER]))?;

    // Its rights: none, and none can be had.
    let status = node.exec(CONTAINER, &["cat", "/proc/1/status"])?;
    let rights = ["Uid:\t7400\t7400\t7400\t7400", "CapPrm:\t0000000000000000"];
    let bounds = ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"];
    for expected in rights.iter().chain(&bounds) {
        ensure!(status.contains(expected), "{expected}: {status}");
    }
    let written = node.exec(CONTAINER, &["touch", "/bin/new"]);
    let refused = written.err().map(|error| error.to_string());
    ensure!(
        refused.is_some_and(|said| said.contains("Read-only")),
        "/ is written to"
    );

    // As the relay sees it: podman 4.3 leaves what is in a Secret in base64.
    let secret = node.exec(CONTAINER, &["cat", "/run/secrets/turnpike/relay-secret"])?;
    let peer = ["-L", "10.0.0.20", "-p", "7000"];
    let mut peer = node.run("turnutils_peer", &peer);
    let mut peer = peer.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait::until("an allocation and what is relayed by it", START, || {
        let output = client(&node, &secret, "5").output()?;
        came_back(&output.stdout, 5)?;
        Ok(Some(()))
    })?;
    wait::until_true("the relay's own count", START, || {
        Ok(metric(&node, "turn_relay_relayed_bytes_total")? >= 2 * 5 * 200)
    })?;

    // The pod is deleted while a client talks: nothing is lost, and nobody has to be killed.
    let talking = client(&node, &secret, "100")
        .stdout(Stdio::piped())
        .spawn()?;
    let before = metric(&node, "turn_relay_relayed_bytes_total")?;
    wait::until_true("the client talks", START, || {
        Ok(metric(&node, "turn_relay_relayed_bytes_total")? > before)
    })?;
    let asked = Instant::now();
    let mut stop = node.podman(&["stop", "--time", &GRACE.to_string(), CONTAINER]);
    let mut stop = stop.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    came_back(&talking.wait_with_output()?.stdout, 100)?;
    ensure!(stop.wait()?.success(), "it could not be stopped");
    let took = asked.elapsed();
    let mut inspect = node.podman(&["inspect", CONTAINER, "--format", "{{.State.ExitCode}}"]);
    let code = String::from_utf8_lossy(&succeeded(&mut inspect)?.stdout)
        .trim()
        .to_owned();
    ensure!(code == "0", "it ended with {code} after {took:?}");
    ensure!(took < Duration::from_secs(GRACE), "it took {took:?}");
    println!(
        "drained and gone after {:.1} s of {GRACE}",
        took.as_secs_f64()
    );
    peer.kill().context("ending the peer")?;
    peer.wait()?;
    Ok(())
}
