-- A job's field `wait`: "<enqueued, ms> <deadline, ms> <number in its list>", with a mark behind it where the job is one
-- of RQ's producers, and another where it waits in its tenant's list. One field, because each costs a waiting job some sixty bytes.
--
-- Needs: values
-- Touches: no key

local RQ_MARK, TENANT_MARK = ' rq', ' t'

-- The three numbers, nil for what is missing or no number; whether RQ's producers wrote the job; and whether it waits in
-- its tenant's list. RQ's producers write no such field: the first script that meets the job does (former releases
-- without a deadline and a mark).
local function read_wait(text)
  local at, deadline, seq, mark = string.match(text or '', '^(%S+) (%S+) (%S+)(.*)$')
  at, deadline = whole(at), whole(deadline)
  return at, deadline, whole(seq), not at or not deadline or mark == RQ_MARK, mark == TENANT_MARK
end
