// The client. Laws:
//
// - One refresh at a time, here and in the other tabs.
// - Only the gateway's word signs out: `invalid_grant` to a refresh, or `revoked_token` to a request. An outage does not.
// - Signed out is told once for each sign-in.
// - A request goes out a second time only where the gateway says that no backend has seen the first.
// - No token leaves for another origin than the gateway's.

import { Api, HELD, backoff, errorCode, refusal } from "./api.js";
import { replayable, target } from "./body.js";
import { age, moment } from "./clock.js";
import { BodyNotReplayable, CookiesBlocked, NotSignedIn, SignedOut, Unavailable } from "./errors.js";
import { TokengateSocket } from "./socket.js";
import { Tabs } from "./tabs.js";

const AHEAD = 30; // seconds before its end from which on a token is refreshed
const AHEAD_SHARE = 0.2; // or this share of its life, whichever is less

/** @param {import("./index.js").Options} options */
export function createTokengate(options) {
  return new Tokengate(options);
}

class Tokengate {
  #api;
  #tabs;
  #storage;
  #refreshIn;
  #device;
  #now;
  #session; // undefined while signed out: {id, refreshToken, scope}
  #token; // undefined until one came: {value, life, since}; value is "" where the gateway keeps it in a cookie
  #refreshing; // the refresh under way
  #restored; // the try to take up an earlier session
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
    this.#storage = storage ?? memory();
    this.#refreshIn = refreshIn;
    this.#device = device;
    this.#now = now;
    this.refreshAhead = refreshAhead;
    this.WebSocket = WebSocket;
    this.#tabs = new Tabs(`tokengate:${base.origin}:${refreshIn}`, tabs, (message) => this.#heard(message));
    if (onSignedOut) this.onSignedOut(onSignedOut);
    if (onRefreshed) this.onRefreshed(onRefreshed);
  }

  get signedIn() {
    return this.#session !== undefined;
  }

  get sessionId() {
    return this.#session?.id;
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

  async login({ username, password, device = this.#device }) {
    const content = { username, password, refresh_in: this.#refreshIn, ...(device ? { device } : {}) };
    const response = await this.#api.post("/auth/login", content);
    if (!response.ok) throw refusal(response);
    this.#restored = Promise.resolve(true);
    await this.#take(await response.json());
    this.#tabs.tell(this.#news("signed-in"));
    return { sessionId: this.#session.id, scope: this.#session.scope };
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
    const kept = this.#refreshIn === "body" ? await this.#storage.get() : undefined;
    if (this.#refreshIn === "body" && !kept) return false;
    this.#session = { id: "", refreshToken: kept, scope: "", unsure: true };
    try {
      await this.refresh();
      return true;
    } catch (error) {
      if (error instanceof SignedOut || error instanceof CookiesBlocked) return false;
      this.#session = undefined;
      throw error;
    }
  }

  async logout() {
    const { refreshToken } = this.#session ?? {};
    const headers = this.#token?.value ? { Authorization: `Bearer ${this.#token.value}` } : {};
    if (this.#session) this.#forget("logout");
    const response = await this.#api.post("/auth/logout", refreshToken ? { refresh_token: refreshToken } : {}, headers);
    if (!response.ok && response.status !== 401 && errorCode(response) !== "invalid_grant") throw refusal(response);
  }

  get sessions() {
    const ask = async (method, path) => {
      const response = await this.fetch(new URL(path, this.#api.base), { method });
      if (response.ok) return response;
      if (response.status === 401) throw this.signedIn ? refusal(response) : new NotSignedIn({ response });
      throw refusal(response);
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
    const again = replayable(input, init);
    let token = await this.#usable();
    let renewed = false;
    let spent = 0;
    for (let attempt = 1; ; attempt += 1) {
      const response = await this.#api.platform(target(request, again), this.#with(token, input, init));
      const code = errorCode(response);
      if (response.status === 401 && code === "expired_token" && this.signedIn && !renewed) {
        renewed = true;
        const fresh = await this.refresh(token); // also for a body that is gone: the caller's own try finds it
        if (!again) throw new BodyNotReplayable({ response });
        token = fresh;
      } else if (response.status === 503 && HELD.has(code) && again && spent < this.#api.patience) {
        const wait = backoff(attempt, response);
        spent += wait;
        await this.#api.sleep(wait);
      } else {
        if (response.status === 401 && code === "revoked_token" && this.#isCurrent(token)) this.#forget("revoked");
        return response;
      }
    }
  }

  #with(token, input, init) {
    if (!token?.value) return init;
    const headers = given(input, init);
    headers.set("Authorization", `Bearer ${token.value}`);
    return { ...init, headers };
  }

  #isCurrent(token) {
    return this.signedIn && (token === undefined || token === this.#token);
  }

  /** A token that is not about to expire; undefined while signed out. */
  async #usable() {
    if (!this.signedIn && !(await this.restore())) return undefined;
    const token = this.#token;
    if (token?.value === "") return token; // in a cookie: the gateway renews it in place
    if (!token || this.#isOld(token)) {
      try {
        return await this.refresh(token);
      } catch (error) {
        if (error instanceof SignedOut) return undefined;
        if (error instanceof Unavailable && token && this.expiresIn > 0) return token; // it is good for a while yet
        throw error;
      }
    }
    return token;
  }

  #isOld(token) {
    if (!this.refreshAhead) return false;
    const left = token.life - age(token.since, this.#now);
    return left <= Math.min(AHEAD, AHEAD_SHARE * token.life);
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
    const content = { grant_type: "refresh_token" };
    if (session.refreshToken) content.refresh_token = session.refreshToken;
    const response = await this.#api.post("/auth/token", content);
    if (session !== this.#session && !this.#session) throw new SignedOut("logout"); // it ended meanwhile
    if (response.ok) {
      await this.#take(await response.json());
      this.#tabs.tell(this.#news("refreshed"));
      this.#tell("refreshed", { byOtherTab: false });
      return this.#token;
    }
    throw await this.#refused(session, response);
  }

  /** What a refresh that was refused means. */
  async #refused(session, response) {
    const code = errorCode(response);
    if (code === "invalid_grant" || code === "revoked_token") {
      this.#forget("session_ended", session.unsure);
      return new SignedOut("session_ended", { response });
    }
    if (code === "invalid_request" && !session.refreshToken) {
      this.#forget("cookie_missing", session.unsure); // no cookie came: none was ever set, or it is blocked or gone
      return session.unsure || session.refreshed ? new SignedOut("cookie_missing", { response }) : new CookiesBlocked({ response });
    }
    return refusal(response);
  }

  // --- state ---

  async #take(said) {
    const before = this.#session;
    this.#token = { value: said.access_token ?? "", life: said.expires_in, since: this.#now() };
    this.#session = {
      id: said.session_id,
      scope: said.scope,
      refreshToken: said.refresh_token,
      refreshed: before?.id === said.session_id,
    };
    if (said.refresh_token) await this.#storage.set(said.refresh_token);
  }

  #news(kind) {
    const { id, scope, refreshToken } = this.#session;
    return { kind, id, scope, refreshToken, value: this.#token.value, life: this.#token.life, wall: this.#token.since.wall };
  }

  /** Another tab has something to say. */
  #heard(message) {
    if (message.kind === "signed-out") {
      if (this.#session && (!message.id || message.id === this.#session.id)) this.#forget(message.reason, false, true);
      return;
    }
    if (message.kind === "refreshed" && this.#session && this.#session.id && this.#session.id !== message.id) return;
    const now = this.#now();
    const since = { steady: now.steady - Math.max(0, now.wall - message.wall), wall: message.wall };
    this.#token = { value: message.value, life: message.life, since };
    this.#session = { id: message.id, scope: message.scope, refreshToken: message.refreshToken, refreshed: true };
    this.#restored = Promise.resolve(true);
    this.#tell("refreshed", { byOtherTab: true });
  }

  #forget(reason, silent = false, told = false) {
    const session = this.#session;
    if (!session) return;
    this.#session = this.#token = undefined;
    this.#restored = Promise.resolve(false);
    Promise.resolve(this.#storage.remove()).catch(() => {});
    if (silent) return;
    if (!told) this.#tabs.tell({ kind: "signed-out", id: session.id, reason });
    this.#tell("signedOut", { reason });
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
    return new TokengateSocket(this, new URL(url, this.#api.base), [protocols].flat(), this.#api.sleep);
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

/** Headers that the caller gave. */
function given(input, init) {
  return new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined));
}

function subscribe(listeners, listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
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

