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
function advice(response) {
  return Math.min(retryAfter(response), LONGEST_ADVICE);
}

/** The seconds of a Retry-After; 0 where there is none. */
function retryAfter(response) {
  const seconds = Number(response?.headers.get("Retry-After") ?? 0);
  return Number.isFinite(seconds) ? Math.max(seconds, 0) : 0;
}

/** A token response (http-api.md); anything else with status 200 is not from the gateway: a portal, a cache, a broken line. */
export function isTokens(content) {
  return typeof content?.session_id === "string" && content.expires_in > 0;
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
   * @param {{good?: (content: any) => boolean, again?: (outcome: object) => boolean, text?: string}} [rules]
   *   `good` knows the content of a success, `again` whether a call that failed may be repeated, `text` is for people
   * @returns {Promise<{response: Response, content: any}>} an answer that is neither 502, 503 nor 504; its body is read
   * @throws {Unavailable}
   */
  async call(path, init, { good = () => true, again = () => true, text } = {}) {
    let spent = 0;
    for (let attempt = 1; ; attempt += 1) {
      const outcome = await this.#once(path, init, good);
      if (!outcome.failed) return outcome;
      const wait = backoff(attempt, outcome.response);
      spent += wait + outcome.seconds;
      if (spent > this.patience || !again(outcome)) throw new Unavailable(outcome, text);
      await this.sleep(wait);
    }
  }

  async #once(path, init, good) {
    const began = performance.now();
    const seconds = () => (performance.now() - began) / 1000;
    const signal = AbortSignal.timeout(this.timeout * 1000);
    // A redirect would take the refresh token to wherever it points.
    const always = { credentials: "include", redirect: "error", cache: "no-store", signal };
    let response;
    try {
      response = await this.platform(new URL(path, this.base), { ...init, ...always });
      const content = parsed(await response.text());
      const failed = PASSING.has(response.status) || (response.ok && !good(content));
      return { response, content, failed, seconds: seconds() };
    } catch (cause) {
      return { response, cause, failed: true, seconds: seconds() };
    }
  }

  /** @param {unknown} content */
  post(path, content, headers = {}, rules = {}) {
    const init = {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers },
      body: JSON.stringify(content),
    };
    return this.call(path, init, rules);
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
  if (code === "too_many_attempts") return new TooManyAttempts(retryAfter(response) || 60, { response });
  if (PASSING.has(response.status)) return new Unavailable({ response });
  return new Refused(code, { response });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
