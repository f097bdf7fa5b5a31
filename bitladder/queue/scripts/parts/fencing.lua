-- Fencing tokens: each claim of a job has one, and greater than the one before.
--
-- Needs: values
-- Touches: no key

-- A fence is the time in steps of 10 µs, so that it never comes again: a counter would, where the server has lost its
-- last second.
local ticks

-- The fence of a job's next claim, and what is not counted of it, from its fields `fence` and `uncharged`: their
-- difference is the number of attempts, one more than before.
local function next_fence(before, uncharged)
  if not ticks then
    local t = redis.call('TIME')
    ticks = t[1] * 100000 + math.floor(t[2] / 10)
  end
  before, uncharged = whole(before) or 0, whole(uncharged) or 0
  local fence = math.max(before + 1, ticks)
  return fence, uncharged + fence - before - 1
end

-- Whether `worker` holds a job under another claim than the one it speaks of: it lost the job and claimed it again.
local function is_held_anew(status, holder, current, worker, fence)
  return status == 'started' and holder == worker and current ~= fence
end
