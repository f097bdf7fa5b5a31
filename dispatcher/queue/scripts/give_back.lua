-- Put a held job back to the front of a queue, or end it when it has no attempt left.
--
-- KEYS  1  bl:inflight:<worker>        set     ids the worker holds
-- ARGV  1 worker  2 id  3 fence  4 queue it came from  5 target queue  6 charge the attempt (1|0)  7 max attempts
--       8 outcome when it has none left  9 ttl ms
-- Touches also, by name: rq:wip:<queue>, and what `put_back` writes.
-- Returns returned | ended | lost.

local worker, id, fence, now = ARGV[1], ARGV[2], ARGV[3], now_ms()
redis.call('SREM', KEYS[1], id)
redis.call('ZREM', 'rq:wip:' .. ARGV[4], id .. ':' .. fence)
local word = put_back(id, worker, {fence = fence, target = ARGV[5], charge = ARGV[6] == '1', last = ARGV[8],
  max_attempts = tonumber(ARGV[7]), ttl_ms = tonumber(ARGV[9]), now = now})
settle(tonumber(ARGV[9]), now)
return word
