-- The end of a job: its outcome in the record, its id in RQ's registry of that end, a message to those that await it.
--
-- Needs: values, clock, commands, messages, retention, dead_letters, rq, responses, webhooks
-- Moves: queued -> finished: it ends without an answer, and has one of a lower tier that a cascade kept
-- Moves: running -> finished: it ends without an answer, and has one of a lower tier that a cascade kept
-- Touches: rq:job:<id>, rq:finished:<queue>, rq:failed:<queue>, rq:canceled:<queue>, bl:tenant:<tenant>,
--          bl:idem:<model>:<key>, bl:done:<id> (channel), and what the parts above touch

-- What is gathered until `flush`: entries of registries, when they ended (RQ's form), entries of the dead letters.
local ended, ended_at, dead = {}, nil, {}

-- End a job. Job: {id, queue, reply, tenant, idem, hook, rq, worker, value}, nil where there is none; rq: it is one of
-- RQ's producers; hook: who is told of it. Status: RQ's, or 'dead' for a failed job that an operator should look at: it
-- may be released, so it keeps its prompt, and so does a stored response, which may be continued. All others lose theirs
-- (RQ's tools need the field, so an empty call stays).
local function end_job(job, status, outcome, keep, now)
  local key = 'rq:job:' .. job.id
  if status == 'failed' or status == 'dead' then
    local kept = redis.pcall('HGET', key, 'kept')
    if type(kept) == 'string' then
      status, outcome = 'finished', kept
    end
  end
  local ttl = status == 'dead' and math.max(keep.ttl, keep.dead_letter_ttl) or keep.ttl
  ended_at = ended_at or iso(now)
  if job.rq then
    ttl = end_rq_job(job, status, outcome, ttl, keep, now, end_job)
  end
  local is_response = not job.rq and is_response_id(job.id)
  if is_response then
    ttl = math.max(ttl, keep_response(job, outcome, keep, now))
  end
  local keeps_prompt = is_response or status == 'dead'
  if status == 'dead' then
    status = 'failed'
    dead[#dead + 1], dead[#dead + 2] = now, job.id
  end
  if keeps_prompt then
    redis.call('HSET', key, 'status', status, 'outcome', outcome, 'ended_at', ended_at)
  else
    redis.call('HSET', key, 'status', status, 'outcome', outcome, 'ended_at', ended_at, 'data', NO_CALL)
  end
  local kept = ttl
  if string.sub(job.id, 1, #BATCH_PREFIX) == BATCH_PREFIX then  -- until its batch's runner has it, or its batch is over
    kept = math.max(ttl, redis.call('PTTL', key))
  end
  keep_record(key, job.idem, kept)
  if ttl > 0 then
    append(ended, 'rq:' .. status .. ':' .. job.queue, math.floor((now + ttl) / 1000), job.id)
  end
  if job.tenant then
    redis.pcall('ZREM', 'bl:tenant:' .. job.tenant, job.id)  -- a garbled count must not lose an outcome
  end
  if job.hook then
    add_job_event(job, status, outcome, now)
  end
  if job.reply then
    publish(job.reply, 'd', job.id, 0, 0, #outcome > MAX_PUBLISHED and '' or outcome)
  end
  redis.call('PUBLISH', 'bl:done:' .. job.id, outcome)
end

-- A record that is no hash takes no outcome: its id goes to the dead letters, where its type is looked at.
local function end_odd_record(id, outcome, now)
  dead[#dead + 1], dead[#dead + 2] = now, id
  redis.call('PUBLISH', 'bl:done:' .. id, outcome)
end

-- Write what was gathered; every script that ends jobs ends with it. A registry is trimmed of as many expired ids as it
-- gains entries and ids, twice what it gains: it shrinks without ever holding the server up.
local function flush(keep, now)
  for registry, entries in pairs(ended) do
    local old = try_call('ZRANGEBYSCORE', registry, '-inf', math.floor(now / 1000), 'LIMIT', 0, #entries)
    if old and #old > 0 then
      call_many('ZREM', registry, old)
    end
    call_many('ZADD', registry, entries)
    redis.call('PEXPIRE', registry, math.max(keep.ttl, keep.dead_letter_ttl))
  end
  if #dead > 0 then
    add_dead_letters(dead, keep, now)
  end
  flush_messages()
end
