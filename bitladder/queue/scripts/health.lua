-- Take in how jobs of a tier ended at one of its workers, and what that worker reports of itself; say whether the tier's
-- traffic is shifted to those above.
--
-- Needs: values, clock, commands, pauses
--
-- KEYS  1  bl:health:<model>:<tier>    hash    sound, faults: jobs of the last seconds, each worth less the longer ago it
--       ended, in thousandths; at: when they were weighed; shifted: since when, 0: not; back: when it came back last;
--       hold: how long it stays shifted at least; all times in ms
--       2  rq:worker:<worker>          hash    its fields `report` and `reported` (ms); where it is gone, its lease ran out
--       3… bl:live:<model>:<higher>    zset    one per tier above
-- ARGV  1 jobs that were answered well since the last call  2 jobs that broke by the tier's fault
--       3 share of faults above which the traffic shifts  4 ms after which a job is worth 1/e  5 shortest shift (ms)
--       6 the worker's report (JSON; '': none)
-- Touches also, by name: bl:health:<model>:<higher>, bl:paused.
-- Returns {shifted now (1|0), shifted before (1|0), share of faults (as text), {serves (1|0) per tier above}}.

local KEPT_FOR_MS = 600000
-- Fewer jobs say nothing about a tier.
local MIN_JOBS = 20
-- While the traffic is shifted, so many jobs in a row that were answered well bring it back: of the rows of a tier that
-- breaks one job in five, one in ten is so long.
local MIN_ROW = 10
-- A tier that shifts again so soon stays away for twice as long, up to the longest hold.
local SOON_MS, MAX_HOLD_MS = 600000, 300000

local FIELDS = {'sound', 'faults', 'at', 'shifted', 'back', 'hold'}
local now, state = now_ms(), {}
local fields = call_or_replace('HMGET', KEYS[1], unpack(FIELDS))
for i, name in ipairs(FIELDS) do
  state[name] = math.max(0, whole(fields[i]) or 0)
end

-- Note since when the traffic is shifted, 0 for not any more, and count anew.
local function set_shifted(since)
  state.shifted, state.sound, state.faults = since, 0, 0
end

-- Shift the traffic, or bring it back. `has_higher`: a tier above serves. Returns the share of faults.
local function judge(sound, faults, limits, has_higher)
  if state.shifted > 0 then
    state.sound = faults > 0 and 0 or state.sound + sound
    if not has_higher or (state.sound >= MIN_ROW * 1000 and now - state.shifted >= state.hold) then
      state.back = now
      set_shifted(0)
    end
    return 0
  end
  local worth = math.exp(-math.max(0, now - state.at) / limits.window)
  state.sound, state.faults, state.at = state.sound * worth + sound, state.faults * worth + faults, now
  local jobs = state.sound + state.faults
  local ratio = jobs > 0 and state.faults / jobs or 0
  if has_higher and jobs >= MIN_JOBS * 1000 and ratio > limits.ratio then
    local is_again = state.back > 0 and now - state.back < SOON_MS
    state.hold = is_again and math.min(MAX_HOLD_MS, 2 * math.max(state.hold, limits.hold)) or limits.hold
    set_shifted(now)
  end
  return ratio
end

local serving, has_higher = {}, false
for i = 3, #KEYS do
  local health = string.gsub(KEYS[i], '^bl:live:', 'bl:health:')
  local is_live = (try_call('ZCOUNT', KEYS[i], now, '+inf') or 0) > 0
    and not is_tier_paused(string.sub(KEYS[i], #'bl:live:' + 1), now)
  serving[i - 2] = is_live and (whole(try_call('HGET', health, 'shifted')) or 0) == 0 and 1 or 0
  has_higher = has_higher or serving[i - 2] == 1
end

local before = state.shifted
local limits = {ratio = tonumber(ARGV[3]), window = tonumber(ARGV[4]), hold = tonumber(ARGV[5])}
local ratio = judge(tonumber(ARGV[1]) * 1000, tonumber(ARGV[2]) * 1000, limits, has_higher)
for _, name in ipairs(FIELDS) do
  redis.call('HSET', KEYS[1], name, num(state[name]))
end
redis.call('PEXPIRE', KEYS[1], KEPT_FOR_MS)
if ARGV[6] ~= '' and try_call('HEXISTS', KEYS[2], 'birth') == 1 then
  redis.call('HSET', KEYS[2], 'report', ARGV[6], 'reported', num(now))
end
return {state.shifted > 0 and 1 or 0, before > 0 and 1 or 0, string.format('%.4f', ratio), serving}
