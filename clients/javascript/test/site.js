// A real gateway for a test file: `const site = await startSite({tokens: {access_ttl: "2s"}})`, `await site.stop()`.

import { spawn } from "node:child_process";
import { setDefaultAutoSelectFamilyAttemptTimeout } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

// "localhost" has two addresses, and Node gives up each after 250 ms: a busy machine takes longer.
setDefaultAutoSelectFamilyAttemptTimeout(20_000);

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const PYTHON = process.env.TOKENGATE_PYTHON ?? "python3";

export async function startSite(sections = {}) {
  const words = ["-m", "tests.clients.site", JSON.stringify(sections)];
  const child = spawn(PYTHON, words, { cwd: ROOT, stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ended = new Promise((resolve) => child.on("exit", resolve));
  const read = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error("the gateway of the test ended");
    return JSON.parse(value);
  };
  const where = await read();
  return {
    ...where,
    async tell(command) {
      child.stdin.write(`${JSON.stringify(command)}\n`);
      return read();
    },
    /** The sum of a metric's samples that have these labels. */
    async metric(name, labels = {}) {
      const text = await (await fetch(`${where.management}/metrics`)).text();
      let sum = 0;
      for (const line of text.split("\n")) {
        if (!line.startsWith(`${name}{`) && !line.startsWith(`${name} `)) continue;
        if (Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`))) {
          sum += Number(line.slice(line.lastIndexOf(" ")));
        }
      }
      return sum;
    },
    /** End a session as an operator does. */
    async revoke(sessionId) {
      const headers = { Authorization: `Bearer ${where.adminToken}` };
      const answer = await fetch(`${where.management}/admin/sessions/${sessionId}`, { method: "DELETE", headers });
      if (!answer.ok) throw new Error(`revoke: ${answer.status}`);
    },
    async stop() {
      child.stdin.end();
      const status = await ended;
      if (status !== 0) throw new Error(`the gateway of the test ended with ${status}`);
    },
  };
}

/** A `fetch` with the cookies of one browser, which Node's has not. */
export function withCookies(jar = new Map()) {
  return async (input, init = {}) => {
    const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined));
    const url = new URL(input instanceof Request ? input.url : input);
    const sent = [...jar.values()].filter(({ path }) => url.pathname.startsWith(path));
    if (sent.length && init.credentials === "include") {
      headers.set("Cookie", sent.map(({ name, value }) => `${name}=${value}`).join("; "));
    }
    const response = await fetch(input, { ...init, headers });
    for (const line of response.headers.getSetCookie()) keep(jar, line);
    return response;
  };
}

function keep(jar, line) {
  const [pair, ...attributes] = line.split(/;\s*/);
  const [name, value] = [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)];
  const said = Object.fromEntries(attributes.map((each) => each.split("=")).map(([key, text]) => [key.toLowerCase(), text ?? ""]));
  if (said["max-age"] === "0") jar.delete(name);
  else jar.set(name, { name, value, path: said.path ?? "/" });
}
