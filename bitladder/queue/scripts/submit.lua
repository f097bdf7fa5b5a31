-- Store jobs of one queue and push them, each unless the queue is full or it was submitted before.
--
-- Needs: values, clock, commands, wait, tenants, lists, webhooks
-- Moves: (none) -> queued: accepted
--
-- KEYS  1  rq:queue:<list>             list    where they wait: the queue's list, or that of a named tenant
--       2  bl:counts:<list>            hash    gone: cancelled ids still in the list; popped: how many left it
--       3  rq:queues                   set     RQ's list of queues
--       4  bl:wake:<model>:<tier>      list    wakes an idle worker of the tier
--       5  bl:tenant:<tenant>          zset    a named tenant's jobs that have not ended -> when they expire (ms)
--       6  bl:prefix:<model>:<tier>:<prefix>  string  the worker that served this prefix last
--       7… bl:wake:<model>:<other>     list    wakes the other tiers that may serve it, once it is so deep
-- ARGV  1 until when it may run (ms): the sender has given it up then  2 model, with %3A for a colon
--       3 queue  4 max depth  5 depth above which others are woken (-1: never)  6 ttl ms
--       7 tenant ('': its jobs are not counted)  8 max jobs of the tenant (0: no limit)
--       9 of its jobs, those above it are not pushed here (0: all are)  10 the tenant's weight
--       11 the longest wait (ms): a job with less has a deadline of its own  12 what few jobs have ('': none does), as
--       JSON: fields of the record by the job's number, then eight per job: id, data, description, deadline ms, reply
--       channel, idempotency key, fingerprint, mac ('' where there is none)
-- Touches also, by name: bl:gone:<list>, rq:job:<id>, bl:idem:<model>:<key>, the record of a cancelled job whose key is
-- taken over, and what its parts touch.
-- Returns {result, id, place in the list, number of the tenant's jobs, or reason}… : accepted | duplicate | mismatch |
-- full | quota (the tenant has reached its limit) | crowded (its excess belongs into the batch lane) | broken (the list is
-- none, or the job's record no hash). A refused job leaves nothing behind, and does not affect the others. Or the error
-- LATE <now>: the call was on its way for too long, as with a server that was stopped.

local model, queue, now = ARGV[2], ARGV[3], now_ms()
if now > tonumber(ARGV[1]) then
  return redis.error_reply('LATE ' .. num(now))
end
local max_depth, high, ttl_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local tenant, quota, fair = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local at, enqueued = iso(now), num(now)
local list = string.sub(KEYS[1], #'rq:queue:' + 1)

local length, problem = try_call('LLEN', KEYS[1])
local gone, popped = 0, 0
if length == 0 then
  redis.call('DEL', KEYS[2], 'bl:gone:' .. list)  -- another client may have emptied the list
else
  local counts = try_call('HMGET', KEYS[2], 'gone', 'popped') or {}
  gone, popped = whole(counts[1]) or 0, whole(counts[2]) or 0
end

local waiting = depth_beside(string.sub(KEYS[4], #'bl:wake:' + 1), queue) + (list == queue and (length or 0) - gone or depth_of_list(queue))

-- The job that an idempotency key belongs to, and its fingerprint; nil while the key is free. The key of a job that
-- was cancelled, or is no longer stored, is free: a repeat is what it is for. So is one that this script did not write.
-- Nothing that becomes of the cancelled job's record concerns the key any more.
local function owner_of(key)
  local id, fingerprint = string.match(try_call('GET', key) or '', '^(.+) (%S*)$')
  local status = id and try_call('HGET', 'rq:job:' .. id, 'status')
  if status and status ~= 'canceled' then
    return id, fingerprint
  elseif status then
    redis.call('HSET', 'rq:job:' .. id, 'idem', '')
  end
end

local tenant_jobs = 0
if tenant ~= '' then
  try_call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now)
  tenant_jobs = try_call('ZCARD', KEYS[5]) or 0
end

local pushed, answers, counted, longest_ms = {}, {}, {}, 0
local due, longest_due_ms, max_wait_ms = {}, 0, tonumber(ARGV[11])
local rare = ARGV[12] ~= '' and cjson.decode(ARGV[12])

-- Why another job cannot be taken, and how many there are; nil where it can.
local function refused(depth)
  local jobs = tenant_jobs + #pushed
  if problem then
    return {'broken', KEYS[1] .. ': ' .. problem}
  elseif depth >= max_depth then
    return {'full', depth}
  elseif quota > 0 and jobs >= quota then
    return {'quota', jobs}
  elseif fair > 0 and jobs >= fair then
    return {'crowded', jobs}
  end
end

local function store(more, id, data, description, deadline_ms, reply, key, fingerprint, mac)
  local idem = key ~= '' and 'bl:idem:' .. model .. ':' .. key
  if idem then
    local owner, of_owner = owner_of(idem)
    if owner then return {of_owner == fingerprint and 'duplicate' or 'mismatch', owner, 0} end
  end
  local job, depth = 'rq:job:' .. id, waiting + #pushed
  local refusal = refused(depth)
  if refusal then
    -- A job that was accepted stays so: the answer may have been lost on its way.
    return redis.call('EXISTS', job) == 1 and {'duplicate', id, 0} or {refusal[1], id, refusal[2]}
  end
  local is_new = redis.pcall('HSETNX', job, 'status', 'queued')
  if is_new ~= 1 then
    local _, reason = check_type(is_new)
    return reason and {'broken', id, job .. ': ' .. reason} or {'duplicate', id, 0}
  end
  pushed[#pushed + 1] = id
  local wait = enqueued .. ' ' .. num(now + deadline_ms) .. ' ' .. num(popped + length + #pushed)
    .. (list == queue and '' or TENANT_MARK)
  local fields = {'data', data, 'origin', queue, 'description', description, 'created_at', at, 'enqueued_at', at,
    'wait', wait}
  local function add(name, value)
    fields[#fields + 1], fields[#fields + 2] = name, value
  end
  if reply ~= '' then add('reply', reply) end
  if idem then add('idem', model .. ':' .. key) end
  if mac ~= '' then add('mac', mac) end
  for name, value in pairs(more or {}) do add(name, value) end
  if more and more.hook then watch_job(id, now + deadline_ms) end
  if tonumber(deadline_ms) < max_wait_ms then
    due[#due + 1], due[#due + 2], longest_due_ms = num(now + deadline_ms), id, math.max(longest_due_ms, deadline_ms)
  end
  if tenant ~= '' then
    add('tenant', tenant)
    counted[#counted + 1], counted[#counted + 2] = num(now + deadline_ms + ttl_ms), id
    longest_ms = math.max(longest_ms, deadline_ms + ttl_ms)
  end
  redis.call('HSET', job, unpack(fields))
  redis.call('PEXPIRE', job, num(deadline_ms + ttl_ms))
  if idem then  -- it lives as long as the record does, whatever becomes of the job
    redis.call('SET', idem, id .. ' ' .. fingerprint, 'PX', num(deadline_ms + ttl_ms))
  end
  return {'accepted', id, depth + 1}
end

for i = 13, #ARGV, 8 do
  answers[#answers + 1] = store(rare and rare[num((i - 5) / 8)], unpack(ARGV, i, i + 7))
end
if #pushed > 0 then
  call_many('RPUSH', KEYS[1], pushed)
  if tenant ~= '' then
    call_many('ZADD', KEYS[5], counted)
    if redis.call('PTTL', KEYS[5]) < longest_ms then redis.call('PEXPIRE', KEYS[5], num(longest_ms)) end
  end
  if length == 0 then try_call('SADD', KEYS[3], KEYS[1]) end
  if list ~= queue then join_tenants(queue, tenant, #pushed, ARGV[10]) end
  note_list(queue)
  if #due > 0 then add_due(queue, list, due, longest_due_ms + ttl_ms) end
  wake_preferred(KEYS[6], KEYS[4])
  if high >= 0 and waiting + #pushed > high then
    for i = 7, #KEYS do wake(KEYS[i]) end
  end
end
return answers
