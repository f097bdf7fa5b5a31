-- Take jobs out of the dead letters and queue them again, with all their attempts and a new deadline.
--
-- Needs: values, clock, commands, wait, tenants, lists, retention, webhooks
-- Moves: failed -> queued: an operator released it from the dead letters
--
-- KEYS  1  bl:dead_letters                     zset    id -> when it came (ms)
-- ARGV  1 deadline ms, from now  2 ttl ms, then the ids
-- Touches also, by name: rq:job:<id>, rq:failed:<queue>, rq:queue:<list>, rq:queues, bl:counts:<list>,
-- bl:gone:<list>, bl:tenants:<model>:<tier>, bl:shares:<queue>, bl:wake:<model>:<tier>, bl:lists:<model>, bl:tenant:<tenant>, bl:idem:<model>:<key>,
-- and what its parts touch.
-- A job that runs alone does so again.
-- Returns {1|0…}: whether the job was among the dead letters and waits again.

local now, deadline_ms, ttl_ms = now_ms(), tonumber(ARGV[1]), tonumber(ARGV[2])

local function release(id)
  local key = 'rq:job:' .. id
  local fields = try_call('HMGET', key, 'status', 'origin', 'fence', 'tenant', 'wait', 'idem', 'hook') or {}
  local queue, lasts_ms = fields[2], deadline_ms + ttl_ms
  local _, _, _, is_rq, is_apart = read_wait(fields[5])
  local name = queue and list_of(queue, fields[4], is_apart)
  if queue and not try_call('LLEN', 'rq:queue:' .. name) then
    return 0  -- no list to wait in: it stays among the dead letters
  end
  if redis.call('ZREM', KEYS[1], id) == 0 or fields[1] ~= 'failed' or not queue then
    return 0
  end
  local list, counts = 'rq:queue:' .. name, 'bl:counts:' .. name
  local numbers = try_call('HMGET', counts, 'popped', 'gone') or {}
  local popped, gone = whole(numbers[1]) or 0, whole(numbers[2]) or 0
  -- A job that ended while it waited to run again has left its id at the front: it takes that place, and is there once.
  local place = gone > 0 and redis.call('LPOS', list, id, 'MAXLEN', 1000)
  try_call('ZREM', 'rq:failed:' .. queue, id)
  -- No former worker may end it any more.
  redis.call('HDEL', key, 'outcome', 'exc_info', 'ended_at', 'cancel', 'reply', 'worker_name', 'trouble',
    'unbegun', 'spared')
  local number = popped + (place or redis.call('LLEN', list)) + 1
  redis.call('HSET', key, 'status', 'queued', 'uncharged', num(whole(fields[3]) or 0), 'wait',
    num(now) .. ' ' .. num(now + deadline_ms) .. ' ' .. num(number) .. (is_rq and RQ_MARK or is_apart and TENANT_MARK or ''))
  keep_record(key, fields[6], num(lasts_ms))
  if fields[4] then
    call_or_replace('ZADD', 'bl:tenant:' .. fields[4], num(now + lasts_ms), id)
    redis.call('PEXPIRE', 'bl:tenant:' .. fields[4], num(lasts_ms))
  end
  if fields[7] then watch_job(id, now + deadline_ms) end
  if place then
    redis.call('HINCRBY', counts, 'gone', -1)
    try_call('ZREM', 'bl:gone:' .. name, id, id .. ' early')
    if name ~= queue then
      count_apart(queue, 'gone:' .. queue, -1)
    end
  else
    redis.call('RPUSH', list, id)
    if name ~= queue then
      join_tenants(queue, fields[4], 1)
    end
  end
  try_call('SADD', 'rq:queues', list)
  note_list(queue)
  local _, tier = names_in(queue)
  wake('bl:wake:' .. tier)
  return 1
end

local answers = {}
for i = 3, #ARGV do
  answers[#answers + 1] = release(ARGV[i])
end
return answers
