-- A job that a worker holds goes back to the front of a queue, or ends.
--
-- Needs: values, commands, wait, tenants, lists, ids, ending
-- Touches: rq:job:<id>, rq:wip:<queue>, rq:queue:<target>, rq:queue:<target>:tenant-<tenant>, rq:queues, and what the parts above touch

-- So often a job comes back uncharged because no engine had begun it. What ends its worker before the engine can begin is
-- charged from then on, and does not go round for ever.
local MAX_UNBEGUN = 3

-- Reasons that end a job which no engine has begun, and as what.
local UNSTARTED_ENDS = {expired = 'failed', cancelled = 'canceled', refused = 'dead'}

-- One line per lost execution: "<ms> <worker> <fence> <outcome>". Bounded, because a job may be requeued often.
local MAX_HISTORY = 16384

local function append_history(key, history, worker, fence, outcome, now)
  if #(history or '') < MAX_HISTORY then
    redis.call('HSET', key, 'history', (history or '') .. num(now) .. ' ' .. worker .. ' ' .. fence .. ' ' .. outcome
      .. '\n')
  end
end

-- How: {reason, max_attempts, keep, now}, and optionally {fence, target, last, trouble, spent, kept}: the claim it is
-- about, the queue it goes to instead of its own, its outcome when it has no attempt left, why it comes back, what its
-- executions have cost until now, and an answer that it has (see `end_job`). Reasons:
--   uncharged  nothing ran, or nothing is to blame: no attempt counted
--   charged    an attempt counted
--   crashed    it was in an engine that crashed, and may be the cause: no attempt counted
--   reaped     the worker was lost: an attempt counted, and from the second loss on the job may be the cause
--   unbegun    the worker was lost, or broke, before an engine had begun the job: counted after MAX_UNBEGUN times
--   expired, cancelled, refused   no engine has begun it, and none shall: it ends with `last`, no attempt counted
-- Returns 'returned', 'ended', or 'lost' where the worker does not hold it (any more).
local function requeue_job(id, worker, how)
  local key, now, reason = 'rq:job:' .. id, how.now, how.reason
  local fields = redis.call('HMGET', key, 'status', 'worker_name', 'fence', 'origin', 'uncharged', 'cancel', 'reply',
    'wait', 'crash_count', 'history', 'tenant', 'unbegun', 'idem', 'hook')
  local fence, queue = fields[3], fields[4]
  if fields[1] ~= 'started' or fields[2] ~= worker or not fence or not queue or (how.fence or fence) ~= fence then
    return 'lost'
  end
  local at, deadline, _, is_rq, is_apart = read_wait(fields[8])
  try_call('ZREM', 'rq:wip:' .. queue, escaped(id, UNSAFE_IN_MEMBER) .. ':' .. fence)
  local job = {id = id, queue = queue, reply = fields[7], tenant = fields[11], idem = fields[13], hook = fields[14],
    rq = is_rq, worker = worker}
  if how.kept and how.kept ~= '' then
    redis.call('HSET', key, 'kept', how.kept)
  end
  local is_charged = reason == 'charged' or reason == 'reaped'
  if reason == 'unbegun' then
    local times = (whole(fields[12]) or 0) + 1
    is_charged = times > MAX_UNBEGUN
    redis.call('HSET', key, 'unbegun', times)
  end
  local uncharged = (whole(fields[5]) or 0) + (is_charged and 0 or 1)
  if not is_charged then
    redis.call('HSET', key, 'uncharged', num(uncharged), 'spared', fence)
  end
  if fields[6] or UNSTARTED_ENDS[reason] then
    end_job(job, fields[6] and 'canceled' or UNSTARTED_ENDS[reason], fields[6] or how.last, how.keep, now)
    return 'ended'
  end
  local attempts = (whole(fence) or 0) - uncharged
  local last = how.last or scripted_end('worker_lost', nil, ',"attempts":' .. attempts)
  if attempts >= how.max_attempts then
    end_job(job, 'dead', last, how.keep, now)
    return 'ended'
  end
  if reason == 'crashed' or is_charged then
    append_history(key, fields[10], worker, fence, last, now)
  end
  local crash_count = whole(fields[9]) or 0
  if reason == 'crashed' then
    crash_count = math.min(ALONE_FROM, crash_count + 1)
  elseif reason == 'reaped' and attempts > 1 then
    crash_count = ALONE_FROM
  end
  local target = how.target or queue
  local list = list_of(target, fields[11], is_apart)
  if not try_call('LPUSH', 'rq:queue:' .. list, id) then  -- no list: the job would be in none
    end_job(job, 'dead', scripted_end('queue_broken'), how.keep, now)
    return 'ended'
  end
  local popped = count(list, 'popped', -1)
  if list ~= target then
    join_tenants(target, fields[11], 1)
  end
  -- Its tokens stay until another execution begins the answer anew (emit.lua): it may go on with them, or a worker that
  -- was taken for lost hands the outcome in after all.
  redis.call('HSET', key, 'status', 'queued', 'origin', target, 'wait',
    num(at or now) .. ' ' .. (deadline and num(deadline) or '-') .. ' ' .. num(popped + 1) .. (is_rq and RQ_MARK or is_apart and TENANT_MARK or ''))
  if crash_count > 0 then
    redis.call('HSET', key, 'crash_count', crash_count)
  end
  if how.spent and how.spent ~= '' then
    redis.call('HSET', key, 'spent', how.spent)
  end
  if how.trouble then
    redis.call('HSET', key, 'trouble', how.trouble)  -- the outcome says so if the deadline passes before it runs again
  end
  try_call('SADD', 'rq:queues', 'rq:queue:' .. list)
  note_list(target)
  local _, tier = names_in(target)
  wake('bl:wake:' .. tier)
  return 'returned'
end
