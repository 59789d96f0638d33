"use strict";
const $ = (id) => document.getElementById(id);
const EVERY = 3000;
let token = "", gist = "", taken = Date.now(), timer = 0, looking = false, renewing = false;

// --- Looks at /status every few seconds. What it means is said in one place, by the server: when something
// --- has changed, or time has moved the marker, the parts of the page are taken from a new copy of it.

async function look() {
  const answer = await fetch("/status", { cache: "no-store", signal: AbortSignal.timeout(10000) });
  if (!answer.ok) throw new Error(`It answers ${answer.status}.`);
  const { remaining_seconds, clock_skew_seconds, ...facts } = await answer.json();
  const now = JSON.stringify(facts);
  if (now !== gist || Date.now() - taken > document.body.dataset.pace * 1000) {
    take(await copy());
    gist = now;
    taken = Date.now();
  }
}

// A document of XMLHttpRequest is inert, and needs no text to be parsed here.
function copy() {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", "/");
    request.responseType = "document";
    request.timeout = 10000;
    request.onload = () => (request.status === 200 ? resolve(request.response) : reject(new Error("no page")));
    request.onerror = request.ontimeout = () => reject(new Error("no answer"));
    request.send();
  });
}

function take(fresh) {
  const script = (page) => page.querySelector("script").textContent;
  if (script(fresh) !== script(document)) location.reload(); // another version of the sidecar answers now
  const before = document.body.dataset.state;
  Object.assign(document.body.dataset, fresh.body.dataset);
  document.title = fresh.title;
  document.querySelector("link[rel=icon]").href = fresh.querySelector("link[rel=icon]").href;
  for (const id of ["act", "line", "notes", "older"]) $(id).hidden = fresh.getElementById(id).hidden;
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (part.isEqualNode(other)) continue;
    const focus = part.contains(document.activeElement) ? document.activeElement.id : "";
    part.replaceChildren(...other.childNodes);
    if (focus) $(focus)?.focus();
  }
  if (fresh.body.dataset.state !== before) $("news").textContent = $("state").textContent;
}

async function turn() {
  if (looking || document.hidden) return;
  clearTimeout(timer);
  looking = true;
  try {
    await look();
    away(false);
  } catch {
    away(true);
  }
  looking = false;
  if (!document.hidden) timer = setTimeout(turn, EVERY);
}

function away(is) {
  if (is === document.body.classList.contains("away")) return;
  document.body.classList.toggle("away", is);
  const since = new Date().toISOString().slice(11, 19);
  $("away").textContent = is
    ? `The sidecar cannot be reached since ${since} UTC. What is shown is from then. It is tried again.`
    : "";
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : turn()));

// --- Renew

$("renew").addEventListener("submit", (event) => {
  event.preventDefault();
  if (renewing) return;
  token = $("token").value || token;
  if ("token" in $("renew").dataset && !token) ask("");
  else renew();
});

async function renew() {
  const began = Date.now();
  const tick = setInterval(() => progress(began), 1000);
  renewing = true;
  progress(began);
  say("", "Asking the Connector for a new certificate …");
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch("/renew", { method: "POST", headers });
    tell(answer.status, await answer.json());
  } catch {
    say("failed", "No answer came.", "Whether the renewal goes on is seen when the sidecar can be reached again.");
  }
  clearInterval(tick);
  renewing = false;
  progress(0);
  turn();
}

function progress(began) {
  $("busy").hidden = !renewing;
  $("go").setAttribute("aria-disabled", renewing);
  $("go").textContent = renewing ? `Renewing … ${Math.round((Date.now() - began) / 1000)} s` : "Renew now";
}

function tell(status, body) {
  if (status === 401) {
    token = "";
    ask("That is not the API token.");
  } else if (status === 202) {
    say("", "It takes longer than a minute, and goes on.", "How it ends is shown here.");
  } else if (status === 200) {
    $("ask").hidden = true;
    $("token").value = "";
    const { effective_not_after: end, fingerprint_sha256: fingerprint } = body.certificate;
    const took = `in ${body.duration_seconds.toFixed(1)} s.`;
    say("done", `Renewed ${took}`, `The new certificate ${fingerprint.slice(0, 8)}… is good until ${stamp(end)}.`);
  } else {
    const good = body.valid_until ? `The one in use stays, and is good until ${stamp(body.valid_until)}.` : "";
    say("failed", `${body.title}.`, sentence(body.detail), good);
  }
}

function ask(problem) {
  $("ask").hidden = false;
  say(problem ? "failed" : "", problem || "Renewing needs the API token.");
  $("token").value = "";
  $("token").focus();
}

function say(kind, first, ...others) {
  const strong = document.createElement("strong");
  strong.textContent = first;
  $("outcome").className = kind;
  $("outcome").replaceChildren(strong, others.filter(Boolean).map((text) => ` ${text}`).join(""));
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
const stamp = (iso) => {
  const date = { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" };
  return `${new Date(iso).toLocaleString("en-GB", { ...date, timeZone: "UTC" })} UTC`;
};

// --- Copy

document.addEventListener("click", async ({ target }) => {
  if (!(target instanceof HTMLElement) || !target.dataset.copies) return;
  const source = $(target.dataset.copies);
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    // Not on a page from a network address: browsers give the clipboard to secure ones only.
    getSelection().selectAllChildren(source);
    document.execCommand("copy");
  }
  target.textContent = "Copied";
  setTimeout(() => (target.textContent = "Copy"), 2000);
});

document.documentElement.classList.add("js");
timer = setTimeout(turn, EVERY);
