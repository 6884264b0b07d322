-- Put a token on the blacklist until it would have expired anyway.
-- KEYS  1 revoked key  2 epoch key
-- ARGV  1 now (ms) or ''  2 the epoch as the caller knows it  3 end of the entry (ms): exp + leeway
-- Returns {epoch, 1 if it was rolled back, 1, or 0 where it was there before or the token has expired already}.

local now = clock(ARGV[1])
local epoch = enter(KEYS[2], now, ARGV[2])
if tonumber(ARGV[3]) <= now then return { text_of(epoch), epoch.renewed, 0 } end
local new = 1 - redis.call('EXISTS', KEYS[1])
if new == 1 then count_ending(epoch) end
redis.call('SET', KEYS[1], '1', 'PXAT', ARGV[3])
return { text_of(epoch), epoch.renewed, new }
