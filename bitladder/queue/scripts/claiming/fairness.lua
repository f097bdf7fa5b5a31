-- Fairness among lanes, tiers and tenants: none that is never empty keeps another waiting for ever.
--
-- Needs: values, commands, tenants, lists
-- Touches: bl:shares:<queue>, bl:virtual:<model>:<tier>:<lane>, bl:tenants:<model>:<tier>, bl:weights, rq:queue:<list>,
--          rq:queues; claim.lua keeps the counters of lanes and tiers (bl:turn:<model>:<tier>)
--
-- Tenants of a lane are served by start-time fair queueing (P. Goyal, H. M. Vin, H. Cheng, SIGCOMM 1996), tenant by tenant
-- instead of packet by packet: bl:shares has for each tenant that waits in a queue where its next turn begins, in virtual
-- time; the first one is served, and its next turn begins later by what it got over its weight. The default tenant and
-- RQ's producers are one tenant of weight 1, whose turn is kept with the virtual time of the lane.

-- One job of weight 1, in virtual time: whole numbers, so that nothing is rounded on its way through Redis.
local STRIDE = 1000
local MAX_FORGOTTEN = 256  -- tenants without jobs, at once: more would hold the server up

-- The order of lanes (1: urgent) after so many jobs, and for how many more it holds. Of JOBS_PER_CYCLE jobs one goes to the
-- batch lane first, and two to the normal lane.
local function lane_order(jobs)
  if jobs % JOBS_PER_CYCLE == JOBS_PER_CYCLE - 1 then
    return {3, 2, 1}, 1
  elseif jobs % 8 == 7 then
    return {2, 3, 1}, 1
  end
  return {1, 2, 3}, 7 - jobs % 8
end

-- Every 8th claim looks at the lower tiers first, for one job: a dead one below a busy one is served.
local function looks_down_first(claims)
  return claims % 8 == 0
end

-- How long a queue's own list is.
local function length_of(claim, name)
  local length = claim.lengths[name]
  if not length then
    length = claim.hold and claim.hold.tenants.default and 0 or redis.pcall('LLEN', 'rq:queue:' .. name)
    if type(length) == 'table' then
      length = check_type(length) or 0  -- a key that is no list is empty
    end
    claim.lengths[name] = length
  end
  return length
end

-- Whether no id lies in queues, neither in their own lists nor in those of tenants.
local function is_empty(claim, queues)
  for _, name in ipairs(queues) do
    if length_of(claim, name) > 0 or claim.tenants[name] then
      return false
    end
  end
  return true
end

-- The next turn, as `next_turn` inside says; the claim has that and `end_turn` from then on. They are inside, because a
-- script makes its functions at every call, and where no named tenant waits it needs none of these.
local function first_turn(claim, lane_queues)
  local clocks = {}

  -- The virtual time of a lane, and when the default tenant's next turn begins in it.
  local function clock_of(queue)
    local _, _, lane = names_in(queue)
    if not clocks[lane] then
      local fields = try_call('HMGET', 'bl:virtual:' .. lane, 'now', 'default') or {}
      clocks[lane] = {key = 'bl:virtual:' .. lane, now = whole(fields[1]) or 0, default = whole(fields[2]) or 0}
    end
    return clocks[lane]
  end

  local function write_clock(clock)
    call_or_replace('HSET', clock.key, 'now', num(clock.now), 'default', num(clock.default))
    redis.call('PEXPIRE', clock.key, KEPT_SHARES_MS)
  end

  -- The next turn of a queue's named tenants; nil where none waits. A tenant without jobs keeps its place until it comes
  -- first: one that came back before has used up its turn.
  local function next_named(queue, clock)
    local shares = 'bl:shares:' .. queue
    for _ = 1, MAX_FORGOTTEN do  -- the next claim goes on
      local first = claim.hold and claim.hold.first(shares) or try_call('ZRANGE', shares, 0, 1, 'WITHSCORES') or {}
      local tenant, begins = first[1], whole(first[2]) or 0
      if not tenant then
        if not claim.hold then try_call('HDEL', tenants_key(queue), queue, 'gone:' .. queue) end
        claim.tenants[queue] = nil
        return nil
      end
      local list = list_of(queue, tenant, true)
      local length = redis.pcall('LLEN', 'rq:queue:' .. list)
      if type(length) == 'number' and length > 0 then
        return {queue = queue, tenant = tenant, list = list, length = length, begins = begins, is_alone = not first[3]}
      end
      redis.call('ZREM', shares, tenant)
      clock.now = math.max(clock.now, begins)
      write_clock(clock)
    end
  end

  -- The turn that comes first in queues of one lane, and whether it is the only one; of two at once, that of the job that
  -- has waited longer. Nil where all are empty.
  local function next_turn(_, queues)
    local clock, first, is_alone = clock_of(queues[1]), nil, true
    local function offer(turn)
      is_alone = turn.is_alone and not first
      if first and first.begins == turn.begins then
        first.at, turn.at = first.at or head_of(first.list) or 0, head_of(turn.list) or 0
      end
      if not first or turn.begins < first.begins or (turn.begins == first.begins and turn.at < first.at) then
        first = turn
      end
    end
    for _, queue in ipairs(queues) do
      local length, named = length_of(claim, queue), claim.tenants[queue] and next_named(queue, clock)
      if length > 0 then
        offer({queue = queue, list = queue, length = length, begins = math.max(clock.default, clock.now), is_alone = true})
      end
      if named then
        offer(named)
      end
    end
    return first, is_alone
  end

  -- Note what a turn brought: jobs that started, ids that left the list, and leftovers that it counts no more.
  local function end_turn(turn, queues, started, ids, leftovers)
    local clock, queue, tenant = clock_of(turn.queue), turn.queue, turn.tenant
    clock.now = turn.begins
    if not tenant then
      clock.default = turn.begins + STRIDE * started
      return write_clock(clock)
    end
    write_clock(clock)
    local weight = math.max(1, whole(try_call('HGET', 'bl:weights', tenant)) or 1)
    for _, name in ipairs(queues) do  -- a tenant has one share of a lane, in however many queues its jobs wait
      if claim.tenants[name] then
        try_call('ZADD', 'bl:shares:' .. name, 'XX', 'GT', num(turn.begins + math.floor(STRIDE * started / weight)), tenant)
      end
    end
    if ids >= turn.length then try_call('SREM', 'rq:queues', 'rq:queue:' .. turn.list) end
    if leftovers > 0 then
      local total = count_apart(queue, 'gone:' .. queue, -leftovers)
      claim.tenants['gone:' .. queue] = claim.hold and (claim.tenants['gone:' .. queue] or 0) - leftovers or total
    end
    local total = count_apart(queue, queue, -ids)
    claim.tenants[queue] = claim.hold and (claim.tenants[queue] or 0) - ids or total  -- paused ones count for nothing
    if claim.tenants[queue] <= 0 then next_named(queue, clock) end  -- the last one tidies up
  end

  claim.next_turn, claim.end_turn = next_turn, end_turn
  return next_turn(claim, lane_queues)
end
