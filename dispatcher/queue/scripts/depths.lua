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
  local id = redis.call('LINDEX', 'rq:queue:' .. name, 0)
  local wait = id and redis.pcall('HGET', 'rq:job:' .. id, 'wait')
  local at = read_wait(type(wait) == 'string' and wait)
  queues[i] = {depth_of_list(name), redis.call('ZCARD', 'rq:wip:' .. name), num(at or 0)}
end
return {num(now), live, queues}
