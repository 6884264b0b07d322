// tokengate's client for browsers and Node.
//
//   errors   what can go wrong, with a text for a person
//   clock    how old a token is, whatever happens to the clock
//   body     which requests can be sent a second time
//   waiting  a wait that its caller can give up
//   api      the calls of the gateway itself
//   storage  where the refresh token is kept where no cookie keeps it
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
  StorageFailed,
  TokengateError,
  TooManyAttempts,
  Unavailable,
} from "./errors.js";
