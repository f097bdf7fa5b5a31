-- Store one job and push it, unless its queue is full or it was submitted before.
--
-- KEYS  1  rq:job:<id>                 hash    the job
--       2  rq:queue:<queue>            list    where it waits
--       3  rq:queues                   set     RQ's list of queues
--       4  bl:wake:<model>:<tier>      list    wakes an idle worker of the tier
--       5  bl:idem:<model>:<key>       string  job id and fingerprint; '' without an idempotency key
--       6… bl:wake:<model>:<higher>    list    wakes higher tiers when the queue is over its high mark
-- ARGV  1 id  2 data  3 description  4 queue  5 max depth  6 deadline ms  7 ttl ms  8 reply channel
--       9 fingerprint  10 high mark (0: never climbs)
-- Returns {word, id, depth}: accepted | duplicate | mismatch | full.

local id, queue, now = ARGV[1], ARGV[4], now_ms()
if KEYS[5] ~= '' then
  local first = redis.call('GET', KEYS[5])
  if first then
    local first_id, fingerprint = string.match(first, '^(%S+) (%S*)$')
    local status = redis.call('HGET', 'rq:job:' .. first_id, 'status')
    -- The key of a job that was cancelled, or is no longer stored, is free: a repeat is what it is for.
    if status and status ~= 'canceled' then
      return {fingerprint == ARGV[9] and 'duplicate' or 'mismatch', first_id, 0}
    end
  end
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {'duplicate', id, 0}
end
local depth = depth_of({queue})
if depth >= tonumber(ARGV[5]) then
  return {'full', id, depth}
end

local at = iso(now)
redis.call('HSET', KEYS[1], 'data', ARGV[2], 'status', 'queued', 'origin', queue, 'description', ARGV[3],
  'created_at', at, 'enqueued_at', at, 'at', num(now), 'deadline', num(now + ARGV[6]))
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[1], 'reply', ARGV[8])
end
redis.call('PEXPIRE', KEYS[1], num(ARGV[6] + ARGV[7]))
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('DEL', 'bl:gone:' .. queue)  -- somebody else may have emptied the list
end
redis.call('RPUSH', KEYS[2], id)
redis.call('SADD', KEYS[3], KEYS[2])
if KEYS[5] ~= '' then
  redis.call('SET', KEYS[5], id .. ' ' .. ARGV[9], 'PX', num(ARGV[6] + ARGV[7]))
end

depth = depth + 1
wake(KEYS[4])
local high = tonumber(ARGV[10])
if high > 0 and depth > high then
  for i = 6, #KEYS do
    wake(KEYS[i])
  end
end
return {'accepted', id, depth}
