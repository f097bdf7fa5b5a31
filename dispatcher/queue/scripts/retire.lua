-- A worker leaves: no lease, no entry in RQ's lists. Refused while it still holds jobs.
--
-- KEYS  1  bl:workers                  zset
--       2  bl:live:<model>:<tier>      zset
--       3  bl:inflight:<worker>        set
--       4  bl:cancel:<worker>          set
--       5  rq:worker:<worker>          hash
--       6  rq:workers                  set
-- ARGV  1 worker  2 queues, joined by commas
-- Returns 1, or 0 when it still holds jobs: then its lease runs out and they are reaped.

redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('EXISTS', KEYS[3]) == 1 then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[6], KEYS[5])
for queue in string.gmatch(ARGV[2], '[^,]+') do
  redis.call('SREM', 'rq:workers:' .. queue, KEYS[5])
end
redis.call('DEL', KEYS[4], KEYS[5])
return 1
