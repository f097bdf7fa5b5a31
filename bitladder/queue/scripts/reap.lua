-- Take the jobs of one worker whose lease ran out and put them back to the front of their queues.
--
-- KEYS  1  bl:workers                  zset    worker -> end of its lease (ms)
--       2  rq:workers                  set     RQ's list of workers
-- ARGV  1 most jobs in this pass  2 max attempts  3 keep (see `read_keep`)  4 lease ms
-- Touches also, by name: bl:pulse, bl:inflight:<worker>, bl:unbegun:<worker>, bl:cancel:<worker>,
-- bl:live:<model>:<tier>, rq:worker:<worker>, rq:queues, rq:workers:<queue>, and what `requeue_job` writes.
-- Returns {worker ('' when no lease ran out), {ids put back}, {ids ended}}.

local now, limit = now_ms(), tonumber(ARGV[1])
pulse(KEYS[1], tonumber(ARGV[4]), now)
local lost = anew('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. num(now), 'LIMIT', 0, 1)[1]
if not lost then
  return {'', {}, {}}
end
local inflight, unbegun = 'bl:inflight:' .. lost, 'bl:unbegun:' .. lost
local returned, given_up = {}, {}

local function forget()
  local name = 'rq:worker:' .. lost
  local about = ask('HMGET', name, 'model', 'tier') or {}
  redis.call('ZREM', KEYS[1], lost)
  ask('SREM', KEYS[2], name)
  if about[1] then
    ask('ZREM', 'bl:live:' .. about[1] .. ':' .. about[2], lost)
  end
  -- Not from its record: that expires, and may have while nobody was there to reap.
  for _, queue in ipairs(ask('SMEMBERS', 'rq:queues') or {}) do
    ask('SREM', 'rq:workers:' .. string.gsub(queue, '^rq:queue:', ''), name)
  end
  redis.call('DEL', name, unbegun, 'bl:cancel:' .. lost)
end

local how = {max_attempts = tonumber(ARGV[2]), keep = read_keep(ARGV[3]), now = now}
for _, id in ipairs(anew('SPOP', inflight, limit)) do
  how.word = ask('SISMEMBER', unbegun, id) == 1 and 'unbegun' or 'reaped'
  local word = requeue_job(id, lost, how)
  if word == 'returned' then
    returned[#returned + 1] = id
  elseif word == 'ended' then
    given_up[#given_up + 1] = id
  end
end
if redis.call('EXISTS', inflight) == 0 then
  forget()
end
settle(how.keep, now)
return {lost, returned, given_up}
