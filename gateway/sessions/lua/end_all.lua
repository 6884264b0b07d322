-- End all sessions of a user, or all but one.
-- KEYS  1 user key  2 epoch key  3 what the session keys of this partition begin with (see create.lua)
-- ARGV  1 now (ms) or ''  2 the epoch as the caller knows it  3 sid to keep, '' = none
-- Returns {epoch, 1 if it was rolled back, the ids of the sessions that were alive}.

local now = clock(ARGV[1])
local epoch = enter(KEYS[2], now, ARGV[2])
local ended = {}
for _, sid in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if sid ~= ARGV[3] then
    local s = read(redis.call('GET', KEYS[3] .. sid), epoch)
    if s and not has_ended(s, now) then ended[#ended + 1] = sid end
    redis.call('DEL', KEYS[3] .. sid)
    redis.call('ZREM', KEYS[1], sid)
  end
end
keep_until_latest(KEYS[1])
if #ended > 0 then count_ending(epoch) end
return { text_of(epoch), epoch.renewed, ended }
