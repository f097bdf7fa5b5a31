-- What a job of RQ's own producers needs at its end that ours do not (docs/rq.md).
--
-- Needs: values
-- Moves: queued -> failed: it depends on a job that has ended here (dead letter)
-- Touches: rq:job:<id>, rq:job:<id>:dependents, rq:deferred:<queue>, rq:results:<id>

-- RQ's description of a job is by default its call with the arguments, and with them the prompt: the name alone is kept.
local CALL = '^([%w_.<>]+)%(.*$'

-- Jobs that depend on one that has ended: at most so many are ended with it in one call.
local dependents_left = 1000

-- The end of a job of RQ's producers, as RQ's worker leaves it: a Result, and its own times to live. Returns how long its
-- record is kept, in ms: 0 for a result that nobody wants, which RQ deletes with its job. Status and ttl: as they are for
-- a job of ours; job.worker and job.value (base64 of JSON): who ran it and what it returns, where there is that. The
-- functions are inside, because a script makes its functions at every call, and most calls end no such job.
local function end_rq_job(job, status, outcome, ttl, keep, now, end_job)
  -- What the producer asked for, in ms, or else `usual`. RQ's -1 is for ever: nothing is kept that long here.
  local function requested_ttl(text, usual)
    local seconds, max_ttl = whole(text), math.max(keep.ttl, keep.dead_letter_ttl)
    return seconds and (seconds < 0 and max_ttl or math.min(seconds * 1000, max_ttl)) or usual
  end

  -- Why it failed, in words: the engine's own, too, where it refused the job.
  local function reason()
    local is_read, fields = pcall(cjson.decode, string.match(outcome, '^%x*({.*)$') or '')
    if not is_read or type(fields) ~= 'table' then
      return 'the outcome cannot be read'
    end
    local refusal = type(fields.body) == 'table' and fields.body.error
    refusal = type(refusal) == 'table' and refusal.message or refusal
    local text = tostring(fields.code) .. ': ' .. tostring(fields.error)
    return type(refusal) == 'string' and text .. ': ' .. refusal or text
  end

  -- RQ's tools read nothing but UTF-8 (RFC 3629, section 4).
  local function as_utf8(text)
    if #text > 4000 then
      text = string.gsub(string.sub(text, 1, 4000), '[\194-\244][\128-\191]*$', '')
    end
    local rest = text
    for _, pattern in ipairs({'[\194-\223][\128-\191]', '\224[\160-\191][\128-\191]', '\237[\128-\159][\128-\191]',
      '[\225-\236\238\239][\128-\191][\128-\191]', '\240[\144-\191][\128-\191][\128-\191]',
      '[\241-\243][\128-\191][\128-\191][\128-\191]', '\244[\128-\143][\128-\191][\128-\191]'}) do
      rest = string.gsub(rest, pattern, '')
    end
    return string.find(rest, '[\128-\255]') and string.gsub(text, '[\128-\255]', '?') or text
  end

  -- RFC 1950 and 1951: the bytes as they are, in one stored block, and their Adler-32.
  local function zlib(text)
    local a, b = 1, 0
    for i = 1, #text do
      a = (a + string.byte(text, i)) % 65521
      b = (b + a) % 65521
    end
    return '\120\1\1' .. struct.pack('<I2I2', #text, 65535 - #text) .. text .. struct.pack('>I2I2', b, a)
  end

  local function base64(bytes)
    local digits, missing = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/', -#bytes % 3
    local coded = string.gsub(bytes .. string.rep('\0', missing), '...', function(three)
      local number, four = struct.unpack('>I3', three), ''
      for _, unit in ipairs({262144, 4096, 64, 1}) do
        local digit = math.floor(number / unit) % 64 + 1
        four = four .. string.sub(digits, digit, digit)
      end
      return four
    end)
    return string.sub(coded, 1, #coded - missing) .. string.rep('=', missing)
  end

  -- RQ's worker would enqueue what depends on this job: no worker of ours does.
  local function refuse_dependents()
    for _, id in ipairs(redis.pcall('SRANDMEMBER', 'rq:job:' .. job.id .. ':dependents', dependents_left)) do
      local fields = redis.pcall('HMGET', 'rq:job:' .. id, 'status', 'origin', 'reply')
      if fields[1] == 'deferred' and fields[2] then
        dependents_left = dependents_left - 1
        redis.pcall('ZREM', 'rq:deferred:' .. fields[2], id)
        end_job({id = id, queue = fields[2], reply = fields[3], rq = true}, 'dead', scripted_end('unsupported',
          'depends_on is not supported for a job of bitladder: enqueue this one when that one has finished'), keep, now)
      end
    end
  end

  local function record(kind, name, value, result_ttl)
    local results, pair = 'rq:results:' .. job.id, value and {name, value} or {}
    redis.pcall('XADD', results, 'MAXLEN', '10', '*', 'type', kind, 'worker_name', job.worker or '', unpack(pair))
    redis.pcall('PEXPIRE', results, num(result_ttl))
  end

  local key = 'rq:job:' .. job.id
  local fields = redis.call('HMGET', key, 'result_ttl', 'failure_ttl', 'description')
  local description = string.gsub(fields[3] or '', CALL, '%1(...)')
  redis.call('HSET', key, 'description', description)
  refuse_dependents()
  if status == 'finished' then
    ttl = requested_ttl(fields[1], ttl)
    if ttl > 0 then
      record('1', 'return_value', job.value, ttl)
    end
  elseif status ~= 'canceled' then
    local failure_ttl = requested_ttl(fields[2], ttl)
    if failure_ttl > 0 then  -- 0: the status stays, as with RQ, and nothing says why
      local text = zlib(as_utf8(reason()))
      redis.call('HSET', key, 'exc_info', text)
      record('2', 'exc_string', base64(text), failure_ttl)
      ttl = status == 'dead' and ttl or failure_ttl
    end
  end
  return ttl
end
