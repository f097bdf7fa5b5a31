-- Adopt waiting jobs of RQ's producers, a few at a time: RQ gives them no time to live, and they may wait where no worker
-- is. And end those that RQ's scheduler would have enqueued, where none runs. And note tenants' lists that other programs
-- have filled or emptied, some at each call.
--
-- Needs: values, clock, commands, tenants, retention, ending, adopt
-- Moves: queued -> failed: RQ's scheduler should have enqueued it, and none runs (dead letter)
--
-- KEYS  1  bl:sweep:<model>            hash    at: when it was swept last (ms); list, place: where the next sweep goes on
-- ARGV  1 ms between two sweeps, of all that sweep  2 max ids of lists to look at  3 keep (see `read_keep`), then the queues
-- Touches also, by name: rq:queue:<queue>, rq:job:<id>, rq:scheduled:<queue>, rq:scheduler-lock:<queue>, and what
-- its parts touch; bl:counts:<list>.
-- Returns {how many were adopted, {id, error code}…}: the ids are those of jobs that ended.

local now, every, keep = now_ms(), tonumber(ARGV[1]), read_keep(ARGV[3])
local state = redis.pcall('HMGET', KEYS[1], 'at', 'list', 'place')
local since = now - (whole(state[1]) or 0)
if since >= 0 and since < every then
  return {0, {}}
end

-- RQ's schedulers are a minute late at most, and hold a lock of about two.
local LATE_S, MAX_LATE = 60, 100
local adopted, ended_here = 0, {}
-- Of RQ's queues so many are looked at, and of a queue so many tenants' lists are counted.
local MAX_LOOKED_AT, MAX_TENANTS = 32, 500

-- Look at up to `left` ids of a list from `place` on. Returns how many there were.
local function sweep_list(queue, place, left)
  local ids = redis.pcall('LRANGE', 'rq:queue:' .. queue, place, place + left - 1)
  for _, id in ipairs(ids) do
    local fields = redis.pcall('HMGET', 'rq:job:' .. id, 'wait', 'status')
    if not fields[1] and (fields[2] == 'queued' or fields[2] == 'created') then
      adopt(id, queue, keep, now)
      adopted = adopted + 1
    end
  end
  return #ids
end

local function end_scheduled(queue)
  if redis.call('EXISTS', 'rq:scheduler-lock:' .. queue) == 1 then
    return
  end
  local registry = 'rq:scheduled:' .. queue
  local late = math.floor(now / 1000) - LATE_S
  for _, id in ipairs(redis.pcall('ZRANGEBYSCORE', registry, '-inf', late, 'LIMIT', 0, MAX_LATE)) do
    redis.call('ZREM', registry, id)
    local fields = redis.pcall('HMGET', 'rq:job:' .. id, 'status', 'reply')
    if fields[1] == 'scheduled' then
      ended_here[#ended_here + 1] = {string.sub(id, 1, MAX_ID), 'unsupported'}
      end_job({id = id, queue = queue, reply = fields[2], rq = true}, 'dead', scripted_end('unsupported',
        'the time that the job was scheduled for has passed, and no scheduler of RQ runs for its queue'), keep, now)
    end
  end
end

-- Count anew what lies in the tenants' lists of a queue.
local function recount(queue)
  local tenants = try_call('ZRANGE', 'bl:shares:' .. queue, 0, MAX_TENANTS) or {}
  if #tenants > MAX_TENANTS then
    return
  end
  local ids, gone = 0, 0
  for _, tenant in ipairs(tenants) do
    local list = list_of(queue, tenant, true)
    local length = try_call('LLEN', 'rq:queue:' .. list) or 0
    if length > 0 then
      ids, gone = ids + length, gone + (whole(try_call('HGET', 'bl:counts:' .. list, 'gone')) or 0)
    end
  end
  redis.call('HSET', tenants_key(queue), queue, ids, 'gone:' .. queue, gone)
end

-- Look at some of RQ's queues: a tenant whose list is not empty has a turn. The first such queue is counted anew.
local function note_tenants()
  local served, counted = {}, nil
  for i = 4, #ARGV do
    served[ARGV[i]] = true
  end
  for _, key in ipairs(try_call('SRANDMEMBER', 'rq:queues', MAX_LOOKED_AT) or {}) do
    local queue, tenant = string.match(key, '^rq:queue:(.+):tenant%-([^:]*)$')
    if queue and served[plain_name(queue)] then
      if (try_call('LLEN', key) or 0) > 0 then
        join_tenants(queue, tenant, 0)
      end
      counted = counted or queue
    end
  end
  if counted then
    recount(counted)
  end
end

local queues, left = #ARGV - 3, tonumber(ARGV[2])
local list, place = (whole(state[2]) or 0) % queues, math.max(0, whole(state[3]) or 0)
for _ = 1, queues do
  local seen = left > 0 and sweep_list(ARGV[4 + list], place, left) or 0
  left = left - seen
  if left <= 0 then
    place = place + seen
    break
  end
  list, place = (list + 1) % queues, 0
end
for i = 4, #ARGV do
  end_scheduled(ARGV[i])
end
note_tenants()
if state.err then
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[1], 'at', num(now), 'list', list, 'place', num(place))
redis.call('PEXPIRE', KEYS[1], 86400000)
flush(keep, now)
return {adopted, ended_here}
