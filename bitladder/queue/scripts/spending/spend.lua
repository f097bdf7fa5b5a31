-- Add what a worker has spent since its last call to the sums of the day.
--
-- Needs: clock, commands
--
-- KEYS  1  rq:worker:<worker>          hash    its field `spending`: the number of the last call, which is added once
--       2  bl:pace:<model>:<tier>      hash    what was measured, by concurrency
-- ARGV  1 number of the call  2 model  3 tier  4 rent  5 seconds of it  6 cost of overflow  7 max rows of a day
--       8 OTHERS  9 how many tenants, payers and paces follow, joined by blanks; then those:
--       tenant, cost, jobs, tokens; key, when it was charged (ms), how much more; concurrency, jobs, tokens, share s, run s
-- Touches also, by name: bl:costs:<day>, bl:budget:<day>.
-- Returns what overflow has cost this model in this hour.

local FIELDS = {'cost', 'jobs', 'tokens'}
local KEPT_MS, BUDGETS_KEPT_MS = 90 * 86400000, 3 * 86400000
-- So many seconds of one concurrency count: beyond them all that was measured is halved, so that it follows changes.
local REMEMBERED_S = 600

local now = now_ms()
local today = string.sub(iso(now), 1, 13)
local hour, costs = string.sub(today, 12), 'bl:costs:' .. string.sub(today, 1, 10)

-- Add to a field, which begins anew where it holds something else than a number.
local function add(key, field, amount)
  if tonumber(amount) == 0 then
    return
  end
  local sum = redis.pcall('HINCRBYFLOAT', key, field, amount)
  if type(sum) == 'table' and sum.err then
    if not string.find(sum.err, 'float', 1, true) and not string.find(sum.err, 'Infinity', 1, true) then
      check_type(sum)
    end
    call_or_replace('HSET', key, field, amount)
  end
end

local overflow = ARGV[2] .. '|||overflow.' .. hour
local function spent_on_overflow()
  return try_call('HGET', costs, overflow) or '0'
end

if try_call('HGET', KEYS[1], 'spending') == ARGV[1] then
  return spent_on_overflow()
end

local of_tier = ARGV[2] .. '|' .. ARGV[3] .. '|'
add(costs, of_tier .. '|rent', ARGV[4])
add(costs, of_tier .. '|seconds', ARGV[5])
add(costs, overflow, ARGV[6])
local tenants, payers, paces = string.match(ARGV[9], '^(%d+) (%d+) (%d+)$')
local at = 10
for _ = 1, tenants do
  local row = of_tier .. ARGV[at] .. '|'
  local is_known = try_call('HEXISTS', costs, row .. 'cost') == 1 or try_call('HEXISTS', costs, row .. 'jobs') == 1
  if not is_known and (try_call('HLEN', costs) or 0) >= #FIELDS * ARGV[7] then
    row = of_tier .. ARGV[8] .. '|'
  end
  for i, field in ipairs(FIELDS) do
    add(costs, row .. field, ARGV[at + i])
  end
  at = at + 4
end
redis.call('PEXPIRE', costs, KEPT_MS)
for _ = 1, payers do
  local budget = 'bl:budget:' .. string.sub(iso(tonumber(ARGV[at + 1])), 1, 10)
  add(budget, ARGV[at], ARGV[at + 2])
  redis.call('PEXPIRE', budget, BUDGETS_KEPT_MS)
  at = at + 3
end
for _ = 1, paces do
  local old = {}
  for sum in string.gmatch(try_call('HGET', KEYS[2], ARGV[at]) or '', '%S+') do
    old[#old + 1] = tonumber(sum) or 0
  end
  local scale = (old[3] or 0) > REMEMBERED_S and 0.5 or 1
  local sums = {}
  for i = 1, 4 do
    sums[i] = string.format('%.9g', (old[i] or 0) * scale + tonumber(ARGV[at + i]))
  end
  call_or_replace('HSET', KEYS[2], ARGV[at], table.concat(sums, ' '))
  redis.call('HSET', KEYS[2], 'last', ARGV[at])
  redis.call('PEXPIRE', KEYS[2], KEPT_MS)
  at = at + 5
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  call_or_replace('HSET', KEYS[1], 'spending', ARGV[1])
end
return spent_on_overflow()
