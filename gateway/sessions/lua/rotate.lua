-- Present a refresh token: the table of tokens/rotation.py, atomically.
-- KEYS  1 session key  2 epoch key  3 what the user keys of this partition begin with: the user is named
--       in the record, and the key derived from it lies in the same slot
-- ARGV  1 now (ms) or ''  2 the epoch as the caller knows it  3 sid  4 counter presented  5 grace (ms)
--       6 refresh ttl (ms, 0 = never)  7 session ttl (ms, 0 = never)  8 identity part after a recheck, '' = as it was
-- Returns {epoch, 1 if it was rolled back, outcome, the record after it, or before it where the session is over; ''
--       where there is none}.

local now = clock(ARGV[1])
local epoch = enter(KEYS[2], now, ARGV[2])

local function answer(outcome, record)
  return { text_of(epoch), epoch.renewed, outcome, record }
end

local before = redis.call('GET', KEYS[1])
local s = read(before, epoch)
if not s then
  redis.call('DEL', KEYS[1])
  return answer('unknown', '')
end

local user = KEYS[3] .. s.sub
local ends = absolute_end(s, tonumber(ARGV[7]))
if has_ended(s, now) or (ends > 0 and ends * 1000 <= now) then
  remove(KEYS[1], user, ARGV[3])
  count_ending(epoch)
  return answer('expired', before)
end

local n = tonumber(ARGV[4])

if n == s.counter then
  s.counter = s.counter + 1
  s.rotated = math.floor(now / 1000)
  s.used = 0
  s.expires = idle_end(now, tonumber(ARGV[6]), ends)
  if ARGV[8] ~= '' then s.identity = ARGV[8] end
  local record = write(s, epoch)
  put(KEYS[1], record, s.expires)
  index(user, ARGV[3], s.expires)
  return answer('rotated', record)
end

if n == s.counter - 1 and n >= 0 and (s.used == 0 or now <= s.used + tonumber(ARGV[5])) then
  -- Nothing of the rotation changes, but roles that were taken away must not come back in a replay.
  if ARGV[8] ~= '' and ARGV[8] ~= s.identity then
    s.identity = ARGV[8]
    redis.call('SET', KEYS[1], write(s, epoch), 'KEEPTTL')
  end
  return answer('replayed', write(s, epoch))
end

remove(KEYS[1], user, ARGV[3])
count_ending(epoch)
return answer('reuse', before)
