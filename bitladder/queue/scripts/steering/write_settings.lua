-- Store the live settings, if they are still as they were when the change was made, and note the change.
--
-- Needs: commands
--
-- KEYS  1  bl:settings          string  the document, with its code where documents are signed
--       2  bl:settings:history  list    changes, the latest first
-- ARGV  1 the document before, its first bytes at least ('': none)  2 how many bytes of it are compared
--       3 the document  4 the change  5 the maximum of changes kept
-- Returns 1; 0 where somebody else has changed them since.

local held = try_call('GETRANGE', KEYS[1], 0, tonumber(ARGV[2]) - 1) or ''
if held ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[3])
call_or_replace('LPUSH', KEYS[2], ARGV[4])
redis.call('LTRIM', KEYS[2], 0, tonumber(ARGV[5]) - 1)
return 1
