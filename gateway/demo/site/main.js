// The demo's page: an application like any other, which uses the JavaScript client.
//
//   wire      fetch and WebSocket that tell what they send
//   timeline  the list of it
//   life      the access token's bar
//   live      the WebSocket
//   device    another device of the same user

import { createTokengate } from "/client/index.js";

import { signOutOthers } from "./device.js";
import { Life } from "./life.js";
import { Live } from "./live.js";
import { Timeline } from "./timeline.js";
import { recordedFetch, recordedWebSocket } from "./wire.js";

const EVERY = 2000; // ms between calls
const by = (id) => document.getElementById(id);
const timeline = new Timeline(by("timeline"));
const tell = (row) => timeline.add(row);

const client = createTokengate({ fetch: recordedFetch(tell), WebSocket: recordedWebSocket(tell) });
const life = new Life(client, { bar: by("life"), text: by("life-text"), hint: by("life-hint") });
const live = new Live(client, {
  state: by("live-state"),
  tick: by("tick"),
  dot: by("dot"),
  served: document.body.dataset.live === "yes",
});
const refreshed = { this: 0, others: 0 };
let wasSignedIn = false;
let leaving = false; // this tab signs out by itself

// --- in and out ---

client.onRefreshed(({ byOtherTab }) => {
  refreshed[byOtherTab ? "others" : "this"] += 1;
  by("by-this").textContent = refreshed.this;
  by("by-others").textContent = refreshed.others;
  say(news(byOtherTab));
  show();
});

client.onSignedOut(({ reason }) => {
  show();
  say(farewell(reason));
});

by("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  say("One moment.");
  await told(async () => {
    await client.login(user());
    show();
    say("Signed in. Now go on with step 2.");
    by("who").focus();
  });
});

by("sign-out").addEventListener("click", async () => {
  leaving = true;
  await told(() => client.logout());
  leaving = false;
});

function news(byOtherTab) {
  if (!wasSignedIn) return byOtherTab ? "Signed in by another tab." : "Signed in already: the cookie has brought a new access token.";
  if (byOtherTab) return "Another tab has refreshed, and handed on the new token.";
  return "Refreshed: a new access token, and nobody had to sign in again.";
}

function user() {
  return { username: by("username").value, password: by("password").value };
}

function show() {
  const { signedIn } = client;
  wasSignedIn = signedIn;
  const held = by("signed-in").contains(document.activeElement);
  by("sign-in").inert = signedIn;
  by("signed-in").inert = !signedIn;
  if (held && !signedIn) by("sign-in").querySelector("button").focus();
  if (signedIn) {
    by("session-id").textContent = client.sessionId;
    life.begin();
    live.open();
  } else {
    life.show();
    keepCalling(false);
  }
}

function farewell(reason) {
  const left = Math.ceil(life.left);
  const token = left ? `Its token had ${left} s left and is worth nothing now.` : "";
  if (reason === "cookie_missing") return `Signed out: the refresh cookie is gone, or was never kept. ${token}`;
  if (reason !== "logout") return `Signed out by another device. ${token}`;
  return `Signed out${leaving ? "" : " in another tab"}. ${token}`;
}

// --- calls ---

let calls; // the interval

by("call").addEventListener("click", () =>
  told(async () => {
    const known = by("message").textContent;
    const name = await call();
    if (name && by("message").textContent === known) say(`The backend was told ${name}. Step 3 is about its token.`);
  }),
);
by("again").addEventListener("change", ({ target }) => keepCalling(target.checked));

/** Call the backend; the user it was told, undefined where the call was refused. */
async function call() {
  const response = await client.fetch("/api/hello", { headers: { "X-Auth-Request-User": "root" } });
  const seen = response.ok ? await response.json() : undefined;
  for (const place of document.querySelectorAll("[data-header]")) {
    place.textContent = seen?.headers[place.dataset.header] ?? "-";
  }
  by("all").textContent = seen ? JSON.stringify(seen, undefined, 2) : "Nothing: tokengate refused the call.";
  return seen?.headers["x-auth-request-user"];
}

function keepCalling(on) {
  by("again").checked = on;
  clearInterval(calls);
  if (!on) return;
  told(call);
  calls = setInterval(() => told(call), EVERY);
}

function choose() {
  client.refreshAhead = document.querySelector("[name=when]:checked").value === "ahead";
  life.show();
}
for (const choice of document.querySelectorAll("[name=when]")) choice.addEventListener("change", choose);
choose(); // a page that was loaded again keeps what was chosen

// --- another device ---

by("revoke").addEventListener("click", () =>
  told(async () => {
    if (!client.signedIn) return say("Sign in here first, so that there is something to end.");
    await signOutOthers(recordedFetch(tell, "second device"), user());
    await call();
  }),
);

// --- what is said ---

function say(text, bad = false) {
  by("message").textContent = text;
  by("message").classList.toggle("bad", bad);
}

/** Do something, and say what went wrong in the words of the error. */
async function told(act) {
  try {
    await act();
  } catch (error) {
    say(error instanceof TypeError ? "tokengate does not answer. Is the demo still running?" : error.message, true);
  }
}

await told(() => client.restore());
