-- Begin a session of a user on a device.
-- KEYS  1 session key  2 alive key  3 user key  4 epoch key
--       5, 6 what the session and alive keys of this partition begin with: those of the user's other
--       sessions are derived from the ids in the user key, and lie in the same slot
-- ARGV  1 now (ms) or ''  2 sid  3 sub  4 client part  5 what the client part of the same device begins
--       with, '' = none  6 identity part  7 refresh ttl (ms, 0 = never)  8 session ttl (ms, 0 = never)
--       9 greatest number of sessions of a user (0 = any)
-- Returns {the record, the ids that ended to make room}.

local now = clock(ARGV[1])
local user = KEYS[3]
local ended = {}
local others = {}

local function drop(sid)
  redis.call('DEL', KEYS[5] .. sid, KEYS[6] .. sid)
  redis.call('ZREM', user, sid)
  ended[#ended + 1] = sid
end

for _, sid in ipairs(redis.call('ZRANGE', user, 0, -1)) do
  local s = read(redis.call('GET', KEYS[5] .. sid))
  if not s or has_ended(s, now) then
    redis.call('DEL', KEYS[5] .. sid, KEYS[6] .. sid)
    redis.call('ZREM', user, sid)
  elseif ARGV[5] ~= '' and string.sub(s.client, 1, #ARGV[5]) == ARGV[5] then
    drop(sid)
  else
    others[#others + 1] = { sid = sid, at = math.max(s.rotated * 1000, s.used) }
  end
end

local most = tonumber(ARGV[9])
if most > 0 and #others >= most then
  table.sort(others, function(a, b) return a.at < b.at or (a.at == b.at and a.sid < b.sid) end)
  for i = 1, #others - most + 1 do drop(others[i].sid) end
end

local second = math.floor(now / 1000)
local s = { counter = 0, created = second, rotated = second, used = 0 }
s.sub, s.client, s.identity = ARGV[3], ARGV[4], ARGV[6]
s.expires = idle_end(now, tonumber(ARGV[7]), absolute_end(s, tonumber(ARGV[8])))
local record = write(s)
put(KEYS[1], record, s.expires)
put(KEYS[2], '1', s.expires)
index(user, ARGV[2], s.expires)
redis.call('SET', KEYS[4], string.format('%d', second), 'NX')
return { record, ended }
