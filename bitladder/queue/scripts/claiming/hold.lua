-- What a claim gives to nobody because operators have paused it. Nothing of this is read while nothing is paused.
--
-- Needs: values, commands, tenants, pauses
-- Touches: rq:suspended, bl:paused, bl:drained, rq:queue:<list>, bl:counts:<list>, bl:shares:<queue>, bl:tenants:<model>:<tier>
--
-- A paused tier claims nothing, and its jobs go to higher ones as if it had no worker. Jobs of a paused lane or tenant
-- stay where they are, and count for nothing meanwhile: neither for overflow nor for the turns of others.
-- All is inside one function, because a script makes its functions at every call, and most claims need none of these.
-- Hold: {why: where nothing at all is given out, see claim.lua; scopes: what is paused; tenants; size: how many of them;
-- and the functions inside}

local function read_hold(worker, tier, now)
  if redis.call('EXISTS', 'rq:suspended') == 1 then
    return {why = 1}
  elseif try_call('HEXISTS', 'bl:drained', worker) == 1 then
    return {why = 3}
  end
  local hold, fields = {scopes = {}, tenants = {}, size = 0}, try_call('HGETALL', 'bl:paused') or {}
  for i = 1, #fields, 2 do
    if is_in_force(fields[i + 1], now) then
      local scope = fields[i]
      local tenant = string.match(scope, '^tenant:(.*)$')
      hold.scopes[scope] = true
      if tenant then
        hold.tenants[tenant], hold.size = true, hold.size + 1
      end
    end
  end
  local model = string.match(tier, '^(.+):[^:]*$') or ''
  hold.why = (hold.scopes['tier:' .. tier] or hold.scopes['model:' .. model]) and 2 or nil

  -- Take paused tenants out of the counts of a tier's tenants.
  function hold.hide(counts, of_tier)
    for queue, ids in pairs(hold.size > 0 and counts or {}) do
      local _, of = names_in(queue)
      if of == of_tier then
        local gone = counts['gone:' .. queue] or 0
        for tenant in pairs(hold.tenants) do
          local list = list_of(queue, tenant, true)
          local length = try_call('LLEN', 'rq:queue:' .. list) or 0
          ids = ids - length
          gone = length > 0 and gone - (whole(try_call('HGET', 'bl:counts:' .. list, 'gone')) or 0) or gone
        end
        counts[queue] = ids > 0 and ids or nil
        if counts['gone:' .. queue] then
          counts['gone:' .. queue] = math.max(0, gone)
        end
      end
    end
  end

  -- What is left of a queue's tenants, with the turns' beginnings, without those that are paused.
  function hold.first(shares)
    local free, entries = {}, try_call('ZRANGE', shares, 0, 1 + hold.size, 'WITHSCORES') or {}
    for i = 1, #entries, 2 do
      if not hold.tenants[entries[i]] then
        free[#free + 1], free[#free + 2] = entries[i], entries[i + 1]
      end
    end
    return free
  end

  -- Take the lists of paused lanes out of a plan, and return those of `above` that are left.
  function hold.without_lanes(plan, above)
    local paused, left = {}, {}
    for place, lane in ipairs(plan.own) do
      local of_model, name = string.match(lane.flag, '^bl:overflow:(.+):[^:]*:([^:]*)$')
      paused[place] = hold.scopes['lane:' .. (of_model or '') .. ':' .. (name or '')]
      lane.lists = paused[place] and {} or lane.lists
    end
    for _, lower in ipairs(plan.below) do
      for place, lane in ipairs(lower.lanes) do
        lane.escalatable = paused[place] and {} or lane.escalatable
      end
    end
    for _, list in ipairs(above or {}) do
      left[#left + 1] = not paused[list.place] and list or nil
    end
    return above and left
  end

  return hold
end

-- Read the counts of a tier's tenants, without those that are paused.
local function read_waiting(claim, tier)
  read_tenants(tier, claim.tenants)
  if claim.hold then
    claim.hold.hide(claim.tenants, tier)
  end
end
