-- Publish and store chunks of running streams, each only while this worker holds the job, and none without storing it.
--
-- Needs: messages
--
-- KEYS  none by list; by name: rq:job:<id>, bl:stream:<id>
-- ARGV  1 worker  2 ttl ms  3 which chunks go on with an earlier execution's answer, "<place in this call>:<its fence>"
--       each, then four per chunk: id, fence, number (from 1), bytes
-- A chunk's id in the stream is <fence>-<number>: a chunk that is sent again is stored once, and a reader can ask for
-- what it has missed. Chunk 1 of an execution drops those of earlier ones. An execution that goes on with their answer
-- sends no chunk 1: its first one has the next number, and `after`, the fence of the one before.
-- Returns {0|1|2…}: the job is not this worker's (0); the chunk is stored (1); there is no room for it now, nor for
-- those of its job behind it (2): to be sent again. An error where this server takes no writes at all: the worker
-- waits for one that does.

local MAX_CHUNKS = '100000'
-- How answers begin that have nothing to do with this chunk: this is the wrong server, has too few replicas
-- (min-replicas-to-write), or cannot write to its disk.
local TAKES_NONE = {READONLY = true, NOREPLICAS = true, MISCONF = true}
local holds, replies, answers, is_full = {}, {}, {}, {}
local follows, after = ARGV[3] ~= '' and {}, nil  -- after: of the chunk at hand
if follows then
  for place, fence in string.gmatch(ARGV[3], '(%d+):(%d+)') do
    follows[tonumber(place)] = fence
  end
end

local function is_held(id, fence)
  if holds[id] == nil then
    local fields = redis.pcall('HMGET', 'rq:job:' .. id, 'status', 'worker_name', 'fence', 'reply')
    holds[id] = not fields.err and fields[1] == 'started' and fields[2] == ARGV[1] and fields[3] == fence
    replies[id] = fields[4]
  end
  return holds[id]
end

local function append_chunk(stream, fence, number, chunk)
  local entry = fence .. '-' .. number
  if number == '1' then
    return redis.pcall('XADD', stream, 'MINID', fence .. '-0', entry, 'd', chunk)
  end
  if after then
    return redis.pcall('XADD', stream, 'MAXLEN', '~', MAX_CHUNKS, entry, 'd', chunk, 'after', after)
  end
  return redis.pcall('XADD', stream, 'MAXLEN', '~', MAX_CHUNKS, entry, 'd', chunk)
end

-- Store a chunk and publish it. Returns 1 or 2, as the answer says.
local function store(id, fence, number, chunk)
  local stream = 'bl:stream:' .. id
  local stored = append_chunk(stream, fence, number, chunk)
  if stored.err and string.find(stored.err, 'WRONGTYPE', 1, true) then
    redis.call('DEL', stream)  -- whatever it is, it is not ours
    stored = append_chunk(stream, fence, number, chunk)
  end
  if not stored.err then
    redis.call('PEXPIRE', stream, ARGV[2])
    if replies[id] then
      publish(replies[id], 't', id, fence, number, chunk)
    end
    return 1
  elseif string.find(stored.err, 'equal or smaller', 1, true) then
    return 1  -- it is there already, and was published when it came first
  elseif TAKES_NONE[string.match(stored.err, '^-?(%u+)')] then
    error(stored)
  end
  return 2
end

for i = 4, #ARGV, 4 do
  local id, fence, number, chunk = unpack(ARGV, i, i + 3)
  local answer = 0
  after = follows and follows[i / 4]
  if is_held(id, fence) then
    answer = is_full[id] and 2 or store(id, fence, number, chunk)
    is_full[id] = answer == 2
  end
  answers[#answers + 1] = answer
end
flush_messages()
return answers
