-- The names of queues and of their lists, and the lists in which tenants' jobs wait apart.
--
-- Needs: values, commands
-- Touches: bl:tenants:<model>:<tier>, bl:shares:<queue>, bl:virtual:<model>:<tier>:<lane>, bl:weights, bl:due:<list>
--
-- A queue's list has its name. A named tenant's jobs wait in a list beside it, <queue>:tenant-<tenant>: so a claim can
-- serve tenants in turn (claiming/fairness.lua), and each list stays first in, first out.

-- So long weights and turns are remembered where no tenant waits.
local KEPT_SHARES_MS = 604800000

-- The list in which a tenant's jobs of a queue wait.
local function list_of(queue, tenant, is_apart)
  return is_apart and tenant and queue .. ':tenant-' .. tenant or queue
end

-- A queue's name without what says who may serve it, and the tiers that its list names singly; nil where it names none.
-- Read from its end: a model's name may have colons.
local function plain_name(queue)
  local plain, tiers = string.match(queue, '^(.+):only%-([^:]*)$')
  return plain or string.match(queue, '^(.+):max%-[^:]*$') or queue, tiers
end

-- The model of a queue, <model>:<tier>, and <model>:<tier>:<lane>; '' for a name that is none of ours.
local function names_in(queue)
  local lane = plain_name(queue)
  local tier = string.match(lane, '^(.+):[^:]*$') or ''
  return string.match(tier, '^(.+):[^:]*$') or '', tier, lane
end

local function tenants_key(queue)
  local _, tier = names_in(queue)
  return 'bl:tenants:' .. tier
end

-- How many ids lie in the tenants' lists of a tier's queues, by queue, and under gone:<queue> how many of them are
-- leftovers, added to a table; under due:<queue> the count of its own list (`due_count`).
local function read_tenants(tier, counts)
  local fields = try_call('HGETALL', 'bl:tenants:' .. tier) or {}
  for i = 1, #fields, 2 do
    counts[fields[i]] = whole(fields[i + 1]) or 0
  end
end

-- How many jobs wait in the tenants' lists of a queue.
local function depth_apart(counts, queue)
  local ids = counts[queue]
  return ids and math.max(0, ids - (counts['gone:' .. queue] or 0)) or 0
end

-- The same, where the counts of the tier were not read.
local function depth_beside(tier, queue)
  local counts = try_call('HMGET', 'bl:tenants:' .. tier, queue, 'gone:' .. queue) or {}
  return math.max(0, (whole(counts[1]) or 0) - (whole(counts[2]) or 0))
end

-- Count ids in the tenants' lists of a queue. Returns how many there are now.
local function count_apart(queue, field, by)
  local key = tenants_key(queue)
  local total = redis.pcall('HINCRBY', key, field, by)
  if type(total) == 'table' then  -- garbled
    redis.call('DEL', key)
    total = redis.call('HINCRBY', key, field, by)
  end
  return total
end

-- Note that so many ids were pushed into a tenant's list. The tenant joins the others where their turns stand now: it
-- has saved up nothing meanwhile. Weight: as text, where it may have changed.
local function join_tenants(queue, tenant, ids, weight)
  local _, _, lane = names_in(queue)
  local shares = 'bl:shares:' .. queue
  local at = whole(try_call('HGET', 'bl:virtual:' .. lane, 'now'))
  if not at then  -- nobody was served here for long
    at = whole((try_call('ZRANGE', shares, 0, 0, 'WITHSCORES') or {})[2]) or 0
  end
  call_or_replace('ZADD', shares, 'NX', num(at), tenant)
  count_apart(queue, queue, ids)
  if weight == '1' then
    try_call('HDEL', 'bl:weights', tenant)
  elseif weight then
    call_or_replace('HSET', 'bl:weights', tenant, weight)
    redis.call('PEXPIRE', 'bl:weights', KEPT_SHARES_MS)
  end
end

-- Where it is counted how many jobs were served in a list while some in it had deadlines, key and field: of a tenant's list
-- beside it, as every claim reads all that is in bl:tenants.
local function due_count(queue, list)
  if list == queue then
    return tenants_key(queue), 'due:' .. list
  end
  return 'bl:counts:' .. list, 'due'
end

-- Note jobs of a list that have deadlines of their own: entries of deadline and id.
local function add_due(queue, list, entries, ttl_ms)
  local due = 'bl:due:' .. list
  call_many('ZADD', due, entries)
  if redis.call('PTTL', due) < ttl_ms then
    redis.call('PEXPIRE', due, num(ttl_ms))
  end
  local key, field = due_count(queue, list)
  call_or_replace('HSETNX', key, field, 0)
end
