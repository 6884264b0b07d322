-- Append entries to the audit trail, and cut what is older than the retention; with the last entry the stream's life
-- begins anew.
-- KEYS  1 the stream
-- ARGV  1 the most entries (about: whole nodes of the stream are cut)  2 retention (ms)
--       3... for each entry: how many words it has, then its fields and values in turn
-- Returns how many were appended. Their ids are Redis' own time.

local now, retention = clock(''), tonumber(ARGV[2])
local position, appended = 3, 0
while position <= #ARGV do
  local words = tonumber(ARGV[position])
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, position + 1, position + words))
  position, appended = position + words + 1, appended + 1
end
redis.call('XTRIM', KEYS[1], 'MINID', string.format('%d', math.max(0, now - retention)))
redis.call('PEXPIREAT', KEYS[1], string.format('%d', now + retention))
return appended
