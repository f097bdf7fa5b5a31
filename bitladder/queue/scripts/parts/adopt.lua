-- Waiting jobs of RQ's producers, when a script meets them for the first time: they have no field `wait` until then.
--
-- Needs: values, wait, rq
-- Touches: rq:job:<id>

-- How long a job may wait that does not say so, and how long an execution may take, in ms.
local function longest_wait(keep)
  return tonumber(string.match(keep.text, '%d+$'))
end

-- From now on the job has a deadline and a time to live, both from its own `ttl` where it has one, and no prompt in its
-- description. Returns when it came (now), and its deadline.
local function adopt(id, queue, keep, now)
  local key = 'rq:job:' .. id
  local left, max_wait = redis.call('PTTL', key), longest_wait(keep)
  local deadline = now + (left > 0 and math.min(left, max_wait) or max_wait)
  local description = string.gsub(redis.call('HGET', key, 'description') or '', CALL, '%1(...)')
  redis.call('HSET', key, 'wait', num(now) .. ' ' .. num(deadline) .. ' -' .. RQ_MARK, 'origin', queue, 'description',
    description)
  redis.call('PEXPIRE', key, num(deadline - now + keep.ttl))
  return now, deadline
end
