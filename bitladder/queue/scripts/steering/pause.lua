-- Pause a scope: claims see it from now on. A scope that is paused already is paused anew.
--
-- Needs: values, clock, commands, pauses
--
-- KEYS  1  bl:paused     hash    scope -> '{"until":<ms, 0: until it is resumed>,"since":<ms>,<who and why>}'
-- ARGV  1 scope ('all': rq:suspended is written, as `rq suspend` does)  2 for how long, ms (0: until it is resumed)
--       3 who and why, as the members of a JSON object  4 max scopes, then fields of the audit's entry and their values
-- Touches also, by name: rq:suspended, bl:audit, and what its parts touch.
-- Returns 1, or 0 where too many scopes are paused already.

local scope, now, for_ms = ARGV[1], now_ms(), tonumber(ARGV[2])
local till = for_ms > 0 and now + for_ms or 0
local value = '{"until":' .. num(till) .. ',"since":' .. num(now) .. ',' .. ARGV[3] .. '}'
if scope == 'all' then
  redis.call('SET', 'rq:suspended', value)
  if for_ms > 0 then
    redis.call('PEXPIRE', 'rq:suspended', for_ms)
  end
else
  local fields = call_or_replace('HGETALL', KEYS[1])
  local count = 0
  for i = 1, #fields, 2 do
    if not is_in_force(fields[i + 1], now) then
      redis.call('HDEL', KEYS[1], fields[i])
    elseif fields[i] ~= scope then
      count = count + 1
    end
  end
  if count >= tonumber(ARGV[4]) then
    return 0
  end
  redis.call('HSET', KEYS[1], scope, value)
end
call_or_replace('XADD', 'bl:audit', 'MAXLEN', '~', MAX_AUDIT, '*', 'result', '{"until":' .. num(till) .. '}',
  unpack(ARGV, 5))
return 1
