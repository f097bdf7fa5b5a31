-- Renew all leases of a worker in one call, and keep its entry in RQ's list of workers.
--
-- Needs: values, clock, commands, leases, fencing, retention, ending, requeue_job
-- Moves: running -> queued: the answer to its claim never arrived at the worker
-- Moves: running -> failed: its claims do not arrive again and again (dead letter)
-- Moves: running -> cancelled: it was cancelled meanwhile
--
-- KEYS  1  bl:workers                  zset    worker -> end of its lease (ms)
--       2  bl:live:<model>:<tier>      zset    workers whose engine answers -> end of their lease (ms)
--       3  bl:inflight:<worker>        set     ids the worker holds
--       4  bl:cancel:<worker>          set     ids that were cancelled; they leave it once the worker holds them no more
--       5  rq:worker:<worker>          hash    what `rq info` shows
--       6  rq:workers                  set     RQ's list of workers
-- ARGV  1 worker  2 lease ms  3 ready (1|0)  4 model  5 tier  6 queues, joined by commas  7 pid  8 host  9 version
--       10 "<jobs finished> <jobs failed> <seconds of work>" since its start  11 max attempts  12 keep (see `read_keep`)
--       13 how many strays follow, then id and fence of each, then the ids the worker knows it holds
-- A stray is held by the worker's name without the worker knowing: the answer to its claim never arrived. It goes back
-- to its queue once the worker has named it, which it does when it saw the claim in two answers. Uncharged, unless it is
-- so large that it may be why no answer arrives: then as what no engine begins (see `requeue_job`), so that it has an end.
-- A renewal may come late, or twice: the worker may have claimed the stray anew by then, and holds it by another fence.
-- Touches also, by name: bl:pulse, bl:drained, bl:unbegun:<worker> (ids it no longer holds leave it), and what its parts touch.
-- Returns {now, {lost ids}, {cancelled ids}, {id, fence of each job held that the worker did not name}, order to drain
-- ('': none; JSON that steering/drain.lua wrote)}.

local worker, now = ARGV[1], now_ms()
local lease_ms, first_held = tonumber(ARGV[2]), 14 + 2 * ARGV[13]
pulse(KEYS[1], lease_ms, now)
call_or_replace('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
call_or_replace('ZADD', KEYS[1], now + lease_ms, worker)
if ARGV[3] == '1' then
  redis.call('ZADD', KEYS[2], now + lease_ms, worker)
  redis.call('PEXPIRE', KEYS[2], 86400000)
else
  redis.call('ZREM', KEYS[2], worker)
end

local at = iso(now)
if call_or_replace('HSETNX', KEYS[5], 'birth', at) == 1 then
  redis.call('HSET', KEYS[5], 'queues', ARGV[6], 'pid', ARGV[7], 'hostname', ARGV[8], 'version', ARGV[9],
    'model', ARGV[4], 'tier', ARGV[5])
end
local held, problem = try_call('SCARD', KEYS[3])
if problem then  -- only this worker knows what it holds
  redis.call('DEL', KEYS[3])
  held = #ARGV - first_held + 1
  for i = first_held, #ARGV do
    redis.call('SADD', KEYS[3], ARGV[i])
  end
end
local idle = redis.call('EXISTS', 'rq:suspended') == 1 and 'suspended' or 'idle'
local finished, failed, seconds = string.match(ARGV[10], '^(%S+) (%S+) (%S+)$')
redis.call('HSET', KEYS[5], 'last_heartbeat', at, 'state', held > 0 and 'busy' or idle, 'held', held,
  'ready', ARGV[3], 'successful_job_count', finished, 'failed_job_count', failed, 'total_working_time', seconds)
redis.call('PEXPIRE', KEYS[5], lease_ms * 4)
call_or_replace('SADD', KEYS[6], KEYS[5])
for queue in string.gmatch(ARGV[6], '[^,]+') do
  call_or_replace('SADD', 'rq:workers:' .. queue, KEYS[5])
  call_or_replace('SADD', 'rq:queues', 'rq:queue:' .. queue)
end

local keep = read_keep(ARGV[12])
local LARGE = 1048576

local function return_stray(id, fence)
  local fields = try_call('HMGET', 'rq:job:' .. id, 'status', 'worker_name', 'fence', 'data')
  if fields and is_held_anew(fields[1], fields[2], fields[3], worker, fence) then
    return
  end
  redis.call('SREM', KEYS[3], id)
  if not fields then
    return
  end
  local is_large = fields[4] and #fields[4] > LARGE
  requeue_job(id, worker, {reason = is_large and 'unbegun' or 'uncharged', fence = fence,
    last = is_large and scripted_end('undeliverable') or nil, max_attempts = tonumber(ARGV[11]), keep = keep, now = now})
end

for i = 14, first_held - 1, 2 do
  if redis.call('SISMEMBER', KEYS[3], ARGV[i]) == 1 then
    return_stray(ARGV[i], ARGV[i + 1])
  end
end
flush(keep, now)
local unbegun = 'bl:unbegun:' .. worker
for _, id in ipairs(call_or_replace('SMEMBERS', unbegun)) do
  if redis.call('SISMEMBER', KEYS[3], id) == 0 then
    redis.call('SREM', unbegun, id)
  end
end
local lost, known = {}, {}
for i = first_held, #ARGV do
  known[ARGV[i]] = true
  if redis.call('SISMEMBER', KEYS[3], ARGV[i]) == 0 then
    lost[#lost + 1] = ARGV[i]
  end
end
local unknown = {}
if redis.call('SCARD', KEYS[3]) > #ARGV - first_held + 1 - #lost then
  for _, id in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    if not known[id] then
      unknown[#unknown + 1] = id
      unknown[#unknown + 1] = try_call('HGET', 'rq:job:' .. id, 'fence') or ''
    end
  end
end
local cancelled = {}
for _, id in ipairs(call_or_replace('SMEMBERS', KEYS[4])) do
  if redis.call('SISMEMBER', KEYS[3], id) == 1 then
    cancelled[#cancelled + 1] = id
  else
    redis.call('SREM', KEYS[4], id)
  end
end
local order = try_call('HGET', 'bl:drained', worker)
if order then
  redis.call('PEXPIRE', 'bl:drained', 86400000)
end
return {num(now), lost, cancelled, unknown, order or ''}
