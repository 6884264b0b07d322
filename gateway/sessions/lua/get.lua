-- Read one session.
-- KEYS  1 session key  2 epoch key
-- ARGV  1 now (ms) or ''  2 the epoch as the caller knows it
-- Returns {epoch, 1 if it was rolled back, the record, '' where there is none or it has ended}.

local now = clock(ARGV[1])
local epoch = enter(KEYS[2], now, ARGV[2])
local text = redis.call('GET', KEYS[1])
local s = read(text, epoch)
return { text_of(epoch), epoch.renewed, s and not has_ended(s, now) and text or '' }
