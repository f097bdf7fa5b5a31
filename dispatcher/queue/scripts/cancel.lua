-- Cancel one job: a queued one is over at once, a running one is told to its worker.
--
-- KEYS  1  rq:job:<id>                 hash    the job
-- ARGV  1 id  2 outcome  3 keep (see `read_keep`)
-- Touches also, by name: bl:counts:<queue>, bl:gone:<queue>, rq:deferred:<queue>, rq:scheduled:<queue>,
-- bl:cancel:<worker>, bl:control:<worker> (channel), `conclude`'s keys.
-- Returns missing | cancelled | requested | over.

local fields = redis.pcall('HMGET', KEYS[1], 'status', 'origin', 'worker_name', 'reply', 'tenant', 'wait')
if fields.err then  -- no hash: a claim ends it
  return 'over'
end
local status, queue, worker, now = fields[1], fields[2], fields[3], now_ms()
if not status then
  return 'missing'
end
local is_listed = status == 'queued' or status == 'created'
if is_listed or status == 'deferred' or status == 'scheduled' or status == 'rate_limited' then
  if queue and is_listed then
    leave_in_list(ARGV[1], queue, fields[6])
  elseif queue and status ~= 'rate_limited' then  -- RQ has it in a registry of that name; of the third it takes care
    redis.pcall('ZREM', 'rq:' .. status .. ':' .. queue, ARGV[1])
  end
  local keep = read_keep(ARGV[3])
  local _, _, _, is_rq = read_wait(fields[6])
  local job = {id = ARGV[1], queue = queue or '', reply = fields[4], tenant = fields[5], rq = is_rq}
  conclude(job, 'canceled', ARGV[2], keep, now)
  settle(keep, now)
  return 'cancelled'
end
if status ~= 'started' then
  return 'over'
end
-- Kept with the job as well: whoever gives it back, or reaps it, ends it then.
redis.call('HSET', KEYS[1], 'cancel', ARGV[2])
if worker then
  redis.call('SADD', 'bl:cancel:' .. worker, ARGV[1])
  redis.call('PEXPIRE', 'bl:cancel:' .. worker, 3600000)
  redis.call('PUBLISH', 'bl:control:' .. worker, ARGV[1])
end
return 'requested'
