-- Read all sessions of a user at one moment.
-- KEYS  1 user key  2 epoch key  3 what the session keys of this partition begin with (see create.lua)
-- ARGV  1 now (ms) or ''  2 the epoch as the caller knows it
-- Returns {epoch, 1 if it was rolled back, {sid, record, sid, record, ...} of the sessions that have not ended}.

local now = clock(ARGV[1])
local epoch = enter(KEYS[2], now, ARGV[2])
local found = {}
for _, sid in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local text = redis.call('GET', KEYS[3] .. sid)
  local s = read(text, epoch)
  if s and not has_ended(s, now) then
    found[#found + 1] = sid
    found[#found + 1] = text
  end
end
return { text_of(epoch), epoch.renewed, found }
