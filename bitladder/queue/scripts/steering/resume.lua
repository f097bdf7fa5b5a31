-- Lift the pause of a scope, and wake a worker of each tier: what waits begins at once.
--
-- Needs: clock, commands, lists, pauses
--
-- KEYS  1  bl:paused                   hash    scope -> who paused it, since and until when
--       2… bl:wake:<model>:<tier>      list    wakes a worker of the tier
-- ARGV  1 scope ('all': what `rq suspend` wrote)  then fields of the audit's entry and their values
-- Touches also, by name: rq:suspended, bl:audit, and what its parts touch.
-- Returns 1, or 0 where it was not paused.

local was_paused
if ARGV[1] == 'all' then
  was_paused = redis.call('DEL', 'rq:suspended') == 1
else
  was_paused = is_in_force(try_call('HGET', KEYS[1], ARGV[1]), now_ms())
  try_call('HDEL', KEYS[1], ARGV[1])
end
for i = 2, #KEYS do
  wake(KEYS[i])
end
call_or_replace('XADD', 'bl:audit', 'MAXLEN', '~', MAX_AUDIT, '*', 'result', '{"was_paused":' .. (was_paused and 'true' or 'false') .. '}',
  unpack(ARGV, 2))
return was_paused and 1 or 0
