
-- Read and write a session's record; stands before every script, after epoch.lua.
-- The form of the record is laid down in record.py.

-- Return the session, nil for what is none or belongs to another epoch than the present one.
local function read(text, epoch)
  if not text then return nil end
  local born, c, created, age, used, life, sub, client, identity =
    string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) ([^\n]+)\n([^\n]*\n[^\n]*\n[^\n]*)\n([^\n]+)$')
  if not born or #born ~= 10 or tonumber(born) < epoch.born then return nil end
  local s = { counter = tonumber(c), created = tonumber(created), sub = sub, client = client, identity = identity }
  s.rotated = s.created + tonumber(age)
  s.used = used ~= '0' and s.rotated * 1000 + tonumber(used) - 1 or 0
  s.expires = life ~= '0' and s.rotated + tonumber(life) or 0
  return s
end

local function write(s, epoch)
  local used = s.used > 0 and math.max(0, s.used - s.rotated * 1000) + 1 or 0
  local life = s.expires > 0 and s.expires - s.rotated or 0
  return string.format('%010d %d %d %d %d %d ', epoch.born, s.counter, s.created, s.rotated - s.created, used, life)
    .. s.sub .. '\n' .. s.client .. '\n' .. s.identity
end

local function has_ended(s, now)
  return s.expires > 0 and s.expires * 1000 <= now
end

-- The absolute end of a session in seconds, 0 = none. It is that of the policy, so that a shorter one
-- holds for the sessions that are there already, from their next refresh on.
local function absolute_end(s, ttl_ms)
  if ttl_ms == 0 then return 0 end
  return s.created + math.floor(ttl_ms / 1000)
end

-- Seconds at which a session refreshed at `now` (ms) ends: idle, capped by the absolute end; 0 = never.
local function idle_end(now, ttl_ms, ends)
  local idle = 0
  if ttl_ms > 0 then idle = math.floor((now + ttl_ms) / 1000) end
  if idle == 0 or ends == 0 then return math.max(idle, ends) end
  return math.min(idle, ends)
end

local function put(key, value, expires)
  if expires > 0 then
    redis.call('SET', key, value, 'PXAT', string.format('%d', expires * 1000))
  else
    redis.call('SET', key, value)
  end
end

-- The index of a user lives as long as the latest of the sessions in it.
local function keep_until_latest(user)
  local latest = redis.call('ZRANGE', user, -1, -1, 'WITHSCORES')
  if not latest[2] then return end
  if latest[2] == 'inf' then
    redis.call('PERSIST', user)
  else
    redis.call('PEXPIREAT', user, string.format('%d', tonumber(latest[2]) * 1000))
  end
end

local function index(user, sid, expires)
  redis.call('ZADD', user, expires > 0 and string.format('%d', expires) or 'inf', sid)
  keep_until_latest(user)
end

local function remove(session, user, sid)
  redis.call('DEL', session)
  redis.call('ZREM', user, sid)
  keep_until_latest(user)
end
