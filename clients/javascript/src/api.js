// The calls of the gateway itself: their errors, and how they are asked again when nobody knows what became of them.

import { InvalidCredentials, Refused, TooManyAttempts, Unavailable } from "./errors.js";

const PASSING = new Set([502, 503, 504]); // something on the way does not answer; nothing is known to be wrong
const FIRST_WAIT = 0.25; // seconds
const LONGEST_WAIT = 8;
const LONGEST_ADVICE = 30; // of a Retry-After that is obeyed
export const HELD = new Set(["store_unavailable", "draining", "overloaded"]); // refused before any backend saw it

/** @param {Response} response */
export function errorCode(response) {
  return response.headers.get("X-Gateway-Error") ?? "";
}

/**
 * The wait before try number `attempt` (from 1), in seconds: exponential, with full jitter, not before Retry-After.
 *
 * @param {number} attempt
 * @param {Response} [response]
 */
export function backoff(attempt, response) {
  const most = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1));
  return Math.random() * most + advice(response);
}

/** @param {Response} [response] */
export function advice(response) {
  const seconds = Number(response?.headers.get("Retry-After") ?? 0);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), LONGEST_ADVICE) : 0;
}

export class Api {
  /**
   * @param {URL} base
   * @param {{fetch: typeof fetch, patience: number, timeout: number, sleep: (seconds: number) => Promise<void>}} options
   */
  constructor(base, { fetch, patience, timeout, sleep }) {
    this.base = base;
    this.patience = patience; // seconds for which an answer is asked for again
    this.timeout = timeout; // seconds for one answer
    this.sleep = sleep;
    this.platform = fetch;
  }

  /**
   * One call, asked again while the gateway cannot be reached or cannot answer.
   *
   * @param {string} path
   * @param {RequestInit} init
   * @returns {Promise<Response>} an answer that is neither 502, 503 nor 504
   * @throws {Unavailable}
   */
  async call(path, init) {
    let spent = 0;
    for (let attempt = 1; ; attempt += 1) {
      const outcome = await this.#once(path, init);
      if (!outcome.failed) return outcome.response;
      const wait = backoff(attempt, outcome.response);
      spent += wait + outcome.seconds;
      if (spent > this.patience) throw new Unavailable(outcome);
      await this.sleep(wait);
    }
  }

  async #once(path, init) {
    const began = performance.now();
    const seconds = () => (performance.now() - began) / 1000;
    try {
      const signal = AbortSignal.timeout(this.timeout * 1000);
      const response = await this.platform(new URL(path, this.base), { ...init, credentials: "include", signal });
      return { response, failed: PASSING.has(response.status), seconds: seconds() };
    } catch (cause) {
      return { cause, failed: true, seconds: seconds() };
    }
  }

  /** @param {unknown} content */
  post(path, content, headers = {}) {
    return this.call(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers },
      body: JSON.stringify(content),
    });
  }
}

/**
 * The error that an answer of the gateway means.
 *
 * @param {Response} response
 */
export function refusal(response) {
  const code = errorCode(response) || `http_${response.status}`;
  if (code === "invalid_credentials") return new InvalidCredentials({ response });
  if (code === "too_many_attempts") return new TooManyAttempts(advice(response) || 60, { response });
  return new Refused(code, { response });
}
