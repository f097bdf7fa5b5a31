-- Publish and store pieces of running streams, each only while this worker holds the job.
--
-- KEYS  none by list; by name: rq:job:<id>, bl:stream:<id>
-- ARGV  1 worker  2 ttl ms, then four per piece: id, fence, number (from 1), bytes
-- A piece's id in the stream is <fence>-<number>: a piece that is sent again is stored once, and a reader can ask for
-- what it has missed.
-- Returns {1|0…}: whether the piece was accepted.

local accepted = {}
for i = 3, #ARGV, 4 do
  local id, fence, number, piece = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local fields = redis.call('HMGET', 'rq:job:' .. id, 'lease', 'reply')
  local ok = fields[1] == ARGV[1] .. '/' .. fence
  if ok then
    local stream = 'bl:stream:' .. id
    local stored = redis.pcall('XADD', stream, 'MAXLEN', '~', '100000', fence .. '-' .. number, 'd', piece)
    if not stored.err then
      redis.call('PEXPIRE', stream, ARGV[2])
      if fields[2] then
        redis.call('PUBLISH', fields[2], 't' .. id .. fence .. ' ' .. number .. ' ' .. piece)
      end
    end
  end
  accepted[#accepted + 1] = ok and 1 or 0
end
return accepted
