// A WebSocket that comes back: at once with a fresh token where the gateway has closed it because of the token (4401),
// after a growing pause where the network or the server went away, and not at all after a sign-out or `close()`.

import { NotSignedIn, SignedOut } from "./errors.js";

const UNAUTHORIZED = 4401;
const FIRST_WAIT = 0.25; // seconds
const LONGEST_WAIT = 15;
const STEADY = 5; // seconds after which a connection counts as good

export class TokengateSocket extends EventTarget {
  #client;
  #url;
  #protocols;
  #sleep;
  #socket;
  #ended = false;
  #failures = 0;
  #used; // the token of the last try

  constructor(client, url, protocols, sleep) {
    super();
    this.#client = client;
    this.#url = new URL(url);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    this.#protocols = protocols;
    this.#sleep = sleep;
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
    this.#end({ code, reason });
    this.#socket?.close(code, reason);
  }

  async #connect(refused) {
    let token;
    try {
      token = await this.#client.accessToken({ not: refused });
    } catch (error) {
      if (error instanceof SignedOut || error instanceof NotSignedIn) this.#end({ code: UNAUTHORIZED, reason: error.message });
      else await this.#retry();
      return;
    }
    if (token === undefined) this.#end({ code: UNAUTHORIZED, reason: "signed out" });
    if (!this.#ended) this.#open(token);
  }

  #open(token) {
    this.#used = token;
    const protocols = token ? ["bearer", token, ...this.#protocols] : this.#protocols;
    const socket = new this.#client.WebSocket(this.#url, protocols);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    let openedAt = 0;
    socket.addEventListener("open", () => {
      openedAt = performance.now();
      this.dispatchEvent(new Event("open"));
    });
    socket.addEventListener("message", ({ data }) => this.dispatchEvent(new MessageEvent("message", { data })));
    socket.addEventListener("close", (event) => this.#closed(event, openedAt));
  }

  async #closed({ code, reason }, openedAt) {
    if (this.#ended) return;
    if (openedAt && performance.now() - openedAt > STEADY * 1000) this.#failures = 0;
    this.dispatchEvent(new CustomEvent("reconnecting", { detail: { code, reason } }));
    if (code === UNAUTHORIZED) {
      await this.#connect(this.#used);
    } else {
      await this.#retry(!openedAt); // a handshake that failed does not say why: the token may be it
    }
  }

  async #retry(refused = false) {
    this.#failures += 1;
    const most = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (this.#failures - 1));
    await this.#sleep((0.5 + Math.random() / 2) * most);
    if (!this.#ended) await this.#connect(refused && this.#failures > 1 ? this.#used : undefined);
  }

  #end({ code, reason }) {
    if (this.#ended) return;
    this.#ended = true;
    this.dispatchEvent(new CustomEvent("close", { detail: { code, reason } }));
  }
}
