-- Numbers as text, and lists by key.
--
-- Needs: nothing
-- Touches: no key

local function num(ms)
  return string.format('%.0f', ms)
end

-- A whole number from a field that any client may have written; nil for everything else, infinity and NaN included.
local function whole(text)
  local n = tonumber(text)
  return n and n == n and math.abs(n) < 1e15 and math.floor(n) or nil
end

-- Append one or two values to the list that stands in `map` under a key.
local function append(map, key, first, second)
  local list = map[key]
  if not list then
    list = {}
    map[key] = list
  end
  list[#list + 1] = first
  list[#list + 1] = second
end
