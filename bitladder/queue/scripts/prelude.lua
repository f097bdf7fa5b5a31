-- Put before every script. Times are the server's, in milliseconds since 1970.

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- RQ's timestamps: ISO 8601 in UTC; with milliseconds, because three more digits cost a job sixty bytes. Days to date
-- after H. Hinnant, "chrono-compatible low-level date algorithms" (civil_from_days).
local function iso(ms)
  local s = math.floor(ms / 1000)
  local z = math.floor(s / 86400) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local r = s % 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
    math.floor(r / 3600), math.floor(r / 60) % 60, r % 60, ms % 1000)
end

local function num(ms)
  return string.format('%.0f', ms)
end

-- A whole number from a field that anybody may have written; nil for everything else, infinity and NaN included.
local function whole(text)
  local n = tonumber(text)
  return n and n == n and math.abs(n) < 1e15 and math.floor(n) or nil
end

-- An answer of redis.pcall; nil, and the reason, where the key is of another type: anybody may have written it, and one
-- such key must not stop a script that has others to look after.
local function checked(answer)
  local reason = type(answer) == 'table' and answer.err
  if reason and string.sub(reason, 1, 9) ~= 'WRONGTYPE' then
    error(answer)  -- of the server, such as READONLY: nothing that the script does can go well
  elseif reason then
    return nil, reason
  end
  return answer
end

local function ask(...)
  return checked(redis.pcall(...))
end

-- The same for a key that whoever needs it makes anew: what else stands there goes.
local function anew(command, key, ...)
  local answer, reason = ask(command, key, ...)
  if reason then
    redis.call('DEL', key)
    answer = redis.call(command, key, ...)
  end
  return answer
end

-- A job's field `wait`: "<enqueued, ms> <deadline, ms> <number in its list>", with a mark behind it where the job is one
-- of RQ's producers. One field, because each costs a waiting job some sixty bytes. Returns the three, nil for what is
-- missing or no number, and whether RQ's producers wrote the job: they write no such field, we do when we first meet it
-- (former releases without a deadline and a mark).
local RQ_MARK = ' rq'

local function read_wait(text)
  local at, deadline, seq, mark = string.match(text or '', '^(%S+) (%S+) (%S+)(.*)$')
  at, deadline = whole(at), whole(deadline)
  return at, deadline, whole(seq), not at or not deadline or mark == RQ_MARK
end

-- The fence of a job's next claim, and what is not counted of it, from its fields `fence` and `uncharged`: their
-- difference is the number of attempts, one more than before. A fence is the time in steps of 10 µs, and greater than
-- the one before, so that it never comes again: a counter would, where the server has lost its last second.
local ticks

local function next_fence(before, uncharged)
  if not ticks then
    local t = redis.call('TIME')
    ticks = t[1] * 100000 + math.floor(t[2] / 10)
  end
  before, uncharged = whole(before) or 0, whole(uncharged) or 0
  local fence = math.max(before + 1, ticks)
  return fence, uncharged + fence - before - 1
end

-- When the head of a list was enqueued, and its deadline; nil where the list is empty or its head does not say.
local function head_of(name)
  local id = ask('LINDEX', 'rq:queue:' .. name, 0)
  local wait = id and redis.pcall('HGET', 'rq:job:' .. id, 'wait')
  return read_wait(type(wait) == 'string' and wait)
end

-- Whoever renews or reaps leaves its time in bl:pulse, as every worker does once a second. Where that time is long ago,
-- nobody could renew meanwhile: the server was away, everybody stood still, or the clock was set forward. Where it lies
-- ahead, the clock was set back. Whoever comes first then lets every lease begin anew, so that everybody has a whole one
-- to renew it in. A lease that had run out before stays so; where the clock was set back, nobody can tell.
local PULSE_TTL_MS, MAX_SILENT_MS = 86400000, 3000

local function pulse(workers, lease_ms, now)
  local last = whole(redis.pcall('GET', 'bl:pulse')) or now - PULSE_TTL_MS
  redis.call('SET', 'bl:pulse', num(now), 'PX', PULSE_TTL_MS)
  if last <= now and now - last <= math.min(MAX_SILENT_MS, lease_ms / 3) then
    return
  end
  local set_back = math.max(0, last - now)
  local entries = anew('ZRANGEBYSCORE', workers, set_back > 0 and '-inf' or num(last), '+inf', 'WITHSCORES')
  for i = 1, #entries, 2 do
    redis.call('ZADD', workers, num(math.max(entries[i + 1] - set_back, now + lease_ms)), entries[i])
  end
end

-- At most one token lies in a wake list: it wakes one idle worker, whose claim passes it on while work is left.
local function wake(key)
  if anew('LLEN', key) == 0 then
    redis.call('RPUSH', key, '1')
    redis.call('PEXPIRE', key, 60000)
  end
end

-- Longer ids are refused; RQ's and ours have 36 bytes. (MAX_SHOWN in bitladder/ids.py.)
local MAX_ID = 512

-- Lua's unpack fits so many values on its stack.
local MAX_UNPACKED = 4000

-- One command for many values: name, key, values…, in as few calls as the stack allows. A key of another type is left
-- alone: what the jobs are is in their records, and those are written already.
local function call_many(name, key, values)
  for i = 1, #values, MAX_UNPACKED do
    ask(name, key, unpack(values, i, math.min(i + MAX_UNPACKED - 1, #values)))
  end
end

local function append(map, key, first, second)
  local list = map[key]
  if not list then
    list = {}
    map[key] = list
  end
  list[#list + 1] = first
  list[#list + 1] = second
end

-- Jobs that wait in a list. Cancelled ones stay in it until a claim meets them: counted, so that depth stays right
-- without LREM. A key that is no list is empty; why, is the second value.
local function depth_of_list(name)
  local length, problem = ask('LLEN', 'rq:queue:' .. name)
  if not length or length == 0 then
    return 0, problem
  end
  return math.max(0, length - (whole(ask('HGET', 'bl:counts:' .. name, 'gone')) or 0))
end

-- Count jobs that have left a list otherwise than by a claim. A garbled count must not lose what was done to the job.
local function count(queue, field, by)
  local total = redis.pcall('HINCRBY', 'bl:counts:' .. queue, field, by)
  return type(total) == 'number' and total or 0
end

local function depth_of(lists)
  local depth = 0
  for _, name in ipairs(lists) do
    depth = depth + depth_of_list(name)
  end
  return depth
end

-- An id with some of its bytes as %XX, so that it can stand in what is split at them. An id may have any bytes:
-- NO_WORD does not fit into a line of words (bitladder/ids.py reads it again), NO_PART not into the members
-- "<id>:<fence>" of RQ's registry of running jobs, which its tools split. Ours have neither.
local NO_WORD, NO_PART = '[ \n%%]', '[:%%]'

local function escaped(id, bytes)
  local text = string.gsub(id, bytes, function(byte)
    return string.format('%%%02X', string.byte(byte))
  end)
  return text
end

-- Note that a job is over whose id stays in its list: for the list's depth, and by its number for the places of those
-- behind it. RQ's producers number nothing; far from the head such an id is not looked for.
local function leave_in_list(id, queue, wait)
  count(queue, 'gone', 1)
  local _, _, number = read_wait(wait)
  if not number then
    local place = tonumber(redis.pcall('LPOS', 'rq:queue:' .. queue, id, 'MAXLEN', 1000))
    number = place and place + 1 + (whole(ask('HGET', 'bl:counts:' .. queue, 'popped')) or 0)
  end
  if number then
    redis.pcall('ZADD', 'bl:gone:' .. queue, num(number), id)  -- a garbled key must not keep a job from its end
  end
end

-- Messages for whoever awaits jobs: gathered by channel, one PUBLISH each (`tell`). An item is a line
-- "<d|t> <id> <fence> <number> <bytes>" and then so many bytes: d an outcome, t a chunk of a stream. A larger outcome than
-- this is left out, as many may go in one message, and a stream's reader needs none: who waits for it reads it.
local told, MAX_TOLD = {}, 65536

-- A job's field `reply` names the channels of the processes that await it, apart by spaces: no more than these.
local MAX_CHANNELS = 16

local function note(channels, kind, id, fence, number, body)
  local word = string.find(id, NO_WORD) and escaped(id, NO_WORD) or id
  local head = kind .. ' ' .. word .. ' ' .. fence .. ' ' .. number .. ' ' .. #body .. '\n'
  if not string.find(channels, ' ', 1, true) then
    append(told, channels, head, body)
    return
  end
  local left = MAX_CHANNELS
  for channel in string.gmatch(channels, '%S+') do
    append(told, channel, head, body)
    left = left - 1
    if left == 0 then
      break
    end
  end
end

local function tell()
  for channel, items in pairs(told) do
    redis.call('PUBLISH', channel, table.concat(items))
  end
end

-- How long jobs are kept, from an argument "<outcome ttl, ms> <dead-letter ttl, ms> <most among the dead letters> <longest wait,
-- ms>". The last is for `longest_wait`: few calls ask.
local function read_keep(text)
  local ttl, dead_letter_ttl, max_dead_letters = string.match(text, '^(%d+) (%d+) (%d+) ')
  return {ttl = tonumber(ttl), dead_letter_ttl = tonumber(dead_letter_ttl), max_dead_letters = tonumber(max_dead_letters), text = text}
end

-- Ids of ended jobs by RQ's registry of that end, and those that go to the dead letters: written by `settle`.
local ended, ended_at, dead = {}, nil, {}
local rq_end  -- see rq.lua

-- What RQ's tools find where a prompt was.
local NO_CALL = '["workers.generate",null,[],{}]'

-- The last step of every job: outcome in the hash, id in RQ's registry of that end, word to whoever waits.
-- Job: {id, queue, reply, tenant, rq, worker, value}, all but two of them nil where there is none; rq: it is one of RQ's
-- producers. Status: RQ's, or 'dead' for a failed job that people should look at: it may be released, so it keeps its
-- prompt. All others drop theirs (RQ's tools need the field, so an empty call stays).
local function conclude(job, status, outcome, keep, now)
  local key, ttl = 'rq:job:' .. job.id, status == 'dead' and math.max(keep.ttl, keep.dead_letter_ttl) or keep.ttl
  ended_at = ended_at or iso(now)
  if job.rq then
    ttl = rq_end(job, status, outcome, ttl, keep, now)
  end
  if status == 'dead' then
    status = 'failed'
    dead[#dead + 1], dead[#dead + 2] = now, job.id
    redis.call('HSET', key, 'status', status, 'outcome', outcome, 'ended_at', ended_at)
  else
    redis.call('HSET', key, 'status', status, 'outcome', outcome, 'ended_at', ended_at, 'data', NO_CALL)
  end
  redis.call('PEXPIRE', key, ttl)
  if ttl > 0 then
    append(ended, 'rq:' .. status .. ':' .. job.queue, math.floor((now + ttl) / 1000), job.id)
  end
  if job.tenant then
    redis.pcall('ZREM', 'bl:tenant:' .. job.tenant, job.id)  -- a garbled count must not lose an outcome
  end
  if job.reply then
    note(job.reply, 'd', job.id, 0, 0, #outcome > MAX_TOLD and '' or outcome)
  end
  redis.call('PUBLISH', 'bl:done:' .. job.id, outcome)
end

-- A job that leaves the dead letters is kept as any other ended one, and so is what RQ's tools read of it: without its
-- prompt, and without what was said of its former executions, which may repeat it.
local function bury(id, ttl)
  local key = 'rq:job:' .. id
  if ask('HGET', key, 'status') then
    redis.call('HSET', key, 'data', NO_CALL)
    redis.call('HDEL', key, 'history')
    redis.call('PEXPIRE', key, ttl, 'LT')
    redis.pcall('PEXPIRE', 'rq:results:' .. id, ttl, 'LT')
  end
end

-- The dead letters have a bound: the oldest leave it.
local function dead_letters(keep, now)
  ask('ZREMRANGEBYSCORE', 'bl:dead_letters', '-inf', now - keep.dead_letter_ttl)
  call_many('ZADD', 'bl:dead_letters', dead)
  redis.call('PEXPIRE', 'bl:dead_letters', keep.dead_letter_ttl)
  local excess = (ask('ZCARD', 'bl:dead_letters') or 0) - keep.max_dead_letters
  if excess > 0 then
    for _, id in ipairs(redis.call('ZRANGE', 'bl:dead_letters', 0, excess - 1)) do
      redis.call('ZREM', 'bl:dead_letters', id)
      bury(id, keep.ttl)
    end
  end
end

-- Write what `conclude` and `note` have gathered; every script that uses them ends with it. A registry is trimmed of
-- twice as many expired ids as it gains (its entries are scores and ids), so that it shrinks without ever holding the
-- server up.
local function settle(keep, now)
  for registry, entries in pairs(ended) do
    local old = ask('ZRANGEBYSCORE', registry, '-inf', math.floor(now / 1000), 'LIMIT', 0, #entries)
    if old and #old > 0 then
      call_many('ZREM', registry, old)
    end
    call_many('ZADD', registry, entries)
    redis.call('PEXPIRE', registry, math.max(keep.ttl, keep.dead_letter_ttl))
  end
  if #dead > 0 then
    dead_letters(keep, now)
  end
  tell()
end

-- What happened to a job before its last end, a line per loss: "<ms> <worker> <fence> <outcome>". Bounded, because a job
-- may be requeued often.
local MAX_HISTORY = 16384

local function remember(key, history, worker, fence, outcome, now)
  if #(history or '') < MAX_HISTORY then
    redis.call('HSET', key, 'history', (history or '') .. num(now) .. ' ' .. worker .. ' ' .. fence .. ' ' .. outcome
      .. '\n')
  end
end

-- Whether `worker` holds a job under another claim than the one it speaks of: it lost the job and claimed it again.
local function is_held_anew(status, holder, current, worker, fence)
  return status == 'started' and holder == worker and current ~= fence
end

-- Bytes of a job's field `trouble`: why it came back from its last execution. (MAX_TROUBLE in job_queue.py.)
local MAX_TROUBLE = 300

-- From this crash count on a job runs alone: two engines, or workers, were lost with it. (ALONE_FROM in isolation.py.)
local ALONE_FROM = 2

-- So often a job comes back uncharged because no engine had begun it. What ends its worker before the engine can begin is
-- charged from then on, and does not go round for ever.
local MAX_UNBEGUN = 3

-- Words that end a job which no engine has begun, and as what.
local VOID = {expired = 'failed', cancelled = 'canceled', refused = 'dead'}

-- Put a job that `worker` still holds back to the front of a queue, or end it.
-- How: {word, max_attempts, keep, now}, and optionally {fence, target, last, trouble}: the claim it is about, the queue it
-- goes to instead of its own, its outcome when it has none left, and why it comes back. Words:
--   free     nothing ran, or nobody is to blame: no attempt counted
--   charged  an attempt counted
--   suspect  the engine was lost with all it ran: no attempt counted, but the job may be the cause
--   reaped   the worker was lost: an attempt counted, and from the second loss on the job may be the cause
--   unbegun  the worker was lost, or broke, and no engine had begun the job: an attempt counted after MAX_UNBEGUN times
--   expired, cancelled, refused   no engine has begun it, and none shall: it ends with `last`, no attempt counted
-- Returns 'returned', 'ended', or 'lost' where the worker does not hold it (any more).
local function requeue_job(id, worker, how)
  local key, now = 'rq:job:' .. id, how.now
  local fields = redis.call('HMGET', key, 'status', 'worker_name', 'fence', 'origin', 'uncharged', 'cancel', 'reply',
    'wait', 'crash_count', 'history', 'tenant', 'unbegun')
  local fence, queue = fields[3], fields[4]
  if fields[1] ~= 'started' or fields[2] ~= worker or not fence or not queue or (how.fence or fence) ~= fence then
    return 'lost'
  end
  local at, deadline, _, is_rq = read_wait(fields[8])
  ask('ZREM', 'rq:wip:' .. queue, escaped(id, NO_PART) .. ':' .. fence)
  local job = {id = id, queue = queue, reply = fields[7], tenant = fields[11], rq = is_rq, worker = worker}
  local is_charged = how.word == 'charged' or how.word == 'reaped'
  if how.word == 'unbegun' then
    local times = (whole(fields[12]) or 0) + 1
    is_charged = times > MAX_UNBEGUN
    redis.call('HSET', key, 'unbegun', times)
  end
  local uncharged = (whole(fields[5]) or 0) + (is_charged and 0 or 1)
  if not is_charged then
    redis.call('HSET', key, 'uncharged', num(uncharged), 'spared', fence)
  end
  if fields[6] or VOID[how.word] then
    conclude(job, fields[6] and 'canceled' or VOID[how.word], fields[6] or how.last, how.keep, now)
    return 'ended'
  end
  local attempts = (whole(fence) or 0) - uncharged
  local last = how.last or '{"state":"failed","status":500,"code":"worker_lost","error":"the worker was lost","attempts":'
    .. attempts .. '}'
  if attempts >= how.max_attempts then
    conclude(job, 'dead', last, how.keep, now)
    return 'ended'
  end
  if how.word == 'suspect' or is_charged then
    remember(key, fields[10], worker, fence, last, now)
  end
  local crash_count = whole(fields[9]) or 0
  if how.word == 'suspect' then
    crash_count = math.min(ALONE_FROM, crash_count + 1)
  elseif how.word == 'reaped' and attempts > 1 then
    crash_count = ALONE_FROM
  end
  local target = how.target or queue
  if not ask('LPUSH', 'rq:queue:' .. target, id) then  -- no list: the job would be in none
    conclude(job, 'dead', '{"state":"failed","status":500,"code":"queue_broken","error":"the list of its queue in Redis '
      .. 'is no list"}', how.keep, now)
    return 'ended'
  end
  local popped = count(target, 'popped', -1)
  -- The tokens of a lost worker's job stay until another execution has some (emit.lua): the worker may only have been
  -- late, and its outcome is accepted as long as nobody else has started the job.
  if how.word ~= 'reaped' and how.word ~= 'unbegun' then
    redis.call('DEL', 'bl:stream:' .. id)
  end
  redis.call('HSET', key, 'status', 'queued', 'origin', target, 'wait',
    num(at or now) .. ' ' .. (deadline and num(deadline) or '-') .. ' ' .. num(popped + 1) .. (is_rq and RQ_MARK or ''))
  if crash_count > 0 then
    redis.call('HSET', key, 'crash_count', crash_count)
  end
  if how.trouble then
    redis.call('HSET', key, 'trouble', how.trouble)  -- told if the deadline passes before it runs again
  end
  ask('SADD', 'rq:queues', 'rq:queue:' .. target)
  wake('bl:wake:' .. (string.match(target, '^[^:]+:[^:]+') or ''))
  return 'returned'
end
