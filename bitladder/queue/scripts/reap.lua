-- Take the jobs of one worker whose lease ran out and put them back to the front of their queues.
--
-- Needs: values, clock, commands, leases, retention, ending, requeue_job
-- Moves: running -> queued: its worker was lost
-- Moves: running -> failed: its worker was lost, and no attempt is left (dead letter)
-- Moves: running -> cancelled: its worker was lost, and it was cancelled meanwhile
--
-- KEYS  1  bl:workers                  zset    worker -> end of its lease (ms)
--       2  rq:workers                  set     RQ's list of workers
-- ARGV  1 max jobs in this pass  2 max attempts  3 keep (see `read_keep`)  4 lease ms
-- Touches also, by name: bl:pulse, bl:inflight:<worker>, bl:unbegun:<worker>, bl:cancel:<worker>, bl:drained,
-- bl:live:<model>:<tier>, rq:worker:<worker>, rq:queues, rq:workers:<queue>, and what its parts touch.
-- Returns {worker ('' when no lease ran out), {ids put back}, {ids ended}}.

local now, limit = now_ms(), tonumber(ARGV[1])
pulse(KEYS[1], tonumber(ARGV[4]), now)
local lost = call_or_replace('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. num(now), 'LIMIT', 0, 1)[1]
if not lost then
  return {'', {}, {}}
end
local inflight, unbegun = 'bl:inflight:' .. lost, 'bl:unbegun:' .. lost
local returned, given_up = {}, {}

local function forget_worker()
  local name = 'rq:worker:' .. lost
  local fields = try_call('HMGET', name, 'model', 'tier') or {}
  redis.call('ZREM', KEYS[1], lost)
  try_call('SREM', KEYS[2], name)
  try_call('HDEL', 'bl:drained', lost)
  if fields[1] then
    try_call('ZREM', 'bl:live:' .. fields[1] .. ':' .. fields[2], lost)
  end
  -- Not from its record: that expires, and may have while no worker was there to reap.
  for _, queue in ipairs(try_call('SMEMBERS', 'rq:queues') or {}) do
    try_call('SREM', 'rq:workers:' .. string.gsub(queue, '^rq:queue:', ''), name)
  end
  redis.call('DEL', name, unbegun, 'bl:cancel:' .. lost)
end

local how = {max_attempts = tonumber(ARGV[2]), keep = read_keep(ARGV[3]), now = now}
for _, id in ipairs(call_or_replace('SPOP', inflight, limit)) do
  how.reason = try_call('SISMEMBER', unbegun, id) == 1 and 'unbegun' or 'reaped'
  local result = requeue_job(id, lost, how)
  if result == 'returned' then
    returned[#returned + 1] = id
  elseif result == 'ended' then
    given_up[#given_up + 1] = id
  end
end
if redis.call('EXISTS', inflight) == 0 then
  forget_worker()
end
flush(how.keep, now)
return {lost, returned, given_up}
