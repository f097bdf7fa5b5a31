-- Stored responses: jobs whose ids begin with RESPONSE_PREFIX. They keep their requests, and live longer than other jobs as
-- far as their tenant has room for them: the oldest go.
--
-- Needs: commands
-- Touches: rq:job:<id>, bl:stream:<id>, bl:responses:<tenant>, bl:dead_letters

-- Oldest responses that make room for one: the next one takes the rest.
local MAX_FORGOTTEN = 64
-- The member of bl:responses:<tenant> whose score is the bytes of all others. Those are "<id> <bytes>", and their scores
-- are times (ms), which are greater: it comes first.
local TOTAL = 'bytes'

local function is_response_id(id)
  return string.sub(id, 1, #RESPONSE_PREFIX) == RESPONSE_PREFIX
end

local function delete_response(id)
  redis.call('DEL', 'rq:job:' .. id)
  redis.call('DEL', 'bl:stream:' .. id)  -- whose right is one of its own
end

local function uncount_response(responses, member)
  if try_call('ZREM', responses, member) == 1 then
    redis.call('ZADD', responses, 'INCR', -tonumber(string.match(member, '%d+$')), TOTAL)
  end
end

-- Delete a response's record, and what else is kept of it.
local function forget_response(id, tenant)
  local size = try_call('HGET', 'rq:job:' .. id, 'size')
  if size then
    uncount_response('bl:responses:' .. (tenant or '-'), id .. ' ' .. size)
  end
  delete_response(id)
  redis.pcall('ZREM', 'bl:dead_letters', id)
end

-- Note a response that ends. Returns how long it is kept (ms).
local function keep_response(job, outcome, keep, now)
  local ttl, max_bytes = string.match(keep.text, '^%d+ %d+ %d+ (%d+) (%d+) ')
  local key, responses = 'rq:job:' .. job.id, 'bl:responses:' .. (job.tenant or '-')
  local fields = redis.call('HMGET', key, 'data', 'size')
  if fields[2] then  -- it has ended before, and was released from the dead letters
    uncount_response(responses, job.id .. ' ' .. fields[2])
  end
  local size = #(fields[1] or '') + #outcome
  redis.call('HSET', key, 'size', size)
  call_or_replace('ZADD', responses, now + ttl, job.id .. ' ' .. size)
  local total = tonumber(redis.call('ZADD', responses, 'INCR', size, TOTAL))
  for _ = 1, MAX_FORGOTTEN do
    local oldest = redis.call('ZRANGE', responses, 1, 1, 'WITHSCORES')
    local id, bytes = string.match(oldest[1] or '', '^(.+) (%d+)$')
    local is_expired = id and tonumber(oldest[2]) <= now
    if not id or id == job.id or not (is_expired or total > tonumber(max_bytes)) then
      break
    end
    uncount_response(responses, oldest[1])
    delete_response(id)
    total = total - bytes
  end
  redis.call('PEXPIRE', responses, ttl)
  return tonumber(ttl)
end
