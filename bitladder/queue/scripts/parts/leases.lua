-- Leases after an outage: a lease that nobody could renew does not run out (docs/decisions/0002).
--
-- Needs: values, commands
-- Touches: bl:pulse, bl:workers
--
-- Every renewal and every reaping leaves its time in bl:pulse, as every worker does once a second. Where that time is long
-- ago, no worker could renew meanwhile: the server was unreachable, all processes stood still, or the clock was set
-- forward. Where it lies ahead, the clock was set back. The first one to come then lets every lease begin anew, so that
-- every worker has a whole one to renew it in. A lease that had run out before stays so; where the clock was set back,
-- nobody can tell.
local PULSE_TTL_MS = 86400000

local function pulse(workers, lease_ms, now)
  local last = whole(redis.pcall('GET', 'bl:pulse')) or now - PULSE_TTL_MS
  redis.call('SET', 'bl:pulse', num(now), 'PX', PULSE_TTL_MS)
  if last <= now and now - last <= math.min(MAX_SILENT_MS, lease_ms * MAX_SILENT_SHARE) then
    return
  end
  local set_back = math.max(0, last - now)
  local entries = call_or_replace('ZRANGEBYSCORE', workers, set_back > 0 and '-inf' or num(last), '+inf', 'WITHSCORES')
  for i = 1, #entries, 2 do
    redis.call('ZADD', workers, num(math.max(entries[i + 1] - set_back, now + lease_ms)), entries[i])
  end
end
