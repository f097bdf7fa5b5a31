-- Cancel one job: a queued one ends at once, a running one is cancelled by its worker. One that is to be withdrawn may
-- not be there yet, because its submission is still on its way: then a cancelled record is left, and the submission
-- that finds it pushes nothing.
--
-- Needs: clock, commands, wait, lists, retention, dead_letters, responses, ending
-- Moves: queued -> cancelled: cancelled while it waited
-- Moves: (none) -> cancelled: withdrawn before it arrived
--
-- KEYS  1  rq:job:<id>                 hash    the job
-- ARGV  1 id  2 outcome  3 keep (see `read_keep`)  4 queue, to withdraw it ('': it has arrived)  5 its tenant
--       6 channel: where others are to hear of it too, it is kept ('': in any case)
--       7 '1': a response of which nothing is to be kept once it is over ('': it is kept)
--       8 '1': only while it waits
-- Touches also, by name: bl:counts:<list>, bl:gone:<list>, bl:tenants:<model>:<tier>, rq:deferred:<queue>, rq:scheduled:<queue>,
-- bl:cancel:<worker>, bl:control:<worker> (channel), and what its parts touch.
-- Returns missing | cancelled | requested | running | over | kept | forgotten.

-- As long as a network may keep a submission on its way.
local MIN_KEPT_MS = 900000

local fields = try_call('HMGET', KEYS[1], 'status', 'origin', 'worker_name', 'reply', 'tenant', 'wait', 'idem', 'hook')
if not fields then  -- no hash: a claim ends it
  return 'over'
end
if ARGV[6] ~= '' and fields[4] and fields[4] ~= ARGV[6] then
  return 'kept'
end
local status, queue, worker, now, keep = fields[1], fields[2], fields[3], now_ms(), read_keep(ARGV[3])
local _, _, _, is_rq = read_wait(fields[6])
if not status and ARGV[4] == '' then
  return 'missing'
end
if not status then
  is_rq = false
  queue, status = ARGV[4], 'withdrawn'
  keep.ttl = math.max(keep.ttl, MIN_KEPT_MS)
  redis.call('HSET', KEYS[1], 'origin', queue, 'tenant', ARGV[5], 'created_at', iso(now), 'description', 'withdrawn',
    'data', NO_CALL)
end
local is_listed = status == 'queued' or status == 'created'
local is_held = status == 'deferred' or status == 'scheduled' or status == 'rate_limited'
if is_listed or is_held or status == 'withdrawn' then
  if queue and is_listed then
    leave_in_list(ARGV[1], queue, fields[6], fields[5])
  elseif queue and is_held and status ~= 'rate_limited' then
    -- RQ has it in a registry of that name; of the third it takes care.
    redis.pcall('ZREM', 'rq:' .. status .. ':' .. queue, ARGV[1])
  end
  local job = {id = ARGV[1], queue = queue or '', reply = fields[4], tenant = fields[5], idem = fields[7],
    hook = fields[8], rq = is_rq}
  end_job(job, 'canceled', ARGV[2], keep, now)
  flush(keep, now)
  if ARGV[7] == '' then
    return 'cancelled'
  end
elseif status ~= 'started' and ARGV[7] == '' then
  return 'over'
end
if status ~= 'started' then
  forget_response(ARGV[1], fields[5])
  return 'forgotten'
end
if ARGV[8] == '1' then
  return 'running'
end
-- Kept with the job as well: the script that requeues or reaps it ends it then.
redis.call('HSET', KEYS[1], 'cancel', ARGV[2])
if worker then
  call_or_replace('SADD', 'bl:cancel:' .. worker, ARGV[1])
  redis.call('PEXPIRE', 'bl:cancel:' .. worker, 3600000)
  redis.call('PUBLISH', 'bl:control:' .. worker, ARGV[1])
end
return 'requested'
