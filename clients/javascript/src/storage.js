// Where the refresh token is kept where no cookie keeps it. What an application gives may be slow, or may fail.

import { StorageFailed } from "./errors.js";

/** An application's storage: one thing at a time, in the order in which it was asked for, and its errors are ours. */
export class Kept {
  #storage;
  #known; // what this client has last read or written there
  #last = Promise.resolve();

  /** @param {import("./index.js").Storage} [storage] */
  constructor(storage = memory()) {
    this.#storage = storage;
  }

  /** @returns {Promise<string | undefined>} undefined also where the storage cannot be read */
  get() {
    return this.#do(() => this.#read());
  }

  /** What another tab or process has put there since this client last looked; undefined where nobody has. */
  news() {
    return this.#do(async () => {
      const known = this.#known;
      const found = await this.#read();
      return found === known ? undefined : found;
    });
  }

  /** @throws {StorageFailed} */
  set(refreshToken) {
    return this.#do(async () => {
      await this.#storage.set(refreshToken);
      this.#known = refreshToken;
    });
  }

  /** Take away what this client knows, not what another has put there. There is nothing to do about a failure. */
  remove() {
    return this.#do(async () => {
      const known = this.#known;
      const found = await this.#read();
      this.#known = undefined;
      if (found === undefined || found === known) await this.#storage.remove();
    }).catch(() => undefined);
  }

  async #read() {
    try {
      this.#known = (await this.#storage.get()) ?? undefined;
    } catch {
      return undefined; // it cannot be read: what there is in memory goes on
    }
    return this.#known;
  }

  #do(work) {
    const done = this.#last.then(work).catch((cause) => {
      throw new StorageFailed({ cause });
    });
    this.#last = done.catch(() => undefined);
    return done;
  }
}

function memory() {
  let kept;
  return {
    get: () => kept,
    set: (value) => {
      kept = value;
    },
    remove: () => {
      kept = undefined;
    },
  };
}
