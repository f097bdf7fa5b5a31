-- How long records are kept, and the idempotency keys that find them.
--
-- Needs: nothing
-- Touches: rq:job:<id>, bl:idem:<model>:<key>

-- From an argument "<outcome ttl, ms> <dead-letter ttl, ms> <max dead letters> <response ttl, ms> <max bytes of a tenant's
-- responses> <longest wait, ms>". The last ones are for `keep_response` and `longest_wait`: few calls need them.
local function read_keep(text)
  local ttl, dead_letter_ttl, max_dead_letters = string.match(text, '^(%d+) (%d+) (%d+) ')
  return {ttl = tonumber(ttl), dead_letter_ttl = tonumber(dead_letter_ttl),
    max_dead_letters = tonumber(max_dead_letters), text = text}
end

-- Give a record, and the idempotency key that finds it, a time to live. Idem: the record's field, "<model>:<key>"; '' or
-- nil: there is none. The rest: as for PEXPIRE. A refusal to touch the key must not keep a job from its end.
local function keep_record(key, idem, ...)
  redis.call('PEXPIRE', key, ...)
  if idem and idem ~= '' then
    redis.pcall('PEXPIRE', 'bl:idem:' .. idem, ...)
  end
end
