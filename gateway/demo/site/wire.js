// The platform's `fetch` and `WebSocket`, which tell what goes over the wire.

const PATIENCE = 5000; // ms; the gateway needs one second at most

/**
 * @param {(row: object) => void} tell
 * @param {string} [who] who sends it, where that is not this page
 * @returns {typeof fetch}
 */
export function recordedFetch(tell, who = "") {
  return async (input, init = {}) => {
    const url = new URL(input instanceof Request ? input.url : input, location.href);
    const row = { who, method: init.method ?? "GET", path: url.pathname + url.search, status: 0 };
    const began = performance.now();
    try {
      const response = await fetch(input, init);
      row.status = response.status;
      row.error = response.headers.get("X-Gateway-Error") ?? "";
      return response;
    } finally {
      tell({ ...row, ms: performance.now() - began });
    }
  };
}

/**
 * The client hangs up by itself when it is signed out. Here it leaves that to the gateway for a while, which is what
 * this page is there to show.
 *
 * @param {(row: object) => void} tell
 */
export function recordedWebSocket(tell) {
  return class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols);
      const row = { method: "WebSocket", path: new URL(url).pathname };
      this.addEventListener("open", () => tell({ ...row, status: 101 }));
      this.addEventListener("close", ({ code }) => tell({ ...row, status: code }));
    }

    close(...words) {
      setTimeout(() => super.close(...words), PATIENCE);
    }
  };
}
