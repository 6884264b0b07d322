// tokengate's client for browsers and Node.
//
//   errors   what can go wrong, with a text for a person
//   clock    how old a token is, whatever happens to the clock
//   body     which requests can be sent a second time
//   api      the calls of the gateway itself
//   tabs     one refresh at a time, and what tabs tell each other
//   client   the client: sign in, fetch, refresh, sign out
//   socket   a WebSocket that comes back

export { createTokengate } from "./client.js";
export {
  BodyNotReplayable,
  CookiesBlocked,
  InvalidCredentials,
  NotSignedIn,
  Refused,
  SignedOut,
  TokengateError,
  TooManyAttempts,
  Unavailable,
} from "./errors.js";
