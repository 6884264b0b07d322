// Several tabs of one site share a session. One refreshes at a time (Web Locks), and tells the others what came of
// it (BroadcastChannel). Where either is missing everything still works, for the gateway gives the same successor to
// all that present one refresh token; it is only asked more often.

const HANDOVER = 250; // ms that the news of another tab's refresh may take once its lock is free

export class Tabs {
  /**
   * @param {string} name
   * @param {boolean} shared whether there are other tabs: programs outside browsers have users of their own each
   * @param {number} patience seconds after which a tab that holds the lock and does not move is waited for no more
   * @param {(message: object) => void} onMessage
   */
  constructor(name, shared, patience, onMessage) {
    this.name = name;
    this.patience = patience;
    this.locks = shared ? globalThis.navigator?.locks : undefined;
    this.channel = shared ? channel(name) : undefined;
    this.news = new Set();
    this.last = Promise.resolve(); // the turns of this tab, where there are no locks
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
    if (!this.locks) return this.#turn(() => settled() ?? refresh());
    const work = async (lock) => (lock ? { value: await refresh() } : undefined);
    const held = await this.#locked({ ifAvailable: true }, work);
    if (held) return held.value;
    return this.exclusive(async () => settled() ?? (await this.#heard(settled)) ?? refresh());
  }

  /**
   * Run `work` while no tab refreshes.
   *
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  exclusive(work) {
    if (!this.locks) return this.#turn(work);
    return this.#locked({ signal: AbortSignal.timeout(this.patience * 1000) }, work);
  }

  async #locked(options, work) {
    let begun = false;
    const begin = (lock) => {
      begun = true;
      return work(lock);
    };
    try {
      return await this.locks.request(this.name, options, begin);
    } catch (error) {
      if (begun) throw error;
      return this.#turn(work); // locks are forbidden here, or a tab holds it and does not move
    }
  }

  #turn(work) {
    const turn = this.last.then(() => work());
    this.last = turn.catch(() => undefined);
    return turn;
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

/** Undefined where the browser has none, or forbids it. */
function channel(name) {
  try {
    return new BroadcastChannel(name);
  } catch {
    return undefined;
  }
}
