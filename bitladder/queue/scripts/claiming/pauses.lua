-- What operators have paused (docs/operating/steering.md).
--
-- Needs: values, commands
-- Touches: bl:paused
--
-- bl:paused has a field for each scope: model:<model>, tier:<model>:<tier>, lane:<model>:<lane> or tenant:<tenant>. Its
-- value is JSON that begins with "until" (ms; 0: until it is resumed). All claims pause while rq:suspended is there.

-- Whether the value of a scope says that it is paused.
local function is_in_force(value, now)
  local till = whole(string.match(value or '', '^{"until":(%d+)')) or 0
  return value and (till == 0 or till > now)
end

-- Whether a tier, <model>:<tier>, or its whole model is paused.
local function is_tier_paused(tier, now)
  if redis.call('EXISTS', 'bl:paused') == 0 then
    return false
  end
  local model = string.match(tier, '^(.+):[^:]*$') or ''
  local values = try_call('HMGET', 'bl:paused', 'tier:' .. tier, 'model:' .. model) or {}
  return is_in_force(values[1], now) or is_in_force(values[2], now)
end
