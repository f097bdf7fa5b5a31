-- Give a worker up to n jobs: its own lanes first, then the overflow of lower tiers.
--
-- KEYS  1  bl:workers                  zset    worker -> end of its lease (ms)
--       2  bl:inflight:<worker>        set     ids the worker holds
--       3  bl:turn:<model>:<tier>      hash    counts jobs (every 16th and 8th, a lower lane goes first) and claims
--                                              (every 8th, a dead or late lower tier goes first)
--       4  bl:wake:<model>:<tier>      list    wakes the next idle worker while work is left
-- ARGV  1 worker  2 n  3 lease ms  4 plan (JSON, see dispatcher/queue/plan.py)  5 result ttl ms
-- Touches also, by name: rq:queue:<q>, rq:job:<id>, rq:wip:<q>, bl:gone:<q>, bl:overflow:<model>:<tier>:<lane>,
-- bl:live:<model>:<tier>, and what `conclude` writes for jobs whose deadline has passed.
-- Returns {now, expired, {id, data, queue, attempt, fence, enqueued, deadline}…}.

local worker, slots, lease_ms, ttl_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local plan = cjson.decode(ARGV[4])
local now = now_ms()
local started = iso(now)
local claimed, expired, popped = {}, 0, 0

-- Leftovers of cancelled jobs cost a pop each: bounded, so that a mass cancellation cannot hold the server up.
local MAX_POPS = slots + 1000

-- RQ's registry of running jobs. Its score is far away, so that no RQ tool takes the job for abandoned: leases are ours.
local WIP_MS = 365 * 86400 * 1000

local function expire(id, queue, fields)
  expired = expired + 1
  conclude(id, queue, 'failed', '{"state":"expired","status":504,"code":"deadline_exceeded","error":"the deadline passed '
    .. 'while the job waited","queue_ms":' .. num(now - fields[3]) .. '}', ttl_ms, now)
end

-- One id popped from `queue`: start it, or drop it where it is over already.
local function take(id, queue)
  local job = 'rq:job:' .. id
  -- A script is not rolled back: an error here would lose this id and whatever was claimed before it.
  if #id > 128 or not string.match(id, '^[%w_-]+$') then
    return
  end
  local fields = redis.pcall('HMGET', job, 'data', 'status', 'at', 'deadline', 'fence', 'uncharged')
  if fields.err then
    return
  end
  if fields[2] ~= 'queued' then
    local gone = whole(redis.call('GET', 'bl:gone:' .. queue)) or 0
    if gone > 0 then
      redis.call('SET', 'bl:gone:' .. queue, gone - 1)
    end
    return
  end
  fields[3] = whole(fields[3]) or now  -- RQ's producers do not write `at`
  local deadline = whole(fields[4])
  if deadline and deadline <= now then
    return expire(id, queue, fields)
  end
  local fence = (whole(fields[5]) or 0) + 1
  redis.call('HSET', job, 'status', 'started', 'started_at', started, 'worker_name', worker, 'fence', fence,
    'lease', worker .. '/' .. fence, 'at', num(fields[3]))
  redis.call('SADD', KEYS[2], id)
  redis.call('ZADD', 'rq:wip:' .. queue, num((now + WIP_MS) / 1000), id .. ':' .. fence)
  claimed[#claimed + 1] = {id, fields[1] or '', queue, fence - (whole(fields[6]) or 0), fence, num(fields[3]),
    deadline and num(deadline) or ''}
end

local function head_time(name)
  local id = redis.call('LINDEX', 'rq:queue:' .. name, 0)
  if not id then
    return nil
  end
  local at = redis.pcall('HGET', 'rq:job:' .. id, 'at')
  return type(at) == 'string' and whole(at) or 0
end

-- Pop the oldest head of sibling lists (the open one and those with a ceiling). Returns false when all are empty.
local function pop(lists)
  if popped >= MAX_POPS then
    return false
  end
  popped = popped + 1
  local best, best_time
  for _, name in ipairs(lists) do
    local time = 0
    if #lists > 1 then
      time = head_time(name)
    end
    if time and (not best or time < best_time) then
      best, best_time = name, time
    end
  end
  local id = best and redis.call('LPOP', 'rq:queue:' .. best)
  if not id then
    return false
  end
  if redis.call('EXISTS', 'rq:queue:' .. best) == 0 then
    redis.call('DEL', 'bl:gone:' .. best)
  end
  take(id, best)
  return true
end

local ORDERS = {usual = {1, 2, 3}, normal_first = {2, 3, 1}, batch_first = {3, 2, 1}}

local function claim_own()
  local turn = whole(redis.call('HGET', KEYS[3], 'jobs')) or 0
  while #claimed < slots do
    local order = turn % 16 == 15 and ORDERS.batch_first or turn % 8 == 7 and ORDERS.normal_first or ORDERS.usual
    local own = plan.own
    if not (pop(own[order[1]].lists) or pop(own[order[2]].lists) or pop(own[order[3]].lists)) then
      break
    end
    turn = turn + 1
  end
  redis.call('HSET', KEYS[3], 'jobs', turn % 16)
end

-- True while the queue is between its marks on the way down: set above high, cleared at low.
local function is_over(lane, depth)
  if depth > lane.high then
    redis.call('SET', lane.flag, '1', 'PX', 3600000)
    return true
  end
  if redis.call('EXISTS', lane.flag) == 0 then
    return false
  end
  if depth <= lane.low then
    redis.call('DEL', lane.flag)
    return false
  end
  return true
end

-- The climbable list whose head has used up its share of the time it has; nil when none is late.
local function late_list(lane)
  for _, name in ipairs(lane.climbable) do
    local id = redis.call('LINDEX', 'rq:queue:' .. name, 0)
    local times = id and redis.pcall('HMGET', 'rq:job:' .. id, 'at', 'deadline') or {}
    local at, deadline = whole(times[1]), whole(times[2])
    if at and deadline and now - at > plan.share * (deadline - at) then
      return name
    end
  end
end

-- How many jobs of a lane may climb now, and from which lists.
local function allowance(tier, lane)
  local depth = depth_of(lane.all)
  local over = lane.climbs and is_over(lane, depth)
  if depth == 0 then
    return 0, {}
  end
  if redis.call('ZCOUNT', tier.live, now, '+inf') == 0 then
    return depth, lane.climbable
  end
  if over then
    return depth - lane.low, lane.climbable
  end
  local late = late_list(lane)
  return late and 1 or 0, {late}
end

local function claim_overflow(tier, most)
  for _, lane in ipairs(tier.lanes) do
    local left, lists = allowance(tier, lane)
    while left > 0 and #claimed < most and pop(lists) do
      left = left - 1
    end
  end
end

local function claim_below(most)
  for _, tier in ipairs(plan.below) do
    if #claimed < most then
      claim_overflow(tier, most)
    end
  end
end

-- A tier that is never idle must not starve a dead one below it: every 8th claim looks down first, for one job.
if #plan.below > 0 and redis.call('HINCRBY', KEYS[3], 'claims', 1) % 8 == 0 then
  claim_below(1)
end
claim_own()
claim_below(slots)

redis.call('PEXPIRE', KEYS[3], 86400000)
if #claimed > 0 then
  redis.call('ZADD', KEYS[1], now + lease_ms, worker)
end
local waiting = false
for _, lane in ipairs(plan.own) do
  local depth = depth_of(lane.lists)
  if depth <= lane.low then
    redis.call('DEL', lane.flag)  -- nobody above may have looked while the queue was short
  end
  waiting = waiting or depth > 0
end
if waiting then
  wake(KEYS[4])
end
return {num(now), expired, claimed}
