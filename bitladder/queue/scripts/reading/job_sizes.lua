-- Read how many jobs lie where: in the lists of queues, and in RQ's registries of those that run or have ended.
--
-- Needs: values, clock, commands
--
-- KEYS  none by list, as keys of a list count as written. By name: rq:queues, rq:queue:<list>, bl:counts:<list>,
--       rq:wip:<queue>, rq:finished:<queue>, rq:failed:<queue>, rq:canceled:<queue>
-- ARGV  1 max names of RQ's list of queues to return (0: none)  2 how many lists follow, then their names, then queues
-- Returns {now, {names in RQ's list of queues}, {length, leftovers, number of the last id} per list, {running, finished,
-- failed, cancelled} per queue}: those that have ended and are not forgotten by now.

local now, count = now_ms(), tonumber(ARGV[2])
local second = num(math.floor(now / 1000))
local lists, queues = {}, {}
for i = 3, 2 + count do
  local length = try_call('LLEN', 'rq:queue:' .. ARGV[i]) or 0
  if length > 0 then
    local counts = try_call('HMGET', 'bl:counts:' .. ARGV[i], 'gone', 'popped') or {}
    lists[i - 2] = {length, whole(counts[1]) or 0, num((whole(counts[2]) or 0) + length)}
  else
    lists[i - 2] = {0, 0, '0'}
  end
end
for i = 3 + count, #ARGV do
  local row = {try_call('ZCARD', 'rq:wip:' .. ARGV[i]) or 0}
  for n, status in ipairs({'finished', 'failed', 'canceled'}) do
    row[n + 1] = try_call('ZCOUNT', 'rq:' .. status .. ':' .. ARGV[i], second, '+inf') or 0
  end
  queues[#queues + 1] = row
end
local names = ARGV[1] ~= '0' and try_call('SRANDMEMBER', 'rq:queues', ARGV[1]) or {}
return {num(now), names, lists, queues}
