-- Note that an access token minted with the session's present counter was seen.
-- KEYS  1 session key  2 epoch key
-- ARGV  1 now (ms) or ''  2 the epoch as the caller knows it  3 counter of the access token
-- Returns {epoch, 1 if it was rolled back, 1 if this was the first time, else 0}.

local now = clock(ARGV[1])
local epoch = enter(KEYS[2], now, ARGV[2])
local s = read(redis.call('GET', KEYS[1]), epoch)
local first = s and not has_ended(s, now) and s.used == 0 and s.counter == tonumber(ARGV[3])
if first then
  s.used = now
  redis.call('SET', KEYS[1], write(s, epoch), 'KEEPTTL')
end
return { text_of(epoch), epoch.renewed, first and 1 or 0 }
