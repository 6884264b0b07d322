// The client. Laws:
//
// - One refresh at a time, here and in the other tabs.
// - Only the gateway's word signs out: `invalid_grant` to a refresh, or `revoked_token` to a request. An outage does not.
// - Signed out is told once for each sign-in.
// - A request goes out a second time only where the gateway says that no backend has seen the first.
// - No token leaves for another origin than the gateway's.

import { Api, HELD, backoff, errorCode, isTokens, refusal } from "./api.js";
import { given, replayable, target, withCookies } from "./body.js";
import { age, moment } from "./clock.js";
import { BodyNotReplayable, CookiesBlocked, NotSignedIn, SignedOut, TokengateError, Unavailable } from "./errors.js";
import { TokengateSocket, socketAddress } from "./socket.js";
import { Kept } from "./storage.js";
import { Tabs } from "./tabs.js";
import { unlessAborted } from "./waiting.js";

const AHEAD = 30; // seconds before its end from which on a token is refreshed
const AHEAD_SHARE = 0.2; // or this share of its life, whichever is less
const SETTLED = 30; // seconds from which on another token may be good where this one is called invalid
const SETTLED_SHARE = 0.5; // or from this share of its life, whichever is less
const SAFE = new Set(["GET", "HEAD", "OPTIONS"]); // RFC 9110 9.2.1
const AWAY = "The service cannot be reached at the moment. Please try again.";
const OUT_HERE = "You are signed out here, but the service could not be told, because it cannot be reached at the moment.";

/** @param {import("./index.js").Options} options */
export function createTokengate(options) {
  return new Tokengate(options);
}

class Tokengate {
  #api;
  #tabs;
  #kept;
  #refreshIn;
  #device;
  #now;
  #session; // undefined while signed out: {id, refreshToken, scope}; `unsure` while it is being taken up
  #token; // undefined until one came: {value, life, since}; value is "" where the gateway keeps it in a cookie
  #refreshing; // the refresh under way
  #restored; // the try to take up an earlier session
  #ended; // the id of the session that ended last: late news of it are none
  #elsewhere; // whether the page is of another origin than the gateway
  #listeners = { signedOut: new Set(), refreshed: new Set() };

  constructor({
    baseUrl = globalThis.location?.origin,
    refreshIn = globalThis.document ? "cookie" : "body",
    storage,
    device = "",
    tabs = globalThis.document !== undefined,
    refreshAhead = true,
    patience = 30,
    timeout = 10,
    fetch = (...words) => globalThis.fetch(...words),
    WebSocket = globalThis.WebSocket,
    sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000)),
    now = moment,
    onSignedOut,
    onRefreshed,
  } = {}) {
    if (!baseUrl) throw new TypeError("baseUrl is missing");
    const base = new URL(baseUrl);
    this.#api = new Api(base, { fetch, patience, timeout, sleep });
    this.#kept = new Kept(refreshIn === "body" ? storage : undefined);
    this.#refreshIn = refreshIn;
    this.#device = device;
    this.#now = now;
    this.refreshAhead = refreshAhead;
    this.WebSocket = WebSocket;
    this.#elsewhere = globalThis.location !== undefined && globalThis.location.origin !== base.origin;
    this.#tabs = new Tabs(`tokengate:${base.origin}:${refreshIn}`, tabs, patience, (message) => this.#heard(message));
    if (onSignedOut) this.onSignedOut(onSignedOut);
    if (onRefreshed) this.onRefreshed(onRefreshed);
  }

  get signedIn() {
    return this.#session !== undefined && !this.#session.unsure;
  }

  get sessionId() {
    return this.#session?.id || undefined;
  }

  /** Seconds until the access token expires; 0 where there is none. */
  get expiresIn() {
    return this.#token ? Math.max(0, this.#token.life - age(this.#token.since, this.#now)) : 0;
  }

  onSignedOut(listener) {
    return subscribe(this.#listeners.signedOut, listener);
  }

  onRefreshed(listener) {
    return subscribe(this.#listeners.refreshed, listener);
  }

  // --- in and out ---

  /** @throws {import("./errors.js").TokengateError} */
  login({ username, password, device = this.#device }) {
    const content = { username, password, refresh_in: this.#refreshIn, ...(device ? { device } : {}) };
    // Alone, for the answer to an older session's refresh would set its cookie over the new one.
    return this.#tabs.exclusive(() => this.#login(content));
  }

  async #login(content) {
    // Asked again only where nothing has been done: a try may count, and an answer that is lost left a session.
    const again = ({ response }) => response !== undefined && HELD.has(errorCode(response));
    const { response, content: said } = await this.#api.post("/auth/login", content, {}, { good: isTokens, again, text: AWAY });
    if (!response.ok) throw refusal(response);
    const { session, failure } = await this.#take(said);
    if (failure) {
      session.unsure = true; // it has never begun
      await this.logout().catch(() => undefined);
      throw failure;
    }
    return { sessionId: session.id, scope: session.scope };
  }

  /** Take up the session of an earlier page or process; whether there is one. */
  restore() {
    this.#restored ??= this.#restore().catch((error) => {
      this.#restored = undefined; // an outage: it may be tried again
      throw error;
    });
    return this.#restored;
  }

  async #restore() {
    const kept = await this.#kept.get();
    if (this.#session) return true; // somebody has signed in meanwhile
    if (this.#refreshIn === "body" && !kept) return false;
    const session = (this.#session = { id: "", refreshToken: kept, scope: "", unsure: true });
    try {
      await this.refresh();
      return true;
    } catch (error) {
      if (this.#session === session) this.#session = undefined;
      if (this.#session) return true;
      if (error instanceof SignedOut || error instanceof NotSignedIn) return false;
      throw error;
    }
  }

  async logout() {
    const refreshToken = this.#session?.refreshToken ?? (await this.#kept.get());
    const headers = this.#token?.value ? { Authorization: `Bearer ${this.#token.value}` } : {};
    const gone = this.#forget("logout");
    const content = refreshToken ? { refresh_token: refreshToken } : {};
    const told = this.#api.post("/auth/logout", content, headers, { text: OUT_HERE });
    const { response } = await told.finally(() => gone);
    if (!response.ok && response.status !== 401 && errorCode(response) !== "invalid_grant") throw refusal(response);
  }

  get sessions() {
    const ask = async (method, path) => {
      const known = this.signedIn;
      const response = await this.fetch(new URL(path, this.#api.base), { method }).catch((cause) => {
        throw cause instanceof TokengateError ? cause : new Unavailable({ cause });
      });
      if (response.status !== 401 && !response.ok) throw refusal(response);
      if (response.ok) return response;
      if (this.signedIn) throw refusal(response);
      throw known ? new SignedOut("session_ended", { response }) : new NotSignedIn({ response });
    };
    return {
      list: async () => (await (await ask("GET", "/auth/sessions")).json()).sessions,
      end: async (id) => {
        await ask("DELETE", `/auth/sessions/${encodeURIComponent(id)}`);
        if (id === this.sessionId) this.#forget("logout");
      },
      endAll: async ({ except } = {}) => {
        await ask("DELETE", except === "current" ? "/auth/sessions?except=current" : "/auth/sessions");
        if (except !== "current") this.#forget("logout");
      },
    };
  }

  // --- requests ---

  /**
   * The platform's `fetch`, with a token that is good. It answers with a Response also where that is a 401.
   *
   * @param {RequestInfo | URL} input
   * @param {RequestInit} [init]
   */
  async fetch(input, init = {}) {
    const url = new URL(input instanceof Request ? input.url : input, this.#api.base);
    const request = input instanceof Request ? input : url;
    if (url.origin !== this.#api.base.origin || given(input, init).has("Authorization")) {
      return this.#api.platform(request, init);
    }
    const signal = init.signal ?? (input instanceof Request ? input.signal : undefined);
    const again = replayable(input, init);
    let token = await unlessAborted(signal, () => this.#usable());
    let renewed = false;
    let spent = 0;
    for (let attempt = 1; ; attempt += 1) {
      const response = await this.#api.platform(target(request, again), this.#with(token, input, init));
      const code = this.#said(response, init.method ?? input.method);
      if (response.status === 401 && this.#isStale(code, token) && this.signedIn && !renewed) {
        renewed = true;
        const old = token; // refreshed also for a body that is gone: the caller's own try finds the new one
        token = await unlessAborted(signal, () => this.refresh(old).catch(unlessSignedOut));
        if (!token) return response;
        if (!again) throw new BodyNotReplayable({ response });
      } else if (response.status === 503 && HELD.has(code) && again && spent < this.#api.patience) {
        const wait = backoff(attempt, response);
        spent += wait;
        await unlessAborted(signal, () => this.#api.sleep(wait));
      } else {
        if (response.status === 401 && code === "revoked_token" && token && token === this.#token) this.#forget("revoked");
        return response;
      }
      response.body?.cancel().catch(() => undefined); // it would hold its connection
    }
  }

  /** The gateway's word about a request; "" where that has been elsewhere meanwhile, and perhaps had an effect there. */
  #said(response, method = "GET") {
    if (response.redirected && !SAFE.has(method.toUpperCase())) return "";
    if (response.url && new URL(response.url).origin !== this.#api.base.origin) return "";
    return errorCode(response);
  }

  #with(token, input, init) {
    if (token?.value === "" && this.#elsewhere) return { ...init, credentials: withCookies(input, init) };
    if (!token?.value) return init;
    const headers = given(input, init);
    headers.set("Authorization", `Bearer ${token.value}`);
    return { ...init, headers };
  }

  /** A token that is not about to expire; undefined while signed out. */
  async #usable() {
    if (!this.signedIn && !(await this.restore())) return undefined;
    const token = this.#token;
    if (token?.value === "") return token; // in a cookie: the gateway renews it in place
    if (token && !this.#isOld(token)) return token;
    try {
      return await this.refresh(token);
    } catch (error) {
      if (error instanceof SignedOut || error instanceof NotSignedIn) return undefined;
      if (this.signedIn && this.#token === token && this.expiresIn > 0) return token; // it is good for a while yet
      throw error;
    }
  }

  #isOld(token) {
    if (!this.refreshAhead) return false;
    const left = token.life - age(token.since, this.#now);
    return left <= Math.min(AHEAD, AHEAD_SHARE * token.life);
  }

  /**
   * Whether another token may be good where this one was refused: it has expired, or it is one of an earlier key that
   * was removed (RFC 6750 3.1). Where new tokens are refused too, not every request is to ask for one more.
   */
  #isStale(code, token) {
    if (code !== "invalid_token" || !token) return code === "expired_token";
    return age(token.since, this.#now) >= Math.min(SETTLED, SETTLED_SHARE * token.life);
  }

  // --- refresh ---

  /**
   * Get a new access token, unless `old` is not the newest one. Callers that come meanwhile share one refresh.
   *
   * @throws {SignedOut} the session has ended
   * @throws {Unavailable} nobody could be asked; the session goes on
   */
  refresh(old = this.#token) {
    if (old !== this.#token && this.#token) return Promise.resolve(this.#token);
    const settled = () => (this.#token !== old ? this.#token : undefined);
    this.#refreshing ??= this.#tabs
      .alone(settled, () => this.#refresh())
      .finally(() => {
        this.#refreshing = undefined;
      });
    return this.#refreshing;
  }

  async #refresh() {
    const session = this.#session;
    if (!session) throw new NotSignedIn();
    const refreshToken = (await this.#kept.news()) ?? session.refreshToken;
    const content = { grant_type: "refresh_token", ...(refreshToken ? { refresh_token: refreshToken } : {}) };
    const rules = { good: isTokens, text: session.unsure ? AWAY : undefined };
    const { response, content: said } = await this.#api.post("/auth/token", content, {}, rules);
    const error = response.ok ? undefined : await this.#meant(session, refreshToken, response);
    if (session !== this.#session) {
      if (this.#token) return this.#token; // somebody has signed in meanwhile
      throw new SignedOut("logout");
    }
    if (error instanceof SignedOut || error instanceof CookiesBlocked) this.#forget(error.reason ?? "cookie_missing");
    if (error) throw error;
    const { token, failure } = await this.#take(said);
    this.#tell("refreshed", { byOtherTab: false, kept: !failure });
    return token;
  }

  /** The error that the refusal of a refresh means. */
  async #meant(session, refreshToken, response) {
    const code = errorCode(response);
    if (code === "invalid_grant" || code === "revoked_token") return new SignedOut("session_ended", { response });
    if (code !== "invalid_request" || refreshToken) return refusal(response);
    // No cookie came. None was ever set, or it is gone with its session, or else the browser blocks it.
    if (session.unsure || session.refreshed) return new SignedOut("cookie_missing", { response });
    return (await this.#isAlive()) ? new CookiesBlocked({ response }) : new SignedOut("session_ended", { response });
  }

  /** Whether the session is there, as far as its access token still tells. */
  async #isAlive() {
    if (!this.#token?.value) return true;
    const { response } = await this.#api.call("/auth/me", { headers: { Authorization: `Bearer ${this.#token.value}` } });
    return errorCode(response) !== "revoked_token";
  }

  // --- state ---

  /** Take up what a sign-in or a refresh has brought. `failure` is the storage's. */
  async #take(said) {
    const before = this.#session;
    const { session_id: id, scope, refresh_token: refreshToken } = said;
    const token = { value: said.access_token ?? "", life: said.expires_in, since: this.#now() };
    const session = { id, scope, refreshToken, refreshed: before?.id === id };
    this.#token = token;
    this.#session = session;
    this.#restored = Promise.resolve(true);
    const failure = refreshToken ? await this.#kept.set(refreshToken).catch((error) => error) : undefined;
    const kind = before?.unsure || session.refreshed ? "refreshed" : "signed-in";
    if (this.#session === session && (kind === "refreshed" || !failure)) this.#tabs.tell(this.#news(kind));
    return { token, session, failure };
  }

  #news(kind) {
    const { id, scope, refreshToken } = this.#session;
    return { kind, id, scope, refreshToken, value: this.#token.value, life: this.#token.life, wall: this.#token.since.wall };
  }

  /** Another tab has something to say. */
  #heard(message) {
    const known = this.#session?.id;
    if (message.kind === "signed-out") {
      if (this.#session && (!message.id || !known || message.id === known)) this.#forget(message.reason, true);
      return;
    }
    if (message.kind === "refreshed" && (message.id === this.#ended || (known && known !== message.id))) return;
    const now = this.#now();
    const since = { steady: now.steady - Math.max(0, now.wall - message.wall), wall: message.wall };
    this.#token = { value: message.value, life: message.life, since };
    this.#session = { id: message.id, scope: message.scope, refreshToken: message.refreshToken, refreshed: true };
    this.#restored = Promise.resolve(true);
    this.#tell("refreshed", { byOtherTab: true, kept: true });
  }

  /** Be signed out, and tell so unless it was never known whether there is a session; resolves when nothing is kept. */
  #forget(reason, told = false) {
    const session = this.#session;
    this.#session = this.#token = undefined;
    this.#restored = Promise.resolve(false);
    const gone = this.#kept.remove();
    if (!session || session.unsure) return gone;
    this.#ended = session.id;
    if (!told) this.#tabs.tell({ kind: "signed-out", id: session.id, reason });
    this.#tell("signedOut", { reason });
    return gone;
  }

  #tell(event, detail) {
    for (const listener of this.#listeners[event]) {
      try {
        listener(detail);
      } catch (error) {
        queueMicrotask(() => {
          throw error; // the application's own error, told as such
        });
      }
    }
  }

  // --- sockets ---

  /** A WebSocket that comes back by itself, with a fresh token where that is what it takes. */
  webSocket(url, protocols = []) {
    return new TokengateSocket(this, socketAddress(url, this.#api.base), [protocols].flat(), this.#api.sleep);
  }

  /** The value of a token that is good, "" in cookie mode, undefined while signed out. For sockets and other clients. */
  async accessToken({ not } = {}) {
    let token = await this.#usable();
    if (token && not !== undefined && token.value === not) token = await this.refresh(token);
    return token?.value;
  }

  close() {
    this.#tabs.close();
  }
}

/** Being signed out is no error of a request: its answer says so. */
function unlessSignedOut(error) {
  if (error instanceof SignedOut || error instanceof NotSignedIn) return undefined;
  throw error;
}

function subscribe(listeners, listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
