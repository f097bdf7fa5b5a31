-- Commands on keys that may have another type than ours: any client may have written them, and one such key must not stop
-- a script that has other jobs to look after.
--
-- Needs: nothing
-- Touches: the keys that it is given

-- An answer of redis.pcall; nil, and the reason, where the key has another type. Every other error is raised: the server
-- refuses (READONLY, say), and nothing that the script does can go well.
local function check_type(answer)
  local reason = type(answer) == 'table' and answer.err
  if reason and string.sub(reason, 1, 9) ~= 'WRONGTYPE' then
    error(answer)
  elseif reason then
    return nil, reason
  end
  return answer
end

-- A command's answer; nil, and the reason, where its key has another type.
local function try_call(...)
  return check_type(redis.pcall(...))
end

-- A command on a key that can be made anew: a key of another type is deleted first.
local function call_or_replace(command, key, ...)
  local answer, reason = try_call(command, key, ...)
  if reason then
    redis.call('DEL', key)
    answer = redis.call(command, key, ...)
  end
  return answer
end

-- Lua's unpack fits so many values on its stack.
local MAX_UNPACKED = 4000

-- One command for many values: name, key, values…, in as few calls as the stack allows. A key of another type is left
-- alone: what the jobs are is in their records, and those are written already.
local function call_many(name, key, values)
  for i = 1, #values, MAX_UNPACKED do
    try_call(name, key, unpack(values, i, math.min(i + MAX_UNPACKED - 1, #values)))
  end
end
