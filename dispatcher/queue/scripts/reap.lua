-- Take the jobs of one worker whose lease ran out and put them back to the front of their queues.
--
-- KEYS  1  bl:workers                  zset    worker -> end of its lease (ms)
--       2  rq:workers                  set     RQ's list of workers
-- ARGV  1 most jobs in this pass  2 max attempts  3 ttl ms
-- Touches also, by name: bl:inflight:<worker>, bl:cancel:<worker>, bl:live:<model>:<tier>, rq:worker:<worker>,
-- rq:workers:<queue>, and what `put_back` writes.
-- Returns {worker ('' when no lease ran out), {ids put back}, {ids ended}}.

local now, limit = now_ms(), tonumber(ARGV[1])
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. num(now), 'LIMIT', 0, 1)[1]
if not dead then
  return {'', {}, {}}
end
local inflight = 'bl:inflight:' .. dead
local returned, given_up = {}, {}

local function forget()
  local name = 'rq:worker:' .. dead
  local about = redis.call('HMGET', name, 'model', 'tier', 'queues')
  redis.call('ZREM', KEYS[1], dead)
  redis.call('SREM', KEYS[2], name)
  if about[3] then
    redis.call('ZREM', 'bl:live:' .. about[1] .. ':' .. about[2], dead)
    for queue in string.gmatch(about[3], '[^,]+') do
      redis.call('SREM', 'rq:workers:' .. queue, name)
    end
  end
  redis.call('DEL', name, 'bl:cancel:' .. dead)
end

local limits = {charge = true, max_attempts = tonumber(ARGV[2]), ttl_ms = tonumber(ARGV[3]), now = now}
for _, id in ipairs(redis.call('SPOP', inflight, limit)) do
  local word = put_back(id, dead, limits)
  if word == 'returned' then
    returned[#returned + 1] = id
  elseif word == 'ended' then
    given_up[#given_up + 1] = id
  end
end
if redis.call('EXISTS', inflight) == 0 then
  forget()
end
settle(limits.ttl_ms, now)
return {dead, returned, given_up}
