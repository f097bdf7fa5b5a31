-- Store the record of a file whose content is in the store, unless its tenant has as many files as it may.
--
-- Needs: nothing
--
-- KEYS  1  bl:file:<id>        string
--       2  bl:files:<tenant>   zset    ids, all with score 0: their names are in the order of time
--       3  bl:file_sums        hash    tenant -> bytes of its files
--       4  bl:file_ends        zset    id -> when it expires (s since 1970)
-- ARGV  1 id  2 tenant  3 record  4 its bytes  5 when it expires ('': never)  6 maximum of files  7 of bytes (each 0: none)
-- Returns {1|0, files, bytes}: whether it is there now, and what the tenant has. A second call changes nothing.

local files = redis.call('ZCARD', KEYS[2])
local bytes = tonumber(redis.call('HGET', KEYS[3], ARGV[2]) or 0)
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {1, files, bytes}
end
local max_files, max_bytes, size = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[4])
if (max_files > 0 and files >= max_files) or (max_bytes > 0 and bytes + size > max_bytes) then
  return {0, files, bytes}
end
redis.call('SET', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('HINCRBY', KEYS[3], ARGV[2], size)
if ARGV[5] ~= '' then
  redis.call('ZADD', KEYS[4], ARGV[5], ARGV[1])
end
return {1, files + 1, bytes + size}
