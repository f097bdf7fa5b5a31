-- Put a held job back to the front of a queue, or end it when it has no attempt left or will not be tried.
--
-- Needs: clock, commands, ids, fencing, retention, ending, requeue_job
-- Moves: running -> queued: its engine is busy, broken or lost, or the worker drains
-- Moves: running -> failed: no attempt is left, its queue is no list, or it cannot be run (dead letter)
-- Moves: running -> expired: its deadline passed before an engine had begun it
-- Moves: running -> cancelled: it was cancelled meanwhile
--
-- KEYS  1  bl:inflight:<worker>        set     ids the worker holds
-- ARGV  1 worker  2 id  3 fence  4 queue it came from  5 target queue  6 reason (see `requeue_job`)
--       7 max attempts  8 outcome when it ends  9 keep (see `read_keep`)  10 why it comes back, in words
--       11 what its executions have cost until now ('': nothing is known)
--       12 an answer that it has, '' for none: it ends with that if it gets no other
-- Touches also, by name: rq:wip:<queue>, and what its parts touch.
-- Returns returned | ended | lost.

local worker, id, fence, now = ARGV[1], ARGV[2], ARGV[3], now_ms()
local fields = redis.call('HMGET', 'rq:job:' .. id, 'status', 'worker_name', 'fence')
if not is_held_anew(fields[1], fields[2], fields[3], worker, fence) then
  try_call('SREM', KEYS[1], id)
end
try_call('ZREM', 'rq:wip:' .. ARGV[4], escaped(id, UNSAFE_IN_MEMBER) .. ':' .. fence)
local keep = read_keep(ARGV[9])
local result = requeue_job(id, worker, {reason = ARGV[6], fence = fence, target = ARGV[5], last = ARGV[8],
  max_attempts = tonumber(ARGV[7]), keep = keep, now = now, trouble = ARGV[10],
  spent = ARGV[11], kept = ARGV[12]})
flush(keep, now)
return result
