-- The lists in which jobs wait, and the lists that wake workers.
--
-- Needs: values, commands, wait
-- Touches: rq:queue:<queue>, rq:job:<head>, bl:counts:<queue>, bl:gone:<queue>, bl:wake:<model>:<tier>
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
local function leave_in_list(id, queue, wait)
  count(queue, 'gone', 1)
  local _, _, number = read_wait(wait)
  if not number then
    local place = tonumber(redis.pcall('LPOS', 'rq:queue:' .. queue, id, 'MAXLEN', 1000))
    number = place and place + 1 + (whole(try_call('HGET', 'bl:counts:' .. queue, 'popped')) or 0)
  end
  if number then
    redis.pcall('ZADD', 'bl:gone:' .. queue, num(number), id)  -- a garbled key must not keep a job from its end
  end
end

-- The model of a queue, and <model>:<tier>; '' for a name that is none of ours. Read from its end: a model's name may have
-- colons.
local function names_in(queue)
  local whole_ladder = string.match(queue, '^(.+):max%-[^:]*$') or queue
  local tier = string.match(whole_ladder, '^(.+):[^:]*$') or ''
  return string.match(tier, '^(.+):[^:]*$') or '', tier
end

-- At most one token lies in a wake list: it wakes one idle worker, whose claim passes it on while work is left. No key: none.
local function wake(key)
  if key and call_or_replace('LLEN', key) == 0 then
    redis.call('RPUSH', key, '1')
    redis.call('PEXPIRE', key, 60000)
  end
end
