-- Forward-auth for HAProxy 2.6 or newer: `http-request lua.tokengate` asks tokengate about the request.
--
--   setenv TOKENGATE_URL http://127.0.0.1:8080
--   lua-load-per-thread /etc/haproxy/tokengate.lua
--
-- An allowed request gets tokengate's identity headers and the variable txn.tokengate = "allowed". Any other
-- one is answered with tokengate's own answer, or with 503 where tokengate gave none. HAProxy carries on after
-- an error in a script, so the configuration must refuse what has not been allowed.

local gateway = os.getenv("TOKENGATE_URL") or ""
assert(gateway:match("^https?://[^/]+$"), "tokengate.lua: TOKENGATE_URL must be http://HOST:PORT")

local TIMEOUT = 500 -- ms; HAProxy 2.6 asks up to four times where it got no answer

-- What tokengate reads of a request, all values of each. X-Forwarded-* are HAProxy's own.
local SENT = {
    "authorization", "cookie", "origin", "sec-fetch-site", "user-agent",
    "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol",
    "x-http-method-override", "x-http-method", "x-method-override",
    "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id", "traceparent",
}
-- One entry for each header of [identity_headers].
local IDENTITY = {
    "x-auth-request-user", "x-auth-request-email", "x-auth-request-groups", "x-auth-request-session",
}
-- What the client gets of a refusal.
local RETURNED = {
    "content-type", "cache-control", "x-gateway-error", "www-authenticate", "retry-after", "allow",
}

-- HAProxy counts a header's values from 0, its HTTP client wants them from 1.
local function list(values)
    local result = {}
    for at = 0, #values do
        result[at + 1] = values[at]
    end
    return result
end

local function question(txn)
    local headers, client = {}, txn.http:req_get_headers()
    for _, name in ipairs(SENT) do
        if client[name] then
            headers[name] = list(client[name])
        end
    end
    headers["x-original-method"] = { txn.f:method() }
    headers["x-original-uri"] = { txn.f:pathq() }
    return headers
end

local function refuse(txn, response)
    local reply = txn:reply({ status = 503, reason = "Service Unavailable" })
    if response and response.headers and response.headers["x-gateway-error"] then
        reply:set_status(response.status, response.reason)
        for _, name in ipairs(RETURNED) do
            for _, value in pairs(response.headers[name] or {}) do
                reply:add_header(name, value)
            end
        end
        reply:set_body(response.body or "")
    else
        reply:add_header("content-type", "application/json")
        reply:add_header("cache-control", "no-store")
        reply:add_header("retry-after", "1")
        reply:set_body('{"error":"unavailable","error_description":"The gateway cannot be asked at the moment"}')
    end
    txn:done(reply)
end

core.register_action("tokengate", { "http-req" }, function(txn)
    local response = core.httpclient():get({
        url = gateway .. "/auth/verify",
        headers = question(txn),
        timeout = TIMEOUT,
    })
    if not response or response.status ~= 200 then
        return refuse(txn, response)
    end
    for _, name in ipairs(IDENTITY) do
        local values = response.headers[name]
        txn.http:req_del_header(name)
        if values and values[0] and values[0] ~= "" then
            txn.http:req_set_header(name, values[0])
        end
    end
    txn:set_var("txn.tokengate", "allowed")
end)
