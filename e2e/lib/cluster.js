// A cluster under test: brokers and nodes of one strategy, owned by a `compose chat` process.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
/** Where the programs are: in the folder that `E2E_PROGRAMS` names, or the development build, which `make e2e` brings up to date. */
const PROGRAMS = process.env.E2E_PROGRAMS ?? path.join(ROOT, "target/debug");
const READY_WITHIN_MS = 120_000;
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

/**
 * Starts `count` nodes of a strategy with their brokers. They end with `stop()`, and when this process dies.
 */
export async function start(strategy, count) {
  const port = await freePorts(count);
  const command = [
    program("compose"), "chat", strategy, "--nodes", String(count), "--listen-base-port", String(port),
    "--purpose", "tests", "--binary", program("chat-server"),
  ];
  // Where the system can, the cluster hears of our death even if we are killed.
  const pdeathsig = process.platform === "linux" && spawnSync("setpriv", ["--version"]).status === 0;
  if (pdeathsig) command.unshift("setpriv", "--pdeathsig", "TERM");
  const child = spawn(command[0], command.slice(1), { stdio: ["ignore", "pipe", "pipe"] });
  const exited = once(child, "exit");
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (log = (log + text).slice(-20_000)));
  const addresses = await readAddresses(child, exited, () => log);
  return {
    strategy,
    /** HTTP addresses of the nodes, in order. */
    addresses,
    /** WebSocket addresses of the nodes, in order. */
    endpoints: addresses.map((address) => `${address.replace("http", "ws")}/connection/websocket`),
    async stop() {
      child.kill("SIGINT");
      const late = setTimeout(() => child.kill("SIGKILL"), GONE_WITHIN_MS);
      const [code, signal] = await exited;
      clearTimeout(late);
      if (code !== 0) throw new Error(`compose chat ended with ${code ?? signal}:\n${log}`);
    },
  };
}

/** Reads lines like `  n1  http://127.0.0.1:8000/    log: …` up to the last one. */
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
  return [...output.matchAll(/^\s+n\d+\s+(http:\/\/\S+?)\/?\s/gm)].map((match) => match[1]);
}
