-- Read what holds for all models: what is paused, and RQ's queues that no tier serves.
--
-- Needs: values, clock, commands, pauses
--
-- KEYS  none by list, as keys of a list count as written. By name: rq:queues (set, RQ's list of queues), rq:suspended (string,
--       there while all claims pause), bl:paused, rq:queue:<q>, rq:workers:<q>
-- ARGV  1 max queues, then the names of those that tiers serve
-- Returns {suspended (1|0), {name, depth, workers of RQ's or of a former configuration}…, value of rq:suspended, ms for
-- which it stays (below 0: until it is deleted), {scope, value}… of the pauses that are in force, now}.

local served = {}
for i = 2, #ARGV do
  served['rq:queue:' .. ARGV[i]] = true
end

local function size(command, key)
  local count = redis.pcall(command, key)
  return type(count) == 'number' and count or 0
end

local unknown = {}
for _, key in ipairs(redis.pcall('SRANDMEMBER', 'rq:queues', ARGV[1])) do
  if not served[key] and not served[string.match(key, '^(.+):tenant%-[^:]*$') or ''] then
    local name = string.gsub(key, '^rq:queue:', '')
    unknown[#unknown + 1] = {name, size('LLEN', key), size('SCARD', 'rq:workers:' .. name)}
  end
end

local now, paused = now_ms(), {}
local fields = try_call('HGETALL', 'bl:paused') or {}
for i = 1, #fields, 2 do
  if is_in_force(fields[i + 1], now) then
    paused[#paused + 1] = {fields[i], fields[i + 1]}
  end
end
local by = try_call('GET', 'rq:suspended') or ''
return {redis.call('EXISTS', 'rq:suspended'), unknown, by, redis.call('PTTL', 'rq:suspended'), paused, num(now)}
