-- Look at jobs with webhooks whose deadline has passed, and that no script of ours has ended: nobody may ever look at them.
--
-- Needs: values, clock, commands, wait, lists, retention, ending, webhooks
-- Moves: queued -> expired: its deadline passed, and it has a webhook
--
-- KEYS  1  bl:webhooks:watched         zset    job -> its deadline, or when to look again (ms)
-- ARGV  1 max jobs  2 keep (see `read_keep`)  3 ms after which to look again
-- Touches also, by name: rq:job:<id>, bl:counts:<list>, bl:gone:<list>, bl:tenants:<model>:<tier>, and what its parts
-- touch.
-- Returns {the ids that were ended}.

local now, keep, pause, expired = now_ms(), read_keep(ARGV[2]), tonumber(ARGV[3]), {}
local ENDS = {finished = 'finished', failed = 'failed', canceled = 'cancelled', stopped = 'cancelled'}

local function look(id)
  local key = 'rq:job:' .. id
  local fields = try_call('HMGET', key, 'status', 'origin', 'wait', 'reply', 'tenant', 'idem', 'hook') or {}
  local status, hook = fields[1], fields[7]
  local _, deadline, _, is_rq = read_wait(fields[3])
  if not hook then  -- gone, or not ours
    redis.call('ZREM', KEYS[1], id)
  elseif ENDS[status] then  -- by one of RQ's tools
    add_job_event({id = id, hook = hook}, ENDS[status], '', now)
  elseif status == 'queued' and fields[2] and deadline and deadline <= now then
    leave_in_list(id, fields[2], fields[3], fields[5])
    end_job({id = id, queue = fields[2], reply = fields[4], tenant = fields[5], idem = fields[6], rq = is_rq,
      hook = hook}, 'failed', scripted_end('deadline_exceeded'), keep, now)
    expired[#expired + 1] = id
  elseif redis.call('PTTL', key) < 2 * pause then  -- its worker is lost, and so will be its record
    add_job_event({id = id, hook = hook}, 'failed', '', now)
  else
    watch_job(id, now + pause)
  end
end

for _, id in ipairs(call_or_replace('ZRANGEBYSCORE', KEYS[1], '-inf', num(now), 'LIMIT', 0, ARGV[1])) do
  look(id)
end
flush(keep, now)
return expired
