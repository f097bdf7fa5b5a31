-- Take deliveries that are due, by destination: of each some at once, and by one process. So a destination that hangs
-- holds up no other. One tenant has no more of a process' places than are left: so many that hang hold up no other tenant.
-- What a process has taken and says nothing of is due again when its lease has run out.
--
-- Needs: values, clock, commands
--
-- KEYS  1  bl:webhooks:targets         zset    destination -> when its next delivery is due (ms)
-- ARGV  1 max destinations  2 max deliveries of each  3 lease ms  4 max events, then the destinations that are served now
-- Touches also, by name: bl:webhooks:events, bl:webhooks:tenants, bl:webhooks:leases, bl:webhooks:disabled,
-- bl:webhooks:due:<target>, bl:webhooks:pending:<target>, bl:webhooks:endpoint:<target>.
-- Returns {now, since when the oldest is due (ms; now where none is), how many endpoints are disabled, {event…} without
-- taking them, {tenant with endpoints…}, {destination, end of the lease, {id, delivery…}}…, whether more may be due (1)}.

local now, of_each, taken = now_ms(), tonumber(ARGV[2]), {}
local lease = num(now + tonumber(ARGV[3]))
local first = call_or_replace('ZRANGEBYSCORE', KEYS[1], '-inf', num(now), 'WITHSCORES', 'LIMIT', 0, 1)

-- Destinations that one call looks at. Of a tenant that has its places, they give way to those behind them for a while.
local MAX_SEEN, PAUSE_MS = 256, 1000
local places, places_of = tonumber(ARGV[1]), {}  -- left; taken by a tenant

local function tenant_of(target)
  if string.sub(target, 1, 3) == 'we_' then
    return try_call('HGET', 'bl:webhooks:endpoint:' .. target, 'tenant') or target
  end
  return string.match(target, '^url_(.*)_%x+$') or target
end

local function take(target, tenant)
  local held = whole(try_call('ZSCORE', 'bl:webhooks:leases', target))
  if held and held > now then
    redis.call('ZADD', KEYS[1], num(held), target)
    return
  end
  local due = 'bl:webhooks:due:' .. target
  local ids = try_call('ZRANGEBYSCORE', due, '-inf', num(now), 'LIMIT', 0, of_each) or {}
  if #ids == 0 then
    local later = try_call('ZRANGE', due, 0, 0, 'WITHSCORES') or {}
    if later[2] then
      redis.call('ZADD', KEYS[1], later[2], target)
    else
      redis.call('ZREM', KEYS[1], target)
    end
    return
  end
  local records, deliveries = try_call('HMGET', 'bl:webhooks:pending:' .. target, unpack(ids)) or {}, {}
  for i, id in ipairs(ids) do
    if records[i] then
      append(deliveries, 'all', id, records[i])
    else
      redis.call('ZREM', due, id)
    end
  end
  if deliveries.all then
    call_or_replace('ZADD', 'bl:webhooks:leases', lease, target)
    redis.call('ZADD', KEYS[1], lease, target)
    taken[#taken + 1] = {target, lease, deliveries.all}
    places, places_of[tenant] = places - 1, (places_of[tenant] or 0) + 1
  end
end

for i = 5, #ARGV do
  local tenant = tenant_of(ARGV[i])
  places_of[tenant] = (places_of[tenant] or 0) + 1
end
local due = places > 0 and redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', num(now), 'LIMIT', 0, MAX_SEEN) or {}
for _, target in ipairs(due) do
  local tenant = tenant_of(target)
  if places == 0 then
    break
  elseif not places_of[tenant] or places_of[tenant] < places then
    take(target, tenant)
  elseif #due == MAX_SEEN then  -- it must not stand before others'
    redis.call('ZADD', KEYS[1], num(now + PAUSE_MS), target)
  end
end
local events = try_call('LRANGE', 'bl:webhooks:events', 0, ARGV[4] - 1) or {}
local since = whole(string.match(events[1] or '', '^%d+')) or now
return {num(now), num(math.min(since, whole(first[2]) or now)), try_call('SCARD', 'bl:webhooks:disabled') or 0, events,
  try_call('SMEMBERS', 'bl:webhooks:tenants') or {}, taken,
  #due == MAX_SEEN and 1 or 0}
