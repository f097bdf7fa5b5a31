-- The lists in which jobs wait, and the lists that wake workers.
--
-- Needs: values, commands, wait
-- Touches: rq:queue:<list>, rq:job:<head>, bl:counts:<list>, bl:gone:<list>, bl:wake:<model>:<tier>, rq:queues,
--          bl:tenants:<model>:<tier>, bl:shares:<queue>, bl:virtual:<model>:<tier>:<lane>, bl:weights, bl:due:<list>,
--          bl:wake:<worker>, bl:prefix:<model>:<tier>:<prefix>
--
-- A cancelled job stays in its list until a claim meets it. bl:counts and bl:gone count such leftovers, so that depth and
-- places stay right without LREM.
--
-- A queue's list has its name. A named tenant's jobs wait in a list beside it, <queue>:tenant-<tenant>: so a claim can
-- serve tenants in turn (parts/fairness.lua), and each list stays first in, first out.

-- When the head of a list was enqueued, and its deadline; nil where the list is empty or its head does not say.
local function head_of(name)
  local id = try_call('LINDEX', 'rq:queue:' .. name, 0)
  local wait = id and redis.pcall('HGET', 'rq:job:' .. id, 'wait')
  return read_wait(type(wait) == 'string' and wait)
end

-- How many jobs wait in a list. A key that is no list is empty; the second value says why.
local function depth_of_list(name)
  local length = redis.pcall('LLEN', 'rq:queue:' .. name)
  if length == 0 then
    return 0
  elseif type(length) == 'table' then
    local _, problem = check_type(length)
    return 0, problem
  end
  return math.max(0, length - (whole(try_call('HGET', 'bl:counts:' .. name, 'gone')) or 0))
end

-- So long weights and turns are remembered where no tenant waits.
local KEPT_SHARES_MS = 604800000

-- The list in which a tenant's jobs of a queue wait.
local function list_of(queue, tenant, is_apart)
  return is_apart and tenant and queue .. ':tenant-' .. tenant or queue
end

-- The model of a queue, <model>:<tier>, and <model>:<tier>:<lane>; '' for a name that is none of ours. Read from its end:
-- a model's name may have colons.
local function names_in(queue)
  local whole_ladder = string.match(queue, '^(.+):max%-[^:]*$') or queue
  local tier = string.match(whole_ladder, '^(.+):[^:]*$') or ''
  return string.match(tier, '^(.+):[^:]*$') or '', tier, whole_ladder
end

local function tenants_key(queue)
  local _, tier = names_in(queue)
  return 'bl:tenants:' .. tier
end

-- How many ids lie in the tenants' lists of a tier's queues, by queue, and under gone:<queue> how many of them are
-- leftovers, added to a table.
local function read_tenants(tier, counts)
  local fields = try_call('HGETALL', 'bl:tenants:' .. tier) or {}
  for i = 1, #fields, 2 do
    counts[fields[i]] = whole(fields[i + 1]) or 0
  end
end

-- How many jobs wait in the tenants' lists of a queue.
local function depth_apart(counts, queue)
  return math.max(0, (counts[queue] or 0) - (counts['gone:' .. queue] or 0))
end

-- The same, where the counts were not read.
local function depth_beside(queue)
  local counts = try_call('HMGET', tenants_key(queue), queue, 'gone:' .. queue) or {}
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

-- Note jobs of a list that have deadlines of their own: entries of deadline and id.
local function add_due(queue, list, entries, ttl_ms)
  local due = 'bl:due:' .. list
  call_many('ZADD', due, entries)
  if redis.call('PTTL', due) < ttl_ms then
    redis.call('PEXPIRE', due, num(ttl_ms))
  end
  count_apart(queue, 'due:' .. list, 0)
end

-- Count jobs that have left a list otherwise than by a claim. A garbled count must not lose what was done to the job.
local function count(queue, field, by)
  local total = redis.pcall('HINCRBY', 'bl:counts:' .. queue, field, by)
  return type(total) == 'number' and total or 0
end

-- Note that a job has ended whose id stays in its list: for the list's depth, and by its number for the places of those
-- behind it. RQ's producers number nothing; far from the head such an id is not looked for.
local function leave_in_list(id, queue, wait, tenant)
  local _, _, number, _, is_apart = read_wait(wait)
  local list = list_of(queue, tenant, is_apart)
  count(list, 'gone', 1)
  if list ~= queue then
    count_apart(queue, 'gone:' .. queue, 1)
  end
  if not number then
    local place = tonumber(redis.pcall('LPOS', 'rq:queue:' .. list, id, 'MAXLEN', 1000))
    number = place and place + 1 + (whole(try_call('HGET', 'bl:counts:' .. list, 'popped')) or 0)
  end
  if number then
    redis.pcall('ZADD', 'bl:gone:' .. list, num(number), id)  -- a garbled key must not keep a job from its end
  end
  redis.pcall('ZREM', 'bl:due:' .. list, id)
end

-- At most one token lies in a wake list: it wakes one idle worker, whose claim passes it on while work is left. No key: none.
local function wake(key)
  if key and call_or_replace('LLEN', key) == 0 then
    redis.call('RPUSH', key, '1')
    redis.call('PEXPIRE', key, 60000)
  end
end

-- Wake the worker that served a prefix last; a key that ends in ':-' stands for no prefix. Where there is none, or its last
-- token still lies there because it is busy or gone, wake any of its tier.
local function wake_preferred(prefix, any)
  local worker = string.sub(prefix, -2) ~= ':-' and try_call('GET', prefix)
  local own = worker and 'bl:wake:' .. worker
  wake(own and try_call('LLEN', own) == 0 and own or any)
end
