-- End jobs, each only while this worker still holds it, or while nobody else has started it since.
--
-- KEYS  1  bl:inflight:<worker>        set     ids the worker holds
-- ARGV  1 worker  2 ttl ms, then six per job: id, queue, fence, status (finished|failed|canceled), outcome,
--       RQ return value (base64 of JSON; '' for jobs that were not enqueued by RQ)
-- Touches also, by name: rq:job:<id>, rq:wip:<queue>, rq:results:<id>, bl:stream:<id>, and what `conclude` writes.
-- Returns {1|0…}: whether the outcome was accepted.

local worker, ttl_ms, now = ARGV[1], tonumber(ARGV[2]), now_ms()

-- A lease that ran out may be taken again as long as the job only went back to its queue: the id left in the list
-- is then a leftover, which is counted as such.
local function may_finish(id, queue, fence)
  local fields = redis.call('HMGET', 'rq:job:' .. id, 'lease', 'status', 'fence', 'worker_name', 'origin')
  if fields[1] == worker .. '/' .. fence then
    return true
  end
  if fields[2] == 'queued' and fields[3] == fence and fields[4] == worker then
    redis.call('INCR', 'bl:gone:' .. fields[5])
    return true
  end
  return false
end

local accepted = {}
for i = 3, #ARGV, 6 do
  local id, queue, fence, status, outcome, value = unpack(ARGV, i, i + 5)
  local ok = may_finish(id, queue, fence)
  if ok then
    if value ~= '' then
      redis.call('XADD', 'rq:results:' .. id, '*', 'type', '1', 'return_value', value, 'worker_name', worker)
      redis.call('PEXPIRE', 'rq:results:' .. id, ttl_ms)
    end
    if redis.call('EXISTS', 'bl:stream:' .. id) == 1 then
      redis.call('PEXPIRE', 'bl:stream:' .. id, ttl_ms)
    end
    conclude(id, queue, status, outcome, ttl_ms, now)
  end
  redis.call('SREM', KEYS[1], id)
  redis.call('ZREM', 'rq:wip:' .. queue, id .. ':' .. fence)
  accepted[#accepted + 1] = ok and 1 or 0
end
return accepted
