// Several tabs of one site share a session. One refreshes at a time (Web Locks), and tells the others what came of
// it (BroadcastChannel). Where either is missing everything still works, for the gateway gives the same successor to
// all that present one refresh token; it is only asked more often.

const HANDOVER = 250; // ms that the news of another tab's refresh may take once its lock is free

export class Tabs {
  /**
   * @param {string} name
   * @param {boolean} shared whether there are other tabs: programs outside browsers have users of their own each
   * @param {(message: object) => void} onMessage
   */
  constructor(name, shared, onMessage) {
    this.name = name;
    this.locks = shared ? globalThis.navigator?.locks : undefined;
    this.channel = shared && globalThis.BroadcastChannel ? new BroadcastChannel(name) : undefined;
    this.news = new Set();
    if (this.channel) {
      this.channel.onmessage = ({ data }) => {
        onMessage(data);
        for (const wake of this.news) wake();
      };
      this.channel.unref?.(); // in Node: an open channel must not keep the process
    }
  }

  /** @param {object} message */
  tell(message) {
    this.channel?.postMessage(message);
  }

  /**
   * Run `refresh` while no other tab does. `settled` tells whether another one has done it meanwhile.
   *
   * @template T
   * @param {() => T | undefined} settled
   * @param {() => Promise<T>} refresh
   * @returns {Promise<T>}
   */
  async alone(settled, refresh) {
    if (!this.locks) return refresh();
    const free = { ifAvailable: true };
    const held = await this.locks.request(this.name, free, async (lock) => (lock ? { value: await refresh() } : undefined));
    if (held) return held.value;
    return this.locks.request(this.name, async () => settled() ?? (await this.#heard(settled)) ?? refresh());
  }

  /** Wait for what the tab that held the lock has to tell. */
  async #heard(settled) {
    await new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.news.delete(done);
        resolve(undefined);
      };
      const timer = setTimeout(done, HANDOVER);
      this.news.add(done);
    });
    return settled();
  }

  close() {
    this.channel?.close();
    this.channel = undefined;
  }
}
