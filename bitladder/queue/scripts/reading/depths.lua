-- Read the depths of queues, their heads' ages, and how many workers are live.
--
-- Needs: values, clock, commands, lists
--
-- KEYS  1… bl:live:<model>:<tier>      zset    one per tier
-- ARGV  queue names; by name: bl:health:<model>:<tier>, rq:queue:<q>, bl:counts:<q>, rq:wip:<q>, rq:job:<head>
-- Returns {now, {live workers per key}, {depth, in flight, time of the head (0: unknown or none), what is wrong with the
-- list ('': nothing)} per queue, {traffic shifted to higher tiers (1|0) per key}}.

local now = now_ms()
local live, queues, shifted = {}, {}, {}
for i, key in ipairs(KEYS) do
  live[i] = try_call('ZCOUNT', key, now, '+inf') or 0
  local since = try_call('HGET', (string.gsub(key, '^bl:live:', 'bl:health:')), 'shifted')
  shifted[i] = (since or '0') ~= '0' and 1 or 0
end
for i, name in ipairs(ARGV) do
  local depth, problem = depth_of_list(name)
  queues[i] = {depth, try_call('ZCARD', 'rq:wip:' .. name) or 0, num(head_of(name) or 0), problem or ''}
end
return {num(now), live, queues, shifted}
