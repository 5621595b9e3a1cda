// Asks for the picture again and again, and shows the page that the address names.

import { page, remember } from "./pages.js";

const EVERY = 2000;
const SELDOM = 30000;

const main = document.getElementById("main");
const live = document.getElementById("live");
const clock = document.getElementById("clock");
const parts = {};
let picture = null;
let wait = EVERY;
let timer = 0;
let asking = false;

function place() {
  const names = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);
  try {
    return names.map(decodeURIComponent);
  } catch {
    return [];
  }
}

// Whoever uses the keyboard stays where they are: what had the focus gets it again.
function keepFocus(change) {
  const focused = main.contains(document.activeElement) ? document.activeElement : null;
  const same = focused && [...main.querySelectorAll("a")].filter(a => a.getAttribute("href") === focused.getAttribute("href")).indexOf(focused);
  change();
  if (focused && !focused.isConnected)
    [...main.querySelectorAll("a")].filter(a => a.getAttribute("href") === focused.getAttribute("href"))[same]?.focus({ preventScroll: true });
}

// What stays, stays in place: an element that is moved would begin its animation anew.
function put(content) {
  const staying = new Set(content);
  for (const child of [...main.childNodes]) if (!staying.has(child)) child.remove();
  let next = main.firstChild;
  for (const child of content) {
    if (child === next) next = next.nextSibling;
    else main.insertBefore(child, next);
  }
}

function show() {
  if (!picture) return;
  const here = place();
  const [title, content] = page(parts, picture, here);
  document.title = `${title} · ${picture.mesh} · Turnpike`;
  // A text that is selected is about to be copied.
  const selection = getSelection();
  if (selection && !selection.isCollapsed && main.contains(selection.anchorNode) && main.dataset.place === location.hash) return;
  main.dataset.place = location.hash;
  keepFocus(() => put(content));
  // The map measures the room it has, which it knows once it is there.
  if (content.includes(parts.map?.element)) parts.map.update(picture);
  for (const link of document.querySelectorAll("nav a")) {
    const current = link.getAttribute("href") === `#/${here[0] ?? ""}`;
    if (current) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
}

// Only changes of state are said aloud.
function say(text, state) {
  if (live.textContent !== text) live.textContent = text;
  live.className = `live ${state}`;
}

async function ask() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const response = await fetch("picture.json", { signal: AbortSignal.timeout(8000) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    picture = await response.json();
    wait = EVERY;
    remember(picture);
    document.getElementById("mesh").textContent = picture.mesh;
    const left = picture.left_out ? ` ${picture.left_out} entries are not drawn.` : "";
    document.getElementById("foot").textContent = `discovery ${picture.version}, revision ${picture.revision}.${left}`;
    clock.textContent = `${new Date(picture.time * 1000).toISOString().slice(11, 19)} UTC`;
    say("live", "on");
    show();
  } catch {
    wait = Math.min(wait * 1.7, SELDOM);
    say(picture ? "discovery does not answer; this is the last picture" : "discovery does not answer", "off");
  }
  asking = false;
  if (!document.hidden) timer = setTimeout(ask, wait);
}

const THEMES = ["auto", "light", "dark"];
const button = document.getElementById("theme");
function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  button.textContent = `Theme: ${name}`;
  try { localStorage.setItem("theme", name); } catch { /* It is only not remembered. */ }
}
function remembered() {
  try { return localStorage.getItem("theme"); } catch { return null; }
}
let chosen = Math.max(0, THEMES.indexOf(remembered()));
theme(THEMES[chosen]);
button.addEventListener("click", () => { chosen = (chosen + 1) % THEMES.length; theme(THEMES[chosen]); });

document.querySelector(".skip").addEventListener("click", event => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", () => {
  if (!location.hash.startsWith("#/")) return;
  show();
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
ask();
