// The pages below the header. All that nodes say becomes text here, never markup.

import { NetworkMap, health, kindOf, networkOf, rate } from "./map.js";

// Rows of a table that are drawn; the rest is counted.
const ROWS = 200;
// A service and its network (RFC 1123 labels).
const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
// Pictures that a small curve shows.
const SAMPLES = 40;

export function make(name, content = [], attributes = {}) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(key, value);
  element.append(...[content].flat(3).filter(part => part !== null && part !== undefined));
  return element;
}

const address = (kind, ...names) => `#/${kind}/${names.map(encodeURIComponent).join("/")}`;
const networkLink = name => make("a", name, { href: address("network", name) });
const serviceLink = service => make("a", service.name, { href: address("service", service.network, service.name) });
const WORDS = { ok: "works", warn: "look", bad: "wrong", note: "note" };
const badge = level => make("span", WORDS[level], { class: `badge ${level}` });
const plural = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;
const time = seconds => new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 16) + " UTC";

function path(link) {
  const kind = kindOf(link);
  return make("span", kind === "opening" ? "opening" : link.path, { class: `path ${kind}` });
}

function finding({ level, text, remedy }) {
  return make("li", [badge(level), make("div", text), remedy ? make("div", ["Next: ", remedy], { class: "remedy" }) : null], { class: `finding ${level}` });
}

// Columns are [title, cell, is a number]. The roles are for narrow screens, where a table that is drawn as cards would be none.
function table(caption, columns, rows, empty) {
  if (!rows.length) return make("div", empty, { class: "card empty" });
  const head = columns.map(([title, , number]) => make("th", title, { scope: "col", role: "columnheader", class: number ? "number" : undefined }));
  const body = rows.slice(0, ROWS).map(row => make("tr", columns.map(([title, cell, number]) =>
    make("td", make("div", cell(row)), { role: "cell", "data-label": title, class: number ? "number" : undefined })), { role: "row" }));
  const more = rows.length > ROWS ? make("p", `and ${rows.length - ROWS} more`, { class: "empty" }) : null;
  return make("div", [make("table", [make("thead", make("tr", head, { role: "row" }), { role: "rowgroup" }), make("tbody", body, { role: "rowgroup" })], { role: "table", "aria-label": caption }), more], { class: "card wide" });
}

// What each link moved lately, for its curve.
const history = new Map();
export function remember(picture) {
  const now = new Set();
  for (const link of picture.links) {
    const key = `${link.activator} ${link.link}`;
    now.add(key);
    const samples = history.get(key) ?? [];
    samples.push(link.sent_rate + link.received_rate);
    history.set(key, samples.slice(-SAMPLES));
  }
  for (const key of history.keys()) if (!now.has(key)) history.delete(key);
}

function curve(link) {
  const samples = history.get(`${link.activator} ${link.link}`) ?? [];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", `0 0 ${SAMPLES - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const most = Math.max(1, ...samples);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const points = samples.map((sample, i) => `${SAMPLES - samples.length + i} ${(19 - 17 * sample / most).toFixed(1)}`);
  line.setAttribute("d", points.length ? `M${points.join("L")}` : "");
  svg.append(line);
  return svg;
}

const LINKS = [
  ["Workload", link => link.peer],
  ["Activator", link => link.activator],
  ["Path", path],
  ["Carrier", link => make("span", link.carrier || "–", { class: "short" })],
  ["Round trip", link => link.rtt_ms === null ? "–" : `${link.rtt_ms.toFixed(1)} ms`, true],
  ["To workload", link => rate(link.sent_rate), true],
  ["To service", link => rate(link.received_rate), true],
  ["Lately", curve],
];

const busiest = links => [...links].sort((a, b) => b.sent_rate + b.received_rate - a.sent_rate - a.received_rate || a.link - b.link);
const linkTable = (links, empty) => table("Links", LINKS, busiest(links), empty);

const ports = service => [...service.tcp.map(port => `tcp ${port}`), ...service.udp.map(port => `udp ${port}`)].join(", ") || "none";
const SERVICES = [
  ["Service", serviceLink],
  ["Network", service => networkLink(service.network)],
  ["Ports", ports],
  ["Exported by", service => make("span", plural(service.exporters.length, "activator"), { class: "short" })],
  ["State", service => [badge(service.findings[0].level), " ", service.findings[0].text]],
];
const serviceTable = (services, empty) => table("Services", SERVICES, services, empty);

// What is wrong anywhere, each thing once.
function wrong(picture) {
  const found = [];
  for (const network of picture.networks) {
    for (const activator of network.activators) {
      if (activator.problem) found.push({ level: "bad", text: `${activator.node} is not believed: ${activator.problem}.`, remedy: "look at its log; enroll it again" });
      for (const trouble of activator.troubles) found.push({ level: "bad", text: `${activator.node}, relay ${trouble.relay} of ${trouble.network}: ${trouble.what}.`, remedy: trouble.remedy });
      if (!activator.problem && activator.lease_seconds < 4) found.push({ level: "warn", text: `${activator.node} is late: its lease ends in ${activator.lease_seconds.toFixed(0)} s.`, remedy: "it stopped, or does not reach discovery: look at its log" });
    }
  }
  for (const service of picture.services)
    for (const { level, text, remedy } of service.findings)
      if ((level === "bad" || level === "warn") && !text.includes(", relay ") && !text.includes(" is late:"))
        found.push({ level, text: `${service.name}.${service.network}: ${text}`, remedy });
  return found;
}

function tiles(picture) {
  const activators = picture.networks.reduce((n, network) => n + network.activators.length, 0);
  const relays = picture.networks.reduce((n, network) => n + network.relays.length, 0);
  const moved = picture.links.reduce((sum, link) => sum + link.sent_rate + link.received_rate, 0);
  const all = [[picture.networks.length, "networks"], [relays, "relays"], [activators, "activators"], [picture.services.length, "services"],
    [picture.links_in_all, "links"], [rate(moved), "through links"]];
  return make("div", all.map(([number, what]) => make("div", [make("b", String(number)), make("span", what)], { class: "card tile" })), { class: "tiles" });
}

function lead(picture) {
  const found = wrong(picture);
  const title = found.length === 0 ? "Nothing is wrong" : found.length === 1 ? "One thing needs a look" : `${found.length} things need a look`;
  const parts = [make("h1", title), make("p", "as far as the directory knows: what activators register and report, and what relays they hold.", { class: "lead" })];
  if (found.length) parts.push(make("ul", found.slice(0, 12).map(finding), { class: "plain" }));
  if (found.length > 12) parts.push(make("p", `and ${found.length - 12} more`, { class: "soft" }));
  return parts;
}

function activatorCard(activator) {
  const age = activator.reported_seconds_ago;
  const rows = [
    ["Lease", activator.problem ? activator.problem : `${activator.lease_seconds.toFixed(0)} s left`],
    ["Certificate", activator.certificate ? `${activator.certificate}, until ${time(activator.certificate_ends)}` : "–"],
    ["Links", age === null ? "does not report" : `${activator.links}, reported ${age.toFixed(0)} s ago`],
    ...activator.footholds.map(foothold => [`On relay ${foothold.relay}`, `${foothold.addresses.join(", ")} in ${foothold.network}`]),
    ...activator.troubles.map(trouble => [`On relay ${trouble.relay}`, [badge("bad"), ` ${trouble.what}`]]),
  ];
  return make("section", [make("h3", activator.node), make("dl", rows.flatMap(([what, is]) => [make("dt", what), make("dd", is)]))], { class: "card" });
}

function relayCard(relay) {
  const held = relay.troubled ? [badge(relay.holders ? "warn" : "bad"), ` ${relay.troubled} not`] : null;
  return make("section", [make("h3", `Relay ${relay.name}`), make("dl", [
    make("dt", "Held by"), make("dd", [plural(relay.holders, "activator"), held ? ", " : null, ...(held ?? [])]),
    ...relay.urls.flatMap((url, i) => [make("dt", i ? "or" : "At"), make("dd", make("code", url))]),
  ])], { class: "card" });
}

function overview(parts, picture) {
  parts.map ??= new NetworkMap();
  parts.map.update(picture);
  const top = busiest(picture.links).slice(0, 8);
  return [
    ...lead(picture), tiles(picture), parts.map.element,
    make("h2", "Services"), serviceTable(picture.services, "No activator exports a service yet."),
    make("h2", picture.links.length > top.length ? `The ${top.length} busiest links` : "Links"), linkTable(top, "No link is open: they open when a workload asks for a name."),
    make("h2", "Networks"), make("div", picture.networks.map(network => make("section", [
      make("h3", [networkLink(network.name), " ", badge(health(network))]),
      make("p", `${plural(network.relays.length, "relay")}, ${plural(network.activators.length, "activator")}, ${plural(network.workloads, "workload")}`, { class: "soft" }),
    ], { class: "card" })), { class: "cards" }),
  ];
}

function networkPage(picture, name) {
  const network = picture.networks.find(network => network.name === name);
  if (!network) return [make("h1", "No such network"), make("p", ["The directory has no network ", make("code", name), "."])];
  return [
    make("h1", ["Network ", name, " ", badge(health(network))]),
    make("p", `${plural(network.workloads, "workload")} enrolled.`, { class: "lead" }),
    make("h2", "Relays at its edge"), make("div", network.relays.length ? network.relays.map(relayCard) : make("p", "None: its workloads need a direct way.", { class: "soft" }), { class: "cards" }),
    make("h2", "Activators"), make("div", network.activators.length ? network.activators.map(activatorCard) : make("p", "None: it exports nothing.", { class: "soft" }), { class: "cards" }),
    make("h2", "Services"), serviceTable(picture.services.filter(service => service.network === name), "It exports nothing."),
    make("h2", "Links"), linkTable(picture.links.filter(link => networkOf(link.activator) === name || networkOf(link.peer) === name), "None is open."),
  ];
}

function policy({ everyone, allow }) {
  if (everyone === null) return "not reported yet";
  if (everyone) return "every workload of the mesh";
  return allow.length ? allow.join(", ") : "nobody";
}

function servicePage(picture, networkName, name) {
  const service = picture.services.find(service => service.network === networkName && service.name === name);
  const title = `${name}.${networkName}`;
  const ask = make("section", [
    make("p", ["What only the workload's sidecar knows (the virtual IP, its link, each candidate pair and why it won or lost) is asked there:"]),
    // Commands are copied into shells: nothing goes there that is not a name.
    make("p", NAME.test(title) ? make("code", `turnpike explain ${title}`) : "This is not a name, so no sidecar resolves it."),
  ], { class: "card" });
  if (!service) return [make("h1", title), make("ul", finding({ level: "bad", text: "No activator exports it now.", remedy: `check [[export]] in ${networkName}'s activator.toml, and that the activator runs` }), { class: "plain" }), ask];
  const exporters = new Set(service.exporters.map(exporter => exporter.activator));
  const activators = picture.networks.flatMap(network => network.activators).filter(activator => exporters.has(activator.node));
  return [
    make("h1", title),
    make("p", [`Exported by ${plural(exporters.size, "activator")} of `, networkLink(networkName), "."], { class: "lead" }),
    make("ul", service.findings.map(finding), { class: "plain" }),
    make("h2", "What it is"),
    make("dl", [
      ["Ports", ports(service)],
      ["Addresses", [service.ipv4 && "IPv4", service.ipv6 && "IPv6"].filter(Boolean).join(" and ") || "none"],
      ...service.exporters.map(exporter => [exporters.size > 1 ? `Open to, says ${exporter.activator.split("/")[2]}` : "Open to", policy(exporter)]),
    ].flatMap(([what, is]) => [make("dt", what), make("dd", is)]), { class: "card" }),
    make("h2", "Who exports it"), make("div", activators.map(activatorCard), { class: "cards" }),
    make("h2", "Links of these activators"), linkTable(picture.links.filter(link => exporters.has(link.activator)), "None is open."),
    make("h2", "Asking further"), ask,
  ];
}

// The page for a place such as ["service", "east", "orders"]: its title, and what is on it.
export function page(parts, picture, [kind, ...names]) {
  if (kind === "service" && names.length === 2) return [`${names[1]}.${names[0]}`, servicePage(picture, ...names)];
  if (kind === "network" && names.length === 1) return [names[0], networkPage(picture, names[0])];
  if (kind === "services") return ["Services", [make("h1", "Services"), serviceTable(picture.services, "No activator exports a service yet.")]];
  if (kind === "links") {
    const hidden = picture.links_in_all - picture.links.length;
    return ["Links", [make("h1", "Links"), make("p", `${plural(picture.links_in_all, "link")}${hidden > 0 ? `, ${hidden} of them not listed` : ""}, as the activators report them every 5 s.`, { class: "lead" }), linkTable(picture.links, "No link is open: they open when a workload asks for a name.")]];
  }
  return ["Overview", overview(parts, picture)];
}
