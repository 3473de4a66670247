// Two browsers on different nodes chat on the page.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";

import { chromium } from "playwright-core";

import { TARGET, start } from "../lib/cluster.js";
import { proxy } from "../lib/proxy.js";

const STRATEGY = process.env.E2E_PAGE_STRATEGY ?? "redis-pubsub";
// As `.ci/need chromium` looks for it.
const NAMES = ["chromium", "chromium-browser", "google-chrome"];
const FOLDERS = (process.env.PATH ?? "").split(path.delimiter).filter(Boolean);
const CANDIDATES = [
  process.env.CHROMIUM, ...NAMES.flatMap((name) => FOLDERS.map((folder) => path.join(folder, name))),
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium",
];
const browser = CANDIDATES.find((candidate) => candidate && existsSync(candidate));
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const MARKUP = '<img src=x onerror="document.title=\'owned\'"><b>bold</b>';

/** Waits until no process of the profile is left: a browser's helpers end a moment after it. */
async function gone(profile) {
  const mentions = (id) => readFile(`/proc/${id}/cmdline`, "utf8").then((text) => text.includes(profile), () => false);
  const deadline = Date.now() + 10_000;
  while (process.platform === "linux") {
    const ids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
    if (!(await Promise.all(ids.map(mentions))).includes(true)) return;
    assert.ok(Date.now() < deadline, "the browser has left processes behind");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A browser of its own, with a fresh profile, that notes all that goes wrong in it. */
async function open(t, { width, height, colorScheme }) {
  const profile = await mkdtemp(path.join(os.tmpdir(), "manifold-e2e-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: browser, args: FLAGS, headless: true, chromiumSandbox: false, viewport: { width, height }, colorScheme,
  });
  t.after(async () => {
    await context.close();
    await gone(profile);
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  });
  context.setDefaultTimeout(20_000);
  const page = context.pages()[0] ?? (await context.newPage());
  const problems = [];
  const hosts = new Set();
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    // A connection that the test cuts is reported by the browser itself.
    const cut = /WebSocket connection|ERR_CONNECTION|ERR_EMPTY_RESPONSE/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !cut) problems.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith("data:")) hosts.add(new URL(request.url()).host);
  });
  page.on("websocket", (socket) => hosts.add(new URL(socket.url()).host));
  return { page, problems, hosts };
}

const online = (page) => page.waitForSelector('#status[data-state="online"]');
const say = async (page, text) => {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
};
const shown = (page, text) => page.locator(".message .bubble > :first-child", { hasText: text }).first().waitFor();
const overflow = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

test("two browsers on different nodes chat", {
  timeout: 240_000,
  skip: browser ? false : "NO BROWSER: install chromium (apt-get install chromium) or set CHROMIUM to its path",
}, async (t) => {
  const cluster = await start(STRATEGY, 2);
  t.after(() => cluster.stop());
  const wire = await proxy(cluster.addresses[1]);
  t.after(() => wire.close());
  await mkdir(TARGET, { recursive: true });
  const shoot = (page, name) => page.screenshot({ path: path.join(TARGET, `${name}.png`) });

  const wide = await open(t, { width: 1200, height: 760, colorScheme: "light" });
  const phone = await open(t, { width: 320, height: 640, colorScheme: "dark" });
  const [ada, grace] = [wide.page, phone.page];

  await ada.goto(`${cluster.addresses[0]}/`);
  await shoot(ada, "door-wide");
  await ada.getByRole("button", { name: "Join the room" }).click();
  await ada.getByText("Please pick a name.").waitFor();
  await ada.getByRole("textbox", { name: "Your name" }).fill("Ada");
  await ada.getByRole("textbox", { name: "Room" }).fill("lobby");
  await ada.getByRole("textbox", { name: "Room" }).press("Enter");
  await grace.goto(`${wire.address}/?room=lobby`);
  await grace.getByRole("textbox", { name: "Your name" }).fill("Grace");
  await shoot(grace, "door-phone");
  await grace.getByRole("button", { name: "Join the room" }).click();
  await Promise.all([online(ada), online(grace)]);

  await say(ada, "Hello from the first node");
  await shown(grace, "Hello from the first node");
  await say(grace, "And hello from the second one 👋");
  await shown(ada, "And hello from the second one 👋");
  await say(grace, MARKUP);
  await shown(ada, MARKUP);
  assert.equal(await ada.locator(".message b:text('bold'), .message img").count(), 0, "markup stays text");
  await say(ada, "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft, in two\nlines");
  await shown(grace, "Donaudampf");
  assert.deepEqual([await overflow(ada), await overflow(grace)], [0, 0], "nothing sticks out sideways");

  await ada.waitForFunction(() => /^\d/.test(document.getElementById("latency-last").textContent));
  assert.match(await ada.locator(".message.own .meta").first().textContent(), /^[\d.]+ ms$/);
  const nodes = await Promise.all([ada, grace].map((page) => page.locator("#info-node").textContent()));
  assert.deepEqual(nodes, ["n1", "n2"]);
  assert.equal(await ada.locator("#info-strategy").textContent(), STRATEGY);
  await shoot(ada, "chat-wide");
  await shoot(grace, "chat-phone");
  await grace.locator("#facts summary").click();
  await shoot(grace, "facts-phone");
  await grace.locator("#facts summary").click();

  // The link breaks: the page comes back by itself, says so, and goes on.
  wire.cut();
  await grace.getByText("Connected again.").waitFor();
  await online(grace);
  await say(ada, "Are you back?");
  await shown(grace, "Are you back?");
  await say(grace, "I am");
  await shown(ada, "I am");

  // A reload goes straight back into the room.
  await grace.reload();
  await online(grace);
  assert.equal(await grace.locator("#room-title").textContent(), "lobby");
  await say(grace, "Still me");
  assert.equal(await ada.locator(".message", { hasText: "Still me" }).locator("b").textContent(), "Grace");

  await ada.emulateMedia({ colorScheme: "dark" });
  await shoot(ada, "chat-wide-dark");
  await grace.emulateMedia({ colorScheme: "light" });
  await shoot(grace, "chat-phone-light");
  await ada.getByRole("button", { name: "Leave" }).click();
  await ada.getByRole("heading", { name: "Pick a name and a room" }).waitFor();

  assert.deepEqual([...wide.problems, ...phone.problems], []);
  assert.deepEqual([...wide.hosts], [new URL(cluster.addresses[0]).host], "no request leaves the node");
  assert.deepEqual([...phone.hosts], [new URL(wire.address).host], "no request leaves the node");
});
