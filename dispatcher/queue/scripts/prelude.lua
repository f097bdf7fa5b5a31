-- Put before every script. Times are the server's, in milliseconds since 1970.

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- RQ's timestamps: ISO 8601 in UTC with microseconds. Days to date after H. Hinnant, "chrono-compatible
-- low-level date algorithms" (civil_from_days).
local function iso(ms)
  local s = math.floor(ms / 1000)
  local z = math.floor(s / 86400) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local r = s % 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month, day,
    math.floor(r / 3600), math.floor(r / 60) % 60, r % 60, (ms % 1000) * 1000)
end

local function num(ms)
  return string.format('%.0f', ms)
end

-- A whole number from a field that anybody may have written; nil for everything else, infinity and NaN included.
local function whole(text)
  local n = tonumber(text)
  return n and n == n and math.abs(n) < 1e15 and math.floor(n) or nil
end

-- At most one token lies in a wake list: it wakes one idle worker, whose claim passes it on while work is left.
local function wake(key)
  if redis.call('LLEN', key) == 0 then
    redis.call('RPUSH', key, '1')
    redis.call('PEXPIRE', key, 60000)
  end
end

-- Cancelled jobs stay in their list until a claim meets them: counted, so that depth stays right without LREM.
local function depth_of(lists)
  local depth = 0
  for _, name in ipairs(lists) do
    local length = redis.call('LLEN', 'rq:queue:' .. name)
    if length > 0 then
      depth = depth + length - (whole(redis.call('GET', 'bl:gone:' .. name)) or 0)
    end
  end
  return math.max(depth, 0)
end

-- The last step of every job: outcome in the hash, id in RQ's registry of that end, word to whoever waits.
-- A finished job's prompt is dropped (RQ's tools need the field, so an empty call stays).
local function conclude(id, queue, status, outcome, ttl_ms, now)
  local job = 'rq:job:' .. id
  local registry = 'rq:' .. status .. ':' .. queue
  if status == 'finished' then
    redis.call('HSET', job, 'data', '["workers.generate",null,[],{}]')
  end
  redis.call('HSET', job, 'status', status, 'outcome', outcome, 'ended_at', iso(now))
  redis.call('HDEL', job, 'lease', 'cancel')
  redis.call('PEXPIRE', job, ttl_ms)
  redis.call('ZREMRANGEBYSCORE', registry, '-inf', math.floor(now / 1000))
  redis.call('ZADD', registry, math.floor((now + ttl_ms) / 1000), id)
  redis.call('PEXPIRE', registry, ttl_ms)
  local reply = redis.call('HGET', job, 'reply')
  if reply then
    redis.call('PUBLISH', reply, 'd' .. id .. outcome)
  end
  redis.call('PUBLISH', 'bl:done:' .. id, outcome)
end

-- Put a job that `worker` still holds back to the front of its queue, or end it when it has no attempt left.
-- Returns 'returned', 'ended', or 'lost' where the worker does not hold it (any more).
local function put_back(id, worker, limits)
  local job = 'rq:job:' .. id
  local fields = redis.call('HMGET', job, 'lease', 'origin', 'fence', 'uncharged', 'cancel')
  local fence, queue = fields[3], fields[2]
  if not fence or not queue or fields[1] ~= worker .. '/' .. fence then
    return 'lost'
  end
  redis.call('ZREM', 'rq:wip:' .. queue, id .. ':' .. fence)
  if fields[5] then
    conclude(id, queue, 'canceled', fields[5], limits.ttl_ms, now_ms())
    return 'ended'
  end
  local uncharged = (whole(fields[4]) or 0) + (limits.charge and 0 or 1)
  local attempts = (whole(fence) or 0) - uncharged
  if attempts >= limits.max_attempts then
    conclude(id, queue, 'failed', '{"state":"failed","status":500,"code":"worker_lost","error":"the worker was lost '
      .. 'on every attempt","attempts":' .. attempts .. ',"worker":' .. cjson.encode(worker) .. '}', limits.ttl_ms,
      now_ms())
    return 'ended'
  end
  redis.call('DEL', 'bl:stream:' .. id)
  redis.call('HSET', job, 'status', 'queued', 'uncharged', uncharged)
  redis.call('HDEL', job, 'lease')
  redis.call('LPUSH', 'rq:queue:' .. queue, id)
  wake('bl:wake:' .. (string.match(queue, '^[^:]+:[^:]+') or ''))
  return 'returned'
end
