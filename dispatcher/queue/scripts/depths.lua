-- Look at queues without changing anything.
--
-- KEYS  1… bl:live:<model>:<tier>      zset    one per tier
-- ARGV  queue names; by name: rq:queue:<q>, bl:gone:<q>, rq:wip:<q>, rq:job:<head>
-- Returns {now, {live workers per key}, {depth, in flight, time of the head (0: unknown or none)} per queue}.

local now = now_ms()
local live, queues = {}, {}
for i, key in ipairs(KEYS) do
  live[i] = redis.call('ZCOUNT', key, now, '+inf')
end
for i, name in ipairs(ARGV) do
  local id = redis.call('LINDEX', 'rq:queue:' .. name, 0)
  local at = id and redis.pcall('HGET', 'rq:job:' .. id, 'at') or '0'
  at = type(at) == 'string' and tonumber(at) and at or '0'
  queues[i] = {depth_of({name}), redis.call('ZCARD', 'rq:wip:' .. name), at}
end
return {num(now), live, queues}
