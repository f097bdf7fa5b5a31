-- Read slices of the lists and registries that jobs are in, from the newest on, with what their records say of each job
-- and without prompts and answers.
--
-- Needs: values, commands
--
-- KEYS  none by list, as keys of a list count as written. By name: rq:queue:<list>, bl:counts:<list>, bl:gone:<list>,
--       rq:wip:<queue>, rq:finished:<queue>, rq:failed:<queue>, rq:canceled:<queue>, rq:job:<id>
-- ARGV  1 max bytes of an outcome that is returned  2 how many fields, then their names; then six per slice: kind (list
--       | running | ended), name of the list or key of the registry, where it begins (number in the list, or score),
--       member of that score behind which it begins ('': with all of that score), how many, and how their ids begin
--       ('': any do)
-- Returns for the first slices, one at least, {is at its end (1|0), ends within a score of too many jobs (1|0), {member,
-- place, values}…}: the place is the number or the score; no values where the id begins otherwise, the record is no hash
-- or gone, or the id is a leftover.

local MAX_VALUE, MAX_LABELS = 512, 65536
-- So many jobs of one second are read together, as their records say which came last. And so
-- many records are read by one call; the last slice may take more.
local MAX_TOGETHER, MAX_RECORDS = 128, 128
local max_outcome, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local names = {unpack(ARGV, 3, 2 + count)}

-- Bytes of a value that are returned, as any program may have written it, and what stands for these where they are longer.
local LIMITS, TOO_LONG = {outcome = max_outcome, labels = MAX_LABELS}, '-'

local function record(id)
  local values = try_call('HMGET', 'rq:job:' .. id, unpack(names))
  if not values or not values[1] then
    return nil
  end
  for i, name in ipairs(names) do
    local value = values[i]
    if not value or name == 'outcome' and values[1] == 'finished' then
      values[i] = ''
    elseif #value > (LIMITS[name] or MAX_VALUE) then
      values[i] = LIMITS[name] and TOO_LONG or string.sub(value, 1, MAX_VALUE)
    end
  end
  return values
end

-- In RQ's registry of running jobs stands "<id>:<fence>", with %XX for colons.
local function id_of(member)
  local id = string.match(member, '^(.*):[^:]*$') or member
  return (string.gsub(id, '%%(%x%x)', function(digits) return string.char(tonumber(digits, 16)) end))
end

-- By bytes, as in a sorted set: Lua's own comparison goes by the server's locale.
local function is_before(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then
      return a < b
    end
  end
  return #one < #other
end

-- The rank, from the highest on, of the first entry at or below a score, and of that score below a member.
local function first_rank(key, score, member)
  local low = try_call('ZCOUNT', key, '(' .. score, '+inf') or 0
  if member == '' then
    return low
  end
  local high = low + (try_call('ZCOUNT', key, score, score) or 0)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_before(redis.call('ZREVRANGE', key, middle, middle)[1], member) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local function list_slice(name, number, limit, prefix)
  local key = 'rq:queue:' .. name
  local popped = whole(try_call('HGET', 'bl:counts:' .. name, 'popped')) or 0
  local last = math.min(try_call('LLEN', key) or 0, number - popped) - 1
  local first = math.max(0, last - limit + 1)
  local ids = last >= 0 and redis.call('LRANGE', key, first, last) or {}
  local slice = {first == 0 and 1 or 0, 0}
  for i = #ids, 1, -1 do
    local id, place = ids[i], popped + first + i
    local values = string.sub(id, 1, #prefix) == prefix and record(id) or nil
    -- A job that was taken before its turn and came back lies in its list twice.
    local early = values and try_call('ZSCORE', 'bl:gone:' .. name, id .. ' early')
    slice[#slice + 1] = {id, num(place), tonumber(early) ~= place and values or nil}
  end
  return slice
end

local function registry_slice(kind, key, score, member, limit, prefix)
  local first = first_rank(key, score, member)
  local entries = try_call('ZREVRANGE', key, first, first + limit - 1, 'WITHSCORES') or {}
  local is_end, is_cut, score_of_last = #entries < 2 * limit, false, entries[#entries]
  if not is_end then
    is_cut = redis.call('ZCOUNT', key, score_of_last, score_of_last) > MAX_TOGETHER
    if not is_cut then
      entries = redis.call('ZREVRANGE', key, first, redis.call('ZCOUNT', key, score_of_last, '+inf') - 1, 'WITHSCORES')
    end
  end
  local slice = {is_end and 1 or 0, is_cut and 1 or 0}
  for i = 1, #entries, 2 do
    local id = kind == 'running' and id_of(entries[i]) or entries[i]
    slice[#slice + 1] = {entries[i], entries[i + 1], string.sub(id, 1, #prefix) == prefix and record(id) or nil}
  end
  return slice
end

local slices, left = {}, MAX_RECORDS
for i = 3 + count, #ARGV, 6 do
  if left <= 0 then
    break
  end
  local kind, name, from, member, limit, prefix = unpack(ARGV, i, i + 5)
  if kind == 'list' then
    slices[#slices + 1] = list_slice(name, tonumber(from), tonumber(limit), prefix)
  else
    slices[#slices + 1] = registry_slice(kind, name, from, member, tonumber(limit), prefix)
  end
  left = left - #slices[#slices]
end
return slices
