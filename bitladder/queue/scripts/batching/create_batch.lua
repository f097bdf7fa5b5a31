-- Create a batch, unless it was created before, or its tenant has as many open ones as it may.
--
-- Needs: values, clock
--
-- KEYS  1  bl:batch:<id>               hash    the batch
--       2  bl:batches:<tenant>         zset    the tenant's batches -> when they were created (ms)
--       3  bl:open_batches:<tenant>    zset    those that have not ended -> when they are forgotten (ms)
--       4  bl:batch_leases             zset    all that have not ended -> when their runner's lease ends (ms)
-- ARGV  1 id  2 spec  3 fingerprint of the request  4 window (ms)  5 how long an ended batch is kept (ms)
--       6 max open batches of the tenant  7 max batches kept of the tenant  8 hook: who is told of its end
-- Touches also, by name: the records of the tenant's oldest batches, where it has too many.
-- Returns {result, when it was created (ms), or how many are open}: created | duplicate | mismatch (another request has
-- this id) | full.

local id, now, window, kept = ARGV[1], now_ms(), tonumber(ARGV[4]), tonumber(ARGV[5])
local known = redis.call('HMGET', KEYS[1], 'fingerprint', 'created')
if known[1] then
  return {known[1] == ARGV[3] and 'duplicate' or 'mismatch', known[2]}
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
local open = redis.call('ZCARD', KEYS[3])
if open >= tonumber(ARGV[6]) then
  return {'full', num(open)}
end
redis.call('HSET', KEYS[1], 'spec', ARGV[2], 'fingerprint', ARGV[3], 'status', 'validating', 'progress', '{}',
  'created', num(now), 'expires', num(now + window), 'fence', 0, 'hook', ARGV[8])
redis.call('PEXPIRE', KEYS[1], num(window + kept))
redis.call('ZADD', KEYS[3], num(now + window + kept), id)
redis.call('ZADD', KEYS[4], num(now), id)
redis.call('ZADD', KEYS[2], num(now), id)
-- The oldest make room, as far as they have ended: twice what is added, so that a lower limit is reached in time.
for _ = 1, 2 do
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if redis.call('ZCARD', KEYS[2]) <= tonumber(ARGV[7]) or redis.call('ZSCORE', KEYS[3], oldest) then
    break
  end
  redis.call('ZREM', KEYS[2], oldest)
  redis.call('DEL', 'bl:batch:' .. oldest)
end
for _, key in ipairs({KEYS[2], KEYS[3]}) do
  if redis.call('PTTL', key) < window + kept then
    redis.call('PEXPIRE', key, num(window + kept))
  end
end
return {'created', num(now)}
