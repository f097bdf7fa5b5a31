-- Note how an attempt at a delivery went: it is done with, or due again. An endpoint that fails for long is disabled, and
-- with it what waits for it.
--
-- Needs: values, clock, commands
--
-- KEYS  1  bl:webhooks:targets         zset    destination -> when its next delivery is due (ms)
-- ARGV  1 destination  2 id  3 the delivery as it was  4 as it is now ('': done)  5 ms until it is due again
--       6 entry for the logs ('': none)  7 max entries  8 ms that logs are kept  9 the id of what the event is about
--       10 of its endpoint: ok, failed or gone ('': it has none)  11 ms after which one that fails is disabled
--       12 end of the lease, with the last delivery of it ('': more are to come)
-- Touches also, by name: rq:job:<id>, bl:webhooks:due:<target>, bl:webhooks:pending:<target>, bl:webhooks:leases,
-- bl:webhooks:log:<target>, bl:webhooks:about:<id>, bl:webhooks:endpoint:<target>, bl:webhooks:disabled.
-- Returns noted | disabled | lost (another process has noted its own, or the endpoint is gone).

local target, id, now = ARGV[1], ARGV[2], now_ms()
local due, pending = 'bl:webhooks:due:' .. target, 'bl:webhooks:pending:' .. target

local function log(key, kept_ms)
  call_or_replace('LPUSH', key, ARGV[6])
  redis.call('LTRIM', key, 0, ARGV[7] - 1)
  redis.call('PEXPIRE', key, kept_ms)
end

-- Whether the endpoint is disabled by this attempt.
local function note_health()
  local endpoint, state = 'bl:webhooks:endpoint:' .. target, ARGV[10]
  if state == '' or redis.call('EXISTS', endpoint) == 0 then
    return false
  elseif state == 'ok' then
    redis.call('HDEL', endpoint, 'failing_since')
    return false
  end
  redis.call('HSETNX', endpoint, 'failing_since', num(now))
  local since = whole(redis.call('HGET', endpoint, 'failing_since')) or now
  if state == 'failed' and now - since < tonumber(ARGV[11]) then
    return false
  end
  redis.call('HSET', endpoint, 'disabled_at', num(now), 'disabled_by', state)
  call_or_replace('SADD', 'bl:webhooks:disabled', target)
  redis.call('DEL', due, pending)
  redis.call('ZREM', KEYS[1], target)
  return true
end

local function note()
  if try_call('HGET', pending, id) ~= ARGV[3] then
    return 'lost'
  end
  if ARGV[6] ~= '' then
    -- Who may see the log of a job follows from its record: without that, nobody does.
    local left = redis.call('PTTL', 'rq:job:' .. ARGV[9])
    if left ~= -2 then
      log('bl:webhooks:about:' .. ARGV[9], left > 0 and num(math.min(left, ARGV[8])) or ARGV[8])
    end
    if ARGV[10] ~= '' then
      log('bl:webhooks:log:' .. target, ARGV[8])
    end
  end
  if ARGV[4] == '' then
    redis.call('HDEL', pending, id)
    redis.call('ZREM', due, id)
  else
    redis.call('HSET', pending, id, ARGV[4])
    redis.call('ZADD', due, num(now + ARGV[5]), id)
  end
  return note_health() and 'disabled' or 'noted'
end

local result = note()
local held = ARGV[12] ~= '' and try_call('ZSCORE', 'bl:webhooks:leases', target)
if held and whole(held) == whole(ARGV[12]) then
  redis.call('ZREM', 'bl:webhooks:leases', target)
  local first = try_call('ZRANGE', due, 0, 0, 'WITHSCORES') or {}
  if first[2] then
    redis.call('ZADD', KEYS[1], first[2], target)
  else
    redis.call('ZREM', KEYS[1], target)
  end
end
return result
