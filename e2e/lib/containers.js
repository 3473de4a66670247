// Checks the container files without a container engine: they parse, images are pinned, every broker has a healthcheck,
// whoever needs a service waits for its health, and no port is open to the network.

import { existsSync, readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { parseDocument } from "yaml";

const folder = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../compose/containers");

/** What is wrong with one file. */
function problems(file) {
  const document = parseDocument(readFileSync(file, "utf8"), { merge: true, strict: true, uniqueKeys: true });
  if (document.errors.length > 0) return document.errors.map(String);
  const { services, ...rest } = document.toJS();
  const found = [];
  if ("version" in rest) found.push("`version` is obsolete");
  for (const [name, service] of Object.entries(services ?? {})) {
    const say = (text) => found.push(`service ${name}: ${text}`);
    if (!service.image === !service.build) say("needs either an image or a build");
    if (service.image && !service.build && !/(:[^:/@]*\d[^:/@]*|@sha256:[0-9a-f]{64})$/.test(service.image)) {
      say(`image ${service.image} is not pinned`);
    }
    const needed = Array.isArray(service.depends_on)
      ? service.depends_on.map((other) => [other, {}])
      : Object.entries(service.depends_on ?? {});
    for (const [other, how] of needed) {
      const target = services[other];
      if (!target) say(`depends on ${other}, which is not there`);
      else if (how.condition === "service_healthy" && !target.healthcheck) say(`waits for ${other}, which has no healthcheck`);
      else if (!["service_healthy", "service_completed_successfully"].includes(how.condition)) say(`does not wait for ${other}`);
    }
    for (const port of service.ports ?? []) {
      const local = typeof port === "object" ? port.host_ip === "127.0.0.1" : String(port).startsWith("127.0.0.1:");
      if (!local) say(`port ${JSON.stringify(port)} is open to the network`);
    }
  }
  return services ? found : [...found, "has no services"];
}

const files = existsSync(folder) ? readdirSync(folder).filter((name) => /\.ya?ml$/.test(name)) : [];
let failed = 0;
for (const name of files) {
  for (const problem of problems(path.join(folder, name))) {
    failed += 1;
    console.error(`compose/containers/${name}: ${problem}`);
  }
}
console.log(`${files.length} container files, ${failed} problems`);
process.exitCode = failed > 0 || files.length === 0 ? 1 : 0;
