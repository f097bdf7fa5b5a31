-- Ids of jobs, which may have any bytes.
--
-- Needs: nothing
-- Touches: no key

-- Bytes that are written as %XX, so that an id can stand in text that is split at them. UNSAFE_IN_LINE: in a line that is
-- split at blanks (bitladder/ids.py reads it). UNSAFE_IN_MEMBER: in the members "<id>:<fence>" of RQ's registry of running
-- jobs, which RQ's tools split. Ids of ours have neither.
local UNSAFE_IN_MEMBER = '[:%%]'

local function escaped(id, bytes)
  local text = string.gsub(id, bytes, function(byte)
    return string.format('%%%02X', string.byte(byte))
  end)
  return text
end
