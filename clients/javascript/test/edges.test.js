// What happens at the edges: storage that fails, answers that come too late or from elsewhere, callers that give up.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { NotSignedIn, SignedOut, StorageFailed, TooManyAttempts, Unavailable, createTokengate } from "../src/index.js";
import { startSite, withCookies } from "./site.js";

let site;
const clients = [];

before(async () => {
  site = await startSite({ tokens: { max_sessions_per_user: 0 } });
});

after(async () => {
  for (const client of clients) client.close();
  await site.stop();
});

function make(options = {}) {
  const client = createTokengate({ baseUrl: site.url, ...options });
  clients.push(client);
  return client;
}

async function signedIn(options = {}, username = "alice") {
  const client = make(options);
  await client.login({ username, password: site.password });
  return client;
}

/** A storage that keeps, and fails where it is told to. */
function storage() {
  const made = {
    failing: new Set(),
    kept: undefined,
    get() {
      made.check("get");
      return made.kept;
    },
    set(value) {
      made.check("set");
      made.kept = value;
    },
    remove() {
      made.check("remove");
      made.kept = undefined;
    },
    check(name) {
      if (made.failing.has(name)) throw new DOMException("The operation is insecure.", "SecurityError");
    },
  };
  return made;
}

/** A `fetch` whose answers to refreshes wait until they are let go. */
function held() {
  let arrived;
  let letGo;
  const gate = { holding: false, answered: new Promise((resolve) => (arrived = resolve)), letGo: () => letGo() };
  const open = new Promise((resolve) => (letGo = resolve));
  gate.fetch = async (input, init) => {
    const answer = await fetch(input, init);
    if (gate.holding && String(input).endsWith("/auth/token")) {
      arrived();
      await open;
    }
    return answer;
  };
  return gate;
}

/** A `fetch` that gives `made(input, init)` where that is something. */
const instead = (made) => async (input, init) => (await made(new URL(input instanceof Request ? input.url : input), init)) ?? fetch(input, init);

/** Another server: answers with `status` and `headers`, and counts. */
async function elsewhere(status, headers = {}) {
  const server = createServer((request, response) => {
    made.requests.push(request);
    request.resume();
    response.writeHead(status, headers).end("{}");
  });
  const made = { requests: [], stop: () => new Promise((resolve) => server.close(resolve)) };
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  made.url = `http://127.0.0.1:${server.address().port}`;
  return made;
}

const user = async (client) => (await (await client.fetch("/api/who")).json()).user;

test("a sign-in that comes while a refresh is under way is the one that stands", async () => {
  const gate = held();
  const out = [];
  const client = await signedIn({ fetch: gate.fetch, onSignedOut: () => out.push("out") });
  gate.holding = true;
  const refreshed = client.refresh();
  await gate.answered;
  const login = client.login({ username: "carol", password: site.password });
  await Promise.race([login, new Promise((resolve) => setTimeout(resolve, 500))]); // time to overtake the refresh
  gate.letGo();
  await Promise.all([refreshed, login]);
  assert.equal(await user(client), "u-carol");
  await client.refresh();
  assert.equal(await user(client), "u-carol");
  assert.deepEqual(out, []);
});

test("a sign-out that comes while a refresh is under way holds", async () => {
  const gate = held();
  const out = [];
  const kept = storage();
  const client = await signedIn({ fetch: gate.fetch, storage: kept, onSignedOut: ({ reason }) => out.push(reason) });
  gate.holding = true;
  const refreshed = client.refresh();
  await gate.answered;
  await client.logout();
  gate.letGo();
  await assert.rejects(refreshed, SignedOut);
  assert.equal(client.signedIn, false);
  assert.equal(kept.kept, undefined);
  assert.deepEqual(out, ["logout"]);
});

test("of two sign-ins the second stands, and the first one's end is not its own", async () => {
  const out = [];
  const client = await signedIn({ onSignedOut: () => out.push("out") });
  const first = client.sessionId;
  await client.login({ username: "carol", password: site.password });
  await site.revoke(first);
  assert.equal(await user(client), "u-carol");
  assert.deepEqual(out, []);
});

test("a sign-in that cannot be kept is an error with a text, and leaves no session behind", async () => {
  const kept = storage();
  kept.failing.add("set");
  const out = [];
  let ended = 0;
  const counting = instead((url) => void (ended += url.pathname === "/auth/logout"));
  const client = make({ storage: kept, fetch: counting, onSignedOut: () => out.push("out") });
  const login = client.login({ username: "alice", password: site.password });
  await assert.rejects(login, (error) => error instanceof StorageFailed && error.cause.name === "SecurityError");
  assert.equal(client.signedIn, false);
  assert.equal(ended, 1);
  assert.deepEqual(out, []);
});

test("a storage that fails later costs no request, and the application is told", async () => {
  const kept = storage();
  const told = [];
  const client = await signedIn({ storage: kept, onRefreshed: ({ kept }) => told.push(kept) });
  kept.failing.add("set");
  await client.refresh();
  await client.refresh();
  assert.equal(await user(client), "u-alice");
  kept.failing.add("get").add("remove");
  await client.refresh();
  assert.equal(await user(client), "u-alice");
  assert.deepEqual(told, [false, false, false]);
});

test("a storage that cannot be read is a page without a session", async () => {
  const kept = storage();
  kept.failing.add("get");
  assert.equal(await make({ storage: kept }).restore(), false);
});

test("a storage that cannot be emptied does not keep anybody signed in", async () => {
  const kept = storage();
  const out = [];
  const client = await signedIn({ storage: kept, onSignedOut: ({ reason }) => out.push(reason) });
  kept.failing.add("remove");
  await client.logout();
  assert.equal(client.signedIn, false);
  assert.deepEqual(out, ["logout"]);
  assert.equal(await make({ storage: kept }).restore(), false, "what was left is worth nothing");
});

test("clients that share a storage go on from each other's refresh", async () => {
  const kept = storage();
  const one = await signedIn({ storage: kept });
  const other = make({ storage: kept });
  assert.equal(await other.restore(), true);
  for (let round = 0; round < 3; round += 1) {
    await one.refresh();
    await one.fetch("/api/used");
    await one.refresh();
    await one.fetch("/api/used");
    await other.refresh();
    assert.equal(await user(other), "u-alice");
  }
});

test("a session's end takes nothing away that another sign-in has put into the storage", async () => {
  const kept = storage();
  const one = await signedIn({ storage: kept });
  const other = make({ storage: kept });
  await other.login({ username: "carol", password: site.password });
  await site.revoke(one.sessionId);
  assert.equal((await one.fetch("/api/x")).status, 401);
  assert.equal(await user(make({ storage: kept })), "u-carol");
});

test("a sign-out on a page that has done nothing yet ends the session that is kept", async () => {
  const kept = storage();
  const first = await signedIn({ storage: kept });
  await make({ storage: kept }).logout();
  assert.equal(kept.kept, undefined);
  assert.equal((await first.fetch("/api/x")).status, 401);
});

test("an answer that is not the gateway's, or breaks off, is asked for again", async () => {
  const wrong = [() => new Response("<h1>Welcome to our hotel</h1>"), () => new Response(broken()), () => new Response("{}")];
  const client = await signedIn({
    sleep: async () => {},
    fetch: instead((url) => (url.pathname === "/auth/token" ? wrong.shift()?.() : undefined)),
  });
  await client.refresh();
  assert.equal(wrong.length, 0);
  assert.equal(await user(client), "u-alice");
});

function broken() {
  return new ReadableStream({
    start(controller) {
      controller.enqueue(new TextEncoder().encode('{"access_token":"'));
      controller.error(new TypeError("terminated"));
    },
  });
}

test("a refresh token does not follow a redirect", async () => {
  const thief = await elsewhere(200);
  const portal = await elsewhere(307, { Location: `${thief.url}/auth/token` });
  try {
    const kept = storage();
    kept.kept = "rt1.secret";
    const client = make({ baseUrl: portal.url, storage: kept, patience: 0.5, sleep: async () => {} });
    await assert.rejects(client.restore(), Unavailable);
    assert.ok(portal.requests.length > 0);
    assert.equal(thief.requests.length, 0);
    assert.equal(kept.kept, "rt1.secret");
  } finally {
    await Promise.all([portal.stop(), thief.stop()]);
  }
});

for (const code of ["expired_token", "revoked_token"]) {
  test(`another server's ${code} neither repeats a request nor signs out`, async () => {
    const other = await elsewhere(401, { "X-Gateway-Error": code });
    let sent = 0;
    const astray = instead((url, init) => {
      if (url.pathname !== "/api/astray") return undefined;
      sent += 1;
      return fetch(other.url, { method: init.method, body: init.body });
    });
    try {
      const client = await signedIn({ fetch: astray });
      assert.equal((await client.fetch("/api/astray", { method: "POST", body: "order" })).status, 401);
      assert.equal(sent, 1);
      assert.equal(client.signedIn, true);
    } finally {
      await other.stop();
    }
  });
}

test("a proxy's own 401, without the gateway's word, is passed on", async () => {
  const client = await signedIn({ fetch: instead((url) => (url.pathname === "/api/x" ? new Response("no", { status: 401 }) : undefined)) });
  assert.equal((await client.fetch("/api/x")).status, 401);
  assert.equal(client.signedIn, true);
});

test("a proxy's refusal of a refresh does not sign out, and a token that is still good goes on", async () => {
  let pushed = 0;
  const now = () => ({ steady: performance.now() / 1000 + pushed, wall: Date.now() / 1000 });
  const client = await signedIn({
    now,
    fetch: instead((url) => (url.pathname === "/auth/token" ? new Response("blocked", { status: 403 }) : undefined)),
  });
  pushed = 590;
  assert.equal(await user(client), "u-alice");
  await assert.rejects(client.refresh(), (error) => error.code === "http_403");
  assert.equal(client.signedIn, true);
});

test("a caller that gives up waits no longer, and the refresh goes on for the others", async () => {
  const gate = held();
  let pushed = 0;
  const now = () => ({ steady: performance.now() / 1000 + pushed, wall: Date.now() / 1000 });
  const client = await signedIn({ fetch: gate.fetch, now });
  gate.holding = true;
  pushed = 700;
  const giving = new AbortController();
  const given = client.fetch("/api/x", { signal: giving.signal });
  const other = client.fetch("/api/y");
  await gate.answered;
  giving.abort();
  await assert.rejects(given, { name: "AbortError" });
  gate.letGo();
  assert.equal((await other).status, 200);
  const late = client.fetch(new Request(`${site.url}/api/x`, { signal: AbortSignal.abort() }));
  await assert.rejects(late, { name: "AbortError" });
});

test("a sign-in whose answer is lost is not repeated, and its error does not claim a session", async () => {
  let tries = 0;
  const client = make({
    fetch: instead((url) => {
      if (url.pathname === "/auth/login") tries += 1;
      throw new TypeError("the connection broke");
    }),
  });
  const login = client.login({ username: "alice", password: site.password });
  await assert.rejects(login, (error) => error instanceof Unavailable && !/signed in/.test(error.message));
  assert.equal(tries, 1);
});

test("too many attempts say when the next one may be, however long that is", async () => {
  const answer = () => new Response('{"error":"too_many_attempts"}', { status: 429, headers: { "X-Gateway-Error": "too_many_attempts", "Retry-After": "55" } });
  const client = make({ fetch: async () => answer() });
  await assert.rejects(client.login({ username: "a", password: "b" }), (error) => error instanceof TooManyAttempts && error.retryAfter === 55);
});

test("a session that ended while its token expired gives the gateway's answer and no exception", async () => {
  const brief = await startSite({ tokens: { access_ttl: "1s", leeway: "0s" } });
  try {
    const at = { steady: 0, wall: 0 };
    const client = createTokengate({ baseUrl: brief.url, now: () => at });
    await client.login({ username: "alice", password: brief.password });
    await brief.revoke(client.sessionId);
    await new Promise((resolve) => setTimeout(resolve, 1200));
    assert.equal((await client.fetch("/api/x")).status, 401);
    assert.equal(client.signedIn, false);
    client.close();
  } finally {
    await brief.stop();
  }
});

test("the list of sessions says whether it is the session that has ended, or there was none", async () => {
  const client = await signedIn();
  await site.revoke(client.sessionId);
  await assert.rejects(client.sessions.list(), SignedOut);
  await assert.rejects(client.sessions.list(), NotSignedIn);
});

test("news of a session that has ended here do not bring it back", async () => {
  const client = await signedIn({ tabs: true });
  const id = client.sessionId;
  await client.logout();
  const seen = [];
  const heard = new Promise((resolve) => {
    client.onRefreshed(() => {
      seen.push(client.sessionId);
      if (client.sessionId !== id) resolve();
    });
  });
  const late = new BroadcastChannel(`tokengate:${site.url}:body`);
  late.postMessage({ kind: "refreshed", id, value: "x", life: 600, wall: Date.now() / 1000, scope: "" });
  const other = await signedIn({ tabs: true }, "carol"); // what it tells comes after that
  await heard;
  late.close();
  assert.deepEqual(seen, [other.sessionId]);
  other.close();
});

test("a page whose cookie is gone with its session is signed out, not told of blocked cookies", async () => {
  const jar = new Map();
  const client = await signedIn({ refreshIn: "cookie", fetch: withCookies(jar) });
  await site.revoke(client.sessionId);
  jar.clear();
  await assert.rejects(client.refresh(), (error) => error instanceof SignedOut && error.reason === "session_ended");
});

test("a WebSocket to another origin, or in the clear beside https, is refused", async () => {
  const client = await signedIn({ WebSocket: null });
  for (const url of ["wss://elsewhere.example/x", "https://localhost/x", site.url.replace("http", "wss")]) {
    assert.throws(() => client.webSocket(url), /another origin/);
  }
  assert.throws(() => client.webSocket("/ws"), /no WebSocket/);
});

test("nothing that a program may print has a token in it", async () => {
  const { inspect } = await import("node:util");
  const kept = storage();
  const client = await signedIn({ storage: kept });
  const token = await client.accessToken();
  const error = await client.sessions.end("x".repeat(23)).catch((reason) => reason);
  const printed = inspect(client, { depth: 9, showHidden: true }) + inspect(error, { depth: 9 }) + JSON.stringify([client, error]);
  assert.equal(error.code, "not_found");
  for (const secret of [token, kept.kept]) assert.equal(printed.includes(secret), false);
});
