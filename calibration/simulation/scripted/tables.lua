-- A Redis of tables: the commands that the queue's scripts use, on keys that live in this process. Only what they ask
-- for is here: no types are checked, and a key's time to live counts only where it is a string's, or not above 0.
-- Run by scripted_queue.py, with LuaJIT where there is one.

local strings, hashes, lists, sets, zsets = {}, {}, {}, {}, {}
local kinds, till = {strings, hashes, lists, sets, zsets}, {}
local now_ms, no_fields, published = 0, {}, nil
local commands, FAR_MS = {}, '1000000000000'

local function text(value)
  return type(value) == 'number' and string.format('%.17g', value) or value
end

local function made(kind, key)
  local value = kind[key]
  if not value then
    value = kind == lists and {first = 1, last = 0} or kind == zsets and {scores = {}, size = 0} or {}
    kind[key] = value
  end
  return value
end

local function string_at(key)
  if till[key] and till[key] <= now_ms then
    strings[key], till[key] = nil, nil
  end
  return strings[key]
end

function commands.TIME()
  return {string.format('%.0f', math.floor(now_ms / 1000)), string.format('%.0f', now_ms % 1000 * 1000)}
end

function commands.PUBLISH(channel)
  local id = published and string.match(channel, '^bl:done:(.+)$')
  if id then
    published[#published + 1] = id
  end
  return 0
end

function commands.EXISTS(...)
  local count = 0
  for i = 1, select('#', ...) do
    local key = select(i, ...)
    if string_at(key) or hashes[key] or lists[key] or sets[key] or zsets[key] then
      count = count + 1
    end
  end
  return count
end

function commands.DEL(...)
  for i = 1, select('#', ...) do
    local key = select(i, ...)
    for _, kind in ipairs(kinds) do
      kind[key] = nil
    end
    till[key] = nil
  end
  return 1
end

function commands.PEXPIRE(key, ms)
  if tonumber(ms) <= 0 then
    commands.DEL(key)
  end
  return 1
end

function commands.PTTL()
  return tonumber(FAR_MS)
end

function commands.GET(key)
  return string_at(key) or false
end

function commands.SET(key, value, ...)
  local last, ms, is_new = select('#', ...), nil, false
  for i = 1, last do
    local option = select(i, ...)
    is_new = is_new or option == 'NX'
    ms = option == 'PX' and tonumber((select(i + 1, ...))) or ms
  end
  if is_new and string_at(key) then
    return false
  end
  strings[key], till[key] = text(value), ms and now_ms + ms or nil
  return {ok = 'OK'}
end

function commands.HGET(key, field)
  local hash = hashes[key]
  return hash and hash[field] or false
end

function commands.HMGET(key, ...)
  local hash, values = hashes[key] or no_fields, {}
  for i = 1, select('#', ...) do
    values[i] = hash[(select(i, ...))] or false
  end
  return values
end

function commands.HGETALL(key)
  local values = {}
  for field, value in pairs(hashes[key] or no_fields) do
    values[#values + 1], values[#values + 2] = field, value
  end
  return values
end

function commands.HEXISTS(key, field)
  return hashes[key] and hashes[key][field] and 1 or 0
end

function commands.HLEN(key)
  local count = 0
  for _ in pairs(hashes[key] or no_fields) do
    count = count + 1
  end
  return count
end

function commands.HSET(key, ...)
  local hash = made(hashes, key)
  for i = 1, select('#', ...), 2 do
    local field, value = select(i, ...)
    hash[field] = text(value)
  end
  return 1
end

function commands.HSETNX(key, field, value)
  local hash = made(hashes, key)
  if hash[field] then
    return 0
  end
  hash[field] = text(value)
  return 1
end

function commands.HDEL(key, ...)
  local hash = hashes[key]
  for i = 1, hash and select('#', ...) or 0 do
    hash[(select(i, ...))] = nil
  end
  if hash and next(hash) == nil then
    hashes[key] = nil
  end
  return 1
end

function commands.HINCRBY(key, field, by)
  local hash = made(hashes, key)
  local value = (tonumber(hash[field]) or 0) + tonumber(by)
  hash[field] = string.format('%.0f', value)
  return value
end

function commands.HINCRBYFLOAT(key, field, by)
  local hash = made(hashes, key)
  hash[field] = text((tonumber(hash[field]) or 0) + tonumber(by))
  return hash[field]
end

function commands.LLEN(key)
  local list = lists[key]
  return list and list.last - list.first + 1 or 0
end

function commands.RPUSH(key, ...)
  local list = made(lists, key)
  for i = 1, select('#', ...) do
    list.last = list.last + 1
    list[list.last] = text((select(i, ...)))
  end
  return list.last - list.first + 1
end

function commands.LPUSH(key, ...)
  local list = made(lists, key)
  for i = 1, select('#', ...) do
    list.first = list.first - 1
    list[list.first] = text((select(i, ...)))
  end
  return list.last - list.first + 1
end

local function pop(key, list)
  local value = list[list.first]
  list[list.first], list.first = nil, list.first + 1
  if list.first > list.last then
    lists[key] = nil
  end
  return value
end

function commands.LPOP(key, count)
  local list = lists[key]
  if not list then
    return false
  elseif not count then
    return pop(key, list)
  end
  local values = {}
  for i = 1, math.min(tonumber(count), list.last - list.first + 1) do
    values[i] = pop(key, list)
  end
  return values
end

function commands.LINDEX(key, at)
  local list = lists[key]
  return list and list[list.first + tonumber(at)] or false
end

function commands.LPOS(key, value, _, most)
  local list = lists[key]
  for i = 0, list and math.min(tonumber(most), list.last - list.first + 1) - 1 or -1 do
    if list[list.first + i] == value then
      return i
    end
  end
  return false
end

function commands.SADD(key, ...)
  local set = made(sets, key)
  for i = 1, select('#', ...) do
    set[(select(i, ...))] = true
  end
  return 1
end

function commands.SREM(key, ...)
  local set = sets[key]
  for i = 1, set and select('#', ...) or 0 do
    set[(select(i, ...))] = nil
  end
  if set and next(set) == nil then
    sets[key] = nil
  end
  return 1
end

function commands.SRANDMEMBER(key, count)
  local members = {}
  for member in pairs(sets[key] or no_fields) do
    members[#members + 1] = member
  end
  table.sort(members)  -- equal seeds, equal figures
  while #members > tonumber(count) do
    members[#members] = nil
  end
  return members
end

-- A sorted set has an order only once it is asked for one: most never are.
local function comes_before(scores, one, score, member)
  local other = scores[one]
  return other < score or other == score and one < member
end

-- The place of the first member that does not come before (score, member).
local function place_of(zset, score, member)
  local order, low, high = zset.order, zset.first, zset.last + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if comes_before(zset.scores, order[middle], score, member) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local function ordered(zset)
  if not zset.order then
    local order, scores = {}, zset.scores
    for member in pairs(scores) do
      order[#order + 1] = member
    end
    table.sort(order, function(one, other)
      return comes_before(scores, one, scores[other], other)
    end)
    zset.order, zset.first, zset.last = order, 1, #order
  end
  return zset
end

local function remove(key, zset, member)
  local score = zset.scores[member]
  if not score then
    return 0
  end
  if zset.order then
    local order, at = zset.order, place_of(zset, score, member)
    if at - zset.first < zset.last - at then  -- the shorter side moves
      for i = at, zset.first + 1, -1 do order[i] = order[i - 1] end
      order[zset.first], zset.first = nil, zset.first + 1
    else
      for i = at, zset.last - 1 do order[i] = order[i + 1] end
      order[zset.last], zset.last = nil, zset.last - 1
    end
  end
  zset.scores[member], zset.size = nil, zset.size - 1
  if zset.size == 0 then
    zsets[key] = nil
  end
  return 1
end

local function insert(key, score, member)
  local old = zsets[key]
  if old and old.scores[member] then
    remove(key, old, member)
  end
  local zset = made(zsets, key)
  if zset.order then
    local order, at = zset.order, place_of(zset, score, member)
    for i = zset.last, at, -1 do order[i + 1] = order[i] end
    order[at], zset.last = member, zset.last + 1
  end
  zset.scores[member], zset.size = score, zset.size + 1
end

function commands.ZADD(key, ...)
  local values, at, flags = {...}, 1, {}
  while not tonumber(values[at]) do
    flags[values[at]], at = true, at + 1
  end
  for i = at, #values, 2 do
    local score, member = tonumber(values[i]), text(values[i + 1])
    local old = zsets[key] and zsets[key].scores[member]
    local is_wanted = not (flags.NX and old) and not (flags.XX and not old) and not (flags.GT and old and score <= old)
    if is_wanted then
      insert(key, score, member)
    end
  end
  return 1
end

function commands.ZREM(key, ...)
  for i = 1, select('#', ...) do
    local zset = zsets[key]
    if zset then
      remove(key, zset, text((select(i, ...))))
    end
  end
  return 1
end

function commands.ZCARD(key)
  return zsets[key] and zsets[key].size or 0
end

local function bound(value)
  return value == '-inf' and -math.huge or value == '+inf' and math.huge or tonumber(value)
end

local function between(key, low, high, most)
  local members, zset = {}, zsets[key]
  if not zset then
    return members
  end
  ordered(zset)
  low, high = bound(low), bound(high)
  local at = place_of(zset, low, '')
  while at <= zset.last and #members < most and zset.scores[zset.order[at]] <= high do
    members[#members + 1], at = zset.order[at], at + 1
  end
  return members
end

function commands.ZRANGEBYSCORE(key, low, high, _, _, most)
  return between(key, low, high, tonumber(most) or math.huge)
end

function commands.ZCOUNT(key, low, high)
  return #between(key, low, high, math.huge)
end

function commands.ZREMRANGEBYSCORE(key, low, high)
  local members = between(key, low, high, math.huge)
  for _, member in ipairs(members) do
    remove(key, zsets[key], member)
  end
  return #members
end

function commands.ZRANGE(key, from, to, with_scores)
  local values, zset = {}, zsets[key]
  if not zset then
    return values
  end
  ordered(zset)
  for at = zset.first + tonumber(from), math.min(zset.last, zset.first + tonumber(to)) do
    local member = zset.order[at]
    values[#values + 1] = member
    if with_scores then
      values[#values + 1] = text(zset.scores[member])
    end
  end
  return values
end

-- What the scripts see.
redis, cjson = {}, {}
local decoded = {}  -- JSON -> a function that makes its table

function redis.call(command, ...)
  return commands[command](...)
end
redis.pcall = redis.call

function redis.error_reply(reason)
  return {err = reason}
end

function cjson.decode(json)
  return decoded[json]()
end

function cjson.encode()
  return ''  -- of outcomes, which nobody reads
end

local scripts, running = {}, {}

-- What scripted_queue.py calls. Templates: {keys, arguments} of a call, in which some arguments are replaced.
return {
  call = redis.call,
  know = function(json, make)
    decoded[json] = make
  end,
  add_script = function(name, run)
    scripts[name] = run
  end,

  -- Returns what became of it: accepted, full, quota, crowded.
  submit = function(template, id, at_ms, deadline_ms)
    now_ms = at_ms
    local arguments = template[2]
    arguments[13], arguments[16] = id, deadline_ms
    return scripts.submit(template[1], arguments)[1][1]
  end,

  -- Returns the ids that start and those that had expired, each joined by blanks.
  claim = function(template, slots, at_ms, service_ms)
    now_ms, published = at_ms, {}
    local arguments, ids = template[2], {}
    arguments[2], arguments[7] = slots, service_ms
    local answer = scripts.claim(template[1], arguments)
    for i, row in ipairs(answer[3]) do
      ids[i] = row[1]
      running[row[1]] = {row[3], string.format('%.0f', row[5])}
    end
    return table.concat(ids, ' '), table.concat(published, ' ')
  end,

  finish = function(template, id, at_ms, state)
    now_ms = at_ms
    local arguments, job = template[2], running[id]
    arguments[3], arguments[4], arguments[5], arguments[6], running[id] = id, job[1], job[2], state, nil
    return scripts.finish(template[1], arguments)[1]
  end,

  -- End a job that waits, as its client's intake does once the deadline has passed.
  expire = function(id, at_ms, keep)
    now_ms = at_ms
    return scripts.expire({'rq:job:' .. id}, {id, '', keep})
  end,

  run = function(name, keys, arguments, at_ms)
    now_ms = at_ms
    return scripts[name](keys, arguments)
  end,
}
