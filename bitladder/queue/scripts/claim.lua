-- Give a worker up to n jobs: its own lanes first, then the overflow of lower tiers.
--
-- KEYS  1  bl:workers                  zset    worker -> end of its lease (ms)
--       2  bl:inflight:<worker>        set     ids the worker holds
--       3  bl:turn:<model>:<tier>      hash    counts jobs (every 16th and 8th, a lower lane goes first) and claims
--                                              (every 8th, a dead or late lower tier goes first)
--       4  bl:wake:<model>:<tier>      list    wakes the next idle worker while work is left
-- ARGV  1 worker  2 n  3 lease ms  4 plan (JSON, see bitladder/queue/plan.py)  5 keep (see
--       `read_keep`)  6 most bytes of `data`: jobs above it stay in their lists, but the first goes out whatever its size
-- Touches also, by name: rq:queue:<q>, rq:job:<id>, rq:wip:<q>, bl:counts:<q>, bl:gone:<q>, bl:unbegun:<worker>,
-- bl:overflow:<model>:<tier>:<lane>, bl:live:<model>:<tier>, rq:suspended, and what `conclude` writes for jobs whose
-- deadline has passed or whose record is corrupt.
-- Returns {now, expired, {id, data, queue, attempt, fence, enqueued, deadline, crash_count, mac, timeout}…, {id, why}…,
-- suspended (1|0), cut short (1|0)}. Only jobs of RQ's producers have a timeout, in seconds, 0 for none, and their deadline is that of this
-- execution. The ids are those that were in a list and do not run. Why: no_record, or the error code that the job ended
-- with. Suspended: somebody said `rq suspend`, so nothing is given out. Cut short: more wait, for which there was no room.

local worker, slots, lease_ms, keep = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), read_keep(ARGV[5])
local plan = cjson.decode(ARGV[4])
local room, is_full = tonumber(ARGV[6]), false
local now = now_ms()
if redis.call('EXISTS', 'rq:suspended') == 1 then
  return {num(now), 0, {}, {}, 1, 0}
end
local started = iso(now)
local claimed, expired, unfit, held, wip = {}, 0, {}, {}, {}

-- Leftovers of cancelled jobs cost a pop each: bounded, so that a mass cancellation cannot hold the server up.
local pops_left = slots + 1000

-- RQ's registry of running jobs. Its score is far away, so that no RQ tool takes the job for abandoned: leases are ours.
local WIP_UNTIL = num((now + 365 * 86400 * 1000) / 1000)

-- Sibling lists (the open one and those with a ceiling) are merged by the age of their heads, so many jobs at a time.
local MERGE_RUN = 8

local function expire(job, at)
  expired = expired + 1
  local told, trouble = 'the deadline passed while the job waited', redis.call('HGET', 'rq:job:' .. job.id, 'trouble')
  if trouble and #trouble <= MAX_TROUBLE and not string.find(trouble, '[^ -~]') then  -- as we write it
    told = told .. '; it had come back: ' .. trouble
  end
  conclude(job, 'failed', '{"state":"expired","status":504,"code":"deadline_exceeded","error":' .. cjson.encode(told)
    .. ',"queue_ms":' .. num(now - at) .. '}', keep, now)
end

-- What is not simply a waiting job of ours: a record that says something else, is none, or was written by an RQ
-- producer. Whatever it is, it is not forgotten: it runs, or ends with a reason. Returns 'run' and when it came, the
-- deadline of this execution and, of an RQ producer's, its limit in seconds (0: none); or 'leftover', where it was ended or
-- taken already; or 'ended'. Fields: as `take` has read them, or an error. Wait: {at, deadline, is_rq}.
local function look_closely(id, queue, fields, wait)
  local key, status, at, deadline = 'rq:job:' .. id, fields[2], wait[1], wait[2]
  local about = {id = id, queue = queue, reply = fields[6], tenant = fields[9], rq = wait[3]}

  local function leave_out(why)
    unfit[#unfit + 1] = {string.sub(id, 1, MAX_ID), why}
  end

  local function refuse(http_status, code, error)
    leave_out(code)
    conclude(about, 'dead', failure(http_status, code, error), keep, now)
    return 'ended'
  end

  -- A record that is no hash takes no outcome: its id goes to the dead letters, where its type is looked at.
  local function refuse_odd_type()
    leave_out('corrupt_job')
    dead[#dead + 1], dead[#dead + 2] = now, id
    redis.call('PUBLISH', 'bl:done:' .. id, failure(500, 'corrupt_job', 'the job\'s record is no hash'))
    return 'ended'
  end

  -- What RQ's worker does and we do not, by the field that asks for it; nil where nothing does. And the job's timeout.
  local function asked_for()
    local names = {'dependency_ids', 'dependency_id', 'success_callback_name', 'failure_callback_name',
      'stopped_callback_name', 'webhooks', 'repeats_left', 'rate_limit_key', 'timeout'}
    local words = {'depends_on', 'depends_on', 'on_success', 'on_failure', 'on_stopped', 'webhooks', 'repeat',
      'rate_limit'}
    local values = redis.call('HMGET', key, unpack(names))
    for i, word in ipairs(words) do
      if values[i] and values[i] ~= '' and values[i] ~= '0' then
        return word
      end
    end
    return nil, whole(values[#names])
  end

  -- RQ's worker would let in those that wait behind a rate limit, one for one that ends: nobody does here. Those of other
  -- queues are left to RQ, which has room for them again.
  local function refuse_those_behind()
    local limit = 'rq:rl:' .. redis.call('HGET', key, 'rate_limit_key')
    redis.pcall('ZREM', limit .. ':allowed', id)
    for _, other in ipairs(redis.pcall('ZRANGE', limit .. ':rate_limited', 0, 99)) do
      local its = redis.pcall('HMGET', 'rq:job:' .. other, 'status', 'origin')
      if its[1] == 'rate_limited' and its[2] == queue then
        redis.call('ZREM', limit .. ':rate_limited', other)
        unfit[#unfit + 1] = {string.sub(other, 1, MAX_ID), 'unsupported'}
        conclude({id = other, queue = queue, rq = true}, 'dead', failure(422, 'unsupported',
          'rate_limit is not supported (docs/rq.md): enqueue the job without it'), keep, now)
      end
    end
  end

  if fields.err then
    return refuse_odd_type()
  elseif not status and redis.call('EXISTS', key) == 0 then  -- expired, evicted or deleted
    leave_out('no_record')
    return 'leftover'
  elseif not status then
    return refuse(500, 'corrupt_job', 'the job\'s record has no status')
  elseif status == 'started' or status == 'finished' or status == 'failed' or status == 'canceled'
    or status == 'stopped' then
    return 'leftover'
  elseif status == 'deferred' or status == 'scheduled' or status == 'rate_limited' or status == 'ready_to_enqueue' then
    return refuse(500, 'corrupt_job', 'the status in the job\'s record says that RQ holds it back: ' .. status)
  elseif status ~= 'queued' and status ~= 'created' then  -- created: pushed by hand, and RQ's worker would run it too
    return refuse(500, 'corrupt_job', 'the status in the job\'s record is not one of RQ\'s')
  elseif #id > MAX_ID then
    return refuse(500, 'corrupt_job', 'a job\'s id must have at most ' .. MAX_ID .. ' bytes, got ' .. #id)
  end
  if not at then
    at, deadline = adopt(id, queue, keep, now)
  end
  if deadline and deadline <= now then
    expire(about, at)
    return 'ended'
  end
  if not about.rq then
    return 'run', at, deadline
  end
  local word, timeout = asked_for()
  if word == 'rate_limit' then
    refuse_those_behind()
  end
  if word then
    return refuse(422, 'unsupported', word .. ' is not supported (docs/rq.md): enqueue the job without it')
  end
  local most = longest_wait(keep)
  if not timeout or timeout <= 0 or timeout * 1000 > most then
    timeout = 0
  end
  local last = now + (timeout > 0 and timeout * 1000 or most)
  -- The record must outlast this execution and, if the job is requeued, its wait.
  redis.call('PEXPIRE', key, num(math.max(last, deadline or 0) - now + keep.ttl))
  return 'run', at, last, timeout
end

-- One id popped from `queue`: start it, or end it, or drop it where it is over already. Returns 'leftover' where it was,
-- and 'full' where it should start and the answer has no room for it: it belongs back to the front.
local function take(id, queue)
  local job = 'rq:job:' .. id
  -- A script is not rolled back: an error here would lose this id and whatever was claimed before it.
  local fields = redis.pcall('HMGET', job, 'data', 'status', 'wait', 'fence', 'uncharged', 'reply', 'crash_count', 'mac',
    'tenant')
  local at, deadline, _, is_rq = read_wait(fields[3])
  local timeout
  if is_rq or fields[2] ~= 'queued' then
    local word
    word, at, deadline, timeout = look_closely(id, queue, fields, {at, deadline, is_rq})
    if word ~= 'run' then
      return word
    end
  elseif deadline <= now then
    expire({id = id, queue = queue, reply = fields[6], tenant = fields[9]}, at)
    return 'ended'
  end
  local data = fields[1] or ''
  if #data > room and #claimed > 0 then
    return 'full'
  end
  room = room - #data
  local fence, uncharged = next_fence(fields[4], fields[5])
  redis.call('HSET', job, 'status', 'started', 'started_at', started, 'worker_name', worker, 'fence', num(fence),
    'uncharged', num(uncharged))
  held[#held + 1] = id
  append(wip, 'rq:wip:' .. queue, WIP_UNTIL, (is_rq and escaped(id, NO_PART) or id) .. ':' .. num(fence))
  claimed[#claimed + 1] = {id, data, queue, fence - uncharged, fence, num(at), num(deadline),
    whole(fields[7]) or 0, fields[8] or '', timeout}
  return 'started'
end

-- Every list is asked for its length once; from then on this script knows.
local lengths = {}

local function length_of(name)
  if not lengths[name] then
    lengths[name] = ask('LLEN', 'rq:queue:' .. name) or 0  -- what is no list has nothing for us
  end
  return lengths[name]
end

local function is_empty(lists)
  for _, name in ipairs(lists) do
    if length_of(name) > 0 then
      return false
    end
  end
  return true
end

-- Put popped ids back to the front, from the `first` on, and pop no more.
local function stop_at(name, ids, first)
  local last_first = {}
  for i = #ids, first, -1 do
    last_first[#last_first + 1] = ids[i]
    ids[i] = nil
  end
  call_many('LPUSH', 'rq:queue:' .. name, last_first)
  is_full, pops_left = true, 0
end

local function pop(name, count)
  local ids = redis.call('LPOP', 'rq:queue:' .. name, count) or {}
  local leftovers = 0
  for i, id in ipairs(ids) do
    local word = take(id, name)
    if word == 'full' then
      stop_at(name, ids, i)
      break
    end
    leftovers = leftovers + (word == 'leftover' and 1 or 0)
  end
  pops_left = pops_left - #ids
  lengths[name] = lengths[name] - #ids
  local counts = 'bl:counts:' .. name
  if lengths[name] <= 0 then
    redis.call('DEL', counts, 'bl:gone:' .. name)
  else
    local popped = redis.pcall('HINCRBY', counts, 'popped', #ids)  -- a garbled count must not lose what was popped
    if leftovers > 0 and tonumber(popped) then
      redis.pcall('ZREMRANGEBYSCORE', 'bl:gone:' .. name, '-inf', num(popped))
    end
    local gone = leftovers > 0 and whole(ask('HGET', counts, 'gone')) or 0
    if gone > 0 then
      redis.call('HSET', counts, 'gone', math.max(0, gone - leftovers))
    end
  end
  return #ids
end

-- Pop up to `count` ids from that of sibling lists whose head is oldest. Returns how many; 0 when all are empty.
local function pop_oldest(lists, count)
  local waiting = {}
  for _, name in ipairs(lists) do
    if length_of(name) > 0 then
      waiting[#waiting + 1] = name
    end
  end
  count = math.min(count, pops_left)
  if #waiting < 2 or count < 1 then
    return #waiting > 0 and count > 0 and pop(waiting[1], count) or 0
  end
  local best, best_time
  for _, name in ipairs(waiting) do
    local time = head_of(name) or 0
    if not best or time < best_time then
      best, best_time = name, time
    end
  end
  return pop(best, math.min(count, MERGE_RUN))
end

local ORDERS = {usual = {1, 2, 3}, normal_first = {2, 3, 1}, batch_first = {3, 2, 1}}

-- The order of lanes at one turn, and for how many turns it holds.
local function order_at(turn)
  if turn % 16 == 15 then
    return ORDERS.batch_first, 1
  elseif turn % 8 == 7 then
    return ORDERS.normal_first, 1
  end
  return ORDERS.usual, 7 - turn % 8
end

local function claim_own()
  local own, turn = plan.own, whole(anew('HGET', KEYS[3], 'jobs')) or 0
  while #claimed < slots do
    local waiting = 0
    for _, lane in ipairs(own) do
      waiting = waiting + (is_empty(lane.lists) and 0 or 1)
    end
    local order, run = order_at(turn)
    run = math.min(waiting > 1 and run or slots, slots - #claimed)  -- one lane alone needs no turns
    local count = 0
    for i = 1, 3 do
      if count == 0 then
        count = pop_oldest(own[order[i]].lists, run)
      end
    end
    if count == 0 then
      break
    end
    turn = turn + count
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

-- The escalatable list whose head has used up its share of the time it has; nil when none is late.
local function late_list(lane)
  for _, name in ipairs(lane.escalatable) do
    local at, deadline
    if length_of(name) > 0 then
      at, deadline = head_of(name)
    end
    if at and deadline and now - at > plan.share * (deadline - at) then
      return name
    end
  end
end

-- How many jobs of a lane may climb now, from which lists, and whether only late ones may.
local function allowance(tier, lane)
  local depth = depth_of(lane.all)
  local over = lane.climbs and is_over(lane, depth)
  if depth == 0 then
    return 0, {}
  end
  if ask('ZCOUNT', tier.live, now, '+inf') == 0 then
    return depth, lane.escalatable
  end
  if over then
    return depth - lane.low, lane.escalatable
  end
  local late = late_list(lane)
  return late and 1 or 0, {late}, true
end

local function claim_overflow(tier, most)
  for _, lane in ipairs(tier.lanes) do
    local left, lists, must_be_late = allowance(tier, lane)
    while left > 0 and #claimed < most do
      local before = #claimed + expired  -- leftovers are no jobs: they use nothing up
      if pop_oldest(lists, math.min(left, most - #claimed)) == 0 then
        break
      end
      left = left - (#claimed + expired - before)
      if must_be_late then
        lists = {late_list(lane)}
      end
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
if #plan.below > 0 and anew('HINCRBY', KEYS[3], 'claims', 1) % 8 == 0 then
  claim_below(1)
end
claim_own()
local own = #claimed
claim_below(slots)

redis.call('PEXPIRE', KEYS[3], 86400000)
if #claimed > 0 then
  call_many('SADD', KEYS[2], held)
  call_many('SADD', 'bl:unbegun:' .. worker, held)
  for registry, entries in pairs(wip) do
    call_many('ZADD', registry, entries)
  end
  anew('ZADD', KEYS[1], now + lease_ms, worker)
end
local waiting = #claimed > own  -- where some climbed, more may: who takes the token looks again at once
for _, lane in ipairs(plan.own) do
  local depth = is_empty(lane.lists) and 0 or depth_of(lane.lists)
  if depth <= lane.low then
    redis.call('DEL', lane.flag)  -- nobody above may have looked while the queue was short
  end
  waiting = waiting or depth > 0
end
if waiting then
  wake(KEYS[4])
end
settle(keep, now)
return {num(now), expired, claimed, unfit, 0, is_full and 1 or 0}
