-- End a job that still waits although its deadline has passed, before a claim notices: its client asks for it.
--
-- Needs: clock, wait, lists, retention, ending
-- Moves: queued -> expired: its deadline passed, and a client asked for it
--
-- KEYS  1  rq:job:<id>                 hash    the job
-- ARGV  1 id  2 outcome  3 keep (see `read_keep`)
-- Touches also, by name: bl:counts:<list>, bl:gone:<list>, bl:tenants:<model>:<tier>, and what its parts touch.
-- Returns 1 where it was ended.

local now = now_ms()
local fields = redis.call('HMGET', KEYS[1], 'status', 'origin', 'wait', 'reply', 'tenant', 'idem', 'hook')
local _, deadline, _, is_rq = read_wait(fields[3])
if fields[1] ~= 'queued' or not fields[2] or not deadline or deadline > now then
  return 0
end
local keep = read_keep(ARGV[3])
leave_in_list(ARGV[1], fields[2], fields[3], fields[5])
local job = {id = ARGV[1], queue = fields[2], reply = fields[4], tenant = fields[5], idem = fields[6], hook = fields[7],
  rq = is_rq}
end_job(job, 'failed', ARGV[2], keep, now)
flush(keep, now)
return 1
