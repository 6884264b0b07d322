-- Put a token on the blacklist until it would have expired anyway.
-- KEYS  1 revoked key
-- ARGV  1 now (ms) or ''  2 end of the entry (ms): exp + leeway
-- Returns 1, or 0 where the token has expired already.

if tonumber(ARGV[2]) <= clock(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], '1', 'PXAT', ARGV[2])
return 1
