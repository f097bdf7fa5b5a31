-- Put a held job back to the front of a queue, or end it when it has no attempt left.
--
-- KEYS  1  bl:inflight:<worker>        set     ids the worker holds
--       2  rq:job:<id>                 hash    the job
--       3  rq:queue:<target>           list    where it goes
--       4  rq:queues                   set     RQ's list of queues
--       5  bl:wake:<model>:<tier>      list    of the target's tier
-- ARGV  1 worker  2 id  3 fence  4 queue it came from  5 target queue  6 charge the attempt (1|0)  7 max attempts
--       8 outcome when it has none left  9 ttl ms
-- Returns returned | ended | lost.

local worker, id, fence, queue, target, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], now_ms()
redis.call('SREM', KEYS[1], id)
redis.call('ZREM', 'rq:wip:' .. queue, id .. ':' .. fence)
local fields = redis.call('HMGET', KEYS[2], 'lease', 'uncharged', 'cancel')
if fields[1] ~= worker .. '/' .. fence then
  return 'lost'
end
if fields[3] then
  conclude(id, queue, 'canceled', fields[3], tonumber(ARGV[9]), now)
  return 'ended'
end
local uncharged = whole(fields[2]) or 0
if ARGV[6] == '0' then
  uncharged = uncharged + 1
  redis.call('HSET', KEYS[2], 'uncharged', uncharged)
end
if fence - uncharged >= tonumber(ARGV[7]) then
  conclude(id, queue, 'failed', ARGV[8], tonumber(ARGV[9]), now)
  return 'ended'
end
redis.call('DEL', 'bl:stream:' .. id)
redis.call('HSET', KEYS[2], 'status', 'queued', 'origin', target)
redis.call('HDEL', KEYS[2], 'lease')
redis.call('LPUSH', KEYS[3], id)
redis.call('SADD', KEYS[4], KEYS[3])
wake(KEYS[5])
return 'returned'
