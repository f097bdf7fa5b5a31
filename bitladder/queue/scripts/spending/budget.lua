-- Charge the budget of an API key with what a request is expected to cost; the worker adds the difference (spend.lua).
--
-- Needs: clock, commands
--
-- ARGV  1 API key  2 expected cost, below 0 to take one back  3 budget of a day ('': none, what is charged is not refused)
-- Touches also, by name: bl:budget:<day>.
-- Returns {0, what is used up now}, or, refused, {ms until the next day, what is used up}.

local now = now_ms()
local key = 'bl:budget:' .. string.sub(iso(now), 1, 10)
local used = tonumber(try_call('HGET', key, ARGV[1]) or 0) or 0
local budget = tonumber(ARGV[3])
if budget and (used >= budget or used + tonumber(ARGV[2]) > budget) then
  return {86400000 - now % 86400000, tostring(used)}
end
if tonumber(ARGV[2]) ~= 0 then
  used = used + tonumber(ARGV[2])
  call_or_replace('HSET', key, ARGV[1], string.format('%.12g', used))
  redis.call('PEXPIRE', key, 3 * 86400000)
end
return {0, tostring(used)}
