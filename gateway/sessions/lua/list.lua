-- Read all sessions of a user at one moment.
-- KEYS  1 user key  2 what the session keys of this partition begin with (see create.lua)
-- ARGV  1 now (ms) or ''
-- Returns {sid, record, sid, record, ...} of the sessions that have not ended.

local now = clock(ARGV[1])
local found = {}
for _, sid in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local text = redis.call('GET', KEYS[2] .. sid)
  local s = read(text)
  if s and not has_ended(s, now) then
    found[#found + 1] = sid
    found[#found + 1] = text
  end
end
return found
