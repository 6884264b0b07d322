-- The epoch of a partition: since when its data is whole. Stands before every script.
-- The key holds '<born> <endings> <tags>': the Unix second (10 digits) at which the epoch began, how much was
-- ended in it, and for the latest of these endings five hex digits each, by which one history of the
-- partition is told from another (epochs.py says what for).

local TAG, TAGS = 5, 32

local function clock(pushed)
  -- Milliseconds. `pushed` is a test's clock; without one the time is that of Redis, one for all replicas.
  if pushed ~= '' then return tonumber(pushed) end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function parse_epoch(text)
  local born, endings, tags = string.match(text or '', '^(%d%d%d%d%d%d%d%d%d%d) (%d+) (%x*)$')
  if not born or #tags ~= TAG * math.min(tonumber(endings), TAGS) then return nil end
  return { born = tonumber(born), endings = tonumber(endings), tags = tags }
end

-- Whether a history that has come to `found` may be the one that had come to `seen`, gone on.
local function continues(found, seen)
  if found.born ~= seen.born then return found.born > seen.born end
  local since = found.endings - seen.endings
  if since < 0 then return false end
  if seen.endings == 0 or since >= TAGS then return true end
  local stop = #found.tags - since * TAG
  return string.sub(found.tags, stop - TAG + 1, stop) == string.sub(seen.tags, -TAG)
end

local function text_of(epoch)
  return string.format('%010d %d %s', epoch.born, epoch.endings, epoch.tags)
end

-- The epoch at `key`, which must go on from what the caller has `seen` of it ('' = nothing). One that is missing,
-- malformed or rolled back makes place for a new one, to which nothing belongs that is there already.
local function enter(key, now, seen)
  local found, last = parse_epoch(redis.call('GET', key)), parse_epoch(seen)
  if found and (not last or continues(found, last)) then
    found.key, found.renewed = key, 0
    return found
  end
  -- Later than both, also where the clock was set back.
  local born = math.floor(now / 1000)
  if found then born = math.max(born, found.born + 1) end
  if last then born = math.max(born, last.born + 1) end
  local epoch = { key = key, born = born, endings = 0, tags = '', renewed = last and 1 or 0 }
  redis.call('SET', key, text_of(epoch))
  return epoch
end

-- Count an ending. Its tag is the microsecond: two histories that part have other endings at the same number.
local function count_ending(epoch)
  local tag = string.format('%05x', tonumber(redis.call('TIME')[2]))
  epoch.endings = epoch.endings + 1
  epoch.tags = string.sub(epoch.tags .. tag, -TAG * TAGS)
  redis.call('SET', epoch.key, text_of(epoch))
end
