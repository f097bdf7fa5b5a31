-- What a claim gives to nobody because operators have paused it. Nothing of this is read while nothing is paused.
--
-- Needs: values, commands, tenants, pauses
-- Touches: rq:suspended, bl:paused, bl:drained, rq:queue:<list>, bl:counts:<list>, bl:shares:<queue>, bl:tenants:<model>:<tier>
--
-- A paused tier claims nothing, and its jobs go to higher ones as if it had no worker. Jobs of a paused lane or tenant
-- stay where they are, and count for nothing meanwhile: neither for overflow nor for the turns of others.
-- Hold: {why: where nothing at all is given out, see claim.lua; scopes: what is paused; tenants; size: how many}

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
  return hold
end

-- Whether jobs of the default tenant, which wait in the queues' own lists, are held back.
local function holds_default(claim)
  return claim.hold and claim.hold.tenants.default
end

-- Read the counts of a tier's tenants, without those that are paused.
local function read_waiting(claim, tier)
  read_tenants(tier, claim.tenants)
  if not claim.hold or claim.hold.size == 0 then
    return
  end
  for queue, ids in pairs(claim.tenants) do
    local _, of = names_in(queue)
    if of == tier then
      local gone = claim.tenants['gone:' .. queue] or 0
      for tenant in pairs(claim.hold.tenants) do
        local list = list_of(queue, tenant, true)
        local length = try_call('LLEN', 'rq:queue:' .. list) or 0
        ids = ids - length
        gone = length > 0 and gone - (whole(try_call('HGET', 'bl:counts:' .. list, 'gone')) or 0) or gone
      end
      claim.tenants[queue] = ids > 0 and ids or nil
      if claim.tenants['gone:' .. queue] then
        claim.tenants['gone:' .. queue] = math.max(0, gone)
      end
    end
  end
end

-- Count ids in the tenants' lists of a queue; returns how many there are without those of paused tenants.
local function count_waiting(claim, queue, field, by)
  local total = count_apart(queue, field, by)
  return claim.hold and claim.hold.size > 0 and (claim.tenants[field] or 0) + by or total
end

-- The two tenants of a queue whose turns come first, with the turns' beginnings.
local function first_tenants(claim, shares)
  local hold = claim.hold
  local entries = try_call('ZRANGE', shares, 0, 1 + (hold and hold.size or 0), 'WITHSCORES') or {}
  if not hold or hold.size == 0 then
    return entries
  end
  local free = {}
  for i = 1, #entries, 2 do
    if not hold.tenants[entries[i]] then
      free[#free + 1], free[#free + 2] = entries[i], entries[i + 1]
    end
  end
  return free
end

-- Take the lists of paused lanes out of a plan, and return those of `above` that are left.
local function without_paused_lanes(claim, plan, above)
  local paused, is_any = {}, false
  for place, lane in ipairs(plan.own) do
    local model, name = string.match(lane.flag, '^bl:overflow:(.+):[^:]*:([^:]*)$')
    paused[place] = claim.hold.scopes['lane:' .. (model or '') .. ':' .. (name or '')]
    is_any = is_any or paused[place]
    lane.lists = paused[place] and {} or lane.lists
  end
  if not is_any then
    return above
  end
  for _, tier in ipairs(plan.below) do
    for place, lane in ipairs(tier.lanes) do
      lane.escalatable = paused[place] and {} or lane.escalatable
    end
  end
  local left = {}
  for _, list in ipairs(above or {}) do
    if not paused[list.place] then
      left[#left + 1] = list
    end
  end
  return left
end
