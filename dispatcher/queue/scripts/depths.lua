-- Look at queues without changing anything.
--
-- KEYS  1… bl:live:<model>:<tier>      zset    one per tier
-- ARGV  queue names; by name: rq:queue:<q>, bl:counts:<q>, rq:wip:<q>, rq:job:<head>
-- Returns {now, {live workers per key}, {depth, in flight, time of the head (0: unknown or none)} per queue}.

local now = now_ms()
local live, queues = {}, {}
for i, key in ipairs(KEYS) do
  live[i] = redis.call('ZCOUNT', key, now, '+inf')
end
for i, name in ipairs(ARGV) do
  queues[i] = {depth_of_list(name), redis.call('ZCARD', 'rq:wip:' .. name), num(head_of(name) or 0)}
end
return {num(now), live, queues}
