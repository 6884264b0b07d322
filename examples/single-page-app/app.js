// A page of the shop. Its tokens are the client's affair: it signs in, asks for orders, and is told of the end.

import { TokengateError, createTokengate } from "/tokengate/index.js";

const at = (id) => document.getElementById(id);
const client = createTokengate({ onSignedOut: ({ reason }) => show(reason === "logout" ? "You are signed out." : "Please sign in again.") });

/** Show the orders, or else the form to sign in. */
async function show(message = "") {
  at("message").textContent = message;
  at("shop").hidden = !client.signedIn;
  at("sign-in").hidden = client.signedIn;
  if (!client.signedIn) return;
  const response = await client.fetch("/api/orders");
  if (!response.ok) return;
  const { email, orders } = await response.json();
  at("email").textContent = email;
  at("orders").replaceChildren(...Object.values(orders).map(item));
}

function item(text) {
  const line = document.createElement("li");
  line.textContent = text;
  return line;
}

/** Do something for the person, who is told in words what went wrong. */
async function attempt(work) {
  try {
    await work();
  } catch (error) {
    at("message").textContent = error instanceof TokengateError ? error.message : "That did not work. Please try again.";
  }
}

at("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  attempt(async () => {
    await client.login(Object.fromEntries(new FormData(form)));
    form.reset();
    await show();
  });
});
at("sign-out").addEventListener("click", () => attempt(() => client.logout()));
client.onRefreshed(({ byOtherTab }) => byOtherTab && attempt(show)); // another tab has signed in, or gone on

await attempt(async () => {
  await client.restore();
  await show();
});
