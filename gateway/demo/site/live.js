// The live stream: a WebSocket of the client's, which comes back by itself for as long as the session lives.

const SIGNED_OUT = 4401;

export class Live {
  #client;
  #parts;
  #socket;

  /** @param {{state: HTMLElement, tick: HTMLElement, dot: HTMLElement, served: boolean}} parts */
  constructor(client, parts) {
    this.#client = client;
    this.#parts = parts;
    if (!parts.served) {
      this.#say("", "Not served here: pip install 'tokengate[demo]' brings what it needs; then start the demo again.");
    }
  }

  /** Open it, unless it is open or about to come back. */
  open() {
    if (!this.#parts.served || this.#socket) return;
    const socket = this.#client.webSocket("/api/live");
    this.#socket = socket;
    socket.addEventListener("open", () => this.#say("open", "Open."));
    socket.addEventListener("message", ({ data }) => this.#ticked(JSON.parse(data)));
    socket.addEventListener("reconnecting", ({ detail }) => this.#say("cut", this.#lost(detail.code)));
    socket.addEventListener("close", ({ detail }) => {
      this.#socket = undefined;
      this.#say("cut", this.#lost(detail.code));
      if (this.#client.signedIn) this.open(); // signed in again while it went
    });
  }

  #ticked({ tick, user }) {
    this.#parts.tick.textContent = `Tick ${tick} for ${user}.`;
  }

  #lost(code) {
    if (code === SIGNED_OUT) return "Cut with its session. Sign in and it comes back.";
    return "Lost. It is being opened again.";
  }

  #say(kind, text) {
    this.#parts.dot.className = `dot ${kind}`;
    this.#parts.state.textContent = text;
    this.#parts.tick.textContent = "";
  }
}
