-- Write how far a batch is, unless another runner has it by now.
--
-- Needs: clock, webhooks
--
-- KEYS  1  bl:batch:<id>               hash    the batch
--       2  bl:batch_leases             zset    batches that have not ended -> when their runner's lease ends (ms)
--       3  bl:open_batches:<tenant>    zset    the tenant's -> when they are forgotten (ms)
-- ARGV  1 id  2 fence  3 status  4 progress  5 done ('': as it was)  6 how long it is kept (ms) where it is over; '': it is not
-- Touches also: what its parts touch
-- Returns the status that it has now: `cancelling` where it was cancelled meanwhile. `lost`: nothing was written.

local fields = redis.call('HMGET', KEYS[1], 'status', 'fence', 'hook')
if fields[2] ~= ARGV[2] or not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return 'lost'
end
local status = ARGV[3]
if ARGV[6] == '' and fields[1] == 'cancelling' then
  status = 'cancelling'
end
redis.call('HSET', KEYS[1], 'status', status, 'progress', ARGV[4])
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'done', ARGV[5])
end
if ARGV[6] ~= '' then
  redis.call('HDEL', KEYS[1], 'done')
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  add_event('batch.' .. status, ARGV[1], fields[3] or '{}', now_ms())
end
return status
