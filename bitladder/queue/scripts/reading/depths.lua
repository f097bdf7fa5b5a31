-- Read the depths of queues, their heads' ages, and how many workers are live.
--
-- Needs: values, clock, commands, tenants, lists, pauses
--
-- KEYS  1… bl:live:<model>:<tier>      zset    one per tier
-- ARGV  1 bl:lists:<model> (a key of a list would count as written), then queue names; by name: bl:health:<model>:<tier>,
--       rq:queue:<q>, bl:counts:<q>, rq:wip:<q>, rq:job:<head>, bl:paused, bl:tenants:<model>:<tier>, bl:shares:<q>
-- Returns {now, {live workers per key}, {depth, in flight, time of the head (0: unknown or none), what is wrong with the
-- list ('': nothing)} per queue, {traffic shifted to higher tiers (1|0) per tier}, {name, and the same} per list of single
-- tiers, {paused (1|0) per tier}}.

local now = now_ms()
local live, queues, shifted, others, tenants, paused = {}, {}, {}, {}, {}, {}
for i, key in ipairs(KEYS) do
  live[i] = try_call('ZCOUNT', key, now, '+inf') or 0
  local since = try_call('HGET', (string.gsub(key, '^bl:live:', 'bl:health:')), 'shifted')
  shifted[i] = (since or '0') ~= '0' and 1 or 0
  paused[i] = is_tier_paused(string.sub(key, #'bl:live:' + 1), now) and 1 or 0
  read_tenants(string.sub(key, #'bl:live:' + 1), tenants)
end

-- So many tenants are looked at: the first ones may have no job left (claiming/fairness.lua).
local MAX_LOOKED_AT = 16

-- When the head of a queue was enqueued: the oldest of its own list and of that tenant's whose turn it is. 0: unknown.
local function head_time(name)
  local own, other = head_of(name), nil
  for _, tenant in ipairs(tenants[name] and try_call('ZRANGE', 'bl:shares:' .. name, 0, MAX_LOOKED_AT - 1) or {}) do
    other = other or head_of(list_of(name, tenant, true))
  end
  return own and other and math.min(own, other) or own or other or 0
end

local function state_of(name)
  local depth, problem = depth_of_list(name)
  return depth + depth_apart(tenants, name), try_call('ZCARD', 'rq:wip:' .. name) or 0, num(head_time(name)), problem or ''
end

for i = 2, #ARGV do
  queues[i - 1] = {state_of(ARGV[i])}
end
for i, name in ipairs(redis.pcall('SRANDMEMBER', ARGV[1], MAX_LISTS)) do
  others[i] = {name, state_of(name)}
end
return {num(now), live, queues, shifted, others, paused}
