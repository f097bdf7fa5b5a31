-- Renew one process's leases on batches, and take batches that nobody runs: new ones, and those of a process that was lost.
--
-- Needs: values, clock, commands
--
-- KEYS  1  bl:batch_leases             zset    batches that have not ended -> when their runner's lease ends (ms)
-- ARGV  1 how long a lease is (ms)  2 max batches to take, then two per batch that is held: id, fence
-- Touches also, by name: bl:batch:<id>
-- Returns {now (ms), {id, fence, status}…}, first the batches that were held, in their order, then those that were taken. A fence of 0:
-- it is no longer this process's, or is over.

local now = now_ms()
local answers = {num(now)}
local until_ms = num(now + tonumber(ARGV[1]))

for i = 3, #ARGV, 2 do
  local id, fence = ARGV[i], ARGV[i + 1]
  local fields = try_call('HMGET', 'bl:batch:' .. id, 'fence', 'status') or {}
  local is_held = fields[1] == fence and call_or_replace('ZSCORE', KEYS[1], id)
  if is_held then
    redis.call('ZADD', KEYS[1], until_ms, id)
  end
  answers[#answers + 1] = {id, is_held and fence or '0', fields[2] or 'gone'}
end
local max_taken = tonumber(ARGV[2])
local due = max_taken > 0 and call_or_replace('ZRANGEBYSCORE', KEYS[1], '-inf', num(now), 'LIMIT', 0, max_taken) or {}
for _, id in ipairs(due) do
  local key = 'bl:batch:' .. id
  local fields = try_call('HMGET', key, 'fence', 'status') or {}
  local fence, status = whole(fields[1]), fields[2]
  if fence and status then  -- else it is gone, or another program's
    fence = redis.call('HINCRBY', key, 'fence', 1)
    redis.call('ZADD', KEYS[1], until_ms, id)
    answers[#answers + 1] = {id, num(fence), status}
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return answers
