// The map: networks on a ring, and between them what flows. Kept from picture to picture, so that nothing jumps or loses focus.

const SVG = "http://www.w3.org/2000/svg";
// More networks than this are not drawn; the list below has them all.
const MOST = 24;

export const kindOf = link => !link.open ? "opening" : link.path === "direct" ? "direct" : link.path.startsWith("relay") ? "relay" : "opening";
export const networkOf = node => node.split("/")[0];

export function rate(bytes) {
  const bits = bytes * 8;
  if (bits < 1) return "idle";
  for (const [unit, size] of [["Gbit/s", 1e9], ["Mbit/s", 1e6], ["kbit/s", 1e3]])
    if (bits >= size) return `${(bits / size).toFixed(bits / size < 10 ? 1 : 0)} ${unit}`;
  return `${bits.toFixed(0)} bit/s`;
}

function draw(parent, name, attributes = {}, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

const count = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;

export function health(network) {
  if (network.activators.some(a => a.problem) || network.relays.some(r => r.troubled && !r.holders)) return "bad";
  if (network.activators.some(a => a.troubles.length || a.lease_seconds < 4) || network.relays.some(r => r.troubled)) return "warn";
  return "ok";
}

// All links from one network's workloads to another's services that go the same kind of way are one rope.
function ropes(links, drawn) {
  const all = new Map();
  for (const link of links) {
    const [from, to, kind] = [networkOf(link.peer), networkOf(link.activator), kindOf(link)];
    if (!drawn.has(from) || !drawn.has(to)) continue;
    const key = `${from} ${to} ${kind}`;
    const rope = all.get(key) ?? { key, from, to, kind, links: 0, rate: 0, paths: new Set() };
    rope.links += 1;
    rope.rate += link.sent_rate + link.received_rate;
    rope.paths.add(link.path);
    all.set(key, rope);
  }
  return [...all.values()].sort((a, b) => a.key < b.key ? -1 : 1);
}

function layout(names, width) {
  const narrow = width < 560;
  const size = names.length > 12 || narrow ? { w: narrow ? 116 : 130, h: 54 } : { w: 206, h: 74 };
  const height = names.length < 2 ? 170 : names.length === 2 ? (narrow ? 330 : 230) : narrow ? Math.max(360, names.length * 62) : Math.min(640, 320 + names.length * 22);
  const farthest = names.length === 2 ? 330 : Infinity;
  const [rx, ry] = [Math.min((width - size.w) / 2 - 10, farthest), (height - size.h) / 2 - 14];
  // Two stand side by side, or one below the other; others begin at the top.
  const start = names.length === 2 && !narrow ? Math.PI : -Math.PI / 2;
  const places = new Map(names.map((name, i) => {
    const angle = start + i * 2 * Math.PI / names.length;
    const one = names.length === 1;
    return [name, { x: width / 2 + (one ? 0 : rx * Math.cos(angle)), y: height / 2 + (one ? 0 : ry * Math.sin(angle)) }];
  }));
  // Three on a ring leave room below: what is drawn stands in the middle.
  const heights = [...places.values()].map(place => place.y);
  const [top, bottom] = [Math.min(...heights), Math.max(...heights)];
  const room = size.h / 2 + (names.length === 1 ? 70 : 34);
  for (const place of places.values()) place.y += room - top;
  const tall = names.length ? bottom - top + 2 * room : 60;
  return { places, size, height: tall, narrow, middle: { x: width / 2, y: tall / 2 } };
}

// Where a line from a point in an island towards another point leaves the island.
function edge(island, from, to, size, gap) {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const until = (d, offset, half) => d === 0 ? Infinity : (Math.sign(d) * (half + gap) - offset) / d;
  const scale = Math.min(until(dx, from.x - island.x, size.w / 2), until(dy, from.y - island.y, size.h / 2), 1);
  return { x: from.x + dx * scale, y: from.y + dy * scale };
}

const at = (a, c, b, t) => ({
  x: (1 - t) ** 2 * a.x + 2 * t * (1 - t) * c.x + t ** 2 * b.x,
  y: (1 - t) ** 2 * a.y + 2 * t * (1 - t) * c.y + t ** 2 * b.y,
});

export class NetworkMap {
  constructor() {
    this.element = document.createElement("div");
    this.element.className = "card map";
    this.svg = draw(this.element, "svg", { role: "group" });
    this.ropeLayer = draw(this.svg, "g");
    this.islandLayer = draw(this.svg, "g");
    // Above all, for a rope may pass beside another one's label.
    this.labelLayer = draw(this.svg, "g", { "aria-hidden": "true" });
    this.kept = new Map();
    this.legend();
    this.observer = new ResizeObserver(() => this.picture && this.update(this.picture));
    this.observer.observe(this.element);
  }

  legend() {
    const legend = document.createElement("div");
    legend.className = "legend";
    for (const [kind, text] of [["direct", "direct"], ["relay", "through a relay"], ["opening", "opening"]]) {
      const entry = document.createElement("span");
      entry.className = kind;
      entry.append(document.createElement("i"), text);
      legend.append(entry);
    }
    const hint = document.createElement("span");
    hint.textContent = "arrows: from workloads to services";
    this.signs = document.createElement("span");
    this.signs.textContent = "◆ relays  ● activators  ▪ workloads";
    legend.append(hint, this.signs);
    this.element.append(legend);
  }

  keep(key, make) {
    this.seen.add(key);
    if (!this.kept.has(key)) this.kept.set(key, make());
    return this.kept.get(key);
  }

  update(picture) {
    this.picture = picture;
    const width = Math.max(this.element.clientWidth - 16, 260);
    const networks = picture.networks.slice(0, MOST);
    const plan = layout(networks.map(network => network.name), width);
    const all = ropes(picture.links, plan.places);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${plan.height}`);
    this.svg.setAttribute("height", plan.height);
    this.signs.hidden = plan.size.w >= 200;
    this.svg.setAttribute("aria-label", `Map of ${count(picture.networks.length, "network")} and ${count(picture.links.length, "link")}; the tables below say the same`);
    this.seen = new Set();
    for (const rope of all) this.rope(rope, plan, all);
    for (const network of networks) this.island(network, plan);
    for (const [key, parts] of this.kept)
      if (!this.seen.has(key)) { parts.forEach(part => part.remove()); this.kept.delete(key); }
  }

  island(network, { places, size, narrow }) {
    const [link, rect, mark, name, about, title] = this.keep(`n ${network.name}`, () => {
      const link = draw(this.islandLayer, "a", { href: `#/network/${encodeURIComponent(network.name)}` });
      return [link, draw(link, "rect", { rx: 14 }), draw(link, "circle", { r: 5, class: "mark" }),
        draw(link, "text", { class: "name" }), draw(link, "text", { class: "about" }), draw(link, "title")];
    });
    const { x, y } = places.get(network.name);
    const [w, h] = [size.w, size.h];
    const small = narrow || w < 200;
    const state = health(network);
    link.setAttribute("class", `island ${state}`);
    for (const [key, value] of Object.entries({ x: x - w / 2, y: y - h / 2, width: w, height: h })) rect.setAttribute(key, value);
    mark.setAttribute("cx", x - w / 2 + 15); mark.setAttribute("cy", y - h / 2 + 15);
    name.setAttribute("x", x); name.setAttribute("y", y - (small ? 2 : 4));
    const room = small ? 12 : 22;
    name.textContent = network.name.length > room ? `${network.name.slice(0, room - 1)}…` : network.name;
    about.setAttribute("x", x); about.setAttribute("y", y + (small ? 14 : 18));
    const [relays, activators, workloads] = [network.relays.length, network.activators.length, network.workloads];
    const full = `${count(relays, "relay")} · ${count(activators, "activator")} · ${count(workloads, "workload")}`;
    about.textContent = small ? `◆ ${relays}  ● ${activators}  ▪ ${workloads}` : `${count(relays, "relay")}, ${count(activators, "activator")}, ${workloads} app${workloads === 1 ? "" : "s"}`;
    title.textContent = `${network.name}: ${full}`;
    link.setAttribute("aria-label", `Network ${network.name}: ${full}, ${{ ok: "nothing wrong", warn: "needs a look", bad: "something is wrong" }[state]}`);
  }

  rope(rope, { places, size, middle, narrow }, all) {
    const [group, wide, flow, arrow, diamond, title, label] = this.keep(`r ${rope.key}`, () => {
      const group = draw(this.ropeLayer, "g");
      return [group, draw(group, "path", { class: "rope" }), draw(group, "path", { class: "flow" }), draw(group, "path", { class: "arrow" }),
        draw(group, "path", { class: "diamond", d: "M0-8 8 0 0 8-8 0z" }), draw(group, "title"), draw(this.labelLayer, "text", { class: "label" })];
    });
    const [a, b] = [places.get(rope.from), places.get(rope.to)];
    // Ropes between the same two networks lie side by side.
    const beside = all.filter(other => (other.from === rope.from && other.to === rope.to) || (other.from === rope.to && other.to === rope.from));
    const lane = beside.indexOf(rope) - (beside.length - 1) / 2;
    let [from, to, control] = [a, b, null];
    if (rope.from === rope.to) {
      const up = a.y <= middle.y ? 1 : -1;
      from = { x: a.x - 26, y: a.y + up * size.h / 2 };
      to = { x: a.x + 26, y: a.y + up * (size.h / 2 + 7) };
      control = { x: a.x, y: a.y + up * (size.h / 2 + 62) };
    } else {
      const length = Math.hypot(b.x - a.x, b.y - a.y) || 1;
      // The same normal for both directions, whichever is drawn.
      const sign = rope.from < rope.to ? 1 : -1;
      const normal = { x: -(b.y - a.y) / length * sign, y: (b.x - a.x) / length * sign };
      const spread = narrow ? 30 : 44;
      const center = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
      const pull = .28;
      control = { x: center.x + (middle.x - center.x) * pull + normal.x * lane * spread * 1.6, y: center.y + (middle.y - center.y) * pull + normal.y * lane * spread * 1.6 };
      const shifted = place => ({ x: place.x + normal.x * lane * 18, y: place.y + normal.y * lane * 18 });
      from = edge(a, shifted(a), control, size, 1);
      to = edge(b, shifted(b), control, size, 9);
    }
    const d = `M${from.x.toFixed(1)} ${from.y.toFixed(1)}Q${control.x.toFixed(1)} ${control.y.toFixed(1)} ${to.x.toFixed(1)} ${to.y.toFixed(1)}`;
    group.setAttribute("class", `${rope.kind} ${rope.rate > 0 ? "busy" : "idle"}`);
    for (const path of [wide, flow]) path.setAttribute("d", d);
    // A thousand times the rate, a few times the width.
    wide.setAttribute("stroke-width", (3 + Math.min(11, Math.log10(1 + rope.rate) * 1.5)).toFixed(1));
    const turn = Math.atan2(to.y - control.y, to.x - control.x) * 180 / Math.PI;
    arrow.setAttribute("d", "M9 0-5 6.5-2 0-5-6.5z");
    arrow.setAttribute("transform", `translate(${to.x.toFixed(1)} ${to.y.toFixed(1)}) rotate(${turn.toFixed(1)})`);
    // Relays through which workloads reach others stand at the edge of their own network.
    const relay = at(from, control, to, .2);
    diamond.setAttribute("transform", `translate(${relay.x.toFixed(1)} ${relay.y.toFixed(1)})`);
    diamond.setAttribute("visibility", rope.kind === "relay" ? "visible" : "hidden");
    const spot = at(from, control, to, narrow ? .55 : .5);
    label.setAttribute("x", spot.x.toFixed(1)); label.setAttribute("y", (spot.y - 10).toFixed(1));
    const many = rope.links > 1 ? `${rope.links} links, ` : "";
    label.textContent = rope.kind === "opening" ? "opening" : `${many}${rate(rope.rate)}`;
    title.textContent = `${rope.from} to ${rope.to}: ${count(rope.links, "link")}, ${rope.kind === "opening" ? "opening" : [...rope.paths].join(", ")}, ${rate(rope.rate)}`;
  }
}
