-- Take jobs out of the dead letters for good: their prompts are forgotten now, their outcomes when any other's would be.
--
-- Needs: dead_letters
--
-- KEYS  1  bl:dead_letters                     zset    id -> when it came (ms)
-- ARGV  1 ttl ms, then the ids
-- Touches also, by name: rq:job:<id>, rq:results:<id>, bl:idem:<model>:<key>.
-- Returns {1|0…}: whether the job was among the dead letters.

local answers = {}
for i = 2, #ARGV do
  local was_there = redis.call('ZREM', KEYS[1], ARGV[i])
  if was_there == 1 then
    bury(ARGV[i], ARGV[1])
  end
  answers[#answers + 1] = was_there
end
return answers
