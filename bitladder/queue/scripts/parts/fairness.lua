-- Fairness among lanes and tiers: a lane or tier that is never empty keeps no other waiting for ever.
--
-- Needs: nothing
-- Touches: no key; claim.lua keeps the two counters (bl:turn:<model>:<tier>)

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
