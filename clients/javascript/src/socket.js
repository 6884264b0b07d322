// A WebSocket that comes back: at once with a fresh token where the gateway has closed it because of the token (4401),
// after a growing pause where the network or the server went away, and not at all after a sign-out or `close()`.

import { NotSignedIn, SignedOut } from "./errors.js";

const UNAUTHORIZED = 4401;
const FIRST_WAIT = 0.25; // seconds
const LONGEST_WAIT = 15;
const STEADY = 1; // seconds after which a connection counts as good

/**
 * The address of a WebSocket at the gateway.
 *
 * @param {string | URL} url
 * @param {URL} base
 */
export function socketAddress(url, base) {
  const address = new URL(url, base);
  address.protocol = address.protocol.replace(/^http/, "ws");
  if (address.host !== base.host || address.protocol !== base.protocol.replace(/^http/, "ws")) {
    throw new TypeError("a WebSocket to another origin than the gateway's would take the token there");
  }
  return address;
}

export class TokengateSocket extends EventTarget {
  #client;
  #url;
  #protocols;
  #sleep;
  #socket;
  #ended = false;
  #failures = 0; // connections in a row that were none, or did not last
  #used; // the token of the last try
  #unsubscribe;

  constructor(client, url, protocols, sleep) {
    super();
    if (!client.WebSocket) throw new TypeError("this platform has no WebSocket; one can be given as an option");
    this.#client = client;
    this.#url = url;
    this.#protocols = protocols;
    this.#sleep = sleep;
    this.#unsubscribe = client.onSignedOut(() => this.#signedOut());
    this.#connect();
  }

  get readyState() {
    return this.#ended ? 3 : (this.#socket?.readyState ?? 0);
  }

  get protocol() {
    const said = this.#socket?.protocol ?? "";
    return said === "bearer" ? "" : said;
  }

  send(data) {
    if (this.readyState !== 1) throw new DOMException("The connection is not open.", "InvalidStateError");
    this.#socket.send(data);
  }

  close(code = 1000, reason = "") {
    this.#socket?.close(code, reason); // it throws for a code that is none
    this.#end({ code, reason });
  }

  async #connect(refused) {
    let token;
    try {
      token = await this.#client.accessToken({ not: refused });
    } catch (error) {
      if (error instanceof SignedOut || error instanceof NotSignedIn) this.#signedOut();
      else await this.#retry(refused !== undefined);
      return;
    }
    if (token === undefined) this.#signedOut();
    if (!this.#ended) this.#open(token);
  }

  #open(token) {
    this.#used = token;
    const protocols = token ? ["bearer", token, ...this.#protocols] : this.#protocols;
    let socket;
    try {
      socket = new this.#client.WebSocket(this.#url, protocols);
    } catch {
      // Not the platform's own text: it quotes the protocols, and the token is one of them.
      this.#end({ code: 1006, reason: "the address or a protocol is not valid" });
      return;
    }
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    let openedAt = 0;
    const listen = (event, listener) => socket.addEventListener(event, (said) => this.#ended || listener(said));
    listen("open", () => {
      openedAt = performance.now();
      this.dispatchEvent(new Event("open"));
    });
    listen("message", ({ data }) => this.dispatchEvent(new MessageEvent("message", { data })));
    listen("close", (event) => this.#closed(event, openedAt));
  }

  async #closed({ code, reason }, openedAt) {
    if (openedAt && performance.now() - openedAt > STEADY * 1000) this.#failures = 0;
    this.dispatchEvent(new CustomEvent("reconnecting", { detail: { code, reason } }));
    if (this.#ended) return; // its listener has closed it
    if (code === UNAUTHORIZED && this.#failures === 0) {
      this.#failures = 1; // a server that says so each time is not asked without a pause
      await this.#connect(this.#used);
    } else {
      // A handshake that failed does not say why: the token may be it.
      await this.#retry(code === UNAUTHORIZED || (!openedAt && this.#failures > 0));
    }
  }

  async #retry(refused = false) {
    this.#failures += 1;
    const most = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (this.#failures - 1));
    await this.#sleep((0.5 + Math.random() / 2) * most);
    if (!this.#ended) await this.#connect(refused ? this.#used : undefined);
  }

  #signedOut() {
    this.#socket?.close();
    this.#end({ code: UNAUTHORIZED, reason: "signed out" });
  }

  #end({ code, reason }) {
    if (this.#ended) return;
    this.#ended = true;
    this.#unsubscribe();
    this.dispatchEvent(new CustomEvent("close", { detail: { code, reason } }));
  }
}
