-- Count one request of an API key: a bucket that holds a minute's requests and fills evenly (GCRA).
--
-- Needs: clock
--
-- KEYS  1  bl:rate:<key>               string  when the bucket is full again (ms)
-- ARGV  1 requests per minute
-- Returns {0 when the request may pass, else in how many ms the next one may, in how many ms the bucket is full again}.

local MINUTE_MS = 60000
local now, each = now_ms(), MINUTE_MS / tonumber(ARGV[1])
local full = tonumber(redis.call('GET', KEYS[1]) or now)
if not full or not (full >= now and full <= now + MINUTE_MS) then
  full = now  -- the past, or nothing that this script has written
end
local wait = full + each - now - MINUTE_MS
if wait > 0.5 then  -- half a millisecond is what writing the number rounds away
  return {math.ceil(wait), math.ceil(full - now)}
end
redis.call('SET', KEYS[1], string.format('%.3f', full + each), 'PX', math.ceil(full + each - now))
return {0, math.ceil(full + each - now)}
