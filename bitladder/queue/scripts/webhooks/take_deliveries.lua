-- Take deliveries that are due, by destination: of each some at once, and by one process. So a destination that hangs
-- holds up no other. What a process has taken and says nothing of is due again when its lease has run out.
--
-- Needs: values, clock, commands
--
-- KEYS  1  bl:webhooks:targets         zset    destination -> when its next delivery is due (ms)
-- ARGV  1 max destinations  2 max deliveries of each  3 lease ms  4 max events
-- Touches also, by name: bl:webhooks:events, bl:webhooks:tenants, bl:webhooks:leases, bl:webhooks:disabled,
-- bl:webhooks:due:<target>, bl:webhooks:pending:<target>.
-- Returns {now, since when the oldest is due (ms; now where none is), how many endpoints are disabled, {event…} without
-- taking them, {tenant with endpoints…}, {destination, end of the lease, {id, delivery…}}…}.

local now, of_each, taken = now_ms(), tonumber(ARGV[2]), {}
local lease = num(now + tonumber(ARGV[3]))
local first = call_or_replace('ZRANGEBYSCORE', KEYS[1], '-inf', num(now), 'WITHSCORES', 'LIMIT', 0, 1)

local function take(target)
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
  end
end

for _, target in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', num(now), 'LIMIT', 0, ARGV[1])) do
  take(target)
end
local events = try_call('LRANGE', 'bl:webhooks:events', 0, ARGV[4] - 1) or {}
local since = whole(string.match(events[1] or '', '^%d+')) or now
return {num(now), num(math.min(since, whole(first[2]) or now)), try_call('SCARD', 'bl:webhooks:disabled') or 0, events,
  try_call('SMEMBERS', 'bl:webhooks:tenants') or {}, taken}
