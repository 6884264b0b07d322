import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import {
  BodyNotReplayable,
  CookiesBlocked,
  InvalidCredentials,
  SignedOut,
  TooManyAttempts,
  Unavailable,
  createTokengate,
} from "../src/index.js";
import { startSite, withCookies } from "./site.js";

const BRIEF = 6; // seconds that access tokens live on the second site; what is refreshed must outlive a test

let site;
let brief;
const clients = [];

before(async () => {
  [site, brief] = await Promise.all([
    startSite({ tokens: { max_sessions_per_user: 0 } }),
    startSite({ tokens: { access_ttl: `${BRIEF}s`, leeway: "0s", max_sessions_per_user: 0 } }),
  ]);
});

after(async () => {
  for (const client of clients) client.close();
  await Promise.all([site.stop(), brief.stop()]);
});

/** A clock that can be pushed. */
function clock() {
  let pushed = 0;
  const now = () => ({ steady: performance.now() / 1000 + pushed, wall: Date.now() / 1000 + pushed });
  return { now, push: (seconds) => (pushed += seconds) };
}

function make(options = {}, at = site) {
  const client = createTokengate({ baseUrl: at.url, ...options });
  clients.push(client);
  return client;
}

async function signedIn(options = {}, username = "alice", at = site) {
  const client = make(options, at);
  await client.login({ username, password: at.password });
  return client;
}

/** A session on the second site whose token has expired there, though the client does not know. */
async function withExpired(options = {}) {
  const client = await signedIn({ now: stopped(), ...options }, "alice", brief);
  await new Promise((resolve) => setTimeout(resolve, BRIEF * 1000 + 200)); // for the gateway's own clock
  return client;
}

const rotated = (at = site) => at.metric("tokengate_refreshes_total", { outcome: "rotated" });

/** A clock that stands still, so that the client learns of an expiry from the gateway alone. */
function stopped() {
  const at = { steady: performance.now() / 1000, wall: Date.now() / 1000 };
  return () => at;
}

test("a request carries the token of the session", async () => {
  const client = await signedIn();
  const answer = await client.fetch("/api/hello", { headers: { "X-Mine": "1" } });
  assert.equal(answer.status, 200);
  assert.equal((await answer.json()).user, "u-alice");
});

test("a Request object works like a URL", async () => {
  const client = await signedIn();
  const request = new Request(`${site.url}/api/echo`, { method: "POST", body: "hello" });
  assert.equal((await (await client.fetch(request)).json()).body, "hello");
});

test("a hundred parallel calls over an expiry make one refresh", async () => {
  const client = await withExpired();
  const before = await rotated(brief);
  const answers = await Promise.all(Array.from({ length: 100 }, (_, n) => client.fetch(`/api/parallel/${n}`)));
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
  assert.equal((await rotated(brief)) - before, 1);
});

test("a token is refreshed ahead of its end, and no request meets an expired one", async () => {
  const { now, push } = clock();
  const client = await signedIn({ now });
  const before = [await rotated(), await site.metric("tokengate_rejections_total", { error: "expired_token" })];
  push(590);
  assert.equal((await client.fetch("/api/ahead")).status, 200);
  assert.equal((await rotated()) - before[0], 1);
  assert.equal((await site.metric("tokengate_rejections_total", { error: "expired_token" })) - before[1], 0);
});

test("two tabs over an expiry make one successor", async () => {
  const second = make({ now: stopped(), tabs: true }, brief);
  const told = new Promise((resolve) => second.onRefreshed(resolve));
  const first = await withExpired({ tabs: true });
  assert.deepEqual(await told, { byOtherTab: true, kept: true }, "the second tab has the session of the first");
  const before = await rotated(brief);
  const answers = await Promise.all([first.fetch("/api/tab/1"), second.fetch("/api/tab/2")]);
  assert.deepEqual(answers.map(({ status }) => status), [200, 200]);
  assert.equal((await rotated(brief)) - before, 1);
});

test("a lost refresh answer costs nothing", async () => {
  let lose = 0;
  const lossy = async (input, init) => {
    const answer = await fetch(input, init);
    if (String(input).endsWith("/auth/token") && lose > 0) {
      lose -= 1;
      throw new TypeError("the connection broke");
    }
    return answer;
  };
  const client = await withExpired({ fetch: lossy, sleep: async () => {} });
  let signedOut = 0;
  client.onSignedOut(() => (signedOut += 1));
  lose = 3;
  assert.equal((await client.fetch("/api/lost")).status, 200);
  assert.equal(lose, 0);
  await client.refresh();
  assert.equal((await client.fetch("/api/lost")).status, 200);
  assert.equal(signedOut, 0);
});

test("a body in memory is sent again after the refresh", async () => {
  const client = await withExpired();
  const bodies = ["text", new URLSearchParams({ a: "1" }), new TextEncoder().encode("bytes"), new Blob(["blob"])];
  const answers = await Promise.all(bodies.map((body) => client.fetch("/api/body", { method: "POST", body })));
  const said = await Promise.all(answers.map(async (answer) => (await answer.json()).body));
  assert.deepEqual(said, ["text", "a=1", "bytes", "blob"]);
});

test("a streamed upload that meets an expired token gets a clear error, and its second try works", async () => {
  const client = await withExpired();
  const stream = () => new Blob(["streamed"]).stream();
  const upload = () => client.fetch("/api/upload", { method: "PUT", body: stream(), duplex: "half" });
  await assert.rejects(upload(), (error) => error instanceof BodyNotReplayable && /start the upload again/.test(error.message));
  assert.equal((await (await upload()).json()).body, "streamed");
});

test("a sleep that outlives the refresh token signs out once", async () => {
  const own = await startSite({ tokens: { access_ttl: "1s", refresh_ttl: "2s", session_ttl: "3s", leeway: "0s" } });
  try {
    const reasons = [];
    const client = createTokengate({ baseUrl: own.url, onSignedOut: ({ reason }) => reasons.push(reason) });
    await client.login({ username: "alice", password: own.password });
    await new Promise((resolve) => setTimeout(resolve, 3500));
    const answers = await Promise.all([client.fetch("/api/a"), client.fetch("/api/b"), client.fetch("/api/c")]);
    assert.deepEqual(answers.map(({ status }) => status), [401, 401, 401]);
    assert.deepEqual(reasons, ["session_ended"]);
    assert.equal(client.signedIn, false);
    client.close();
  } finally {
    await own.stop();
  }
});

test("a session that is revoked elsewhere signs out once, in every tab", async () => {
  const first = await signedIn({ tabs: true });
  const second = make({ tabs: true });
  await Promise.all([new Promise((resolve) => second.onRefreshed(resolve)), first.refresh()]);
  const told = [];
  first.onSignedOut(({ reason }) => told.push(`first ${reason}`));
  const secondTold = new Promise((resolve) => second.onSignedOut(resolve));
  second.onSignedOut(({ reason }) => told.push(`second ${reason}`));
  await site.revoke(first.sessionId);
  const answers = await Promise.all([first.fetch("/api/x"), first.fetch("/api/y")]);
  assert.deepEqual(answers.map(({ status }) => status), [401, 401]);
  await secondTold;
  assert.deepEqual(told.sort(), ["first revoked", "second revoked"]);
  assert.equal(second.signedIn, false);
});

test("an outage of the store is waited for, and signs nobody out", async () => {
  const own = await startSite();
  try {
    const client = createTokengate({ baseUrl: own.url, patience: 60 });
    let signedOut = 0;
    client.onSignedOut(() => (signedOut += 1));
    await client.login({ username: "alice", password: own.password });
    await own.tell({ do: "redis", how: "pause" });
    const answer = client.fetch("/api/outage", { method: "POST", body: "kept" });
    const refreshed = client.refresh();
    await own.tell({ do: "ready", status: 503 });
    await own.tell({ do: "redis", how: "resume" });
    assert.equal((await (await answer).json()).body, "kept");
    await refreshed;
    assert.equal(signedOut, 0);
    client.close();
  } finally {
    await own.stop();
  }
});

test("a gateway that stays away is an error with a text, and the session goes on", async () => {
  let away = false;
  const broken = async (input, init) => {
    if (away) throw new TypeError("no route to host");
    return fetch(input, init);
  };
  const client = await signedIn({ fetch: broken, patience: 2, sleep: async () => {} });
  away = true;
  await assert.rejects(client.refresh(), (error) => error instanceof Unavailable && /still signed in/.test(error.message));
  assert.equal(client.signedIn, true);
  away = false;
  assert.equal((await client.fetch("/api/back")).status, 200);
});

test("a wrong password, and too many of them, have errors of their own", async () => {
  const own = await startSite({ limits: { login_per_user: 2 } });
  try {
    const client = createTokengate({ baseUrl: own.url });
    const attempt = () => client.login({ username: "alice", password: "wrong" });
    await assert.rejects(attempt(), InvalidCredentials);
    await assert.rejects(attempt(), InvalidCredentials);
    await assert.rejects(attempt(), (error) => error instanceof TooManyAttempts && error.retryAfter > 0);
    client.close();
  } finally {
    await own.stop();
  }
});

test("sessions are listed and ended, this one and the others", async () => {
  const here = await signedIn({ device: "here" }, "carol");
  const there = make({ device: "there" });
  await there.login({ username: "carol", password: site.password });
  const listed = await here.sessions.list();
  assert.deepEqual(new Set(listed.map(({ device }) => device)), new Set(["here", "there"]));
  assert.equal(listed.find(({ current }) => current).id, here.sessionId);
  await here.sessions.endAll({ except: "current" });
  assert.equal((await there.fetch("/api/x")).status, 401);
  assert.equal(there.signedIn, false);
  await here.sessions.end(here.sessionId);
  assert.equal(here.signedIn, false);
});

test("a sign-out ends the session at the gateway too", async () => {
  let token;
  const watching = async (input, init) => {
    token = new Headers(init?.headers).get("Authorization") ?? token;
    return fetch(input, init);
  };
  const client = await signedIn({ fetch: watching });
  await client.fetch("/api/x");
  await client.logout();
  assert.equal(client.signedIn, false);
  const answer = await fetch(`${site.url}/api/x`, { headers: { Authorization: token } });
  assert.equal(answer.headers.get("X-Gateway-Error"), "revoked_token");
});

test("a sign-out holds here also where the gateway cannot be told, and says so", async () => {
  let away = false;
  const broken = async (input, init) => {
    if (away) throw new TypeError("no route to host");
    return fetch(input, init);
  };
  const client = await signedIn({ fetch: broken, patience: 1, sleep: async () => {} });
  away = true;
  await assert.rejects(client.logout(), Unavailable);
  assert.equal(client.signedIn, false);
});

test("clients of one program outside a browser have nothing to do with each other", async () => {
  const one = await signedIn();
  const other = await signedIn({}, "carol");
  assert.equal((await (await one.fetch("/api/x")).json()).user, "u-alice");
  assert.equal((await (await other.fetch("/api/x")).json()).user, "u-carol");
});

test("with the refresh token in a cookie a new page takes the session up, and no script sees the token", async () => {
  const jar = new Map();
  const page = await signedIn({ refreshIn: "cookie", fetch: withCookies(jar) });
  assert.ok(jar.has("__Secure-refresh"));
  page.close();
  const next = make({ refreshIn: "cookie", fetch: withCookies(jar) });
  assert.equal(await next.restore(), true);
  assert.equal((await next.fetch("/api/next")).status, 200);
  await next.logout();
  assert.equal(jar.has("__Secure-refresh"), false);
});

test("a page without a session is told so without an event", async () => {
  const told = [];
  const client = make({ refreshIn: "cookie", fetch: withCookies(), onSignedOut: () => told.push("out") });
  assert.equal(await client.restore(), false);
  const answer = await client.fetch("/api/x");
  assert.equal(answer.headers.get("X-Gateway-Error"), "missing_token");
  assert.deepEqual(told, []);
});

test("blocked cookies are named", async () => {
  const client = await signedIn({ refreshIn: "cookie", now: stopped() }); // Node keeps none
  await assert.rejects(client.refresh(), CookiesBlocked);
});

test("a kept refresh token takes the session up again", async () => {
  let kept;
  const storage = { get: () => kept, set: (value) => (kept = value), remove: () => (kept = undefined) };
  const client = await signedIn({ storage });
  client.close();
  const next = make({ storage });
  assert.equal((await next.fetch("/api/again")).status, 200);
  await next.logout();
  assert.equal(kept, undefined);
});

test("no token goes to another origin", async () => {
  const seen = [];
  const watching = async (input, init) => {
    seen.push(new Headers(init?.headers).get("Authorization"));
    return fetch(input, init);
  };
  const client = await signedIn({ fetch: watching });
  seen.length = 0;
  await client.fetch(`${site.management}/livez`);
  assert.deepEqual(seen, [null]);
});

test("a refusal that has nothing to do with the token is passed on", async () => {
  const client = await signedIn();
  assert.equal((await client.fetch("/admin-only/x")).status, 403);
  assert.equal((await client.fetch("/nowhere")).status, 404);
  assert.equal(client.signedIn, true);
});

test("who is signed out is told so by a class of its own", async () => {
  const client = await signedIn();
  await site.revoke(client.sessionId);
  await assert.rejects(client.refresh(), SignedOut);
});

test("a request whose signing key was removed is sent again with a new token", async () => {
  const time = clock();
  const client = await signedIn({ now: time.now });
  assert.equal((await site.tell({ do: "keys" })).status, 200);
  const before = await rotated();
  time.push(40);
  const answers = await Promise.all([1, 2, 3].map((n) => client.fetch(`/api/${n}`, { method: "POST", body: "kept" })));
  assert.deepEqual(answers.map(({ status }) => status), [200, 200, 200]);
  assert.equal(await rotated(), before + 1);
  assert.equal(client.signedIn, true);
});

test("where a new token is called invalid too, requests do not ask for more of them", async () => {
  const client = await signedIn();
  assert.equal((await site.tell({ do: "keys" })).status, 200);
  const before = await rotated();
  for (const n of [1, 2, 3]) assert.equal((await client.fetch(`/api/${n}`)).status, 401);
  assert.equal(await rotated(), before);
  assert.equal(client.signedIn, true);
});

test("a client that does not refresh ahead asks for nothing before the gateway has refused its token", async () => {
  const time = clock();
  const client = await signedIn({ now: time.now, refreshAhead: false });
  const before = await rotated();
  time.push(100_000);
  assert.equal((await client.fetch("/api/hello")).status, 200);
  assert.equal(await rotated(), before);
  client.refreshAhead = true;
  assert.equal((await client.fetch("/api/hello")).status, 200);
  assert.equal(await rotated(), before + 1);
});
