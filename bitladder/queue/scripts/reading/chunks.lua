-- Read the stored chunks of a stream behind one, as many as fit.
--
-- Needs: nothing
--
-- KEYS  none by list, as the intake's user may only read it, and keys of a list count as written; by name: bl:stream:<id>
-- ARGV  1 id of the job  2 id of the chunk, <fence>-<number>  3 max bytes of chunks
-- Returns {id, chunk, fence of the chunk before it where its execution goes on with that one ('': none)…}: one chunk at
-- least, where there is one. Empty where the key is no stream.

-- Entries per command: their bytes are known only when they are read.
local AT_ONCE = 16

local stream, last, left, answers = 'bl:stream:' .. ARGV[1], ARGV[2], tonumber(ARGV[3]), {}

local function take(entry)
  local id, fields = entry[1], entry[2]
  local chunk = fields[1] == 'd' and fields[2] or ''
  left = left - #chunk
  if left < 0 and #answers > 0 then
    return false
  end
  local at = #answers
  answers[at + 1], answers[at + 2], answers[at + 3], last = id, chunk, fields[3] == 'after' and fields[4] or '', id
  return true
end

while left > 0 do
  local entries = redis.pcall('XRANGE', stream, '(' .. last, '+', 'COUNT', AT_ONCE)
  if entries.err and not string.find(entries.err, 'WRONGTYPE', 1, true) then
    error(entries)
  end
  if entries.err or #entries == 0 then
    break
  end
  for _, entry in ipairs(entries) do
    if not take(entry) then
      break
    end
  end
end
return answers
