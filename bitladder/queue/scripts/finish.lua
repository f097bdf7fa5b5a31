-- End jobs, each only while this worker still holds it, or while no other has started it since.
--
-- Needs: values, clock, commands, ids, tenants, lists, fencing, retention, ending
-- Moves: running -> finished: its engine answered
-- Moves: running -> failed: its engine refused it, or it is no request
-- Moves: running -> expired: its deadline passed while it ran
-- Moves: running -> cancelled: its worker has aborted it
-- Moves: queued -> finished, failed, expired, cancelled: its worker was taken for lost, and hands its outcome in after all
--
-- KEYS  1  bl:inflight:<worker>        set     ids the worker holds
-- ARGV  1 worker  2 keep (see `read_keep`), then six per job: id, queue, fence, state (finished|failed|expired|cancelled,
--       or dead: failed, and a dead letter), outcome, return value for RQ (base64 of JSON, '-': none; '' for jobs that
--       were not enqueued by RQ)
-- Touches also, by name: bl:unbegun:<worker>, rq:job:<id>, rq:wip:<queue>, bl:counts:<queue>, bl:gone:<queue>,
-- bl:served:<model>, and what its parts touch.
-- Returns {1|0…}: whether the outcome was accepted, now or by an earlier call whose answer was lost.

local worker, keep, now = ARGV[1], read_keep(ARGV[2]), now_ms()

local held = {}

-- The job as `end_job` takes it; nil where it may not be ended, and whether that is because it has ended so. A lease that
-- ran out may be taken again as long as the job only went back to a queue, which may be another one: the id left in its
-- list is then a leftover, and is counted.
local function ending(id, claimed_from, fence, outcome)
  local fields = redis.call('HMGET', 'rq:job:' .. id, 'status', 'fence', 'worker_name', 'reply', 'origin', 'tenant',
    'idem', 'hook')
  if not is_held_anew(fields[1], fields[3], fields[2], worker, fence) then
    held[#held + 1] = id
  end
  if fields[2] ~= fence or fields[3] ~= worker then
    return nil
  end
  local queue = fields[5] or claimed_from  -- the field may have been deleted
  if fields[1] == 'queued' then
    local waited = redis.call('HMGET', 'rq:job:' .. id, 'wait', 'spared')
    leave_in_list(id, queue, waited[1], fields[6])
    if waited[2] == fence then  -- it went back uncharged, and has run nevertheless
      redis.pcall('HINCRBY', 'rq:job:' .. id, 'uncharged', -1)
    end
  elseif fields[1] ~= 'started' then
    return nil, redis.call('HGET', 'rq:job:' .. id, 'outcome') == outcome
  end
  return {id = id, queue = queue, reply = fields[4], tenant = fields[6], idem = fields[7], hook = fields[8]}
end

local accepted, wip, served = {}, {}, {}
for i = 3, #ARGV, 6 do
  local id, queue, fence, state, outcome, value = unpack(ARGV, i, i + 5)
  local job, is_repeated = ending(id, queue, fence, outcome)
  if job then
    if value ~= '' then
      job.rq, job.worker, job.value = true, worker, value ~= '-' and value
    end
    end_job(job, RQ_STATUS[state], outcome, keep, now)
    -- What was aborted freed its slot early: counted, late jobs would pass for a fast engine.
    if state ~= 'cancelled' and state ~= 'expired' then
      served[queue] = (served[queue] or 0) + 1
    end
  end
  append(wip, 'rq:wip:' .. queue, (value ~= '' and escaped(id, UNSAFE_IN_MEMBER) or id) .. ':' .. fence)
  accepted[#accepted + 1] = (job or is_repeated) and 1 or 0
end
call_many('SREM', KEYS[1], held)
call_many('SREM', 'bl:unbegun:' .. worker, held)
for registry, entries in pairs(wip) do
  call_many('ZREM', registry, entries)
end
flush(keep, now)
-- How fast each queue is served, for the admission: counted by the queue a job waited in, whichever tier served it.
for queue, count in pairs(served) do
  local key = 'bl:served:' .. names_in(queue)
  if redis.pcall('HINCRBY', key, queue, count) == count then
    redis.call('PEXPIRE', key, 86400000)
  end
end
return accepted
