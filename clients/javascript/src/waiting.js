// Waiting for something that others wait for too, until the caller gives up.

/**
 * @template T
 * @param {AbortSignal | undefined} signal
 * @param {() => Promise<T>} work goes on when the caller has given up
 * @returns {Promise<T>}
 */
export async function unlessAborted(signal, work) {
  if (!signal) return work();
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    work()
      .then(resolve, reject)
      .finally(() => signal.removeEventListener("abort", stop));
  });
}
