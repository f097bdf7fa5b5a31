-- Take jobs out of quarantine for good: their prompts are forgotten now, their outcomes when any other's would be.
--
-- KEYS  1  bl:dead                     zset    id -> when it came (ms)
-- ARGV  1 ttl ms, then the ids
-- Touches also, by name: rq:job:<id>, rq:results:<id>.
-- Returns {1|0…}: whether the job was in quarantine.

local answers = {}
for i = 2, #ARGV do
  local key, was_there = 'rq:job:' .. ARGV[i], redis.call('ZREM', KEYS[1], ARGV[i])
  if was_there == 1 and redis.call('TYPE', key).ok == 'hash' then
    redis.call('HSET', key, 'data', NO_CALL)
    redis.call('HDEL', key, 'history')  -- an engine's words may repeat the prompt
    forget_later(ARGV[i], ARGV[1])
  end
  answers[#answers + 1] = was_there
end
return answers
