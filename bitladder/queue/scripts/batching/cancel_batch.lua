-- Ask for the end of a batch. Its runner ends it; what is done by then is kept.
--
-- Needs: values, clock
--
-- KEYS  1  bl:batch:<id>               hash    the batch
-- ARGV  none
-- Returns the status before; '': there is no such batch.

local status = redis.call('HGET', KEYS[1], 'status')
if status == 'validating' or status == 'in_progress' then
  redis.call('HSET', KEYS[1], 'status', 'cancelling', 'cancelling', num(now_ms()))
end
return status or ''
