-- Read the records of jobs, the first ones, as many as the answer has room for.
--
-- Needs: nothing
--
-- KEYS  none by list; by name: rq:job:<id>
-- ARGV  1 max bytes  2 how many fields, then their names, then the ids
-- Returns {values of the fields}…, one at least, as HMGET does: in the place of a record that is no hash, its error.

local room, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local names, records = {unpack(ARGV, 3, 2 + count)}, {}
for i = 3 + count, #ARGV do
  local values = redis.pcall('HMGET', 'rq:job:' .. ARGV[i], unpack(names))
  for _, value in ipairs(values) do
    room = room - #(value or '')
  end
  if room < 0 and #records > 0 then
    break
  end
  records[#records + 1] = values
end
return records
