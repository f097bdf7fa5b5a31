-- Check that a user may do what its process does, and that the server takes the writes of scripts. Writes nothing that a
-- connection has not written.
--
-- Needs: nothing
--
-- KEYS  1  bl:protocol  string  the protocol, written where it is missing
--       2  rq:queues    set     not touched: in a cluster it is on another server than the first, which refuses the call
-- ARGV  1 the protocol as this release writes it, then commands with their arguments, separated by spaces
-- Returns those commands that the user may not give; the write is not tried then.

local denied = {}
for i = 2, redis.acl_check_cmd and #ARGV or 1 do
  local parts = {}
  for part in string.gmatch(ARGV[i], '%S+') do
    parts[#parts + 1] = part
  end
  if not redis.acl_check_cmd(unpack(parts)) then
    denied[#denied + 1] = ARGV[i]
  end
end
if #denied == 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'NX')
end
return denied
