-- Jobs whose deadline is near, or passed while they waited.
--
-- Needs: values, commands, tenants, lists, ending
-- Touches: rq:job:<id>, bl:due:<list>, bl:tenants:<model>:<tier>, bl:counts:<list>, and what the parts above touch

-- A job goes before those that came earlier where it can still be answered in time, and could not be much later: its
-- deadline lies between half as much again as a job takes, which not all take, and so many times that, or so many ms more.
-- Jobs whose time is too short already are not hurried: under overload, serving the nearest deadlines first would answer
-- none of them in time.
local ENOUGH, NEAR, NEAR_MS = 1.5, 3, 1000
-- Of so many jobs of a list one is the oldest, whatever is due: jobs without a deadline go on.
local OLDEST_EVERY = 8
-- Behind an id in bl:gone: its job has run before its turn, may come back to the list, and end there once more.
local EARLY = ' early'

-- End a job of a claim. At: when it was enqueued.
local function expire_job(claim, id, queue, at, is_rq)
  claim.expired = claim.expired + 1
  local fields = redis.call('HMGET', 'rq:job:' .. id, 'trouble', 'reply', 'tenant', 'idem', 'hook')
  local job = {id = id, queue = queue, reply = fields[2], tenant = fields[3], idem = fields[4], hook = fields[5],
    rq = is_rq}
  local error, trouble = DEADLINE_PASSED, fields[1]
  if trouble and #trouble <= MAX_TROUBLE and not string.find(trouble, '[^ -~]') then  -- as we write it
    error = error .. HAD_COME_BACK .. trouble
  end
  end_job(job, 'failed', scripted_end('deadline_exceeded', error,
    ',"queue_ms":' .. num(claim.now - at)), claim.keep, claim.now)
end

-- How many jobs were served in a list while some in it had deadlines; nil where none has.
local function served_with_due(claim, queue, list)
  if list == queue then
    return claim.tenants['due:' .. list]
  end
  return whole(try_call('HGET', due_count(queue, list)))
end

-- Take jobs of a list that are due, the nearest deadline first; their ids stay in the list as leftovers. `take` starts
-- one, see claiming/pop.lua. Served: see `served_with_due`. Returns how many were taken.
local function take_due(claim, queue, list, limit, take, served)
  local due, taken = 'bl:due:' .. list, 0
  local oldest = math.floor((served + limit) / OLDEST_EVERY) - math.floor(served / OLDEST_EVERY)
  try_call('ZREMRANGEBYSCORE', due, '-inf', num(claim.now))
  local enough = ENOUGH * claim.service
  local first, last = claim.now + enough, claim.now + math.max(NEAR * claim.service, enough + NEAR_MS)
  local can_judge = claim.service > 0 and limit > oldest
  local ids = can_judge and try_call('ZRANGEBYSCORE', due, num(first), num(last), 'LIMIT', 0, limit - oldest) or {}
  for _, id in ipairs(ids) do
    local fields = redis.pcall('HMGET', 'rq:job:' .. id, 'wait', 'tenant')
    local result = take(claim, id, queue)
    if result == 'full' then
      claim.is_full, claim.pops_left = true, 0
      break
    end
    redis.call('ZREM', due, id)
    if result ~= 'leftover' then
      taken = taken + 1
      leave_in_list(id .. EARLY, queue, fields[1], fields[2])
      local gone = 'gone:' .. queue
      claim.tenants[gone] = (claim.tenants[gone] or 0) + (list ~= queue and 1 or 0)
    end
  end
  return taken
end

-- Note that ids were popped from a list with jobs that have deadlines, and how many were served there with those taken
-- before their turn.
local function note_served(claim, queue, list, ids, served)
  local due, key, field = 'bl:due:' .. list, due_count(queue, list)
  call_many('ZREM', due, ids)
  local is_left = redis.call('EXISTS', due) == 1
  local total = is_left and tonumber(redis.pcall('HINCRBY', key, field, served))
  if not is_left then
    try_call('HDEL', key, field)
  end
  if list == queue then
    claim.tenants[field] = total or nil
  end
end
