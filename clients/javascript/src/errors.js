// What can go wrong. `message` is a text that a person understands; `code` is for programs.

export class TokengateError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{response?: Response, cause?: unknown}} [more]
   */
  constructor(code, message, { response, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = code;
    this.response = response;
  }
}

export class InvalidCredentials extends TokengateError {
  constructor(more) {
    super("invalid_credentials", "The user name or the password is wrong.", more);
  }
}

export class TooManyAttempts extends TokengateError {
  /** @param {number} retryAfter seconds */
  constructor(retryAfter, more) {
    super("too_many_attempts", `Too many attempts. Please try again in ${duration(retryAfter)}.`, more);
    this.retryAfter = retryAfter;
  }
}

export class Unavailable extends TokengateError {
  constructor(more, text = "The service cannot be reached at the moment. You are still signed in; please try again.") {
    super("unavailable", text, more);
  }
}

export class NotSignedIn extends TokengateError {
  constructor(more) {
    super("not_signed_in", "Please sign in.", more);
  }
}

export class SignedOut extends TokengateError {
  /** @param {string} reason */
  constructor(reason, more) {
    super("signed_out", "You have been signed out. Please sign in again.", more);
    this.reason = reason;
  }
}

export class CookiesBlocked extends TokengateError {
  constructor(more) {
    super("cookies_blocked", "Your browser blocks cookies for this site. Allow them to stay signed in.", more);
  }
}

export class StorageFailed extends TokengateError {
  constructor(more) {
    super("storage_failed", "Your sign-in cannot be kept here. Allow this site to store data, and sign in again.", more);
  }
}

export class BodyNotReplayable extends TokengateError {
  constructor(more) {
    super(
      "body_not_replayable",
      "The upload was not accepted because the sign-in had to be renewed meanwhile. It has been; please start the upload again.",
      more,
    );
  }
}

export class Refused extends TokengateError {
  constructor(code, more) {
    super(code, "The request was refused.", more);
  }
}

function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.ceil(seconds))} seconds`;
  return `${Math.ceil(seconds / 60)} minutes`;
}
