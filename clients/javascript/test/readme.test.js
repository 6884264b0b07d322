// The README's examples do what it says, on a real gateway, and its tables name what there is.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";

import * as errors from "../src/errors.js";
import { createTokengate } from "../src/index.js";
import { startSite } from "./site.js";

const BRIEF = 5; // seconds that access tokens live; what is refreshed must outlive three calls at once
const CLIENT = new URL("../src/index.js", import.meta.url).href;
const AXIOS = process.env.TOKENGATE_AXIOS; // the path of axios' module
const readme = await readFile(new URL("../README.md", import.meta.url), "utf8");
const options = (await readFile(new URL("../src/index.d.ts", import.meta.url), "utf8")).match(/export interface Options \{([^]*?)\n\}/)[1];

let site;
let folder;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tokengate-readme-"));
  site = await startSite({ tokens: { access_ttl: `${BRIEF}s`, leeway: "0s" } });
});

after(async () => {
  await site.stop();
  await rm(folder, { recursive: true });
});

/** Run the code under a heading, with the addresses of the test; what it logged. `client` is there as in the README. */
async function run(heading, { client, exported = "" } = {}) {
  const [, code] = readme.split(`\n## ${heading}\n`)[1].match(/```js\n([^]*?)```/);
  const here = code
    .replaceAll("https://api.example.com", site.url)
    .replaceAll("correct horse", site.password)
    .replace('"tokengate"', JSON.stringify(CLIENT))
    .replace('"axios"', JSON.stringify(AXIOS && pathToFileURL(AXIOS).href))
    .replaceAll("console.log(", "logged(");
  const lines = [];
  Object.assign(globalThis, { logged: (...words) => lines.push(words.join(" ")), client });
  const file = join(folder, `${heading.replaceAll(" ", "-")}.mjs`);
  await writeFile(file, `${here}\nexport { ${exported} };\n`);
  return { lines, module: await import(pathToFileURL(file).href) };
}

const expiry = () => new Promise((resolve) => setTimeout(resolve, BRIEF * 1000 + 1000));

async function signedIn(given = {}) {
  const client = createTokengate({ baseUrl: site.url, ...given });
  await client.login({ username: "alice", password: site.password });
  return client;
}

test("the first example signs in and calls", async () => {
  const { lines, module } = await run("Begin", { exported: "client" });
  assert.deepEqual(lines, ["200"]);
  await module.client.logout();
  assert.deepEqual(lines, ["200", "signed out: logout"]);
});

test("the file that keeps a session is its owner's alone, and the next start goes on", async () => {
  const home = process.env.HOME;
  process.env.HOME = folder;
  try {
    const { lines, module } = await run("Where the refresh token is kept", { exported: "client, storage" });
    assert.deepEqual(lines, ["nightly export"]);
    assert.equal((await stat(join(folder, ".shop-session"))).mode & 0o777, 0o600);
    const next = createTokengate({ baseUrl: site.url, storage: module.storage });
    assert.equal(await next.restore(), true);
    await next.logout();
    assert.equal(existsSync(join(folder, ".shop-session")), false);
  } finally {
    process.env.HOME = home;
  }
});

test("axios with the interceptors notices no expiry, and takes no token elsewhere", { skip: !AXIOS && "needs axios" }, async () => {
  const told = [];
  const client = await signedIn({ refreshAhead: false, onSignedOut: ({ reason }) => told.push(reason) });
  const { module } = await run("axios", { client, exported: "api" });
  const { api } = module;
  assert.equal((await api.get("/api/x")).data.user, "u-alice");
  await expiry();
  const before = await site.metric("tokengate_refreshes_total", { outcome: "rotated" });
  const answers = await Promise.all([api.post("/api/x", { order: 1 }), api.get("/api/y"), api.get("/api/z")]);
  assert.deepEqual(answers.map(({ status }) => status), [200, 200, 200]);
  assert.equal(answers[0].data.body, '{"order":1}');
  assert.equal((await site.metric("tokengate_refreshes_total", { outcome: "rotated" })) - before, 1);
  const { config } = await api.get(`${site.management}/livez`);
  assert.equal(config.headers.has("Authorization"), false);
  await site.revoke(client.sessionId);
  await assert.rejects(api.get("/api/x"), ({ response }) => response.status === 401);
  assert.deepEqual(told, ["session_ended"]);
});

test("axios over the client's fetch notices no expiry", { skip: !AXIOS && "needs axios" }, async () => {
  const { default: axios } = await import(pathToFileURL(AXIOS).href);
  const client = await signedIn({ refreshAhead: false });
  const [, code] = readme.match(/With `(axios\.create\([^`]*)`/);
  const api = new Function("axios", "client", `return ${code}`)(axios, client);
  await expiry();
  const answer = await api.post(`${site.url}/api/x`, { order: 1 });
  assert.equal(answer.data.body, '{"order":1}');
});

test("every option is told", () => {
  const names = [...options.matchAll(/^ {2}(\w+)\?:/gm)].map(([, name]) => name);
  assert.ok(names.length > 10);
  const told = readme.split("\n## Options\n")[1].split("\n## ")[0];
  for (const name of names) assert.match(told, new RegExp(`^\\|[^|]*\`${name}\``, "m"));
});

test("every error is told with its code and its text", () => {
  const told = readme.split("\n## When something goes wrong\n")[1];
  for (const [name, Kind] of Object.entries(errors)) {
    if (name === "TokengateError" || name === "Refused") continue;
    const error = name === "TooManyAttempts" ? new Kind(40) : new Kind();
    assert.ok(told.includes(`| \`${name}\` | \`${error.code}\` | ${error.message} |`), name);
  }
});
