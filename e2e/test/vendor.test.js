// The SDK that the page ships is the published one, byte by byte.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { test } from "node:test";

const vendor = new URL("../../server/web/vendor/", import.meta.url);
const installed = new URL("../", `file://${createRequire(import.meta.url).resolve("centrifuge")}`);

test("the vendored SDK has its sum, and is the package's", async () => {
  const bytes = await readFile(new URL("centrifuge.js", vendor));
  const sum = createHash("sha256").update(bytes).digest("hex");
  assert.equal(await readFile(new URL("centrifuge.js.sha256", vendor), "utf8"), `${sum}  centrifuge.js\n`);
  assert.ok(bytes.equals(await readFile(new URL("dist/centrifuge.js", installed))));
  const licence = await readFile(new URL("centrifuge.LICENSE.txt", vendor), "utf8");
  assert.equal(licence, await readFile(new URL("LICENSE", installed), "utf8"));
});
