-- What a claim meets in a list that is not simply a waiting job of ours: a record that says something else, is none, or
-- was written by an RQ producer. Whatever it is, it is not forgotten: it runs, or ends with a reason.
--
-- Needs: values, ending, adopt, expiry
-- Touches: rq:job:<id>, rq:rl:<key>:allowed, rq:rl:<key>:rate_limited, and what the parts above touch

-- Wait: {enqueued, deadline, is_rq}. Fields: as `take` has read them, or an error. Returns 'run', when the job was
-- enqueued, the deadline of this execution and, of an RQ producer's, its limit in seconds (0: none); or 'leftover', where
-- it was ended or taken already; or 'ended'. The functions are inside, because a script makes its functions at every call,
-- and few claims meet such a job.
local function inspect(claim, id, queue, fields, wait)
  local keep, now, key, status = claim.keep, claim.now, 'rq:job:' .. id, fields[2]
  local at, deadline, is_rq = wait[1], wait[2], wait[3]

  local function leave_out(why)
    claim.unfit[#claim.unfit + 1] = {string.sub(id, 1, MAX_ID), why}
  end

  local function refuse(code, error)
    local record = redis.call('HMGET', key, 'reply', 'tenant', 'idem', 'hook')
    leave_out(code)
    end_job({id = id, queue = queue, reply = record[1], tenant = record[2], idem = record[3], hook = record[4],
      rq = is_rq}, 'dead', scripted_end(code, error), keep, now)
    return 'ended'
  end

  -- End a record that cannot run by what it says, or leave it where it has ended. Returns nil where it may run.
  local function refuse_record()
    local taken = {started = true, finished = true, failed = true, canceled = true, stopped = true}
    local held_back = {deferred = true, scheduled = true, rate_limited = true, ready_to_enqueue = true}
    if fields.err then
      leave_out('corrupt_job')
      end_odd_record(id, scripted_end('corrupt_job', 'the job\'s record is no hash'), now)
      return 'ended'
    elseif not status and redis.call('EXISTS', key) == 0 then  -- expired, evicted or deleted
      leave_out('no_record')
      return 'leftover'
    elseif not status then
      return refuse('corrupt_job', 'the job\'s record has no status')
    elseif taken[status] then
      return 'leftover'
    elseif held_back[status] then
      return refuse('corrupt_job', 'the status in the job\'s record says that RQ holds it back: ' .. status)
    elseif status ~= 'queued' and status ~= 'created' then  -- created: pushed by hand, and RQ's worker would run it too
      return refuse('corrupt_job', 'the status in the job\'s record is not one of RQ\'s')
    elseif #id > MAX_ID then
      return refuse('corrupt_job', 'a job\'s id must have at most ' .. MAX_ID .. ' bytes, got ' .. #id)
    end
  end

  -- What the job asks for that RQ's worker does and ours does not, by the name that producers know it by; nil where
  -- nothing. And its timeout.
  local function unsupported()
    local asked = {'dependency_ids', 'dependency_id', 'success_callback_name', 'failure_callback_name',
      'stopped_callback_name', 'webhooks', 'repeats_left', 'rate_limit_key', 'timeout'}
    local names = {'depends_on', 'depends_on', 'on_success', 'on_failure', 'on_stopped', 'webhooks', 'repeat',
      'rate_limit'}
    local values = redis.call('HMGET', key, unpack(asked))
    for i, name in ipairs(names) do
      if values[i] and values[i] ~= '' and values[i] ~= '0' then
        return name
      end
    end
    return nil, whole(values[#asked])
  end

  -- RQ's worker would let in those that wait behind a rate limit, one for one that ends: ours does not. Those of other
  -- queues are left to RQ, which has room for them again.
  local function refuse_jobs_behind()
    local limit = 'rq:rl:' .. redis.call('HGET', key, 'rate_limit_key')
    redis.pcall('ZREM', limit .. ':allowed', id)
    for _, other in ipairs(redis.pcall('ZRANGE', limit .. ':rate_limited', 0, 99)) do
      local held = redis.pcall('HMGET', 'rq:job:' .. other, 'status', 'origin')
      if held[1] == 'rate_limited' and held[2] == queue then
        redis.call('ZREM', limit .. ':rate_limited', other)
        claim.unfit[#claim.unfit + 1] = {string.sub(other, 1, MAX_ID), 'unsupported'}
        end_job({id = other, queue = queue, rq = true}, 'dead', scripted_end('unsupported',
          'rate_limit is not supported (docs/rq.md): enqueue the job without it'), keep, now)
      end
    end
  end

  local refusal = refuse_record()
  if refusal then
    return refusal
  end
  if not at then
    at, deadline = adopt(id, queue, keep, now)
  end
  if deadline and deadline <= now then
    expire_job(claim, id, queue, at, is_rq)
    return 'ended'
  elseif not is_rq then
    return 'run', at, deadline
  end
  local name, timeout = unsupported()
  if name == 'rate_limit' then
    refuse_jobs_behind()
  end
  if name then
    return refuse('unsupported', name .. ' is not supported (docs/rq.md): enqueue the job without it')
  end
  local max_wait = longest_wait(keep)
  if not timeout or timeout <= 0 or timeout * 1000 > max_wait then
    timeout = 0
  end
  local last = now + (timeout > 0 and timeout * 1000 or max_wait)
  -- The record must outlast this execution and, if the job is requeued, its wait.
  redis.call('PEXPIRE', key, num(math.max(last, deadline or 0) - now + keep.ttl))
  return 'run', at, last, timeout
end
