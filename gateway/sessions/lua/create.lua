-- Begin a session of a user on a device.
-- KEYS  1 session key  2 epoch key  3 user key  4 what the session keys of this partition begin with: those of
--       the user's other sessions are derived from the ids in the user key, and lie in the same slot
-- ARGV  1 now (ms) or ''  2 the epoch as the caller knows it  3 sid  4 sub  5 client part  6 what the client part
--       of the same device begins with, '' = none  7 identity part  8 refresh ttl (ms, 0 = never)
--       9 session ttl (ms, 0 = never)  10 greatest number of sessions of a user (0 = any)
-- Returns {epoch, 1 if it was rolled back, the record, the ids that ended to make room}.
-- A login looks at SWEPT sessions of the user, those that end soonest, and at all of them only where one has to make
-- room: a user may have thousands.

local SWEPT, READ = 50, 100 -- READ records in one command
local now = clock(ARGV[1])
local second = math.floor(now / 1000)
local epoch = enter(KEYS[2], now, ARGV[2])
local born = string.format('%010d', epoch.born)
local user = KEYS[3]
local device, most = ARGV[6], tonumber(ARGV[10])
local crowded = most > 0 and #redis.call('ZRANGE', user, most - 1, most - 1) > 0
local ended = {}
local others = {}

local function drop(sid)
  redis.call('DEL', KEYS[4] .. sid)
  redis.call('ZREM', user, sid)
end

local function replace(sid)
  drop(sid)
  ended[#ended + 1] = sid
end

local function look(sid, text)
  if not text or string.sub(text, 1, #born) < born then return drop(sid) end
  -- The device is a line of the record: most records are told apart without being parsed.
  local same = device ~= '' and string.find(text, '\n' .. device, 1, true)
  if not (same or crowded) then return end
  local s = read(text, epoch)
  if not s or has_ended(s, now) then
    drop(sid)
  elseif same and string.sub(s.client, 1, #device) == device then
    replace(sid)
  else
    others[#others + 1] = { sid = sid, at = math.max(s.rotated * 1000, s.used) }
  end
end

for _, sid in ipairs(redis.call('ZRANGE', user, '-inf', second, 'BYSCORE', 'LIMIT', 0, SWEPT)) do drop(sid) end

local sids = redis.call('ZRANGE', user, 0, (crowded or device ~= '') and -1 or SWEPT - 1)
for first = 1, #sids, READ do
  local keys = {}
  for i = first, math.min(first + READ - 1, #sids) do keys[#keys + 1] = KEYS[4] .. sids[i] end
  for i, text in ipairs(redis.call('MGET', unpack(keys))) do look(sids[first + i - 1], text) end
end

if crowded then
  table.sort(others, function(a, b) return a.at < b.at or (a.at == b.at and a.sid < b.sid) end)
  for i = 1, #others - most + 1 do replace(others[i].sid) end
end

local s = { counter = 0, created = second, rotated = second, used = 0 }
s.sub, s.client, s.identity = ARGV[4], ARGV[5], ARGV[7]
s.expires = idle_end(now, tonumber(ARGV[8]), absolute_end(s, tonumber(ARGV[9])))
local record = write(s, epoch)
put(KEYS[1], record, s.expires)
index(user, ARGV[3], s.expires)
if #ended > 0 then count_ending(epoch) end
return { text_of(epoch), epoch.renewed, record, ended }
