export interface Options {
  /** Where the gateway is; in a browser the page's own origin by default. */
  baseUrl?: string | URL;
  /** Where the refresh token is kept: an HttpOnly cookie (default in browsers), or `storage` (default elsewhere). */
  refreshIn?: "cookie" | "body";
  /** Keeps the refresh token with `refreshIn: "body"`; in memory by default. */
  storage?: Storage;
  /** The name of this device, as the list of sessions shows it. A second sign-in on it replaces the first. */
  device?: string;
  /** Whether other tabs share the session; by default in browsers. */
  tabs?: boolean;
  /** Whether a token is renewed before it expires (default), or when the gateway has refused it. */
  refreshAhead?: boolean;
  /** Seconds for which an answer that does not come is asked for again (default 30). */
  patience?: number;
  /** Seconds for one answer of the gateway's own API (default 10). */
  timeout?: number;
  onSignedOut?: (event: SignedOutEvent) => void;
  onRefreshed?: (event: RefreshedEvent) => void;
  fetch?: typeof globalThis.fetch;
  WebSocket?: typeof globalThis.WebSocket;
  sleep?: (seconds: number) => Promise<void>;
  /** Seconds of a steady clock and of the wall clock. */
  now?: () => { steady: number; wall: number };
}

export interface Storage {
  get(): string | null | undefined | Promise<string | null | undefined>;
  set(refreshToken: string): unknown;
  remove(): unknown;
}

export interface SignedOutEvent {
  reason: "logout" | "revoked" | "session_ended" | "cookie_missing";
}

export interface RefreshedEvent {
  byOtherTab: boolean;
  /** False where the storage has refused the new refresh token: the session will not outlive this page or process. */
  kept: boolean;
}

export interface Session {
  id: string;
  device: string;
  user_agent: string;
  ip: string;
  /** Unix seconds, as all times here. */
  created_at: number;
  last_used_at: number;
  /** 0 = never. */
  expires_at: number;
  current: boolean;
}

export interface Tokengate {
  readonly signedIn: boolean;
  readonly sessionId: string | undefined;
  /** Seconds until the access token expires; 0 where there is none. */
  readonly expiresIn: number;
  /** The option of that name; it may be changed at any time. */
  refreshAhead: boolean;
  login(given: { username: string; password: string; device?: string }): Promise<{ sessionId: string; scope: string }>;
  /** Take up the session of an earlier page or process; resolves to whether there is one. */
  restore(): Promise<boolean>;
  /** End the session, here in any case; rejects with Unavailable where the gateway could not be told. */
  logout(): Promise<void>;
  /** The platform's `fetch`, with a token that is good. Relative addresses are the gateway's. */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
  /** Get a new access token, whatever is left of the present one. */
  refresh(): Promise<unknown>;
  /** A token that is good, for clients of another kind; "" where cookies carry it, undefined while signed out. */
  accessToken(options?: { not?: string }): Promise<string | undefined>;
  readonly sessions: {
    list(): Promise<Session[]>;
    end(id: string): Promise<void>;
    endAll(options?: { except?: "current" }): Promise<void>;
  };
  webSocket(url: string | URL, protocols?: string | string[]): TokengateSocket;
  /** Returns what takes the listener off again. */
  onSignedOut(listener: (event: SignedOutEvent) => void): () => void;
  onRefreshed(listener: (event: RefreshedEvent) => void): () => void;
  /** Let go of what would keep a program running. */
  close(): void;
}

/**
 * A WebSocket that comes back. Events: `open` each time it is connected, `message`, `reconnecting` (detail: code and
 * reason of what was lost), and `close` once, at its end (detail: code and reason; 4401 = signed out).
 */
export interface TokengateSocket extends EventTarget {
  readonly readyState: number;
  readonly protocol: string;
  send(data: string | ArrayBufferLike | Blob | ArrayBufferView): void;
  close(code?: number, reason?: string): void;
  addEventListener<Kind extends keyof SocketEvents>(
    kind: Kind,
    listener: (event: SocketEvents[Kind]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

export interface SocketEvents {
  open: Event;
  /** `data` is a string or an ArrayBuffer. */
  message: MessageEvent;
  reconnecting: CustomEvent<{ code: number; reason: string }>;
  close: CustomEvent<{ code: number; reason: string }>;
}

export function createTokengate(options?: Options): Tokengate;

export class TokengateError extends Error {
  readonly code: string;
  /** The gateway's answer, if there was one. Its body may have been read. */
  readonly response?: Response;
}
export class InvalidCredentials extends TokengateError {}
export class TooManyAttempts extends TokengateError {
  /** Seconds. */
  readonly retryAfter: number;
}
export class Unavailable extends TokengateError {}
export class NotSignedIn extends TokengateError {}
export class SignedOut extends TokengateError {
  readonly reason: SignedOutEvent["reason"];
}
export class CookiesBlocked extends TokengateError {}
export class StorageFailed extends TokengateError {}
export class BodyNotReplayable extends TokengateError {}
export class Refused extends TokengateError {}
