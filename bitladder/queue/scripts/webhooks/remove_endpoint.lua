-- Forget an endpoint of webhooks, what waits for it, and its log.
--
-- Needs: nothing
--
-- KEYS  1  bl:webhooks:endpoint:<id>           hash    the endpoint
--       2  bl:webhooks:endpoints:<tenant>      zset    a tenant's endpoints -> when they were made (ms)
-- ARGV  1 id  2 tenant
-- Touches also, by name: bl:webhooks:tenants, bl:webhooks:disabled, bl:webhooks:targets, bl:webhooks:leases,
-- bl:webhooks:due:<id>, bl:webhooks:pending:<id>, bl:webhooks:log:<id>.
-- Returns 1 where it was there.

local id, was_there = ARGV[1], redis.call('EXISTS', KEYS[1])
redis.call('DEL', KEYS[1], 'bl:webhooks:due:' .. id, 'bl:webhooks:pending:' .. id, 'bl:webhooks:log:' .. id)
redis.call('ZREM', KEYS[2], id)
redis.call('ZREM', 'bl:webhooks:targets', id)
redis.call('ZREM', 'bl:webhooks:leases', id)
redis.call('SREM', 'bl:webhooks:disabled', id)
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SREM', 'bl:webhooks:tenants', ARGV[2])
end
return was_there
