// The life of the access token as a bar.

const OFTEN = 250; // ms
const AHEAD = 0.2; // of its life is left when it is refreshed ahead

export class Life {
  #client;
  #parts;
  #whole = 0; // seconds
  #shown = "";
  left = 0; // seconds, when it was last looked at

  /** @param {{bar: HTMLElement, text: HTMLElement, hint: HTMLElement}} parts */
  constructor(client, parts) {
    this.#client = client;
    this.#parts = parts;
    setInterval(() => this.show(), OFTEN);
  }

  /** A new token has come. */
  begin() {
    this.#whole = Math.ceil(this.#client.expiresIn);
    this.show();
  }

  show() {
    const { bar, text, hint } = this.#parts;
    const signedIn = this.#client.signedIn;
    const left = signedIn ? this.#client.expiresIn : 0;
    if (signedIn) this.left = left;
    bar.querySelector(".fill").style.transform = `scaleX(${this.#whole ? Math.min(1, left / this.#whole) : 0})`;
    const seconds = Math.ceil(left);
    const words = signedIn ? (seconds ? `${seconds} of ${this.#whole} s left` : "expired") : "none";
    bar.parentElement.classList.toggle("waiting", !this.#client.refreshAhead);
    hint.textContent = this.#hint(signedIn, left);
    if (words === this.#shown) return;
    this.#shown = text.textContent = words;
    bar.setAttribute("aria-valuemax", String(this.#whole || 1));
    bar.setAttribute("aria-valuenow", String(seconds));
    bar.setAttribute("aria-valuetext", words);
  }

  #hint(signedIn, left) {
    if (!signedIn) return "Nothing can be called without one.";
    if (left === 0) return "The next call brings a new one.";
    if (!this.#client.refreshAhead) return "The first call after its end is refused, and sent again.";
    return left <= this.#whole * AHEAD ? "The next call refreshes it." : "When it has passed the mark, the next call refreshes it.";
  }
}
