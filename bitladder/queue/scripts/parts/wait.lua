-- A job's field `wait`: "<enqueued, ms> <deadline, ms> <number in its list>", with a mark behind it where the job is one
-- of RQ's producers. One field, because each costs a waiting job some sixty bytes.
--
-- Needs: values
-- Touches: no key

local RQ_MARK = ' rq'

-- The three numbers, nil for what is missing or no number; and whether RQ's producers wrote the job. They write no such
-- field: the first script that meets the job does (former releases without a deadline and a mark).
local function read_wait(text)
  local at, deadline, seq, mark = string.match(text or '', '^(%S+) (%S+) (%S+)(.*)$')
  at, deadline = whole(at), whole(deadline)
  return at, deadline, whole(seq), not at or not deadline or mark == RQ_MARK
end
