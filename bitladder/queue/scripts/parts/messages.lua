-- Messages for processes that await jobs: gathered by channel, one PUBLISH each.
--
-- Needs: values, ids
-- Touches: bl:reply:<process> (channel)

-- A message is made of items: a line "<d|t> <id> <fence> <number> <bytes>" and then so many bytes; d: an outcome, t: a
-- chunk of a stream. A larger outcome than MAX_PUBLISHED is left out: many go in one message, and a stream's reader needs
-- none. A waiter reads it from the record.
local messages, MAX_PUBLISHED = {}, 65536

-- A job's field `reply` names the channels of the processes that await it, separated by spaces: no more than these.
local MAX_CHANNELS = 16

local function publish(channels, kind, id, fence, number, body)
  local shown = string.find(id, UNSAFE_IN_LINE) and escaped(id, UNSAFE_IN_LINE) or id
  local head = kind .. ' ' .. shown .. ' ' .. fence .. ' ' .. number .. ' ' .. #body .. '\n'
  if not string.find(channels, ' ', 1, true) then
    append(messages, channels, head, body)
    return
  end
  local left = MAX_CHANNELS
  for channel in string.gmatch(channels, '%S+') do
    append(messages, channel, head, body)
    left = left - 1
    if left == 0 then
      break
    end
  end
end

local function flush_messages()
  for channel, items in pairs(messages) do
    redis.call('PUBLISH', channel, table.concat(items))
  end
end
