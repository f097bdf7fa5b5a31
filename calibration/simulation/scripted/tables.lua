-- A Redis of tables: the commands that the queue's scripts use, on keys that live in this process. Only what they ask
-- for is here: no types are checked, and a key's time to live counts only where it is a string's, or not above 0.
-- Run by scripted_queue.py, with LuaJIT where there is one.

local strings, hashes, lists, sets, zsets = {}, {}, {}, {}, {}
local till = {}  -- of strings
local kinds = {strings, hashes, lists, sets, zsets, till}
local now_ms, no_fields, published = 0, {}, nil
local commands, FAR_MS = {}, 1000000000000

if jit then
  jit.off()  -- scripts branch too much: traces cost more than they save
end

local function string_at(key)
  if till[key] and till[key] <= now_ms then
    strings[key], till[key] = nil, nil
  end
  return strings[key]
end

function commands.TIME()
  return {math.floor(now_ms / 1000), now_ms % 1000 * 1000}
end

function commands.PUBLISH(channel)
  local id = published and string.match(channel, '^bl:done:(.+)$')
  if id then
    published[#published + 1] = id
  end
  return 0
end

function commands.EXISTS(key, ...)
  local exists = string_at(key) or hashes[key] or lists[key] or sets[key] or zsets[key]
  return (exists and 1 or 0) + (... and commands.EXISTS(...) or 0)
end

function commands.DEL(key, ...)
  for kind = 1, 6 do  -- a nil that is written makes an entry where there is none
    if kinds[kind][key] ~= nil then
      kinds[kind][key] = nil
    end
  end
  return ... and commands.DEL(...) or 1
end

function commands.PEXPIRE(key, ms)
  return tonumber(ms) > 0 and 1 or commands.DEL(key)
end

function commands.PTTL()
  return FAR_MS
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
  strings[key], till[key] = value, ms and now_ms + ms or nil
  return {ok = 'OK'}
end

function commands.HGET(key, field)
  local hash = hashes[key]
  return hash and hash[field] or false
end

function commands.HMGET(key, ...)
  local hash, values = hashes[key] or no_fields, {...}
  for i = 1, #values do
    values[i] = hash[values[i]] or false
  end
  return values
end

function commands.HGETALL(key)
  local values, count = {}, 0
  for field, value in pairs(hashes[key] or no_fields) do
    values[count + 1], values[count + 2], count = field, value, count + 2
  end
  return values
end

function commands.HEXISTS(key, field)
  return hashes[key] and hashes[key][field] and 1 or 0
end

function commands.HLEN(key)
  return #commands.HGETALL(key) / 2
end

local function set_fields(hash, field, value, field_2, value_2, field_3, value_3, ...)
  hash[field] = value
  if field_2 then
    hash[field_2] = value_2
    if field_3 then
      hash[field_3] = value_3
      return ... and set_fields(hash, ...) or 1
    end
  end
  return 1
end

function commands.HSET(key, ...)
  local hash = hashes[key]
  if not hash then
    hash = {}
    hashes[key] = hash
  end
  return set_fields(hash, ...)
end

function commands.HSETNX(key, field, value)
  if commands.HGET(key, field) then
    return 0
  end
  return commands.HSET(key, field, value)
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
  local value = (tonumber(commands.HGET(key, field)) or 0) + tonumber(by)
  commands.HSET(key, field, value)
  return value
end

function commands.HINCRBYFLOAT(key, field, by)
  return string.format('%.17g', commands.HINCRBY(key, field, by))
end

function commands.LLEN(key)
  local list = lists[key]
  return list and list.last - list.first + 1 or 0
end

local function push(key, at, step, value, ...)
  local list = lists[key]
  if not list then
    list = {first = 1, last = 0}
    lists[key] = list
  end
  list[at] = list[at] + step
  list[list[at]] = value
  return ... and push(key, at, step, ...) or list.last - list.first + 1
end

function commands.RPUSH(key, ...)
  return push(key, 'last', 1, ...)
end

function commands.LPUSH(key, ...)
  return push(key, 'first', -1, ...)
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

function commands.SADD(key, member, ...)
  local set = sets[key]
  if not set then
    set = {}
    sets[key] = set
  end
  set[member] = true
  return ... and commands.SADD(key, ...) or 1
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

-- A sorted set: {scores: by member; size; least: no score is below it; order, at: members by score, and their scores, once
-- they were asked for, which most sets never are; first, last: places in order; dead: of so many, members that have left}.

-- The place of the first member that does not come before (score, member).
local function place_of(zset, score, member)
  local order, at, low, high = zset.order, zset.at, zset.first, zset.last + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    local other = at[middle]
    if other < score or other == score and order[middle] < member then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local function sort(zset)
  local order, at, scores = {}, {}, zset.scores
  for member in pairs(scores) do
    order[#order + 1] = member
  end
  table.sort(order, function(one, other)
    return scores[one] < scores[other] or scores[one] == scores[other] and one < other
  end)
  for i, member in ipairs(order) do
    at[i] = scores[member]
  end
  zset.order, zset.at, zset.first, zset.last, zset.dead = order, at, 1, #order, 0
end

-- The set with an order, whose first member is there.
local function ordered(zset)
  if not zset.order or zset.dead > zset.size + 8 then
    sort(zset)
  end
  while zset.scores[zset.order[zset.first]] ~= zset.at[zset.first] do
    zset.first, zset.dead = zset.first + 1, zset.dead - 1
  end
  zset.least = zset.at[zset.first]
  return zset
end

local function remove(key, zset, member)
  if not zset.scores[member] then
    return 0
  end
  zset.scores[member], zset.size = nil, zset.size - 1
  if zset.size == 0 then
    zsets[key] = nil
  elseif zset.order then
    zset.dead = zset.dead + 1
  end
  return 1
end

local function insert(key, zset, score, member)
  local before = zset.scores[member]
  zset.scores[member] = score
  if score < zset.least then
    zset.least = score
  end
  if not before then
    zset.size = zset.size + 1
  end
  if zset.order and before ~= score then
    zset.dead = zset.dead + (before and 1 or 0)
    local place = place_of(zset, score, member)
    if zset.order[place] == member and zset.at[place] == score then
      zset.dead = zset.dead - 1  -- it has come back
    else
      table.insert(zset.order, place, member)
      table.insert(zset.at, place, score)
      zset.last = zset.last + 1
    end
  end
end

function commands.ZADD(key, score, member, ...)
  local flag, number = nil, tonumber(score)
  if not number then
    flag = score
    if member == 'GT' then  -- XX GT: the only two flags at once
      flag, score, member = 'GT', ...
    else
      score, member = member, ...
    end
    number = tonumber(score)
  end
  local zset = zsets[key]
  if not zset then
    if flag == 'GT' then
      return 0
    end
    zset = {scores = {}, size = 0, least = math.huge}
    zsets[key] = zset
  end
  local before = zset.scores[member]
  if not flag or flag == 'NX' and not before or flag == 'GT' and before and number > before then
    insert(key, zset, number, member)
  end
  return not flag and ... and commands.ZADD(key, ...) or 1
end

function commands.ZREM(key, member, ...)
  local zset = zsets[key]
  if zset then
    remove(key, zset, member)
  end
  return ... and commands.ZREM(key, ...) or 1
end

function commands.ZCARD(key)
  return zsets[key] and zsets[key].size or 0
end

local function bound(value)
  return value == '-inf' and -math.huge or value == '+inf' and math.huge or tonumber(value)
end

local function between(key, low, high, most)
  local members, count, zset = {}, 0, zsets[key]
  if not zset or high < zset.least then
    return members
  end
  ordered(zset)
  local order, at, scores = zset.order, zset.at, zset.scores
  for place = place_of(zset, low, ''), zset.last do
    if at[place] > high or count == most then
      break
    elseif scores[order[place]] == at[place] then
      count = count + 1
      members[count] = order[place]
    end
  end
  return members
end

function commands.ZRANGEBYSCORE(key, low, high, _, _, most)
  return between(key, bound(low), bound(high), tonumber(most) or math.huge)
end

function commands.ZCOUNT(key, low, high)
  return #between(key, bound(low), bound(high), math.huge)
end

function commands.ZREMRANGEBYSCORE(key, low, high)
  local members = between(key, bound(low), bound(high), math.huge)
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
  local order, at, scores, rank = zset.order, zset.at, zset.scores, 0
  for place = zset.first, zset.last do
    if rank > to then
      break
    elseif scores[order[place]] == at[place] then
      if rank >= from then
        values[#values + 1] = order[place]
        values[#values + 1] = with_scores and at[place]
      end
      rank = rank + 1
    end
  end
  return values
end

-- What the scripts see.
redis, cjson = {}, {}
local decoded = {}  -- JSON -> what it says, and how long each list in it is

function redis.call(command, ...)
  return commands[command](...)
end
redis.pcall = redis.call

function redis.error_reply(reason)
  return {err = reason}
end

function cjson.decode(json)
  local known = decoded[json]
  for list, length in pairs(known.lists) do  -- claims append lists of single tiers
    for i = #list, length + 1, -1 do
      list[i] = nil
    end
  end
  return known.value
end

function cjson.encode()
  return ''  -- of outcomes, which nobody reads
end

local scripts, running = {}, {}

-- A function of one value that remembers its answers, up to three each.
local function remembering(run)
  local first, second, third = {}, {}, {}
  return function(value)
    if first[value] == nil then
      first[value], second[value], third[value] = run(value)
    end
    return first[value], second[value], third[value]
  end
end

-- What scripted_queue.py calls. Templates: {keys, arguments} of a call, in which some arguments are replaced.
return {
  call = redis.call,
  commands = commands,
  remembering = remembering,
  know = function(json, value)
    local lists = {}
    local function note(entry)
      if type(entry) == 'table' then
        lists[entry] = #entry
        for _, inner in pairs(entry) do
          note(inner)
        end
      end
    end
    note(value)
    decoded[json] = {value = value, lists = lists}
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
