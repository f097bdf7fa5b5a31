-- Overflow's twin: which jobs of a higher tier a worker may take, and how many, where their clients have consented to be
-- served below their floor. As pure as overflow.lua, and run without Redis as that is.
--
-- Needs: overflow
-- Touches: no key; it asks the same `facts`

-- Tiers above a job's floor had so long to take it: where they have not, they have no room.
local GRACE_MS = 1500

-- How many jobs of a list may be served below their floor: its clients have consented. Tiers: {tier, lane} of each tier
-- that may serve it without that, the lowest first. None while one of them has room: it is alive, and its lane does not
-- overflow. Those above the lowest are also full when they have left what they might have taken for that long.
local function allowance_below(name, tiers, facts)
  if #tiers == 0 then
    return 0
  end
  local tier, lane = tiers[1].tier, tiers[1].lane
  local depth = facts.depth(lane.all)
  local is_dead = not facts.has_workers(tier)
  local overflows = lane.may_overflow and is_overflowing(lane, depth, facts)
  if not is_dead and not overflows then
    return 0
  end
  local since = is_dead and facts.head(name) or not is_dead and facts.marked_at(lane) or facts.now
  for i = 2, #tiers do
    local above = tiers[i]
    local is_full = facts.now - since >= GRACE_MS or not facts.has_workers(above.tier)
      or above.lane.may_overflow and is_overflowing(above.lane, facts.depth(above.lane.all), facts)
    if not is_full then
      return 0
    end
  end
  return is_dead and depth or math.max(1, excess_of(lane, depth, facts))
end

-- Take up to `room` jobs from lists whose clients have consented. Lists: {name, tiers} each. Returns the room that is left.
local function take_below_floor(lists, room, facts)
  for _, list in ipairs(lists) do
    local left = room > 0 and allowance_below(list.name, list.tiers, facts) or 0
    while left > 0 and room > 0 do
      local popped, started, expired = facts.take({list.name}, math.min(left, room))
      if popped == 0 then
        break
      end
      left, room = left - started - expired, room - started
    end
  end
  return room
end
