// The list of what went over the wire, newest last. Equal lines in a row are one with a count.

const MOST = 200; // lines

const BY_ERROR = {
  expired_token: "The token has expired: the page refreshes and sends it again.",
  revoked_token: "The session has ended: its token is refused, though it has not expired.",
  missing_token: "Nobody is signed in. The backend has seen nothing of it.",
  invalid_grant: "The session has ended: there is no new token.",
  invalid_request: "No refresh cookie: nobody was signed in here before.",
  invalid_credentials: "The user name or the password is wrong.",
};
const BY_CALL = {
  "POST /auth/login": "Signed in: an access token for the page, a refresh token in the cookie.",
  "second device POST /auth/login": "Signed in there: a session of its own.",
  "POST /auth/token": "Refreshed: a new access token, a new refresh token in the cookie.",
  "POST /auth/logout": "Signed out: the session has ended.",
  "DELETE /auth/sessions?except=current": "All other sessions of this user have ended.",
  "GET /api/hello": "Let through, and the backend told who calls.",
  "WebSocket /api/live 101": "The stream is open.",
  "WebSocket /api/live 4401": "tokengate has cut the stream.",
  "WebSocket /api/live 1006": "The stream could not be opened, or broke; browsers do not say why.",
};

export class Timeline {
  #box;
  #list;
  #last = { key: "", count: 0 };

  /** @param {HTMLElement} box what scrolls; its list is filled */
  constructor(box) {
    this.#box = box;
    this.#list = box.querySelector("ol");
  }

  /**
   * @param {{who?: string, method: string, path: string, status: number, error?: string, ms?: number}} row
   *   status 0: no answer came
   */
  add({ who = "", method, path, status, error = "", ms }) {
    const key = [who, method, path, status, error].join(" ");
    if (key !== this.#last.key) this.#append({ who, method, path, status, error });
    this.#last = { key, count: key === this.#last.key ? this.#last.count + 1 : 1 };
    const times = this.#last.count > 1 ? `×${this.#last.count} ` : "";
    const line = this.#list.lastElementChild;
    line.dataset.count = this.#last.count;
    line.querySelector(".ms").textContent = `${times}${ms === undefined ? "" : `${Math.round(ms)} ms`}`;
  }

  #append({ who, method, path, status, error }) {
    const line = document.createElement("li");
    line.className = kind(status, error);
    const call = element("span", "call");
    if (who) call.append(element("span", "who", who), " ");
    const said = `${status || "no answer"}${error ? ` ${error}` : ""}`;
    call.append(element("code", "", `${method} ${path}`), " ", element("code", "status", said));
    line.append(call, element("span", "ms"), element("p", "why", meaning({ who, method, path, status, error })));
    this.#list.append(line);
    if (this.#list.childElementCount > MOST) this.#list.firstElementChild.remove();
    this.#box.scrollTop = this.#box.scrollHeight;
  }
}

function meaning({ who, method, path, status, error }) {
  if (error) return BY_ERROR[error] ?? "";
  if (status === 0) return "tokengate does not answer.";
  const call = `${method} ${path}`;
  return BY_CALL[`${who} ${call}`] ?? BY_CALL[`${call} ${status}`] ?? BY_CALL[call] ?? "";
}

function kind(status, error) {
  if (error === "invalid_request") return "plain"; // only a question whether anybody is signed in
  return (status >= 200 && status < 300) || status === 101 ? "good" : "bad";
}

function element(name, kind, text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}
