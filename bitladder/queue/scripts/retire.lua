-- A worker leaves: no lease, no entry in RQ's lists. What it still holds goes back first, uncharged: it has ended all that
-- it knows of.
--
-- Needs: clock, commands, retention, ending, requeue_job
-- Moves: running -> queued: its worker leaves
-- Moves: running -> failed: its worker leaves, and its queue is no list (dead letter)
-- Moves: running -> cancelled: its worker leaves, and it was cancelled meanwhile
--
-- KEYS  1  bl:workers                  zset
--       2  bl:live:<model>:<tier>      zset
--       3  bl:inflight:<worker>        set
--       4  bl:cancel:<worker>          set
--       5  rq:worker:<worker>          hash
--       6  rq:workers                  set
-- ARGV  1 worker  2 queues, joined by commas  3 max jobs in this pass  4 max attempts  5 keep (see `read_keep`)
-- Touches also, by name: bl:unbegun:<worker>, bl:drained, rq:workers:<queue>, and what its parts touch.
-- Returns 1, or 0 when it still holds jobs: then it has to be called again.

try_call('ZREM', KEYS[2], ARGV[1])
local how = {reason = 'uncharged', max_attempts = tonumber(ARGV[4]), keep = read_keep(ARGV[5]), now = now_ms()}
for _, id in ipairs(call_or_replace('SPOP', KEYS[3], ARGV[3])) do
  requeue_job(id, ARGV[1], how)
end
flush(how.keep, how.now)
if redis.call('EXISTS', KEYS[3]) == 1 then
  return 0
end
try_call('ZREM', KEYS[1], ARGV[1])
try_call('SREM', KEYS[6], KEYS[5])
for queue in string.gmatch(ARGV[2], '[^,]+') do
  try_call('SREM', 'rq:workers:' .. queue, KEYS[5])
end
try_call('HDEL', 'bl:drained', ARGV[1])
redis.call('DEL', KEYS[4], KEYS[5], 'bl:unbegun:' .. ARGV[1])
return 1
