-- Jobs whose deadline passed while they waited.
--
-- Needs: values, ending
-- Touches: rq:job:<id>, and what `ending` touches

-- Bytes of a job's field `trouble`: why it came back from its last execution. (MAX_TROUBLE in job_queue.py.)
local MAX_TROUBLE = 300

-- End a job of a claim. At: when it was enqueued.
local function expire_job(claim, id, queue, at, is_rq)
  claim.expired = claim.expired + 1
  local fields = redis.call('HMGET', 'rq:job:' .. id, 'trouble', 'reply', 'tenant', 'idem')
  local job = {id = id, queue = queue, reply = fields[2], tenant = fields[3], idem = fields[4], rq = is_rq}
  local error, trouble = 'the deadline passed while the job waited', fields[1]
  if trouble and #trouble <= MAX_TROUBLE and not string.find(trouble, '[^ -~]') then  -- as we write it
    error = error .. '; it had come back: ' .. trouble
  end
  end_job(job, 'failed', '{"state":"expired","status":504,"code":"deadline_exceeded","error":' .. cjson.encode(error)
    .. ',"queue_ms":' .. num(claim.now - at) .. '}', claim.keep, claim.now)
end
