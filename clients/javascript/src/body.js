// What a caller of `fetch` gave, and whether it can be sent a second time: it can where the body is held in memory.

/**
 * @param {RequestInfo | URL} input
 * @param {RequestInit} init
 */
export function replayable(input, init) {
  const { body } = init;
  if (body === undefined || body === null) return !(input instanceof Request) || input.body === null || !input.bodyUsed;
  if (typeof body === "string" || body instanceof URLSearchParams || body instanceof Blob) return true;
  if (body instanceof FormData || body instanceof ArrayBuffer || ArrayBuffer.isView(body)) return true;
  return false;
}

/**
 * What to give to `fetch` for one try: a Request with a body is read once, so each try but the last takes a copy.
 *
 * @param {RequestInfo | URL} input
 * @param {boolean} again whether there may be another try
 */
export function target(input, again) {
  return again && input instanceof Request ? input.clone() : input;
}

/** Headers that the caller gave. */
export function given(input, init) {
  return new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined));
}

/**
 * The `credentials` of a request whose token is a cookie, from a page of another origin: the platform's default is to
 * send none there. A caller's `omit` stays.
 */
export function withCookies(input, init) {
  const given = init.credentials ?? (input instanceof Request ? input.credentials : undefined);
  return given === "omit" ? "omit" : "include";
}
