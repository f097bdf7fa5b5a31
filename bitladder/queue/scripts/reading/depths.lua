-- Read the depths of queues, their heads' ages, and how many workers are live.
--
-- Needs: values, clock, commands, lists
--
-- KEYS  1… bl:live:<model>:<tier>      zset    one per tier
-- ARGV  queue names; by name: rq:queue:<q>, bl:counts:<q>, rq:wip:<q>, rq:job:<head>
-- Returns {now, {live workers per key}, {depth, in flight, time of the head (0: unknown or none), what is wrong with the
-- list ('': nothing)} per queue}.

local now = now_ms()
local live, queues = {}, {}
for i, key in ipairs(KEYS) do
  live[i] = try_call('ZCOUNT', key, now, '+inf') or 0
end
for i, name in ipairs(ARGV) do
  local depth, problem = depth_of_list(name)
  queues[i] = {depth, try_call('ZCARD', 'rq:wip:' .. name) or 0, num(head_of(name) or 0), problem or ''}
end
return {num(now), live, queues}
