// The chat page: one room, over the official SDK. Nothing here builds markup from text: what people write goes through
// textContent alone.

/* global Centrifuge */
const MESSAGES_MAX = 500;
const LATENCIES_MAX = 40;
const FOLLOW_MS = 120_000;
const SEEN_MAX = 5000;
const PENDING_MS = 120;

const at = (id) => document.getElementById(id);
const now = () => performance.timeOrigin + performance.now();
const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const milliseconds = (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0));

/** The connection, the subscription and who we are while in a room; null at the door. */
let session = null;
/** Ids of messages on screen, in order of arrival, so that a retried message shows once. */
let seen = new Map();
/** Our messages that the room has not echoed yet, by id. */
let outstanding = new Map();
let latencies = [];
let received = 0;
let last = null;

// ---- The door ----------------------------------------------------------------------------------------------------

const storage = {
  get: (key) => { try { return localStorage.getItem(key) ?? ""; } catch { return ""; } },
  set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* private browsing: nothing is kept */ } },
};

function problemWith(name, room) {
  if (!name) return ["name", "Please pick a name."];
  if (!room) return ["room", "Please pick a room."];
  if (!/^[\x21-\x7e]+$/.test(room)) return ["room", "A room's name has letters, digits and signs of the ASCII set, and no spaces."];
  return null;
}

function openDoor() {
  const query = new URLSearchParams(location.search);
  at("name").value = query.get("name") ?? storage.get("manifold.name");
  at("room").value = query.get("room") ?? (storage.get("manifold.room") || "lobby");
  document.body.dataset.view = "door";
  document.title = "Manifold";
  setStatus("offline", "Not connected");
  at(at("name").value ? "room" : "name").focus();
}

at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("name").value.trim();
  const room = at("room").value.trim();
  const problem = problemWith(name, room);
  for (const field of ["name", "room"]) at(field).setAttribute("aria-invalid", String(problem?.[0] === field));
  at("door-error").textContent = problem?.[1] ?? "";
  if (problem) {
    at(problem[0]).focus();
    return;
  }
  storage.set("manifold.name", name);
  storage.set("manifold.room", room);
  history.pushState(null, "", `?${new URLSearchParams({ room })}`);
  enter(name, room);
});

at("leave").addEventListener("click", () => {
  history.pushState(null, "", location.pathname);
  leave();
  openDoor();
});

addEventListener("popstate", () => {
  leave();
  start();
});

/** With a name and a room known, a reload goes straight back in. */
function start() {
  const query = new URLSearchParams(location.search);
  const name = (query.get("name") ?? storage.get("manifold.name")).trim();
  const room = (query.get("room") ?? "").trim();
  if (room && !problemWith(name, room)) enter(name, room);
  else openDoor();
}

// ---- The room ----------------------------------------------------------------------------------------------------

function enter(name, room) {
  document.body.dataset.view = "room";
  document.title = `#${room} · Manifold`;
  at("room-title").textContent = room;
  at("facts").open = matchMedia("(min-width: 861px)").matches;
  at("messages").replaceChildren();
  at("empty").hidden = false;
  [seen, outstanding, latencies, received, last] = [new Map(), new Map(), [], 0, null];
  showLatency();

  const endpoint = new URL("connection/websocket", location.href);
  endpoint.protocol = endpoint.protocol.replace("http", "ws");
  endpoint.search = "";
  const client = new Centrifuge(endpoint.href, { name: "manifold-page" });
  const subscription = client.newSubscription(room, { positioned: true });
  session = { name, room, client, subscription, me: "", interrupted: false };

  client.on("connecting", (context) => {
    const again = context.code !== 0;
    setStatus("waiting", again ? "Reconnecting…" : "Connecting…");
    session.interrupted ||= again;
  });
  client.on("connected", (context) => {
    session.me = context.client;
    askWhoServes();
  });
  client.on("disconnected", (context) => {
    if (context.code !== 0) setStatus("refused", `Closed: ${context.reason} (${context.code})`);
  });
  subscription.on("subscribing", (context) => {
    // 2500: the node knows that messages of this room were lost on their way to it.
    if (context.code === 2500) notice("Some messages were lost on the way and are not shown.", "loss");
  });
  subscription.on("subscribed", () => {
    setStatus("online", "Connected");
    if (session.interrupted) notice("Connected again. What was said in between is not shown.");
    session.interrupted = false;
  });
  subscription.on("unsubscribed", (context) => {
    if (context.code !== 0) setStatus("refused", `Not in the room: ${context.reason} (${context.code})`);
  });
  subscription.on("publication", receive);
  subscription.subscribe();
  client.connect();
  at("text").focus();
}

function leave() {
  session?.client.removeAllListeners();
  session?.subscription.removeAllListeners();
  session?.client.disconnect();
  session = null;
}

function setStatus(state, text) {
  at("status").dataset.state = state;
  at("status-text").textContent = text;
}

// ---- Messages ----------------------------------------------------------------------------------------------------

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!text || !session) return;
  at("text").value = "";
  fit();
  send({ id: newId(), name: session.name, text });
});

at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("composer").requestSubmit();
  }
});
at("text").addEventListener("input", fit);

/** The text field grows with its content. */
function fit() {
  const field = at("text");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

/** crypto.randomUUID is missing where the page came over plain HTTP from another machine. */
function newId() {
  const words = crypto.getRandomValues(new Uint32Array(4));
  return Array.from(words, (word) => word.toString(16).padStart(8, "0")).join("");
}

async function send(message) {
  message.sent_at = now();
  outstanding.set(message.id, message);
  const published = session.subscription.publish(message);
  // Most echoes come before anybody could see a message wait, so it is shown as waiting only after a moment.
  const waiting = setTimeout(() => outstanding.has(message.id) && mark(message, "pending", "sending"), PENDING_MS);
  try {
    await published;
  } catch (error) {
    // It may have arrived all the same: then its echo has settled it.
    if (!outstanding.delete(message.id)) return;
    const shown = mark(message, "failed", `not sent: ${error.message ?? "connection lost"}`);
    const retry = element("button", "retry", "Try again");
    retry.type = "button";
    retry.addEventListener("click", () => send(message));
    shown.bubble.append(retry);
  } finally {
    clearTimeout(waiting);
  }
}

/** Shows one of our messages in the given state: "pending", "failed" or "" once the room has it. */
function mark(message, state, text) {
  const shown = seen.get(message.id) ?? show(message, true);
  shown.item.classList.remove("pending", "failed");
  if (state) shown.item.classList.add(state);
  shown.item.querySelector(".retry")?.remove();
  shown.meta.textContent = text;
  return shown;
}

function receive(context) {
  received += 1;
  const arrived = now();
  const message = understood(context.data) ?? { id: newId(), name: "Somebody", raw: JSON.stringify(context.data) };
  const delay = arrived - message.sent_at;
  const text = delay >= 0 && delay < 600_000 ? `${milliseconds(delay)} ms` : "";
  if (outstanding.delete(message.id)) {
    mark(message, "", text).meta.title = "From this page to the room and back";
    latencies.push(delay);
    if (latencies.length > LATENCIES_MAX) latencies.shift();
    showLatency();
    return;
  }
  at("count").textContent = received;
  const failed = seen.get(message.id)?.item.classList.contains("failed");
  if (failed) mark(message, "", text);
  if (seen.has(message.id)) return;
  const shown = show(message, context.info?.client === session.me);
  shown.meta.textContent = text;
  shown.meta.title = "From the sender's clock to yours";
}

/** A message of this page's shape, or null: a room may carry anything. */
function understood(data) {
  const fits = data && typeof data.text === "string" && typeof data.name === "string" && typeof data.id === "string";
  return fits ? { ...data, name: data.name.slice(0, 32), sent_at: Number(data.sent_at) || NaN } : null;
}

function show(message, own) {
  const item = element("li", own ? "message own" : "message");
  const hue = [...message.name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  item.style.setProperty("--hue", hue);
  const follows = last && last.name === message.name && last.own === own && now() - last.at < FOLLOW_MS;
  item.classList.toggle("follows", Boolean(follows));
  last = { name: message.name, own, at: now() };

  const avatar = element("span", "avatar", [...message.name][0]?.toUpperCase() ?? "?");
  avatar.setAttribute("aria-hidden", "true");
  const head = element("p", "head");
  const time = element("time", "", new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  head.append(element("b", "", own ? "You" : message.name), time);
  const bubble = element("p", "bubble");
  bubble.append(element(message.raw === undefined ? "span" : "code", "", message.raw ?? message.text));
  const meta = element("span", "meta");
  bubble.append(meta);
  item.append(avatar, head, bubble);
  place(item);

  const shown = { item, bubble, meta };
  seen.set(message.id, shown);
  if (seen.size > SEEN_MAX) seen.delete(seen.keys().next().value);
  return shown;
}

function notice(text, kind = "") {
  last = null;
  place(element("li", `notice ${kind}`, text));
}

/** Adds to the end, keeps the list bounded, and scrolls along unless the reader has scrolled up. */
function place(item) {
  const stream = at("stream");
  const following = stream.scrollHeight - stream.scrollTop - stream.clientHeight < 80;
  at("empty").hidden = true;
  at("messages").append(item);
  while (at("messages").childElementCount > MESSAGES_MAX) at("messages").firstElementChild.remove();
  if (following || item.classList.contains("own")) stream.scrollTop = stream.scrollHeight;
  else at("jump").hidden = false;
}

at("stream").addEventListener("scroll", () => {
  const stream = at("stream");
  if (stream.scrollHeight - stream.scrollTop - stream.clientHeight < 80) at("jump").hidden = true;
});
at("jump").addEventListener("click", () => {
  at("stream").scrollTop = at("stream").scrollHeight;
  at("text").focus();
});
// A keyboard that slides in, or a field that grows, must not hide the last message.
new ResizeObserver(() => {
  if (at("jump").hidden) at("stream").scrollTop = at("stream").scrollHeight;
}).observe(at("stream"));

// ---- Facts -------------------------------------------------------------------------------------------------------

function showLatency() {
  const sorted = [...latencies].sort((a, b) => a - b);
  const newest = latencies.at(-1);
  const text = (value) => (value === undefined ? "–" : milliseconds(value));
  at("latency-last").textContent = text(newest);
  at("fact-latency-short").textContent = `${text(newest)} ms`;
  at("latency-median").textContent = newest === undefined ? "–" : `${text(sorted[(sorted.length - 1) >> 1])} ms`;
  at("latency-max").textContent = newest === undefined ? "–" : `${text(sorted.at(-1))} ms`;
  at("count").textContent = received;
  const top = sorted.at(-1) ?? 1;
  const bars = Array.from({ length: LATENCIES_MAX }, (_, index) => {
    const value = latencies[index - (LATENCIES_MAX - latencies.length)];
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = value === undefined ? 2 : Math.max(3, (value / top) * 40);
    const geometry = { x: index * 5, y: 40 - height, width: 3.5, height, rx: 1 };
    for (const [name, number] of Object.entries(geometry)) bar.setAttribute(name, number);
    if (value === undefined) bar.setAttribute("class", "none");
    return bar;
  });
  at("spark").replaceChildren(...bars);
}

/** Behind a load balancer each connection may land on another node, so it asks at each. */
async function askWhoServes() {
  try {
    const response = await fetch("info", { headers: { accept: "application/json" } });
    if (response.ok) showInfo(await response.json());
  } catch { /* The chat works without; the fields keep what they had. */ }
}

const words = (value) => (typeof value === "boolean" ? (value ? "yes" : "no") : String(value).replaceAll("-", " "));

function showInfo(info) {
  for (const id of ["info-node", "fact-node"]) at(id).textContent = info.node ?? "–";
  for (const id of ["info-strategy", "fact-strategy-short"]) at(id).textContent = info.strategy ?? "–";
  at("info-summary").textContent = info.summary ?? "";
  at("info-warning").hidden = !info.counter_example;
  at("info-version").textContent = [info.version && `Manifold ${info.version}`, info.commit].filter(Boolean).join(" · ");
  const rows = Object.entries(info.guarantees ?? {}).map(([name, value]) => {
    const row = element("div");
    const label = words(name.replaceAll("_", "-"));
    row.append(element("dt", "", label[0].toUpperCase() + label.slice(1)), element("dd", "", words(value)));
    return row;
  });
  at("guarantees").replaceChildren(...rows);
  at("promises").hidden = rows.length === 0;
}

start();
