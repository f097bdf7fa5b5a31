-- Overflow: which jobs of another tier a worker may take, and how many. The whole rule is here, in numbers and tables:
-- claim.lua runs these lines in Redis, bitladder/queue/overflow.py runs the same ones without it.
--
-- Needs: nothing
-- Touches: no key. What has to be read, written or taken goes through `facts`, and only where the rule depends on it:
--   depth(lists)             jobs that wait in lists
--   marked_at(lane)          since when the lane has the mark that it overflows (ms); nil where it has none
--   mark(lane, overflows)    set or clear it
--   has_workers(tier)        whether a worker of the tier itself is alive, and its traffic is not shifted (health.lua)
--   head(name)               when the first job of a list was enqueued, and its deadline (ms); nil where there is none
--   drain_rate(lane)         jobs of a lane that end in a second, as measured; nil while that is not known
--   is_idle()                whether nothing waits for the worker's own tier
--   take(lists, n)           take up to n jobs of sibling lists, the oldest first: ids that left the lists, jobs that
--                            started, jobs that ended because their deadline had passed
--   now                      ms
--   share                    of the time from enqueueing to the deadline: a head that has waited for more is late
-- Tiers and lanes are those of the claim's plan (bitladder/queue/claim_plan.py). Lane: {all, escalatable, high, low,
-- may_overflow, eager, age, wait}; age and wait are further marks, {high, low} in ms, where they are set.

-- The age of a lane's oldest job, in ms.
local function oldest_ms(lane, facts)
  local age = 0
  for _, name in ipairs(lane.all) do
    age = math.max(age, facts.now - (facts.head(name) or facts.now))
  end
  return age
end

-- Whether a lane is above one of its high marks, and whether all its values are at their low ones.
local function compare(lane, depth, facts)
  local is_above, is_below = depth > lane.high, depth <= lane.low
  if lane.age then
    local age = depth > 0 and oldest_ms(lane, facts) or 0
    is_above, is_below = is_above or age > lane.age.high, is_below and age <= lane.age.low
  end
  if lane.wait then
    local rate = facts.drain_rate(lane)
    local wait = rate and depth * 1000 / rate or 0
    is_above, is_below = is_above or wait > lane.wait.high, is_below and wait <= lane.wait.low
  end
  return is_above, is_below
end

-- Above one of its high marks a lane overflows until all its values have come down to their low ones (hysteresis).
local function is_overflowing(lane, depth, facts)
  local is_above, is_below = compare(lane, depth, facts)
  if is_above then
    facts.mark(lane, true)
    return true
  elseif not facts.marked_at(lane) then
    return false
  elseif is_below then
    facts.mark(lane, false)
    return false
  end
  return true
end

-- How many jobs of a lane that overflows are above its low marks of depth and wait.
local function excess_of(lane, depth, facts)
  local excess, rate = depth - lane.low, lane.wait and facts.drain_rate(lane)
  return math.max(excess, rate and depth - math.floor(lane.wait.low * rate / 1000) or 0)
end

-- The escalatable list whose head has used up its share of the time it has, or is older than `max_age`; nil where there
-- is none.
local function late_list(lane, facts, max_age)
  for _, name in ipairs(lane.escalatable) do
    local at, deadline = facts.head(name)
    if at and (deadline and facts.now - at > facts.share * (deadline - at) or facts.now - at > max_age) then
      return name
    end
  end
end

-- How many jobs of a lane may escalate now, from which lists, and whether only those may that late_list names, and above
-- which age. Only jobs in `escalatable` lists may come this far: the others have a ceiling below. A dead tier (no live
-- worker), or a shifted one, gives away all it has, in every lane; so does a lane that idle tiers may help, to a worker with nothing of its
-- own; a lane that overflows gives away what is above its low marks; every other lane one late head at a time.
local function allowance(tier, lane, facts)
  local depth = facts.depth(lane.all)
  local overflows = lane.may_overflow and is_overflowing(lane, depth, facts)
  if depth == 0 then
    return 0, {}, false, 0
  elseif not facts.has_workers(tier) or lane.eager and facts.is_idle() then
    return depth, lane.escalatable, false, 0
  end
  local excess = overflows and excess_of(lane, depth, facts) or 0
  if excess > 0 then
    return excess, lane.escalatable, false, 0
  end
  local max_age = overflows and lane.age and lane.age.low or math.huge
  local late = late_list(lane, facts, max_age)
  return late and (max_age < math.huge and depth or 1) or 0, {late}, true, max_age
end

-- Take up to `room` jobs of a lower tier, urgent lanes first. Returns the room that is left. Jobs that ended on the way
-- count as escalated, but need no room; ids of jobs that have ended before count for nothing.
local function take_overflow(tier, room, facts)
  for _, lane in ipairs(tier.lanes) do
    local left, lists, must_be_late, max_age = allowance(tier, lane, facts)
    while left > 0 and room > 0 do
      local popped, started, expired = facts.take(lists, must_be_late and 1 or math.min(left, room))
      if popped == 0 then
        break
      end
      left, room = left - started - expired, room - started
      if must_be_late then
        lists = {late_list(lane, facts, max_age)}
      end
    end
  end
  return room
end
