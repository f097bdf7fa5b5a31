-- Read where jobs were queued and how they ended, without their prompts.
--
-- Needs: commands
--
-- KEYS  none by list, as keys of a list count as written. By name: rq:job:<id>
-- ARGV  1 max bytes, then the ids
-- Returns {status, queue, outcome}…, three per job, for the first ones, as many as there is room for, one at least: gone |
-- odd (it is no hash) | RQ's status.

local answers, room = {}, tonumber(ARGV[1])
for i = 2, #ARGV do
  local fields = try_call('HMGET', 'rq:job:' .. ARGV[i], 'status', 'origin', 'outcome')
  local n = #answers
  room = room - #(fields and fields[3] or '')
  if room < 0 and n > 0 then
    break
  end
  answers[n + 1] = not fields and 'odd' or fields[1] or 'gone'
  answers[n + 2] = fields and fields[2] or ''
  answers[n + 3] = fields and fields[3] or ''
end
return answers
