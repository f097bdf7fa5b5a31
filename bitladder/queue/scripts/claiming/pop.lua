-- Ids leave their lists, and their jobs start: the oldest of sibling lists first, as many as there is room for.
--
-- Needs: values, commands, wait, lists, ids, fencing, expiry, inspection, fairness
-- Touches: rq:queue:<list>, rq:job:<id>, bl:counts:<list>, bl:gone:<list>, and what the parts above touch
--
-- Claim: what one call gathers, made by claim.lua. {worker, keep, now, started_at; jobs: rows of the answer; ids, running:
-- what is to be noted with the worker and in RQ's registries; unfit: {id, why}…; expired: jobs; room: bytes left;
-- is_full: there was no room; running_until: their score there; pops_left; lengths: of queues' lists, each read
-- once; tenants: as `read_tenants` counts them; next_turn, end_turn: see claiming/fairness.lua}

-- RQ's registry of running jobs. Its score is far away, so that no RQ tool takes the job for abandoned: leases are ours.
local RUNNING_FOR_MS = 365 * 86400 * 1000

-- Start, end or drop one popped job. Returns 'leftover' where it had ended before, and 'full' where the answer has no room
-- for it: it belongs back to the front. A script is not rolled back: an error here would lose all that was claimed.
local function take(claim, id, queue)
  local job = 'rq:job:' .. id
  local fields = redis.pcall('HMGET', job, 'data', 'status', 'wait', 'fence', 'uncharged', 'crash_count', 'mac', 'origin')
  local at, deadline, _, is_rq = read_wait(fields[3])
  local timeout
  if is_rq or fields[2] ~= 'queued' then
    local result
    result, at, deadline, timeout = inspect(claim, id, queue, fields, {at, deadline, is_rq})
    if result ~= 'run' then
      return result
    end
  elseif fields[8] and fields[8] ~= queue then  -- it ran from here before its turn, or was moved, and waits elsewhere now
    return 'leftover'
  elseif deadline <= claim.now then
    expire_job(claim, id, queue, at)
    return 'ended'
  end
  local data, jobs = fields[1] or '', claim.jobs
  if #data > claim.room and #jobs > 0 then
    return 'full'
  end
  claim.room = claim.room - #data
  local fence, uncharged = next_fence(fields[4], fields[5])
  redis.call('HSET', job, 'status', 'started', 'started_at', claim.started_at, 'worker_name', claim.worker,
    'fence', num(fence), 'uncharged', num(uncharged))
  claim.ids[#claim.ids + 1] = id
  append(claim.running, 'rq:wip:' .. queue, claim.running_until,
    (is_rq and escaped(id, UNSAFE_IN_MEMBER) or id) .. ':' .. num(fence))
  local row = {id, data, queue, fence - uncharged, fence, num(at), num(deadline), whole(fields[6]) or 0,
    fields[7] or '', timeout}
  if fields[4] then  -- it has come back: its executions have cost something
    row[10], row[11] = timeout or '', redis.call('HGET', job, 'spent') or ''
  end
  jobs[#jobs + 1] = row
  return 'started'
end

-- Put popped ids back to the front, from the `first` on, and pop no more.
local function return_ids(claim, name, ids, first)
  local last_first = {}
  for i = #ids, first, -1 do
    last_first[#last_first + 1] = ids[i]
    ids[i] = nil
  end
  call_many('LPUSH', 'rq:queue:' .. name, last_first)
  claim.is_full, claim.pops_left = true, 0
end

-- Note ids that left a list, and leftovers among them. Returns how many of these were counted; for an own, empty list: 0.
local function count_popped(name, length, ids, leftovers, is_own)
  local counts = 'bl:counts:' .. name
  if length <= 0 then
    local counted = not is_own and whole(try_call('HGET', counts, 'gone')) or 0
    redis.call('DEL', counts, 'bl:gone:' .. name)
    return counted
  end
  local popped = redis.pcall('HINCRBY', counts, 'popped', ids)  -- a garbled count must not lose what was popped
  if leftovers > 0 and tonumber(popped) then
    redis.pcall('ZREMRANGEBYSCORE', 'bl:gone:' .. name, '-inf', num(popped))
  end
  local gone = leftovers > 0 and whole(try_call('HGET', counts, 'gone')) or 0
  if gone > 0 then redis.call('HSET', counts, 'gone', math.max(0, gone - leftovers)) end
  return math.min(gone, leftovers)  -- nobody has counted ids whose records are gone
end

-- Pop ids of a queue: of its own list, or of a tenant's, which has this length. Returns how many, together with those
-- taken before their turn, how many left the list, and how many leftovers it counts no more.
local function pop(claim, queue, limit, list, length)
  list, length = list or queue, length or claim.lengths[queue]
  local served = served_with_due(claim, queue, list)
  local early = served and take_due(claim, queue, list, limit, take, served) or 0
  local left = claim.is_full and 0 or limit - early
  local ids, leftovers = left > 0 and redis.call('LPOP', 'rq:queue:' .. list, left) or {}, 0
  for i, id in ipairs(ids) do
    local result = take(claim, id, queue)
    if result == 'full' then
      return_ids(claim, list, ids, i)
      break
    end
    leftovers = leftovers + (result == 'leftover' and 1 or 0)
  end
  claim.pops_left = claim.pops_left - #ids - early
  claim.lengths[queue] = list == queue and length - #ids or claim.lengths[queue]
  if served then note_served(claim, queue, list, ids, #ids + early) end
  local counted = count_popped(list, length - #ids, #ids, leftovers, list == queue)
  return #ids + early, #ids, counted
end

-- When the next job of a queue was enqueued, and its deadline; nil where the queue is empty.
local function next_head(claim, queue)
  local turn = claim.tenants[queue] and claim.next_turn(claim, {queue})
  if turn or length_of(claim, queue) > 0 then
    return head_of(turn and turn.list or queue)
  end
end

-- Pop up to `limit` ids for the tenant whose turn it is in queues of one lane.
local function pop_turn(claim, queues, limit)
  local turn, is_alone = claim.next_turn(claim, queues)
  if not turn then
    return 0
  end
  local started = #claim.jobs
  local run = is_alone and limit or math.min(limit, JOBS_PER_TURN)
  local popped, ids, leftovers = pop(claim, turn.queue, run, turn.list, turn.length)
  claim.end_turn(turn, queues, #claim.jobs - started, ids, leftovers)
  return popped
end

-- Pop up to `limit` ids from that of sibling lists whose head is oldest, or whose tenant's turn it is. Returns how many;
-- 0 when all are empty.
local function pop_oldest(claim, lists, limit)
  local waiting, is_shared = {}, false
  for _, name in ipairs(lists) do
    if length_of(claim, name) > 0 or claim.tenants[name] then
      waiting[#waiting + 1] = name
      is_shared = is_shared or claim.tenants[name]
    end
  end
  limit = math.min(limit, claim.pops_left)
  if limit < 1 or #waiting == 0 then
    return 0
  elseif is_shared or #waiting == 1 then
    return is_shared and pop_turn(claim, waiting, limit) or (pop(claim, waiting[1], limit))
  end
  local oldest, oldest_time
  for _, name in ipairs(waiting) do
    local time = head_of(name) or 0
    if not oldest or time < oldest_time then oldest, oldest_time = name, time end
  end
  return (pop(claim, oldest, math.min(limit, JOBS_PER_TURN)))
end
