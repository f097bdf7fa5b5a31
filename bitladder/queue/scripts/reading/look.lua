-- Look whether jobs wait, run or have ended, and let a process hear of those that have not.
--
-- Needs: clock, wait, messages
--
-- KEYS  none by list; by name: rq:job:<id>
-- ARGV  1 channel that is to hear of them ('': none)  2 max bytes of outcomes (0: no bound), then the ids
-- Returns {state, detail, state, detail…}, two per job: gone '' | waits '' | late '' (it waits,
-- and its deadline has passed) | runs <fence> | <RQ's status of its end>
-- <outcome, '' where there is none> | over '', where its outcome has no room in this answer | odd <status>, where that
-- is none of RQ's: no worker of ours will ever end the job.

local ENDS = {finished = true, failed = true, canceled = true, stopped = true}
local WAITING = {queued = true, created = true, deferred = true, scheduled = true, rate_limited = true,
  ready_to_enqueue = true}
local MAX_STATUS = 100  -- bytes that are shown of an odd one
local now = now_ms()
local channel, max_bytes, used = ARGV[1], tonumber(ARGV[2]), 0

-- Note the channel with the job. Where there are too many, the process that came first must poll.
local function register(key, reply)
  local names = {}
  for name in string.gmatch(reply or '', '%S+') do
    if name == channel then
      return
    end
    names[#names + 1] = name
  end
  names[#names + 1] = channel
  redis.call('HSET', key, 'reply', table.concat(names, ' ', math.max(1, #names - MAX_CHANNELS + 1)))
end

local answers = {}
for i = 3, #ARGV do
  local key = 'rq:job:' .. ARGV[i]
  local fields = redis.pcall('HMGET', key, 'status', 'outcome', 'fence', 'reply', 'wait')
  local state, detail = 'gone', ''
  if not fields.err and fields[1] then
    if ENDS[fields[1]] then
      state, detail = fields[1], fields[2] or ''
      if max_bytes > 0 and used + #detail > max_bytes then
        state, detail = 'over', ''
      end
      used = used + #detail
    elseif fields[1] == 'started' then
      state, detail = 'runs', fields[3] or ''
    elseif WAITING[fields[1]] then
      local _, deadline = read_wait(fields[5])
      state = deadline and deadline <= now and 'late' or 'waits'
    else
      state, detail = 'odd', string.sub(fields[1], 1, MAX_STATUS)
    end
    if channel ~= '' and (state == 'runs' or state == 'waits' or state == 'late') then
      register(key, fields[4])
    end
  end
  answers[#answers + 1] = state
  answers[#answers + 1] = detail
end
return answers
