-- Publish and store pieces of running streams, each only while this worker holds the job.
--
-- KEYS  none by list; by name: rq:job:<id>, bl:stream:<id>
-- ARGV  1 worker  2 ttl ms, then four per piece: id, fence, number (from 1), bytes
-- A piece's id in the stream is <fence>-<number>: a piece that is sent again is stored once, and a reader can ask for
-- what it has missed.
-- Returns {1|0…}: whether the piece was accepted.

local holds, replies, accepted = {}, {}, {}

local function is_held(id, fence)
  if holds[id] == nil then
    local fields = redis.call('HMGET', 'rq:job:' .. id, 'status', 'worker_name', 'fence', 'reply')
    holds[id] = fields[1] == 'started' and fields[2] == ARGV[1] and fields[3] == fence
    replies[id] = fields[4]
  end
  return holds[id]
end

for i = 3, #ARGV, 4 do
  local id, fence, number, piece = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local ok = is_held(id, fence)
  if ok then
    local stream = 'bl:stream:' .. id
    local stored = redis.pcall('XADD', stream, 'MAXLEN', '~', '100000', fence .. '-' .. number, 'd', piece)
    if not stored.err then
      redis.call('PEXPIRE', stream, ARGV[2])
      if replies[id] then
        note(replies[id], 't', id, fence, number, piece)
      end
    end
  end
  accepted[#accepted + 1] = ok and 1 or 0
end
tell()
return accepted
