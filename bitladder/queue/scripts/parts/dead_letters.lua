-- Failed jobs that an operator should look at.
--
-- Needs: commands, retention
-- Touches: bl:dead_letters, rq:job:<id>, rq:results:<id>, bl:idem:<model>:<key>

-- What RQ's tools find where a prompt was.
local NO_CALL = '["workers.generate",null,[],{}]'

-- Keep a job that leaves the dead letters as any other ended one: without its prompt, and without what was said of its
-- former executions, which may repeat it. What RQ's tools read of it goes with it.
local function bury(id, ttl)
  local key = 'rq:job:' .. id
  local fields = try_call('HMGET', key, 'status', 'idem')
  if fields and fields[1] then
    redis.call('HSET', key, 'data', NO_CALL)
    redis.call('HDEL', key, 'history')
    keep_record(key, fields[2], ttl, 'LT')
    redis.pcall('PEXPIRE', 'rq:results:' .. id, ttl, 'LT')
  end
end

-- Add entries (time, id, time, id…). There is a bound: the oldest leave.
local function add_dead_letters(entries, keep, now)
  try_call('ZREMRANGEBYSCORE', 'bl:dead_letters', '-inf', now - keep.dead_letter_ttl)
  call_many('ZADD', 'bl:dead_letters', entries)
  redis.call('PEXPIRE', 'bl:dead_letters', keep.dead_letter_ttl)
  local excess = (try_call('ZCARD', 'bl:dead_letters') or 0) - keep.max_dead_letters
  if excess > 0 then
    for _, id in ipairs(redis.call('ZRANGE', 'bl:dead_letters', 0, excess - 1)) do
      redis.call('ZREM', 'bl:dead_letters', id)
      bury(id, keep.ttl)
    end
  end
end
