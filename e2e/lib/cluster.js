// A cluster under test: brokers and nodes of one strategy, owned by a `compose chat` process.

import { spawn, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
/** Where the programs are: where `E2E_PROGRAMS` says, or the development build, which `make e2e` brings up to date. */
const PROGRAMS = process.env.E2E_PROGRAMS ?? path.join(ROOT, "target/debug");
const READY_WITHIN_MS = 120_000;
/**
 * What kafka-broadcast allows for the copies of one message to be written. For so long after a node has joined, who comes from
 * it while people talk may be told that something may be missing.
 */
const COPIES_SETTLE_MS = 8_000;
/** A further node only has to start; the brokers are there. */
const NODE_READY_WITHIN_MS = 30_000;
const GONE_WITHIN_MS = 30_000;

export const TARGET = path.join(ROOT, "target/e2e");

/** The strategies under test: all that keep a room whole, or those that the environment names. */
export function strategies() {
  const all = "memory kafka-broadcast kafka-keyed redis-pubsub hybrid";
  return (process.env.E2E_STRATEGIES ?? all).split(/[\s,]+/).filter(Boolean);
}

export function program(name) {
  const file = path.join(PROGRAMS, name);
  if (!existsSync(file)) throw new Error(`${file} is missing: run cargo build --workspace --bins`);
  return file;
}

/**
 * The first of `count` neighbouring ports that are free, below the range that the system hands out by itself.
 */
async function freePorts(count) {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const base = 20_000 + Math.floor(Math.random() * 10_000);
    const servers = [];
    try {
      for (let port = base; port < base + count; port += 1) {
        const server = net.createServer().listen(port, "127.0.0.1");
        servers.push(server);
        await once(server, "listening");
      }
      return base;
    } catch {
      // One of them is taken: try others.
    } finally {
      await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
    }
  }
  throw new Error("found no free ports");
}

/** Starts a program that ends with this one, even if this one is killed, where the system can do that. */
function spawnOwned(command, environment) {
  const pdeathsig = process.platform === "linux" && spawnSync("setpriv", ["--version"]).status === 0;
  const [file, ...args] = pdeathsig ? ["setpriv", "--pdeathsig", "TERM", ...command] : command;
  // The machine that runs the tests may be overloaded: that is no matter of theirs.
  const env = { ...process.env, MANIFOLD_OVERLOAD_MS: "0", ...environment };
  return spawn(file, args, { stdio: ["ignore", "pipe", "pipe"], env });
}

/** Asks a program to end, and insists after a while. Resolves with how it ended. */
async function end(child, exited) {
  child.kill("SIGINT");
  const late = setTimeout(() => child.kill("SIGKILL"), GONE_WITHIN_MS);
  const [code, signal] = await exited;
  clearTimeout(late);
  return code ?? signal;
}

/**
 * Starts `count` nodes of a strategy with their brokers; `options` are settings of the strategy, each `key=value`. They end
 * with `stop()`, and when this process dies.
 */
export async function start(strategy, count, options = []) {
  const port = await freePorts(count);
  const apiKey = randomUUID();
  const command = [
    program("compose"), "chat", strategy, "--nodes", String(count), "--listen-base-port", String(port),
    "--purpose", "tests", "--binary", program("chat-server"), ...options.flatMap((option) => ["--strategy-option", option]),
  ];
  const child = spawnOwned(command, { MANIFOLD_API_KEY: apiKey });
  const exited = once(child, "exit");
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (log = (log + text).slice(-20_000)));
  const { addresses, logs } = await readAddresses(child, exited, () => log);
  const arguments_ = addresses.map((address) => nodeOf(child.pid, address));
  const further = [];
  const settledAt = Date.now() + (strategy === "kafka-broadcast" ? COPIES_SETTLE_MS : 0);
  return {
    strategy,
    /** HTTP addresses of the nodes, in order. */
    addresses,
    /** WebSocket addresses of the nodes, in order. */
    endpoints: addresses.map(endpointOf),
    /** Process ids of the nodes, in order. */
    pids: arguments_.map(({ pid }) => pid),
    apiKey,
    /** Waits until nodes are old enough to answer for each other in every case. */
    settled: () => new Promise((resolve) => setTimeout(resolve, settledAt - Date.now())),
    /** Kills a node as a power cut would. */
    kill(index) {
      process.kill(this.pids[index], "SIGKILL");
    },
    /** Starts one more node on the same brokers: at a free port, or in the place of one that was killed. */
    async add(index) {
      const address = index === undefined ? "127.0.0.1:0" : new URL(addresses[index]).host;
      const node = await startNode(arguments_[0].args, address, `further-${further.length + 1}`, apiKey);
      further.push(node);
      return { address: node.address, endpoint: endpointOf(node.address) };
    },
    /** What the server API answers. */
    async api(address, method, params) {
      const headers = { "x-api-key": apiKey, "content-type": "application/json" };
      const response = await fetch(`${address}/api/${method}`, { method: "POST", headers, body: JSON.stringify(params) });
      if (response.status !== 200) throw new Error(`${method} is answered with ${response.status}: ${await response.text()}`);
      return response.json();
    },
    async stop() {
      keepLogs(path.join(TARGET, "logs", `${strategy}-${port}`), logs, further);
      const ends = await Promise.all(further.map((node) => end(node.child, node.exited)));
      const outcome = await end(child, exited);
      if (outcome !== 0) throw new Error(`compose chat ended with ${outcome}:\n${log}`);
      const failed = further.filter((_, index) => ends[index] !== 0);
      if (failed.length > 0) throw new Error(`a further node ended badly:\n${failed.map((node) => node.log()).join("\n")}`);
    },
  };
}

/** Keeps what nodes and brokers said for who wants to know why a test failed. */
function keepLogs(folder, logs, further) {
  mkdirSync(folder, { recursive: true });
  for (const [name, file] of logs) if (existsSync(file)) cpSync(file, path.join(folder, `${name}.log`));
  for (const { name, log } of further) writeFileSync(path.join(folder, `${name}.log`), log());
}

function endpointOf(address) {
  return `${address.replace("http", "ws")}/connection/websocket`;
}

/** Process id and arguments of the node that `compose` (by its id) started to listen at `address`. */
function nodeOf(compose, address) {
  const listed = spawnSync("ps", ["-A", "-ww", "-o", "pid=,ppid=,args="], { encoding: "utf8" }).stdout.split("\n");
  const rows = listed.map((line) => line.trim().split(/\s+/));
  const listens = `--listen ${new URL(address).host} `;
  const row = rows.find(([, parent, ...args]) => Number(parent) === compose && `${args.join(" ")} `.includes(listens));
  if (!row) throw new Error(`found no process that listens at ${address}`);
  return { pid: Number(row[0]), args: row.slice(3) };
}

/** Starts a node with the arguments of another one, at another address and under another name. */
async function startNode(model, listen, name, apiKey) {
  const args = [...model];
  args[args.indexOf("--listen") + 1] = listen;
  args[args.indexOf("--node") + 1] = name;
  const child = spawnOwned([program("chat-server"), ...args], { MANIFOLD_API_KEY: apiKey });
  const exited = once(child, "exit");
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (log = (log + text).slice(-20_000)));
  const listening = new Promise((resolve) => {
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      output += text;
      const said = /^listening on (http:\S+)\n/m.exec(output);
      if (said) resolve(said[1]);
    });
  });
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, NODE_READY_WITHIN_MS)));
  const address = await Promise.race([listening, late, exited.then(() => undefined)]);
  clearTimeout(timer);
  if (!address) {
    child.kill("SIGKILL");
    throw new Error(`node ${name} does not come to listen:\n${log}`);
  }
  return { name, child, exited, address: address.replace(/\/$/, ""), log: () => log };
}

/**
 * Reads lines like `  n1  http://127.0.0.1:8000/    log: …` up to the last one: addresses of nodes, and everybody's log.
 */
async function readAddresses(child, exited, log) {
  let output = "";
  child.stdout.setEncoding("utf8");
  const ready = new Promise((resolve) => {
    child.stdout.on("data", (text) => {
      output += text;
      if (output.includes("Ctrl-C ends it.")) resolve("ready");
    });
  });
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, READY_WITHIN_MS, "late")));
  const outcome = await Promise.race([ready, late, exited.then(() => "exited")]);
  clearTimeout(timer);
  if (outcome !== "ready") {
    child.kill("SIGTERM");
    throw new Error(`compose chat is ${outcome}:\n${output}\n${log()}`);
  }
  const addresses = [...output.matchAll(/^\s+n\d+\s+(http:\/\/\S+?)\/?\s/gm)].map((match) => match[1]);
  return { addresses, logs: [...output.matchAll(/^\s+(\S+)\s.*\slog: (.+)$/gm)].map((match) => match.slice(1)) };
}
