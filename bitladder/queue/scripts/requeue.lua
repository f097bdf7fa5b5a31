-- Put a held job back to the front of a queue, or end it when it has no attempt left or will not be tried.
--
-- KEYS  1  bl:inflight:<worker>        set     ids the worker holds
-- ARGV  1 worker  2 id  3 fence  4 queue it came from  5 target queue  6 word (see `requeue_job`)
--       7 max attempts  8 outcome when it ends  9 keep (see `read_keep`)  10 why it comes back, for people
-- Touches also, by name: rq:wip:<queue>, and what `requeue_job` writes.
-- Returns returned | ended | lost.

local worker, id, fence, now = ARGV[1], ARGV[2], ARGV[3], now_ms()
local about = redis.call('HMGET', 'rq:job:' .. id, 'status', 'worker_name', 'fence')
if not is_held_anew(about[1], about[2], about[3], worker, fence) then
  ask('SREM', KEYS[1], id)
end
ask('ZREM', 'rq:wip:' .. ARGV[4], escaped(id, NO_PART) .. ':' .. fence)
local keep = read_keep(ARGV[9])
local word = requeue_job(id, worker, {word = ARGV[6], fence = fence, target = ARGV[5], last = ARGV[8],
  max_attempts = tonumber(ARGV[7]), keep = keep, now = now, trouble = ARGV[10]})
settle(keep, now)
return word
