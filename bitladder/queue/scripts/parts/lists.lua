-- The lists in which jobs wait, and the lists that wake workers.
--
-- Needs: values, commands, wait, tenants
-- Touches: rq:queue:<list>, rq:job:<head>, bl:counts:<list>, bl:gone:<list>, bl:due:<list>, bl:lists:<model>,
--          bl:wake:<model>:<tier>, bl:wake:<worker>, bl:prefix:<model>:<tier>:<prefix>
--
-- A cancelled job stays in its list until a claim meets it. bl:counts and bl:gone count such leftovers, so that depth and
-- places stay right without LREM.

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

-- There are many lists of single tiers, and few are in use: those are noted, and claims look at no others.
local function note_list(queue)
  if string.find(queue, ':only-', 1, true) and select(2, plain_name(queue)) then
    local model = names_in(queue)
    call_or_replace('SADD', 'bl:lists:' .. model, queue)
  end
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
