-- End one session.
-- KEYS  1 session key  2 alive key  3 what the user keys of this partition begin with (see rotate.lua)
-- ARGV  1 now (ms) or ''  2 sid
-- Returns 1 if the session was alive, else 0.

local now = clock(ARGV[1])
local s = read(redis.call('GET', KEYS[1]))
local was_alive = s and not has_ended(s, now) and redis.call('EXISTS', KEYS[2]) == 1
if s then
  remove(KEYS[1], KEYS[2], KEYS[3] .. s.sub, ARGV[2])
else
  redis.call('DEL', KEYS[1], KEYS[2])
end
return was_alive and 1 or 0
