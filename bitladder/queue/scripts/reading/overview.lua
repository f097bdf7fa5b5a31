-- Read what holds for all models: whether `rq suspend` was said, and RQ's queues that no tier serves.
--
-- Needs: nothing
--
-- KEYS  none by list, as keys of a list count as written. By name: rq:queues (set, RQ's list of queues), rq:suspended (string,
--       there while claims pause), rq:queue:<q>, rq:workers:<q>
-- ARGV  1 max queues, then the names of those that tiers serve
-- Returns {suspended (1|0), {name, depth, workers of RQ's or of a former configuration}…}.

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
return {redis.call('EXISTS', 'rq:suspended'), unknown}
