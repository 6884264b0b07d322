-- End one session.
-- KEYS  1 session key  2 epoch key  3 what the user keys of this partition begin with (see rotate.lua)
-- ARGV  1 now (ms) or ''  2 the epoch as the caller knows it  3 sid
-- Returns {epoch, 1 if it was rolled back, 1 if the session was alive, else 0}.

local now = clock(ARGV[1])
local epoch = enter(KEYS[2], now, ARGV[2])
local text = redis.call('GET', KEYS[1])
local s = read(text, epoch)
if s then
  remove(KEYS[1], KEYS[3] .. s.sub, ARGV[3])
  count_ending(epoch)
elseif text then
  redis.call('DEL', KEYS[1])
end
return { text_of(epoch), epoch.renewed, s and not has_ended(s, now) and 1 or 0 }
