-- Present a refresh token: the table of tokens/rotation.py, atomically.
-- KEYS  1 session key  2 alive key  3 what the user keys of this partition begin with: the user is named
--       in the record, and the key derived from it lies in the same slot
-- ARGV  1 now (ms) or ''  2 sid  3 counter presented  4 grace (ms)  5 refresh ttl (ms, 0 = never)
--       6 session ttl (ms, 0 = never)  7 identity part after a recheck, '' = as it was
-- Returns {outcome, the record after it, or before it where the session is over; '' where there is none}.

local now = clock(ARGV[1])
local before = redis.call('GET', KEYS[1])
local s = read(before)
if not s then
  redis.call('DEL', KEYS[1], KEYS[2])
  return { 'unknown', '' }
end

local user = KEYS[3] .. s.sub

-- The whitelist decides: a record without its alive key (evicted, half restored) is never revived.
if redis.call('EXISTS', KEYS[2]) == 0 then
  remove(KEYS[1], KEYS[2], user, ARGV[2])
  return { 'unknown', '' }
end

local ends = absolute_end(s, tonumber(ARGV[6]))
if has_ended(s, now) or (ends > 0 and ends * 1000 <= now) then
  remove(KEYS[1], KEYS[2], user, ARGV[2])
  return { 'expired', before }
end

local n = tonumber(ARGV[3])

if n == s.counter then
  s.counter = s.counter + 1
  s.rotated = math.floor(now / 1000)
  s.used = 0
  s.expires = idle_end(now, tonumber(ARGV[5]), ends)
  if ARGV[7] ~= '' then s.identity = ARGV[7] end
  local record = write(s)
  put(KEYS[1], record, s.expires)
  put(KEYS[2], '1', s.expires)
  index(user, ARGV[2], s.expires)
  return { 'rotated', record }
end

if n == s.counter - 1 and n >= 0 and (s.used == 0 or now <= s.used + tonumber(ARGV[4])) then
  -- Nothing of the rotation changes, but roles that were taken away must not come back in a replay.
  if ARGV[7] ~= '' and ARGV[7] ~= s.identity then
    s.identity = ARGV[7]
    redis.call('SET', KEYS[1], write(s), 'KEEPTTL')
  end
  return { 'replayed', write(s) }
end

remove(KEYS[1], KEYS[2], user, ARGV[2])
return { 'reuse', before }
