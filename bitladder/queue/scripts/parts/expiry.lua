-- Jobs whose deadline passed while they waited.
--
-- Needs: values, ending
-- Touches: rq:job:<id>, and what `ending` touches

-- End a job of a claim. At: when it was enqueued.
local function expire_job(claim, id, queue, at, is_rq)
  claim.expired = claim.expired + 1
  local fields = redis.call('HMGET', 'rq:job:' .. id, 'trouble', 'reply', 'tenant', 'idem')
  local job = {id = id, queue = queue, reply = fields[2], tenant = fields[3], idem = fields[4], rq = is_rq}
  local error, trouble = DEADLINE_PASSED, fields[1]
  if trouble and #trouble <= MAX_TROUBLE and not string.find(trouble, '[^ -~]') then  -- as we write it
    error = error .. HAD_COME_BACK .. trouble
  end
  end_job(job, 'failed', scripted_end('deadline_exceeded', error,
    ',"queue_ms":' .. num(claim.now - at)), claim.keep, claim.now)
end
