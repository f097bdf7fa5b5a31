-- Forget a file; its content is deleted after that.
--
-- Needs: nothing
--
-- KEYS  1  bl:file:<id>        string
--       2  bl:files:<tenant>   zset    ids
--       3  bl:file_sums        hash    tenant -> bytes of its files
--       4  bl:file_ends        zset    id -> when it expires (s since 1970)
-- ARGV  1 id  2 tenant
-- Returns 1 where it was there, else 0.

local record = redis.call('GET', KEYS[1])
redis.call('ZREM', KEYS[4], ARGV[1])
if not record then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HINCRBY', KEYS[3], ARGV[2], -cjson.decode(record).bytes) <= 0 then
  redis.call('HDEL', KEYS[3], ARGV[2])
end
return 1
