-- Make an endpoint of webhooks, or change one.
--
-- Needs: clock, values
--
-- KEYS  1  bl:webhooks:endpoint:<id>           hash    the endpoint
--       2  bl:webhooks:endpoints:<tenant>      zset    a tenant's endpoints -> when they were made (ms)
-- ARGV  1 id  2 tenant  3 how many a tenant may have, to make one (''; it is there)  4 whether it is enabled anew (1),
--       then fields and values
-- Touches also, by name: bl:webhooks:tenants, bl:webhooks:disabled.
-- Returns saved | full | missing.

local is_new, now = ARGV[3] ~= '', num(now_ms())
if is_new and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3]) then
  return 'full'
elseif not is_new and redis.call('EXISTS', KEYS[1]) == 0 then
  return 'missing'
end
if is_new then
  redis.call('ZADD', KEYS[2], now, ARGV[1])
  redis.call('SADD', 'bl:webhooks:tenants', ARGV[2])
  redis.call('HSET', KEYS[1], 'tenant', ARGV[2], 'created_at', now)
end
if ARGV[4] == '1' then
  redis.call('HDEL', KEYS[1], 'failing_since', 'disabled_at', 'disabled_by')
  redis.call('SREM', 'bl:webhooks:disabled', ARGV[1])
end
if #ARGV > 4 then
  redis.call('HSET', KEYS[1], 'updated_at', now, unpack(ARGV, 5))
end
return 'saved'
