-- Give a worker up to n jobs: its own lanes first, then the overflow of lower tiers, then what its clients let be served
-- below its floor.
--
-- Needs: values, clock, commands, lists, retention, ending, overflow, below_floor, hold, fairness, pop, facts
-- Moves: queued -> running: a worker takes it
-- Moves: queued -> expired: its deadline passed while it waited
-- Moves: queued -> failed: its record cannot be run, or asks for what is not supported (dead letter)
--
-- KEYS  1  bl:workers                  zset    worker -> end of its lease (ms)
--       2  bl:inflight:<worker>        set     ids the worker holds
--       3  bl:turn:<model>:<tier>      hash    counts jobs and claims (claiming/fairness.lua)
--       4  bl:wake:<model>:<tier>      list    wakes the next idle worker while work is left
--       5  bl:lists:<model>            set     lists of single tiers that are in use
-- ARGV  1 worker  2 n  3 lease ms  4 plan (JSON, see bitladder/queue/claim_plan.py)  5 keep (see `read_keep`)
--       6 max bytes of `data`: jobs above it stay in their lists, but the first goes out whatever its size
--       7 how long a job takes here, ms (0: not known)  8 scheme (JSON, as the plan)
-- Touches also, by name: rq:wip:<queue>, bl:unbegun:<worker>, bl:overflow:<model>:<tier>:<lane>, rq:suspended,
-- bl:paused, bl:drained, and what its parts touch.
-- Returns {now, expired, {id, data, queue, attempt, fence, enqueued, deadline, crash count, mac, timeout, spent}…,
-- {id, why}…, held back (0 to 3), cut short (1|0)}. Only jobs of RQ's producers have a timeout, in seconds, 0 for none, and
-- their deadline is that of this execution. Only jobs that came back have what was spent on them before. The ids are those
-- that were in a list and do not run. Why: no_record, or the error code that the job ended with. Held back: nothing is
-- given out, as 1: all claims pause, 2: those of this tier or model, or 3: this worker drains. Cut short: more wait, for which there was no room.

local worker, slots, now = ARGV[1], tonumber(ARGV[2]), now_ms()
local tier = string.sub(KEYS[4], #'bl:wake:' + 1)
local hold = redis.call('EXISTS', 'rq:suspended', 'bl:paused', 'bl:drained') > 0 and read_hold(worker, tier, now)
if hold and hold.why then
  return {num(now), 0, {}, {}, hold.why, 0}
end
local plan = cjson.decode(ARGV[4])
local claim = {
  worker = worker, keep = read_keep(ARGV[5]), now = now, started_at = iso(now), room = tonumber(ARGV[6]),
  jobs = {}, ids = {}, running = {}, unfit = {}, expired = 0, is_full = false, lengths = {}, hold = hold,
  service = tonumber(ARGV[7]), tenants = {}, next_turn = first_turn,
  running_until = num((now + RUNNING_FOR_MS) / 1000),
  pops_left = slots + 1000,  -- leftovers cost a pop each: a mass cancellation must not hold the server up
}

-- Take jobs of the worker's own lanes. One lane alone needs no turns.
local function claim_own()
  local jobs = whole(call_or_replace('HGET', KEYS[3], 'jobs')) or 0
  while #claim.jobs < slots do
    local waiting = 0
    for _, lane in ipairs(plan.own) do
      waiting = waiting + (is_empty(claim, lane.lists) and 0 or 1)
    end
    local order, run = lane_order(jobs)
    run = math.min(waiting > 1 and run or slots, slots - #claim.jobs)
    local popped = 0
    for i = 1, 3 do
      if popped == 0 then
        popped = pop_oldest(claim, plan.own[order[i]].lists, run)
      end
    end
    if popped == 0 then
      break
    end
    jobs = jobs + popped
  end
  redis.call('HSET', KEYS[3], 'jobs', jobs % JOBS_PER_CYCLE)
end

-- Take jobs of lower tiers, the nearest first, until the worker has `limit`, or only its reserve is free.
local function claim_below(limit, facts)
  local room = math.min(limit, slots - plan.reserve) - #claim.jobs
  for _, lower in ipairs(plan.below) do
    if room > 0 then
      read_waiting(claim, string.sub(lower.live, #'bl:live:' + 1))
      room = take_overflow(lower, room, facts)
    end
  end
  return room
end

-- Write what the worker holds now.
local function note_claimed()
  if #claim.jobs == 0 then
    return
  end
  call_many('SADD', KEYS[2], claim.ids)
  call_many('SADD', 'bl:unbegun:' .. worker, claim.ids)
  for registry, entries in pairs(claim.running) do
    call_many('ZADD', registry, entries)
  end
  call_or_replace('ZADD', KEYS[1], now + tonumber(ARGV[3]), worker)
end

-- Wake the next worker where jobs are left in the own lanes, or some were taken from below: there may be more.
local function pass_on(has_overflow)
  local waiting = has_overflow
  for _, lane in ipairs(plan.own) do
    local depth = is_empty(claim, lane.lists) and 0 or depth_of(claim, lane.lists)
    if depth <= lane.low then
      redis.call('DEL', lane.flag)  -- no worker above may have looked while the queue was short
    end
    waiting = waiting or depth > 0
  end
  if waiting then
    wake(KEYS[4])
  end
  wake(plan.pass_to)
end

read_waiting(claim, tier)
local above = add_lists(claim, plan, KEYS[5], ARGV[8])
above = hold and hold.without_lanes(plan, above) or above
local facts = (#plan.below > 0 or above) and overflow_facts(claim, plan)
if facts and looks_down_first(call_or_replace('HINCRBY', KEYS[3], 'claims', 1)) then
  claim_below(1, facts)
end
claim_own()
local own = #claim.jobs
if facts then
  take_below_floor(above or {}, claim_below(slots, facts), facts)
end
redis.call('PEXPIRE', KEYS[3], 86400000)
note_claimed()
pass_on(#claim.jobs > own)
flush(claim.keep, now)
return {num(now), claim.expired, claim.jobs, claim.unfit, 0, claim.is_full and 1 or 0}
