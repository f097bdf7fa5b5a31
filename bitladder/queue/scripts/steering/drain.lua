-- Order workers to claim nothing more, or take the order back. Their claims bring nothing from now on. A worker reads the
-- order with each renewal of its lease; the message tells it at once.
--
-- Needs: values, clock, commands
--
-- KEYS  1  rq:workers                  set     RQ's list of workers
--       2  bl:drained                  hash    worker -> the order
-- ARGV  1 model ('': any)  2 tier ('': any)  3 name of a worker ('': all of them)  4 the order, as JSON ('': take it back)
--       5 '1': only say which, then fields of the audit's entry and their values
-- Touches also, by name: rq:worker:<worker>, bl:workers, bl:control:<worker> (channel), bl:audit, and what its parts touch.
-- Returns the names of the workers.

-- So many workers are looked at by one call: some 5 ms.
local MAX_WORKERS = 2000
local names, now = {}, now_ms()
for _, key in ipairs(redis.call('SRANDMEMBER', KEYS[1], MAX_WORKERS)) do
  local name = string.sub(key, #'rq:worker:' + 1)
  local fields = (ARGV[3] == '' or name == ARGV[3]) and try_call('HMGET', key, 'model', 'tier') or {}
  local is_meant = fields[1] and (ARGV[1] == '' or fields[1] == ARGV[1]) and (ARGV[2] == '' or fields[2] == ARGV[2])
  local lease = is_meant and whole(try_call('ZSCORE', 'bl:workers', name))
  if lease and lease > now and (ARGV[4] ~= '' or try_call('HEXISTS', KEYS[2], name) == 1) then
    names[#names + 1] = name
    if ARGV[5] ~= '1' then
      if ARGV[4] == '' then
        redis.call('HDEL', KEYS[2], name)
      else
        call_or_replace('HSET', KEYS[2], name, ARGV[4])
        redis.call('PEXPIRE', KEYS[2], 86400000)
      end
      redis.call('PUBLISH', 'bl:control:' .. name, '')
    end
  end
end
if ARGV[5] ~= '1' and #names > 0 then
  call_or_replace('XADD', 'bl:audit', 'MAXLEN', '~', MAX_AUDIT, '*', 'result', '{"workers":' .. #names .. '}',
    unpack(ARGV, 6))
end
return names
