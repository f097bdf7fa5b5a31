-- Overflow: which jobs of a lower tier a worker above it may take, and how many. The whole rule is here, in numbers and
-- tables: claim.lua runs these lines in Redis, bitladder/queue/overflow.py runs the same ones without it.
--
-- Needs: nothing
-- Touches: no key. What has to be read, written or taken goes through `facts`, and only where the rule depends on it:
--   depth(lists)             jobs that wait in lists
--   is_marked(lane)          whether the lane has the mark that it overflows
--   mark(lane, overflows)    set or clear it
--   has_workers(tier)        whether a worker of the tier itself is alive, and its traffic is not shifted (health.lua)
--   head(name)               when the first job of a list was enqueued, and its deadline (ms); nil where there is none
--   take(lists, n)           take up to n jobs of sibling lists, the oldest first: ids that left the lists, jobs that
--                            started, jobs that ended because their deadline had passed
--   now                      ms
--   share                    of the time from enqueueing to the deadline: a head that has waited for more is late
-- Tiers and lanes are those of the claim's plan (bitladder/queue/claim_plan.py). Lane: {all, escalatable, high, low, may_overflow}.

-- Above its high mark a lane overflows until it has come down to its low one (hysteresis).
local function is_overflowing(lane, depth, facts)
  if depth > lane.high then
    facts.mark(lane, true)
    return true
  elseif not facts.is_marked(lane) then
    return false
  elseif depth <= lane.low then
    facts.mark(lane, false)
    return false
  end
  return true
end

-- The escalatable list whose head has used up its share of the time it has; nil when none is late.
local function late_list(lane, facts)
  for _, name in ipairs(lane.escalatable) do
    local at, deadline = facts.head(name)
    if at and deadline and facts.now - at > facts.share * (deadline - at) then
      return name
    end
  end
end

-- How many jobs of a lane may escalate now, from which lists, and whether only late ones may. Only jobs in `escalatable`
-- lists may come this far: the others have a ceiling below. A dead tier (no live worker), or a shifted one, gives away all it has, in every
-- lane; a lane that overflows gives away what is above its low mark; every other lane one late head at a time.
local function allowance(tier, lane, facts)
  local depth = facts.depth(lane.all)
  local overflows = lane.may_overflow and is_overflowing(lane, depth, facts)
  if depth == 0 then
    return 0, {}, false
  elseif not facts.has_workers(tier) then
    return depth, lane.escalatable, false
  elseif overflows then
    return depth - lane.low, lane.escalatable, false
  end
  local late = late_list(lane, facts)
  return late and 1 or 0, {late}, true
end

-- Take up to `room` jobs of a lower tier, urgent lanes first. Returns the room that is left. Jobs that ended on the way
-- count as escalated, but need no room; ids of jobs that have ended before count for nothing.
local function take_overflow(tier, room, facts)
  for _, lane in ipairs(tier.lanes) do
    local left, lists, must_be_late = allowance(tier, lane, facts)
    while left > 0 and room > 0 do
      local popped, started, expired = facts.take(lists, math.min(left, room))
      if popped == 0 then
        break
      end
      left, room = left - started - expired, room - started
      if must_be_late then
        lists = {late_list(lane, facts)}
      end
    end
  end
  return room
end
