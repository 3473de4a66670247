// The official Python SDK on every strategy: python/recovery_test.py, which this starts on nodes of its own.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { start, strategies } from "../lib/cluster.js";

const FOLDER = fileURLToPath(new URL("../python/", import.meta.url));
const PYTHON = fileURLToPath(new URL("../.venv/bin/python", import.meta.url));
const WITHIN_MS = 120_000;

/** Runs the cases of a class of the Python test, and fails with all that it said. */
async function run(cluster, name) {
  assert.ok(existsSync(PYTHON), `${path.relative(process.cwd(), PYTHON)} is missing: run make e2e, or see README.md`);
  const nodes = cluster.addresses.map((address, index) => ({
    address, endpoint: cluster.endpoints[index], pid: cluster.pids[index],
  }));
  const settings = JSON.stringify({ strategy: cluster.strategy, api_key: cluster.apiKey, nodes });
  const child = spawn(PYTHON, ["-X", "dev", "-m", "unittest", "--verbose", `recovery_test.${name}`], {
    cwd: FOLDER,
    env: { ...process.env, MANIFOLD_E2E: settings, PYTHONDONTWRITEBYTECODE: "1" },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: WITHIN_MS,
    killSignal: "SIGKILL",
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  const [code, signal] = await once(child, "close");
  assert.equal(code ?? signal, 0, `the Python test says:\n${output}`);
  // Python calls it a success if there was nothing to run.
  assert.match(output, /^Ran [1-9]\d* tests? in /m);
  assert.doesNotMatch(output, /skipped/);
}

for (const strategy of strategies()) {
  test(`Python SDK on ${strategy}`, { timeout: 300_000 }, async (t) => {
    const alone = strategy === "memory";
    const cluster = await start(strategy, alone ? 1 : 3);
    t.after(() => cluster.stop());
    await t.test("comes back elsewhere", () => run(cluster, "ComingBack"));
    if (alone) return;
    await t.test("survives its node", async () => {
      await cluster.settled();
      await run(cluster, "Crash");
    });
  });
}
