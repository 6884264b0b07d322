-- End all sessions of a user, or all but one.
-- KEYS  1 user key  2, 3 what the session and alive keys of this partition begin with (see create.lua)
-- ARGV  1 now (ms) or ''  2 sid to keep, '' = none
-- Returns the ids of the sessions that were alive.

local now = clock(ARGV[1])
local ended = {}
for _, sid in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if sid ~= ARGV[2] then
    local s = read(redis.call('GET', KEYS[2] .. sid))
    if s and not has_ended(s, now) then ended[#ended + 1] = sid end
    redis.call('DEL', KEYS[2] .. sid, KEYS[3] .. sid)
    redis.call('ZREM', KEYS[1], sid)
  end
end
keep_until_latest(KEYS[1])
return ended
