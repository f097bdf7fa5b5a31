-- What the rule of overflow asks of Redis, and the lists of single tiers, which no plan names.
--
-- Needs: values, commands, tenants, lists, hold, fairness, pop
-- Touches: bl:overflow:<model>:<tier>:<lane>, bl:live:<model>:<tier>, bl:health:<model>:<tier>, bl:lists:<model>, bl:served:<model>,
-- bl:drain:<model>:<tier>:<lane>, and what its parts touch

-- A lane's rate is measured over so long.
local DRAIN_MS = 5000

local function depth_of(claim, lists)
  local depth = 0
  for _, name in ipairs(lists) do
    depth = depth + (claim.hold and claim.hold.tenants.default and 0 or depth_of_list(name)) + depth_apart(claim.tenants, name)
  end
  return depth
end

-- How many jobs of a lane end in a second; nil for the first few. Measured anew every DRAIN_MS, and one job is added for
-- the one that runs: what is not served at all for a while would have no end otherwise.
local function drain_rate(lane, now)
  local key = string.gsub(lane.flag, '^bl:overflow:', 'bl:drain:')
  local before, served = redis.pcall('HMGET', key, 'at', 'served', 'rate'), 0
  local at, rate = whole(before[1]), tonumber(before[3] or nil)
  if at and now - at < DRAIN_MS then
    return rate
  end
  for _, count in ipairs(redis.pcall('HMGET', 'bl:served:' .. names_in(lane.all[1]), unpack(lane.all))) do
    served = served + (whole(count) or 0)
  end
  local last = whole(before[2])
  rate = nil
  if at and last and served >= last and now - at < 4 * DRAIN_MS then
    rate = (served - last + 1) * 1000 / (now - at)
  end
  redis.call('DEL', key)
  redis.call('HSET', key, 'at', num(now), 'served', num(served), 'rate', rate or '')
  redis.call('PEXPIRE', key, 4 * DRAIN_MS)
  return rate
end

local function overflow_facts(claim, plan)
  return {
    now = claim.now,
    share = plan.share,
    depth = function(lists)
      return depth_of(claim, lists)
    end,
    marked_at = function(lane)
      return whole(try_call('GET', lane.flag))
    end,
    mark = function(lane, overflows)
      if overflows then
        redis.call('SET', lane.flag, num(claim.now), 'PX', 3600000, 'NX')
      else
        redis.call('DEL', lane.flag)
      end
    end,
    has_workers = function(tier)
      if claim.hold and claim.hold.scopes['tier:' .. string.sub(tier.live, #'bl:live:' + 1)] then
        return false
      end
      return try_call('ZCOUNT', tier.live, claim.now, '+inf') ~= 0
        and (try_call('HGET', tier.health, 'shifted') or '0') == '0'
    end,
    head = function(name)
      return next_head(claim, name)
    end,
    drain_rate = function(lane)
      return drain_rate(lane, claim.now)
    end,
    is_idle = function()
      for _, lane in ipairs(plan.own) do
        if not is_empty(claim, lane.lists) then
          return false
        end
      end
      return true
    end,
    take = function(lists, limit)
      local started, expired = #claim.jobs, claim.expired
      local popped = pop_oldest(claim, lists, limit)
      return popped, #claim.jobs - started, claim.expired - expired
    end,
  }
end

local function names_any(named, tiers)
  for _, tier in ipairs(tiers or {}) do
    if string.find(named, ',' .. tier .. ',', 1, true) then
      return true
    end
  end
  return false
end

-- Add the lists of single tiers that are in use to the plan. Returns those whose jobs this tier may serve below their
-- floor, as take_below_floor takes them; nil where there are none. The scheme is read only where there are such lists.
local function add_lists(claim, plan, key, raw_scheme)
  local scheme, above
  for _, name in ipairs(redis.pcall('SRANDMEMBER', key, MAX_LISTS)) do
    scheme, above = scheme or cjson.decode(raw_scheme), above or {}
    local plain, tiers = plain_name(name)
    local tier, lane = string.match(plain, '([^:]*):([^:]*)$')
    local rank, place = scheme.ranks[tier], scheme.lanes[lane]
    if tier ~= scheme.tier then
      local _, of_tenants = names_in(name)
      read_waiting(claim, of_tenants)
    end
    if is_empty(claim, {name}) then
      if not claim.hold then redis.call('SREM', key, name) end  -- else what is in it may only be paused
    elseif rank and place and tiers then
      local named = ',' .. tiers .. ','
      -- A tier whose traffic is shifted leaves what another one may take.
      local may_serve = names_any(named, {scheme.tier}) and not names_any(named, scheme.serving)
      local rises = scheme.ranks[scheme.tier] - rank
      if rises == 0 then
        append(plan.own[place], 'lists', may_serve and name or nil)
      elseif rises > 0 and plan.below[rises] then
        local lower = plan.below[rises].lanes[place]
        append(lower, 'all', name)
        if may_serve then
          append(lower, 'escalatable', name)
        end
      elseif rises < 0 then
        append(scheme.above[-rises].lanes[place], 'all', name)
        above[#above + 1] = may_serve and {name = name, named = named, first = -rises, place = place} or nil
      end
    end
  end
  for _, list in ipairs(above or {}) do
    list.tiers = {}  -- none where another program has put the name together
    for i = list.first, #scheme.above do
      local tier = scheme.above[i]
      if names_any(list.named, {tier.name}) then
        list.tiers[#list.tiers + 1] = {tier = tier, lane = tier.lanes[list.place]}
      end
    end
  end
  return above
end
