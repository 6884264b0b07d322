-- Note that an access token minted with the session's present counter was seen.
-- KEYS  1 session key
-- ARGV  1 now (ms) or ''  2 counter of the access token
-- Returns 1 if this was the first time, else 0.

local now = clock(ARGV[1])
local s = read(redis.call('GET', KEYS[1]))
if not s or has_ended(s, now) or s.used > 0 or s.counter ~= tonumber(ARGV[2]) then return 0 end
s.used = now
redis.call('SET', KEYS[1], write(s), 'KEEPTTL')
return 1
