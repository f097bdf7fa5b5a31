-- Make deliveries of an event, and forget the event: both or, where another process has, nothing.
--
-- Needs: values, clock, commands
--
-- KEYS  1  bl:webhooks:targets         zset    destination -> when its next delivery is due (ms)
-- ARGV  1 the event ('': none, it is delivered once more)  2 max deliveries of one destination that wait, then three
--       per delivery: destination, id, delivery
-- Touches also, by name: bl:webhooks:events, bl:webhooks:due:<target>, bl:webhooks:pending:<target>.
-- Returns how many had no room; -1 where the event is not there.

if ARGV[1] ~= '' and call_or_replace('LREM', 'bl:webhooks:events', 1, ARGV[1]) == 0 then
  return -1
end
local now, dropped = num(now_ms()), 0
for i = 3, #ARGV, 3 do
  local target, id = ARGV[i], ARGV[i + 1]
  local pending = 'bl:webhooks:pending:' .. target
  if call_or_replace('HLEN', pending) >= tonumber(ARGV[2]) then
    dropped = dropped + 1
  elseif redis.call('HSETNX', pending, id, ARGV[i + 2]) == 1 then
    call_or_replace('ZADD', 'bl:webhooks:due:' .. target, now, id)
    call_or_replace('ZADD', KEYS[1], 'LT', now, target)
  end
end
return dropped
