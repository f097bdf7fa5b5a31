-- Move waiting jobs into queues of higher tiers, behind those that wait there.
--
-- Needs: values, clock, commands, wait, tenants, lists
--
-- KEYS  none by list, as there are many; by name: rq:job:<id>, rq:queue:<list>, rq:queues, and what its parts touch
-- ARGV  id, queue and new queue of each job, those first that are to be first there
-- Touches also, by name: bl:due:<list>, bl:wake:<model>:<tier>.
-- Returns for each: moved | over (it waits there no longer) | rq (a job of RQ's producers: its queue is theirs).

local now, results = now_ms(), {}

-- Put a job into its new list: the number that it has there, and whether that is its tenant's.
local function push(id, queue, tenant, is_apart)
  local list = list_of(queue, tenant, is_apart)
  local length = try_call('RPUSH', 'rq:queue:' .. list, id)
  if not length then
    return
  elseif length == 1 then
    redis.call('DEL', 'bl:counts:' .. list, 'bl:gone:' .. list)  -- another client may have emptied it
    try_call('SADD', 'rq:queues', 'rq:queue:' .. list)
  end
  if list ~= queue then
    join_tenants(queue, tenant, 1)
  end
  note_list(queue)
  return list, length + (whole(try_call('HGET', 'bl:counts:' .. list, 'popped')) or 0)
end

local function move(id, from, to)
  local key = 'rq:job:' .. id
  local fields = try_call('HMGET', key, 'status', 'origin', 'wait', 'tenant')
  if not fields or fields[1] ~= 'queued' or fields[2] ~= from then
    return 'over'
  end
  local at, deadline, _, is_rq, is_apart = read_wait(fields[3])
  if is_rq then
    return 'rq'
  end
  local due = try_call('ZSCORE', 'bl:due:' .. list_of(from, fields[4], is_apart), id)
  local list, number = push(id, to, fields[4], is_apart)
  if not list then
    return 'over'
  end
  leave_in_list(id, from, fields[3], fields[4])
  redis.call('HSET', key, 'origin', to, 'wait',
    num(at) .. ' ' .. num(deadline) .. ' ' .. num(number) .. (is_apart and TENANT_MARK or ''),
    'moved', num(now) .. ' ' .. from)
  if due then
    add_due(to, list, {due, id}, math.max(1, redis.call('PTTL', key)))
  end
  local _, tier = names_in(to)
  wake('bl:wake:' .. tier)
  return 'moved'
end

for i = 1, #ARGV, 3 do
  results[#results + 1] = move(ARGV[i], ARGV[i + 1], ARGV[i + 2])
end
return results
