-- Void what another issuer gave a subject up to a moment.
-- KEYS  1 not-before key  2 epoch key
-- ARGV  1 now (ms) or ''  2 the epoch as the caller knows it  3 the moment (Unix seconds): tokens issued at or before
--       it are void  4 the longest life of such a token (ms)
-- Returns {epoch, 1 if it was rolled back, the moment that holds: a later one is never lowered}.

local now = clock(ARGV[1])
local epoch = enter(KEYS[2], now, ARGV[2])
local moment, life = tonumber(ARGV[3]), tonumber(ARGV[4])
local before = tonumber(redis.call('GET', KEYS[1]) or '') or -1
if moment > before then count_ending(epoch) end
moment, life = math.max(moment, before), math.max(life, redis.call('PTTL', KEYS[1]))
redis.call('SET', KEYS[1], string.format('%d', moment), 'PX', string.format('%d', life))
return { text_of(epoch), epoch.renewed, moment }
