-- Publish and store pieces of running streams, each only while this worker holds the job.
--
-- KEYS  none by list; by name: rq:job:<id>, bl:stream:<id>
-- ARGV  1 worker  2 ttl ms, then three per piece: id, fence, bytes
-- Returns {1|0…}: whether the piece was accepted.

local accepted = {}
for i = 3, #ARGV, 3 do
  local id, fence, piece = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local fields = redis.call('HMGET', 'rq:job:' .. id, 'lease', 'reply')
  local ok = fields[1] == ARGV[1] .. '/' .. fence
  if ok then
    local stream = 'bl:stream:' .. id
    redis.call('XADD', stream, 'MAXLEN', '~', '100000', '*', 'f', fence, 'd', piece)
    redis.call('PEXPIRE', stream, ARGV[2])
    if fields[2] then
      redis.call('PUBLISH', fields[2], 't' .. id .. piece)
    end
  end
  accepted[#accepted + 1] = ok and 1 or 0
end
return accepted
