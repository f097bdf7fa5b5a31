-- Events for webhooks: that something has ended. An intake makes deliveries of them (dispatcher/webhooks).
--
-- Needs: values, commands, ids
-- Touches: bl:webhooks:events, bl:webhooks:watched

-- Where no intake takes them for so long that there are more, the oldest are lost.
local MAX_EVENTS = 200000
-- Of a hook: more than any of ours has. Intakes read a hundred at once.
local MAX_HOOK = 8192

-- How: a state of jobs, or an event's type. Hook: who is told, as JSON (bitladder/queue/calls/webhooks.py).
local function add_event(how, id, hook, now)
  if #hook > MAX_HOOK then
    return
  end
  local line = num(now) .. ' ' .. how .. ' ' .. escaped(id, UNSAFE_IN_LINE) .. ' ' .. hook
  if call_or_replace('RPUSH', 'bl:webhooks:events', line) > MAX_EVENTS then
    redis.call('LPOP', 'bl:webhooks:events')
  end
end

-- A job may end while no client and no worker looks: an intake looks at it once its deadline has passed.
local function watch_job(id, deadline_ms)
  call_or_replace('ZADD', 'bl:webhooks:watched', num(deadline_ms), id)
end

-- The event of a job that has ended. Status: RQ's; the outcome, whose first field is its state, says more.
local function add_job_event(job, status, outcome, now)
  add_event(string.match(outcome, '^%x*{"%a+":"(%a+)"') or status, job.id, job.hook, now)
  redis.pcall('ZREM', 'bl:webhooks:watched', job.id)
end
