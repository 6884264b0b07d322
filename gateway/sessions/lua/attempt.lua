-- Count an attempt against a rate: the generic cell rate algorithm (ITU-T I.371, virtual scheduling).
-- KEYS  1 attempt key: the theoretical arrival time of the next attempt (us)
-- ARGV  1 now (ms) or ''  2 attempts a minute, which is the burst too
-- Returns 0 if it is allowed, else the microseconds to wait. A refused attempt is not counted.

local now = clock(ARGV[1]) * 1000
local minute = 60000000
local interval = math.floor(minute / tonumber(ARGV[2]))
-- Never further ahead than a full burst: a clock that was set back must not lock anyone out for longer.
local expected = math.min(tonumber(redis.call('GET', KEYS[1]) or '0') or 0, now + minute)
local following = math.max(expected, now) + interval
local wait = following - minute - now
if wait > 0 then return wait end
local life = math.max(1, math.ceil((following - now) / 1000))
redis.call('SET', KEYS[1], string.format('%d', following), 'PX', string.format('%d', life))
return 0
